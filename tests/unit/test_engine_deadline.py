"""Deadlines that do not swallow a cancellation."""

from __future__ import annotations

import asyncio

import pytest

from workshop_hub.backends.base import accepts_connections
from workshop_hub.system.deadline import within


async def test_a_result_in_time_is_returned_and_an_error_raised() -> None:
    assert await within(5, asyncio.sleep(0, "done")) == "done"

    async def fail() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await within(5, fail())


async def test_what_takes_too_long_is_cancelled() -> None:
    never: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    with pytest.raises(TimeoutError):
        await within(0.01, never)
    assert never.cancelled()


async def test_a_cancellation_that_meets_the_result_is_not_lost() -> None:
    result: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def wait() -> str:
        return await within(5, result)

    task = asyncio.ensure_future(wait())
    await asyncio.sleep(0)
    result.set_result("just now")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_connections_are_tried_on_both_families_and_by_name() -> None:
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    assert await accepts_connections("127.0.0.1", port)
    assert await accepts_connections("localhost", port)
    server.close()
    await server.wait_closed()
    assert not await accepts_connections("127.0.0.1", port)
    assert not await accepts_connections("::1", port)
    assert not await accepts_connections("no.such.host.invalid", port)
