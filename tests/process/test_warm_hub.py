"""What a hub does with its warm launcher: when it starts, changes, and asks how a server ended."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import PREFIX, command_line, processes_of
from launchers import WarmHub, parent_of, small_program

from hubs import Hub
from support import eventually, eventually_sync
from workshop_hub.backends.base import Finding
from workshop_hub.system import processes
from workshop_hub.system.accounts import Account

CONFIG = """
c.JupyterHub.spawner_class = "workshop"
c.ProcessBackend.launcher = "warm"
c.ProcessBackend.cgroup_parent = "no-such-group/holder"
c.Spawner.cmd = [{program!r}]
"""


@pytest.fixture(scope="module")
def small(machine: None, usual_environment: None) -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix=PREFIX))
    folder.chmod(0o755)
    yield small_program(folder)
    shutil.rmtree(folder)


def of_launcher(findings: list[Finding]) -> Finding:
    (finding,) = [each for each in findings if each.subject == "warm launcher"]
    return finding


def state_of(pid: int) -> str:
    found = processes.stat(pid)
    return found.state if found else ""


async def gone(pid: int) -> None:
    async def look() -> bool:
        return state_of(pid) in ("", "Z")

    await eventually(look, f"process {pid} has ended")


async def test_how_a_server_ended_is_not_asked_before_the_launcher_has_told(
    alice: Account, small: Path, tmp_path: Path
) -> None:
    hub = WarmHub.made(tmp_path, alice, small)
    at = await hub.start()
    launcher, pid = hub.launcher, int(str(at.handle["pid"]))
    os.kill(launcher, signal.SIGSTOP)
    os.kill(pid, signal.SIGUSR1)
    await gone(pid)
    asked = asyncio.ensure_future(hub.backend.poll(at.handle))
    await asyncio.sleep(0)  # it has looked once
    os.kill(launcher, signal.SIGCONT)
    status = await asked
    assert (status.running, status.exit_code) == (False, 128 + signal.SIGUSR1)
    await hub.backend.stop(at.handle)
    await hub.close()


async def test_a_hub_with_other_options_has_a_launcher_of_its_own(
    alice: Account, small: Path, tmp_path: Path
) -> None:
    hub = WarmHub.made(tmp_path, alice, small)
    at = await hub.start()
    old = hub.launcher
    hub.backend.close()
    same = hub.harness.backend()
    assert str(old) in of_launcher(await same.check()).message
    same.close()
    other = hub.harness.backend(warm_uids=(1000, 2000))
    found = of_launcher(await other.check())
    assert found.level == "ok"
    assert str(old) not in found.message
    assert "--uids=1000-2000" in command_line(hub.launcher)
    assert parent_of(int(str(at.handle["pid"]))) == old
    await other.stop(at.handle)
    assert (await hub.end_of(at)).exit_code == 128 + signal.SIGTERM
    await gone(old)
    new = hub.launcher
    other.close()
    await gone(new)


async def test_what_others_may_change_is_not_run_as_root(alice: Account, tmp_path: Path) -> None:
    folder = Path(tempfile.mkdtemp(prefix=PREFIX))
    folder.chmod(0o777)
    hub = WarmHub.made(tmp_path, alice, small_program(folder))
    found = of_launcher(await hub.backend.check())
    assert found.level == "warning"
    assert f"{folder} may be written by everybody" in found.message
    at = await hub.start()  # by sudo
    assert parent_of(int(str(at.handle["pid"]))) == 1
    assert not (tmp_path / "logs" / "launcher.sock").exists()
    await hub.backend.stop(at.handle)
    shutil.rmtree(folder)


def listens(place: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as talk:
        return talk.connect_ex(str(place)) == 0


def test_a_hub_starts_the_launcher_before_anybody_asks_for_a_server(
    alice: Account, small: Path
) -> None:
    folder = Path(tempfile.mkdtemp(prefix=PREFIX))
    folder.chmod(0o755)
    place = folder / "workshop-logs" / "launcher.sock"
    hub = Hub(folder, CONFIG.format(program=str(small)))
    try:
        hub.start()
        eventually_sync(lambda: listens(place), "the launcher listens")
        events = hub.start_server(alice.name)
        assert events[-1].get("ready"), hub.log
        (server,) = [pid for pid in processes_of(alice.uid) if str(small) in command_line(pid)]
        launcher = parent_of(server)
        assert launcher
        assert "forkserver.py" in command_line(launcher)
        hub.kill(signal.SIGKILL)
        hub.start()
        assert hub.servers(alice.name)[""]["ready"]
        assert parent_of(server) == launcher
        hub.stop_server(alice.name)
        hub.kill()
        eventually_sync(lambda: state_of(launcher) in ("", "Z"), "the launcher ends with the hub")
    finally:
        hub.kill()
        shutil.rmtree(folder)
