"""What the warm launcher is told over its socket, by whom, and what it makes of nonsense."""

from __future__ import annotations

import asyncio
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
from harness import PREFIX, answer, command_line, processes_of
from launchers import WarmHub, children_of, ended, open_files, small_program

from support import eventually, eventually_sync
from workshop_hub.launch import become
from workshop_hub.system.accounts import Account

ASK_AS_USER = """
import socket, sys
talk = socket.socket(socket.AF_UNIX)
talk.settimeout(60)
talk.connect(sys.argv[1])
try:
    talk.sendall(b"?")
    print(talk.recv(100))
except ConnectionError as error:
    print(b"")
"""


@pytest.fixture(scope="module")
def folder(machine: None, usual_environment: None) -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(prefix=PREFIX))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


@pytest.fixture(scope="module")
async def hub(alice: Account, folder: Path) -> AsyncIterator[WarmHub]:
    hub = WarmHub.made(folder, alice, small_program(folder))
    await hub.backend.stop((await hub.start()).handle)
    yield hub
    await hub.close()


def order(*fields: str) -> bytes:
    return "\0".join([become.PROTOCOL, *fields, become.END, ""]).encode()


def socket_of(hub: WarmHub) -> str:
    return str(hub.harness.folder / "logs" / "launcher.sock")


def connection(hub: WarmHub) -> socket.socket:
    talk = socket.socket(socket.AF_UNIX)
    talk.settimeout(60)
    talk.connect(socket_of(hub))
    return talk


def say(hub: WarmHub, data: bytes, files: int = 0) -> tuple[str, str]:
    """Say it all, with so many open files; return what is answered, and what is reported."""
    with ExitStack() as opened:
        talk = opened.enter_context(closing(connection(hub)))
        given = [opened.enter_context(tempfile.TemporaryFile()) for _ in range(files)]
        try:
            socket.send_fds(talk, [data[:1]], [file.fileno() for file in given])
            talk.sendall(data[1:])
            talk.shutdown(socket.SHUT_WR)
        except ConnectionError:
            pass  # it listens no longer
        said = everything(talk)
        if not given:
            return said, ""
        given[0].seek(0)
        return said, given[0].read().decode(errors="replace")


def everything(talk: socket.socket) -> str:
    said = b""
    try:
        while piece := talk.recv(65536):
            said += piece
    except ConnectionError:
        pass
    return said.decode(errors="replace")


NONSENSE = {
    "nothing": (b"", 0),
    "zero": (b"\0", 0),
    "noise": (os.urandom(5000), 0),
    "noise with files": (b"x" + os.urandom(5000), 3),
    "start without files": (b"S", 0),
    "start with one file": (b"S" + order("verb=start"), 1),
    "start with too many files": (b"S" + order("verb=start"), 100),
    "start with noise": (b"S" + os.urandom(5000), 2),
    "start with half an order": (b"S" + order("verb=start", "uid=1000")[:-9], 2),
    "start with ten megabytes": (b"S" + order("verb=start", f"env=A={'x' * 10_000_000}"), 2),
    "start without a uid": (b"S" + order("verb=start"), 2),
    "start with nonsense for a uid": (b"S" + order("verb=start", "uid=1e3"), 2),
    "start with nonsense for a cgroup": (b"S" + order("verb=start", "uid=1000"), 3),
    "signal without an order": (b"K", 0),
    "signal with files": (b"K" + order("verb=signal"), 2),
    "signal with nonsense": (b"K" + order("verb=signal", "uid={uid}", "signals=x"), 0),
    "start as a signal": (b"K" + order("verb=start", "uid={uid}", "arg=true"), 0),
    "lease with files": (b"L", 3),
}


@pytest.mark.parametrize("what", NONSENSE)
async def test_nonsense_changes_nothing(hub: WarmHub, what: str) -> None:
    data, files = NONSENSE[what]
    uid = str(hub.harness.account.uid)
    launcher, before = hub.launcher, open_files(hub.launcher)
    if what == "lease with files":
        with closing(connection(hub)) as talk:
            given = [os.pipe() for _ in range(files)]
            numbers = [number for pair in given for number in pair]
            socket.send_fds(talk, [data], numbers[:files])
            for number in numbers:
                os.close(number)
    else:
        await asyncio.to_thread(say, hub, data.replace(b"{uid}", uid.encode()), files)
    assert hub.launcher == launcher

    async def as_before() -> bool:
        return open_files(launcher) == before and children_of(launcher) == []

    await eventually(as_before, "nothing is left of it", every=0.01)
    assert processes_of(hub.harness.account.uid) == []


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        (["uid=0"], "error range\tThe launcher serves the uids"),
        (["uid=0", "account=root"], "error range\tThe launcher serves the uids"),
        ([f"uid={pwd.getpwnam('nobody').pw_uid}"], "error range\tThe launcher serves the uids"),
        (["uid=59999"], "error account\tThere is no account 59999."),
        (["uid={uid}", "account=root"], "error uid\tThe account's uid is 0"),
        (["uid=-1"], "error protocol\t"),
        (["uid={uid}", "cgroup=/elsewhere"], "error cgroup\t"),
        (["uid={uid}", "arg=no-such-program"], "error program\t"),
        (["uid={uid}", "dir=/etc", "arg=true"], "error outside\t"),
        (["uid={uid}", "arg={program}", "port=99999", "ip=127.0.0.1"], "error system\t"),
        (["uid={uid}", "arg={program}", "port=22222", "ip=nowhere"], "error "),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
async def test_an_order_that_cannot_be_carried_out_is_refused_in_words(
    hub: WarmHub, fields: list[str], told: str
) -> None:
    known = {"uid": str(hub.harness.account.uid), "program": str(hub.program)}
    wanted = order("verb=start", "key=x", *(field.format(**known) for field in fields))
    said, report = await asyncio.to_thread(say, hub, b"S" + wanted, 2)
    assert said == ""
    lines = report.splitlines()
    assert [line for line in lines if line.startswith("error ")] == lines[-2:-1]
    assert lines[-2].startswith(told)
    assert lines[-1].endswith(f" {become.REFUSED}")
    assert processes_of(hub.harness.account.uid) == []


def new_child(hub: WarmHub, wanted: bytes) -> tuple[socket.socket, int]:
    """Order a server; return the connection, and its process, stopped before it shows what it is.

    Until then nobody can find it by its server's name.
    """
    launcher = hub.launcher
    for _ in range(20):
        talk = connection(hub)
        with tempfile.TemporaryFile() as file:
            socket.send_fds(talk, [b"S" + wanted], [file.fileno()] * 2)
        talk.shutdown(socket.SHUT_WR)
        (pid,) = eventually_sync(lambda: children_of(launcher), "it has forked", every=0)
        os.kill(pid, signal.SIGSTOP)
        if "forkserver" in command_line(pid):
            return talk, pid
        os.kill(pid, signal.SIGKILL)  # too late
        eventually_sync(lambda: not children_of(launcher), "it has ended")
        talk.close()
    pytest.fail("each child was too quick")


async def test_a_child_whose_hub_has_given_up_ends_by_itself(hub: WarmHub) -> None:
    fields = [f"uid={hub.harness.account.uid}", f"arg={hub.program}", "port=22222", "ip=127.0.0.1"]
    url = "env=JUPYTERHUB_SERVICE_URL=http://127.0.0.1:22222/"
    talk, pid = new_child(hub, order("verb=start", "key=x", url, *fields))
    talk.close()
    os.kill(pid, signal.SIGCONT)
    await ended(pid)
    assert hub.state["servers"] == 0


async def test_who_keeps_silent_keeps_nobody_from_a_server(hub: WarmHub) -> None:
    with closing(connection(hub)), closing(connection(hub)) as half:
        with tempfile.TemporaryFile() as file:
            socket.send_fds(half, [b"S" + order("verb=start")[:10]], [file.fileno()] * 2)
        at = await hub.start()
        assert hub.is_warm(at)
        assert (await answer(at))["pid"] == at.handle["pid"]
        await hub.backend.stop(at.handle)
    launcher = hub.launcher

    async def gone() -> bool:
        return children_of(launcher) == []

    await eventually(gone, "nothing is left of half an order", every=0.01)


async def test_other_accounts_are_not_heard(hub: WarmHub) -> None:
    logs = hub.harness.folder / "logs"
    logs.chmod(0o755)
    Path(socket_of(hub)).chmod(0o666)
    as_user = ["setpriv", "--reuid", hub.harness.account.name, "--clear-groups", sys.executable]
    try:
        asked = await asyncio.to_thread(
            subprocess.run,
            [*as_user, "-I", "-c", ASK_AS_USER, socket_of(hub)],
            capture_output=True,
            text=True,
            check=True,
        )
    finally:
        logs.chmod(0o700)
    assert asked.stdout == "b''\n"
    assert hub.state["servers"] == 0
