"""The socket between the hub and the warm launcher."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

BACKLOG = 4096
"""Requests that wait in the socket's queue while a launcher imports, as far as the kernel allows
(net.core.somaxconn)."""

MAX_ANSWER = 65536
"""Bytes; a server has the connection, too, until it serves, and sends what its user likes."""


class NotStarted(Exception):
    """The warm launcher cannot do it; the text says why."""


async def said_by(talk: socket.socket, told: bytes, until: str = "") -> str:
    """Say all of `told`; return what is answered, to its end or to the line `until`."""
    loop = asyncio.get_running_loop()
    with suppress(ConnectionError):  # it may answer without having heard all
        await loop.sock_sendall(talk, told)
        talk.shutdown(socket.SHUT_WR)
    said = b""
    while len(said) < MAX_ANSWER and (piece := await _received(loop.sock_recv, talk)):
        said += piece
        if until and said == f"{until}\n".encode():
            break
    return said.decode(errors="replace")


async def _received(receive: Callable[..., object], talk: socket.socket) -> bytes:
    try:
        return bytes(await receive(talk, 4096))  # type: ignore[misc]
    except ConnectionResetError:
        return b""


def connected(place: Path) -> socket.socket:
    """Return a connection to the socket, by a path that is never too long for it."""
    folder = os.open(place.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    talk = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        talk.setblocking(False)
        talk.connect(f"/proc/self/fd/{folder}/{place.name}")  # at once, or not at all
        _check_peer(talk, place)
    except BlockingIOError as exc:
        talk.close()
        raise NotStarted("too many requests wait for the launcher") from exc
    except BaseException:
        talk.close()
        raise
    finally:
        os.close(folder)
    return talk


def _check_peer(talk: socket.socket, place: Path) -> None:
    """Raise NotStarted where another account than root or the hub's has made the socket."""
    peer = talk.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    uid = struct.unpack("3i", peer)[1]
    if uid not in (0, os.geteuid()):
        raise NotStarted(f"{place} was made by the uid {uid}")


@contextmanager
def listening(place: Path) -> Iterator[socket.socket]:
    """Make the launcher's socket, in the place of one that nobody listens at."""
    place.unlink(missing_ok=True)
    folder = os.open(place.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
            listener.bind(f"/proc/self/fd/{folder}/{place.name}")
            place.chmod(0o600)
            listener.listen(BACKLOG)
            yield listener
    finally:
        os.close(folder)
