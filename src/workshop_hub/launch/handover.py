"""The port of a server that is started warm: taken before it runs, handed to it when it binds.

A port that is looked for and then bound may be taken in between; a bound one cannot.
"""

from __future__ import annotations

import asyncio
import os
import socket
from contextlib import suppress

from workshop_hub.launch.become import Refused

LOOK_EVERY = 0.005
"""Seconds between two looks whether a server serves its port."""


def bind(ip: str, port: int) -> socket.socket | None:
    """Take the port; None for none. Raises Refused where it is taken, or not this account's."""
    if not port:
        return None
    taken = socket.socket(socket.AF_INET6 if ":" in ip else socket.AF_INET, socket.SOCK_STREAM)
    taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if ":" in ip:
        taken.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    taken.setblocking(False)
    try:
        taken.bind((ip, port))
        taken.listen(128)
    except OSError as exc:
        raise Refused("port", f"The port {port} cannot be bound: {exc.strerror}.") from exc
    return taken


def hand_over(reserved: socket.socket | None, talk: socket.socket) -> None:
    """Give the port to what binds it here; tell the hub over `talk` when it is served."""
    handover = _Handover(reserved, talk)
    if reserved is not None:
        socket.socket.bind = handover.bind  # type: ignore[method-assign,assignment]
    asyncio.BaseEventLoop.run_forever = handover.run  # type: ignore[method-assign,assignment]


class _Handover:
    """Stands in for two methods until the server serves; then everything is as it was."""

    def __init__(self, reserved: socket.socket | None, talk: socket.socket) -> None:
        self._reserved = reserved
        self._talk = talk
        self._bound: socket.socket | None = None
        socket_bind = socket.socket.bind
        self._loop_run = loop_run = asyncio.BaseEventLoop.run_forever

        # functions, which become methods of whatever class they are put into
        def bind(self_: socket.socket, address: tuple[object, ...], /) -> None:
            if not self._take(self_, address):
                socket_bind(self_, address)

        def run(self_: asyncio.BaseEventLoop) -> None:
            self_.call_soon(self._look, self_)
            loop_run(self_)

        self.bind, self.run = bind, run

    def _take(self, asking: socket.socket, address: tuple[object, ...]) -> bool:
        """Turn a socket that is being bound to the reserved address into the reserved one."""
        if self._reserved is None or address != self._reserved.getsockname()[: len(address)]:
            return False
        os.dup2(self._reserved.fileno(), asking.fileno(), inheritable=False)
        self._bound = asking
        return True

    def _look(self, loop: asyncio.BaseEventLoop) -> None:
        if self._talk.fileno() < 0:
            return  # told already
        served = self._bound is not None and self._bound.fileno() >= 0
        if self._reserved is None or served:
            self._tell()
        else:  # a server tries its port, and closes it, before it serves it
            loop.call_later(LOOK_EVERY, self._look, loop)

    def _tell(self) -> None:
        asyncio.BaseEventLoop.run_forever = self._loop_run  # type: ignore[method-assign]
        if "bind" in vars(socket.socket):
            del socket.socket.bind  # what it stood in for is inherited
        if self._reserved is not None:
            self._reserved.close()
        with suppress(OSError):  # the hub may have gone; the server stays for the next one
            self._talk.send(b"ready\n")
        self._talk.close()
