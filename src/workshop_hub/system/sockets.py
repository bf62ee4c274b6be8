"""Sockets on the event loop that may be given up at any time."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def closing(opened: socket.socket) -> Iterator[socket.socket]:
    """Close the socket at the end, and have the event loop forget its descriptor before.

    What waits on a socket (`loop.sock_connect` and the like) and is cancelled tidies up only when
    the loop comes round again. By then the descriptor's number may be somebody else's, who is then
    never woken.
    """
    try:
        yield opened
    finally:
        if opened.fileno() >= 0:
            loop = asyncio.get_running_loop()
            loop.remove_reader(opened)
            loop.remove_writer(opened)
        opened.close()
