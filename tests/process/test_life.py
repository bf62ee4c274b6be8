"""A server's life: started, seen, adopted, ended with everything that it started."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

from harness import ProcessHarness, answer, command_line, processes_of, started

from support import eventually
from workshop_hub.backends.base import ServerStatus


async def test_a_server_runs_as_its_user_and_is_stopped(hub: ProcessHarness) -> None:
    backend = hub.backend()
    at = await started(backend, hub.spec())
    seen = await answer(at)
    assert (seen["uid"], seen["gid"]) == (hub.account.uid, hub.account.gid)
    assert seen["cwd"] == hub.account.home
    assert await backend.poll(at.handle) == ServerStatus(running=True)
    await backend.stop(at.handle)
    assert processes_of(hub.account.uid) == []
    status = await backend.poll(at.handle)
    assert (status.running, status.exit_code) == (False, 128 + signal.SIGTERM)
    await backend.stop(at.handle)
    assert await backend.list_owned() == []


async def test_the_handle_alone_finds_a_server_again(hub: ProcessHarness) -> None:
    at = await started(hub.backend(), hub.spec())
    handle = json.loads(json.dumps(at.handle))
    adopted = hub.backend()
    assert (await adopted.poll(handle)).running
    assert [owned.owner for owned in await adopted.list_owned()] == [hub.spec().owner]
    await adopted.stop(handle)
    assert not (await adopted.poll(handle)).running
    assert processes_of(hub.account.uid) == []


async def test_the_exit_code_survives_a_restart_of_the_hub(hub: ProcessHarness) -> None:
    at = await started(hub.backend(), hub.spec("print:hello"))
    await answer(at, "/exit/7")
    backend = hub.backend()

    async def ended() -> ServerStatus | None:
        status = await backend.poll(at.handle)
        return None if status.running else status

    status = await eventually(ended, "the server has ended")
    assert status == ServerStatus(running=False, exit_code=7, log="hello")
    await backend.stop(at.handle, now=True)


async def test_a_grandchild_in_a_session_of_its_own_dies_too(hub: ProcessHarness) -> None:
    backend = hub.backend()
    at = await started(backend, hub.spec("child"))
    assert "sleep 3600 " in map(command_line, processes_of(hub.account.uid))
    await backend.stop(at.handle)
    assert processes_of(hub.account.uid) == []


async def test_a_server_that_ignores_term_is_killed(hub: ProcessHarness) -> None:
    backend = hub.backend(term_timeout=0.3)
    at = await started(backend, hub.spec("stubborn"))
    await backend.stop(at.handle)
    assert processes_of(hub.account.uid) == []
    assert not (await backend.poll(at.handle)).running


async def test_a_stopped_server_can_be_stopped(hub: ProcessHarness) -> None:
    backend = hub.backend()
    at = await started(backend, hub.spec())
    for pid in processes_of(hub.account.uid):
        os.kill(pid, signal.SIGSTOP)
    await backend.stop(at.handle)
    assert processes_of(hub.account.uid) == []
    assert (await backend.poll(at.handle)).exit_code == 128 + signal.SIGTERM


async def test_a_server_costs_the_hub_no_process(hub: ProcessHarness) -> None:
    backend = hub.backend()
    at = await started(backend, hub.spec())
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    assert [child for child in children if "sudo" in command_line(int(child))] == []
    await backend.stop(at.handle)
