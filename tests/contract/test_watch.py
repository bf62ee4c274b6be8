"""A backend that watches says at once that a server has ended."""

from __future__ import annotations

import asyncio

from rig import Rig

from support import eventually


async def test_the_end_of_a_watched_server_is_told_at_once(rig: Rig) -> None:
    backend = rig.new_backend()
    at = await rig.start(backend, rig.spec())
    ended = asyncio.Event()
    backend.watch(at.handle, ended.set)
    _, writer = await asyncio.open_connection(at.ip, at.port)
    writer.write(b"GET /exit/7 HTTP/1.0\r\n\r\n")
    await writer.drain()
    await asyncio.wait_for(ended.wait(), 20)
    assert (await backend.poll(at.handle)).exit_code == 7
    writer.close()
    await backend.stop(at.handle, now=True)


async def test_the_end_before_the_watch_is_told_too(rig: Rig) -> None:
    backend = rig.new_backend()
    at = await rig.start(backend, rig.spec())
    _, writer = await asyncio.open_connection(at.ip, at.port)
    writer.write(b"GET /exit/7 HTTP/1.0\r\n\r\n")
    await writer.drain()
    writer.close()

    async def has_ended() -> bool:
        return not (await backend.poll(at.handle)).running

    await eventually(has_ended, "the server has ended")
    ended, given_up = asyncio.Event(), asyncio.Event()
    backend.watch(at.handle, given_up.set)()
    backend.watch(at.handle, ended.set)
    await asyncio.wait_for(ended.wait(), 20)
    assert not given_up.is_set()
    await backend.stop(at.handle, now=True)


async def test_a_watch_that_was_given_up_says_nothing(rig: Rig) -> None:
    backend = rig.new_backend()
    at = await rig.start(backend, rig.spec())
    first, second = asyncio.Event(), asyncio.Event()
    give_up = backend.watch(at.handle, first.set)
    give_up()
    give_up()
    backend.watch(at.handle, second.set)
    await backend.stop(at.handle, now=True)
    await asyncio.wait_for(second.wait(), 20)
    assert not first.is_set()
