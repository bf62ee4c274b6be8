"""What every backend promises, whatever it starts servers with."""

from __future__ import annotations

import asyncio
import json
from contextlib import aclosing

import pytest
from rig import Rig

from support import eventually
from workshop_hub.backends.base import Handle, Listening, accepts_connections
from workshop_hub.errors import ServerExited, StartTimeout


async def ask(at: Listening) -> dict:
    """Return what the tiny server says of itself."""
    reader, writer = await asyncio.open_connection(at.ip, at.port)
    writer.write(b"GET / HTTP/1.0\r\n\r\n")
    reply = await asyncio.wait_for(reader.read(), 20)
    writer.close()
    return json.loads(reply.partition(b"\r\n\r\n")[2])


async def test_a_started_server_listens_and_runs_as_its_account(rig: Rig) -> None:
    backend, spec = rig.new_backend(), rig.spec()
    at = await rig.start(backend, spec)
    told = await ask(at)
    assert (told["uid"], told["gid"]) == (spec.account.uid, spec.account.gid)
    assert (await backend.poll(at.handle)).running
    await backend.stop(at.handle)


async def test_the_environment_arrives_as_it_was_given(rig: Rig) -> None:
    backend = rig.new_backend()
    spec = rig.spec(env={"LINES": "one\ntwo", "EMPTY": "", "UNICODE": "größe"})
    at = await rig.start(backend, spec)
    env = (await ask(at))["env"]
    assert (env["LINES"], env["EMPTY"], env["UNICODE"]) == ("one\ntwo", "", "größe")
    await backend.stop(at.handle)


async def test_stop_ends_the_server_and_can_be_repeated(rig: Rig) -> None:
    backend = rig.new_backend()
    at = await rig.start(backend, rig.spec())
    for _ in range(2):
        await backend.stop(at.handle)
        assert not (await backend.poll(at.handle)).running
        assert not await accepts_connections(at.ip, at.port)
    assert await backend.list_owned() == []


async def test_stop_now_ends_a_server_that_ignores_the_polite_way(rig: Rig) -> None:
    backend = rig.new_backend()
    at = await rig.start(backend, rig.spec("stubborn"))
    await backend.stop(at.handle, now=True)
    assert not (await backend.poll(at.handle)).running
    assert not await accepts_connections(at.ip, at.port)


async def test_a_handle_survives_json_and_a_new_backend_object(rig: Rig) -> None:
    at = await rig.start(rig.new_backend(), rig.spec())
    handle: Handle = json.loads(json.dumps(at.handle))
    adopted = rig.new_backend()
    assert (await adopted.poll(handle)).running
    assert [found.owner for found in await adopted.list_owned()] == [rig.spec().owner]
    await adopted.stop(handle)
    assert not await accepts_connections(at.ip, at.port)


async def test_an_early_exit_is_told_with_its_code_and_its_log(rig: Rig) -> None:
    backend = rig.new_backend()
    with pytest.raises(ServerExited) as caught:
        await rig.start(backend, rig.spec("print:no such kernel", "exit:3"))
    assert caught.value.exit_code == 3
    assert "exit code 3" in caught.value.message
    assert "no such kernel" in caught.value.log
    assert await backend.list_owned() == []


async def test_a_server_that_never_listens_is_ended_in_time(rig: Rig) -> None:
    backend = rig.new_backend()
    with pytest.raises(StartTimeout):
        await rig.start(backend, rig.spec("silent", start_timeout=2.0))
    assert await backend.list_owned() == []


async def test_a_cancelled_start_leaves_nothing(rig: Rig) -> None:
    backend = rig.new_backend()
    task = asyncio.create_task(rig.start(backend, rig.spec("silent")))
    await eventually(backend.list_owned, "the half-started server")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await backend.list_owned() == []


async def test_the_exit_of_a_running_server_is_seen_with_its_code(rig: Rig) -> None:
    backend = rig.new_backend()
    at = await rig.start(backend, rig.spec())
    _, writer = await asyncio.open_connection(at.ip, at.port)
    writer.write(b"GET /exit/7 HTTP/1.0\r\n\r\n")
    await writer.drain()

    async def ended() -> bool:
        return not (await backend.poll(at.handle)).running

    await eventually(ended, "the end of the server")
    writer.close()
    status = await rig.new_backend().poll(at.handle)
    assert (status.running, status.exit_code) == (False, 7)
    await backend.stop(at.handle, now=True)
    assert await backend.list_owned() == []


async def test_a_new_start_replaces_what_an_earlier_one_left(rig: Rig) -> None:
    first = await rig.start(rig.new_backend(), rig.spec())
    pid = (await ask(first))["pid"], (await ask(first))["env"]
    backend = rig.new_backend()
    second = await rig.start(backend, rig.spec(env={"ROUND": "second"}))
    assert (await ask(second))["env"]["ROUND"] == "second"
    assert "ROUND" not in pid[1]
    assert len(await backend.list_owned()) == 1
    assert not (await backend.poll(first.handle)).running or first.handle == second.handle
    await backend.stop(second.handle)


async def test_two_servers_of_one_user_live_and_end_apart(rig: Rig) -> None:
    backend = rig.new_backend()
    first = await rig.start(backend, rig.spec())
    second = await rig.start(backend, rig.spec(server="second"))
    assert {found.owner.server for found in await backend.list_owned()} == {"", "second"}
    await backend.stop(first.handle)
    assert not (await backend.poll(first.handle)).running
    assert (await backend.poll(second.handle)).running
    await ask(second)
    await backend.stop(second.handle)


async def test_many_starts_at_once_get_servers_of_their_own(rig: Rig) -> None:
    backend = rig.new_backend()
    names = [f"s{number}" for number in range(6)]
    started = await asyncio.gather(
        *(rig.start(backend, rig.spec(server=name, env={"NAME": name})) for name in names)
    )
    assert [(await ask(at))["env"]["NAME"] for at in started] == names
    await asyncio.gather(*(backend.stop(at.handle) for at in started))
    assert await backend.list_owned() == []


async def test_progress_grows_and_carries_a_handle_before_the_end(rig: Rig) -> None:
    backend, spec = rig.new_backend(), rig.spec()
    address = await backend.prepare(spec)
    async with aclosing(backend.start(rig.ready(spec, address), address)) as events:
        steps = [event async for event in events]
    *progress, end = steps
    assert isinstance(end, Listening)
    percents = [step.percent for step in progress]
    assert percents == sorted(percents)
    assert all(0 <= percent <= 100 for percent in percents)
    assert any(step.handle for step in progress)
    await backend.stop(end.handle)


async def test_a_handle_of_a_server_that_never_was_is_not_running(rig: Rig) -> None:
    backend = rig.new_backend()
    at = await rig.start(backend, rig.spec())
    await backend.stop(at.handle, now=True)
    status = await rig.new_backend().poll(at.handle)
    assert not status.running
