"""The life of servers that are started warm, and of the launcher beside them."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from harness import PREFIX, answer, processes_of, started
from launchers import WarmHub, children_of, ended, open_files, small_program

from support import require
from workshop_hub.backends.base import ServerStatus
from workshop_hub.errors import PortTaken, ServerExited
from workshop_hub.launch import running, warm
from workshop_hub.system import cgroup
from workshop_hub.system.accounts import Account

ENDINGS = {
    "code": "sys.exit(3)",
    "large code": "sys.exit(259)",
    "words": "sys.exit('no more')",
    "nothing": "sys.exit()",
    "exception": "raise LookupError('no such thing')",
    "interrupt": "raise KeyboardInterrupt",
    "thread": "threading.Timer(0.1, print, ['late']).start(); sys.exit(5)",
    "at exit": "import atexit; atexit.register(print, 'bye'); sys.exit(6)",
    "half a line": "print('half', end=''); sys.exit(7)",
    "at once": "print('unseen', end=''); os._exit(8)",
    "killed": "os.kill(os.getpid(), 9)",
    "aborted": "os.abort()",
    "hung up": "os.kill(os.getpid(), signal.SIGHUP)",
}

WORDS_OF_SHELL = {"Killed", "Aborted", "Hangup"}
"""What the sudo launcher's shell says when a signal has ended the server."""

CHATTER = """run:
import socket
for number in range(3, 32):
    try:
        with socket.socket(fileno=os.dup(number)) as other:
            if other.family == socket.AF_UNIX:
                other.sendall(bytes(1 << 26))
    except OSError:
        pass
"""
"""Says more to whoever listens than anybody should keep."""

WAIT = "run:while not os.path.exists(os.path.expanduser('~/go')): time.sleep(0.01)"


@pytest.fixture(scope="module")
def small(machine: None, usual_environment: None) -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix=PREFIX))
    folder.chmod(0o755)
    yield small_program(folder)
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
async def hub(
    alice: Account, small: Path, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[WarmHub]:
    hub = WarmHub.made(tmp_path_factory.mktemp("warm"), alice, small)
    yield hub
    hub.backend.close()


async def test_a_server_is_started_ended_and_forgotten(hub: WarmHub) -> None:
    at = await hub.start()
    assert hub.is_warm(at)
    assert (await answer(at))["uid"] == hub.harness.account.uid
    assert await hub.backend.poll(at.handle) == ServerStatus(running=True)
    await hub.backend.stop(at.handle)
    assert processes_of(hub.harness.account.uid) == []
    assert (await hub.end_of(at)).exit_code == 128 + signal.SIGTERM
    await hub.backend.stop(at.handle)
    assert await hub.backend.list_owned() == []


@pytest.mark.parametrize("code", ENDINGS.values(), ids=ENDINGS)
async def test_how_it_ended_is_told_as_of_an_executed_one(hub: WarmHub, code: str) -> None:
    told = []
    executing = hub.harness.backend(launcher="sudo", fast_start=False)
    for backend in (hub.backend, executing):
        with pytest.raises(ServerExited) as caught:
            await started(backend, hub.spec(f"run:{code}"))
        log = [line for line in caught.value.log.splitlines() if line not in WORDS_OF_SHELL]
        told.append((caught.value.exit_code, log))
    assert told[0] == told[1]


@pytest.mark.parametrize("code", [7, 128 + signal.SIGKILL, 128 + signal.SIGUSR1])
async def test_the_end_of_a_server_that_ran_is_told(hub: WarmHub, code: int) -> None:
    at = await hub.start("print:hello")
    if code < 128:
        await answer(at, f"/exit/{code}")
    else:
        os.kill(at.handle["pid"], code - 128)
    status = await hub.end_of(at)
    assert (status.exit_code, status.log.splitlines()[0]) == (code, "hello")
    await hub.backend.stop(at.handle)


async def test_servers_survive_their_launcher(hub: WarmHub) -> None:
    one = await hub.start(server="one")
    first = hub.launcher
    os.kill(first, signal.SIGKILL)
    await ended(first)
    assert (await answer(one))["pid"] == one.handle["pid"]
    other = await hub.start(server="other")
    assert hub.is_warm(other)
    assert hub.launcher != first
    for at in (one, other):
        assert (await hub.backend.poll(at.handle)).running
        await hub.backend.stop(at.handle)
        assert not (await hub.backend.poll(at.handle)).running
    assert processes_of(hub.harness.account.uid) == []


@pytest.fixture
def narrow(
    request: pytest.FixtureRequest,
    alice: Account,
    small: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[WarmHub]:
    """A hub that has one server begin at a time, and much patience unless a test has another."""
    monkeypatch.setattr(warm, "ABREAST", 1)
    monkeypatch.setattr(warm, "PATIENCE", getattr(request, "param", 600.0))
    hub = WarmHub.made(tmp_path, alice, small)
    yield hub
    hub.backend.close()


async def test_servers_begin_in_their_turn(narrow: WarmHub) -> None:
    go = Path(narrow.harness.account.home, "go")
    first = asyncio.ensure_future(narrow.start(WAIT, server="first"))
    await narrow.only_server()
    second = asyncio.ensure_future(narrow.start(server="second"))
    await narrow.asked("second")
    assert narrow.state["servers"] == 1  # the launcher answers in the order in which it is asked
    go.touch()
    servers = [await first, await second]
    go.unlink()
    for at in servers:
        assert narrow.is_warm(at)
        await narrow.backend.stop(at.handle)


@pytest.mark.parametrize("narrow", [0.01], indirect=True)
async def test_a_server_that_does_not_begin_keeps_no_other_waiting(narrow: WarmHub) -> None:
    go = Path(narrow.harness.account.home, "go")
    first = asyncio.ensure_future(narrow.start(WAIT, server="first"))
    await narrow.only_server()
    second = await narrow.start(server="second")
    assert not first.done()
    go.touch()
    servers = [await first, second]
    go.unlink()
    for at in servers:
        assert narrow.is_warm(at)
        await narrow.backend.stop(at.handle)


async def test_a_start_whose_launcher_is_killed_before_it_forks_succeeds(hub: WarmHub) -> None:
    await hub.backend.stop((await hub.start()).handle)
    launcher = hub.launcher
    os.kill(launcher, signal.SIGSTOP)
    start = asyncio.ensure_future(hub.start())
    await hub.asked()
    os.kill(launcher, signal.SIGKILL)
    at = await start
    assert (await answer(at))["pid"] in processes_of(hub.harness.account.uid)
    await hub.backend.stop(at.handle)
    assert processes_of(hub.harness.account.uid) == []


async def test_a_start_whose_launcher_is_killed_after_it_forked_succeeds(hub: WarmHub) -> None:
    start = asyncio.ensure_future(hub.start(WAIT))
    server = await hub.only_server()
    os.kill(hub.launcher, signal.SIGKILL)
    go = Path(hub.harness.account.home, "go")
    go.touch()
    at = await start
    go.unlink()
    assert at.handle["pid"] == server
    assert processes_of(hub.harness.account.uid) == [server]
    await hub.backend.stop(at.handle)


async def test_a_start_that_is_cancelled_leaves_nothing(
    hub: WarmHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "GRACE", 0.5)
    for moment in (hub.asked, hub.only_server):
        start = asyncio.ensure_future(hub.start(WAIT))
        await moment()
        start.cancel()
        with pytest.raises(asyncio.CancelledError):
            await start
        assert processes_of(hub.harness.account.uid) == []
        assert await hub.backend.list_owned() == []


async def test_a_start_that_is_cancelled_while_the_launcher_is_busy_is_not_made_up_for(
    hub: WarmHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "GRACE", 0.5)
    monkeypatch.setattr(warm, "SIGNAL_TIMEOUT", 0.5)
    await hub.backend.stop((await hub.start()).handle)
    launcher = hub.launcher
    os.kill(launcher, signal.SIGSTOP)
    start = asyncio.ensure_future(hub.start())
    await hub.asked()
    start.cancel()
    with pytest.raises(asyncio.CancelledError):
        await start
    os.kill(launcher, signal.SIGCONT)
    assert hub.state["servers"] == 0  # it answers in turn
    assert processes_of(hub.harness.account.uid) == []


async def test_a_port_that_is_taken_is_told_and_another_one_serves(hub: WarmHub) -> None:
    spec = hub.spec()
    address = await hub.backend.prepare(spec)
    listener = await asyncio.start_server(lambda *_: None, address.ip, address.port)
    async with listener:
        with pytest.raises(PortTaken):
            await started(hub.backend, spec, address)
        at = await started(hub.backend, spec)
        assert hub.is_warm(at)
        assert at.port != address.port
    await hub.backend.stop(at.handle)


async def test_a_server_that_talks_to_the_hub_is_not_listened_to(hub: WarmHub) -> None:
    at = await hub.start(CHATTER)
    assert hub.is_warm(at)
    assert (await answer(at))["pid"] == at.handle["pid"]
    await hub.backend.stop(at.handle)


async def test_two_hubs_have_a_launcher_each(hub: WarmHub, small: Path, tmp_path: Path) -> None:
    neighbour = WarmHub.made(tmp_path, hub.harness.account, small)
    one, other = await hub.start(), await neighbour.start()
    assert hub.is_warm(one)
    assert neighbour.is_warm(other)
    assert hub.launcher != neighbour.launcher
    await neighbour.backend.stop(other.handle)
    await neighbour.close()
    assert (await answer(one))["pid"] == one.handle["pid"]
    await hub.backend.stop(one.handle)


async def test_a_launcher_ends_with_its_hub_and_its_last_server(
    alice: Account, small: Path, tmp_path: Path
) -> None:
    hub = WarmHub.made(tmp_path, alice, small)
    at = await hub.start()
    launcher = hub.launcher
    hub.backend.close()
    assert (await answer(at))["pid"] == at.handle["pid"]
    assert hub.launcher == launcher
    adopted = hub.harness.backend()
    await adopted.stop(at.handle)
    await ended(launcher)
    assert (await adopted.poll(at.handle)).exit_code == 128 + signal.SIGTERM


@pytest.mark.parametrize("with_cgroup", [True, False], ids=["cgroup", "no-cgroup"])
async def test_two_hundred_starts_and_stops_leave_nothing(
    alice: Account, small: Path, tmp_path: Path, with_cgroup: bool
) -> None:
    hub = WarmHub.made(tmp_path, alice, small, with_cgroup=with_cgroup)
    require(hub.harness.group or not with_cgroup, "no cgroup v2 is mounted")
    await hub.backend.stop((await hub.start()).handle)
    launcher = hub.launcher
    before = [open_files(pid) for pid in (launcher, os.getpid())]

    async def one_after_the_other(server: str) -> None:
        for _ in range(25):
            at = await hub.start(server=server)
            assert hub.is_warm(at)
            await hub.backend.stop(at.handle)

    await asyncio.gather(*(one_after_the_other(f"s{number}") for number in range(8)))
    assert hub.launcher == launcher
    assert [open_files(pid) for pid in (launcher, os.getpid())] == before
    assert (children_of(launcher), processes_of(alice.uid)) == ([], [])
    left = {file.suffix for file in (tmp_path / "logs").iterdir()}
    assert left <= {".log", ".old", ".status", ".sock"}
    if hub.harness.group:
        assert cgroup.names(hub.harness.group / "users") == []
    await hub.close()
    hub.harness.close()
