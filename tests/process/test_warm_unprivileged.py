"""The warm launcher of a hub that is not root: by sudo, and as systemd runs it."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from harness import PREFIX, command_line, processes_of
from launchers import Venv, parent_of, small_program
from unprivileged import Said, UnprivilegedHub, last

from support import eventually_sync
from workshop_hub.launch import forkserver
from workshop_hub.system import processes
from workshop_hub.system.accounts import Account

NOTHING = "0" * 16


@pytest.fixture(scope="module")
def folder(machine: None) -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(prefix=PREFIX))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


@pytest.fixture(scope="module")
def program(folder: Path) -> Path:
    return small_program(folder)


def capabilities(pid: int) -> set[str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {line.split()[1] for line in lines if line.startswith(("CapI", "CapP", "CapE", "CapA"))}


def launched(hub: UnprivilegedHub, program: Path, *steps: str, **more: Any) -> Said:
    """Let the hub do these things with a warm launcher for its user."""
    uids = (hub.user.uid, hub.user.uid)
    changes = {"cmd": [str(program)]}
    return hub.run(*steps, changes=changes, launcher="warm", warm_uids=uids, **more)


def the_server(said: Said) -> tuple[dict[str, Any], int]:
    """Return the handle of the server that was started, and its process."""
    handle = last(said, "Listening")["handle"]
    return handle, int(handle["pid"])


def found(said: Said) -> dict[str, Any]:
    """Return what is said of the warm launcher."""
    findings = [one for one in said if one.get("subject") == "warm launcher"]
    assert len(findings) == 1, said
    return findings[0]


def test_sudo_starts_the_launcher_which_ends_after_its_last_server(
    plain_hub: UnprivilegedHub, program: Path
) -> None:
    plain_hub.allow_warm()
    said = launched(plain_hub, program, "check", "start", "poll")
    assert found(said)["level"] == "ok", said
    handle, pid = the_server(said)
    launcher = parent_of(pid)
    assert launcher
    assert "forkserver.py --with-hub" in command_line(launcher)
    assert processes.real_uid(launcher) == 0
    assert processes.real_uid(pid) == plain_hub.user.uid
    assert capabilities(pid) == {NOTHING}
    # another hub, which finds the launcher
    said = launched(plain_hub, program, "check", "poll", "stop", "poll", handle=handle)
    assert str(launcher) in found(said)["message"]
    assert [one["running"] for one in said if one["kind"] == "poll"] == [True, False]
    assert last(said, "poll")["exit_code"] == 128 + 15
    eventually_sync(lambda: processes.stat(launcher) is None, "the launcher ends")
    assert processes_of(plain_hub.user.uid) == []


def test_without_the_rule_servers_are_started_by_sudo_and_doctor_has_the_line(
    bare_hub: UnprivilegedHub, program: Path
) -> None:
    said = launched(bare_hub, program, "check", "start")
    finding = found(said)
    assert finding["level"] == "warning"
    assert "a password is required" in finding["message"]
    assert f"{bare_hub.account.name} ALL=(root) NOPASSWD: " in finding["message"]
    handle, pid = the_server(said)
    assert "/bin/sh" in command_line(pid)  # which waits for a server that was executed
    bare_hub.run("stop", handle=handle)


def test_the_rule_allows_nobody_elses_servers(
    bare_hub: UnprivilegedHub, program: Path, bob: Account
) -> None:
    bare_hub.allow_warm()
    said = bare_hub.run("check", launcher="warm", warm_uids=(bob.uid, bob.uid))
    assert "a password is required" in found(said)["message"]


@contextlib.contextmanager
def as_systemd_would(hub: UnprivilegedHub, program: Path) -> Iterator[Path]:
    """Run a launcher as the hub's account with a few rights; give its socket."""
    place = hub.folder / "launcher.sock"
    rights = "-all,+setuid,+setgid,+kill"
    who = ["--reuid", hub.account.name, "--regid", hub.account.name, "--init-groups"]
    become = ["setpriv", *who, f"--inh-caps={rights}", f"--ambient-caps={rights}"]
    options = [f"--program={program}", "--uids=1000-59999"]
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(place))
        listener.listen()
        os.chown(place, hub.account.uid, -1)
        launcher = subprocess.Popen(
            [*become, sys.executable, "-I", forkserver.__file__, *options],
            stdin=listener.fileno(),
            env={"LANG": "C.UTF-8", "PATH": os.environ["PATH"]},
        )
    try:
        yield place
    finally:
        launcher.terminate()
        launcher.wait(30)


def test_no_server_has_rights_of_the_launchers_not_even_the_hubs_own(
    bare_hub: UnprivilegedHub, program: Path
) -> None:
    changes = {"cmd": [str(program)]}
    with as_systemd_would(bare_hub, program) as place:
        for user in (bare_hub.user, bare_hub.account):
            options = {"launcher": "warm", "warm_socket": str(place), "user": user.name}
            handle, pid = the_server(bare_hub.run("start", changes=changes, **options))
            launcher = parent_of(pid)
            assert launcher
            assert "forkserver.py" in command_line(launcher)
            assert processes.real_uid(pid) == user.uid
            assert capabilities(pid) == {NOTHING}
            bare_hub.run("stop", handle=handle, **options)
        assert NOTHING not in capabilities(launcher)


def test_the_launcher_runs_nothing_of_its_accounts_own_packages(
    bare_hub: UnprivilegedHub, folder: Path
) -> None:
    venv = Venv.made(folder / "venv")
    mark = folder / "mark"
    mark.mkdir(mode=0o777)
    mark.chmod(0o777)
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    packages = Path(bare_hub.account.home, ".local/lib", version, "site-packages")
    packages.mkdir(parents=True)
    (packages / "mark.pth").write_text(f"import os; open({str(mark / 'made')!r}, 'w')\n")
    as_hub = ["setpriv", "--reuid", bare_hub.account.name, "--clear-groups"]
    home = {"HOME": bare_hub.account.home}
    subprocess.run([*as_hub, venv.python, "-c", "pass"], env=home, check=True)
    assert (mark / "made").exists()  # so it would be, and would have the launcher's rights
    (mark / "made").unlink()
    with (
        as_systemd_would(bare_hub, venv.singleuser()) as place,
        socket.socket(socket.AF_UNIX) as talk,
    ):
        os.seteuid(bare_hub.account.uid)
        try:
            talk.connect(str(place))
        finally:
            os.seteuid(0)
        talk.sendall(b"?")
        talk.settimeout(60)
        state = json.loads(talk.recv(65536))
    assert state["trouble"] == ""
    assert state["modules"] > 500
    assert not (mark / "made").exists()
