"""A check that is given up takes nothing from the connection that comes after it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator

import pytest

from workshop_hub.backends.base import accepts_connections


@pytest.fixture
def full() -> Iterator[tuple[str, int]]:
    """Yield an address that never answers: more wait there already than are let in."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        waiting = [socket.socket() for _ in range(3)]
        for each in waiting:
            each.setblocking(False)
            each.connect_ex(listener.getsockname())
        yield listener.getsockname()
        for each in waiting:
            each.close()


async def test_the_next_connection_is_told_that_it_is_there(full: tuple[str, int]) -> None:
    async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    address = server.sockets[0].getsockname()
    assert not await accepts_connections(*full, timeout=0.05)
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task
    deadline = loop.call_later(10, task.cancel)
    # with the descriptor's number that the check had, and before the loop comes round
    with socket.socket() as following:
        following.setblocking(False)
        await loop.sock_connect(following, address)
        assert following.getpeername() == address
    deadline.cancel()
    server.close()
