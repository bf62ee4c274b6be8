"""`workshop-hub launcher`, with one that really runs."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from workshop_hub.cli import main

PROGRAM = Path(sys.executable).with_name("workshop-hub")
NOBODY = ("setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups")


def run(*words: str | Path) -> Result:
    return CliRunner().invoke(main, ["launcher", *map(str, words)])


def run_as_nobody(*words: str | Path) -> str:
    """Run a command that must fail as an account without rights; return what it says."""
    done = subprocess.run(
        [*NOBODY, PROGRAM, "launcher", *words],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 1
    return done.stderr


@dataclass
class Running:
    """A launcher at a socket."""

    place: Path
    pid: int

    def status(self, *words: str) -> dict[str, str]:
        done = run("status", "--socket", self.place, *words)
        assert done.exit_code == 0, done.output
        return {row.split()[0]: row.partition(" ")[2].strip() for row in done.stdout.splitlines()}


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """A folder that others may enter, and whose name is short enough for a socket's."""
    with tempfile.TemporaryDirectory(prefix="wsh-test-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture(scope="module")
def running(folder: Path) -> Iterator[Running]:
    place = folder / "launcher.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(place))
        listener.listen()
        words = ["--uids=2000-2999", "--group=course"]
        process = subprocess.Popen([PROGRAM, "launcher", *words], stdin=listener.fileno())
    yield Running(place, process.pid)
    process.terminate()
    assert process.wait(30) == 0


def test_status_says_what_the_launcher_is(running: Running) -> None:
    said = running.status()
    assert said["process"] == str(running.pid)
    assert said["servers"] == "0"
    assert int(said["modules"]) > 100
    assert "--uids=2000-2999" in said["options"]
    assert "--group=course" in said["options"]


def test_the_place_is_found_in_the_configuration(running: Running, tmp_path: Path) -> None:
    config = tmp_path / "jupyterhub_config.py"
    config.write_text(
        "c.JupyterHub.spawner_class = 'workshop'\n"
        "c.ProcessBackend.launcher = 'warm'\n"
        f"c.ProcessBackend.warm_socket = {str(running.place)!r}\n"
    )
    done = run("status", "-f", config)
    assert (done.exit_code, str(running.pid) in done.stdout) == (0, True), done.output
    config.write_text("c.JupyterHub.spawner_class = 'workshop'\n")
    done = run("status", "-f", config)
    assert done.exit_code == 1
    assert "does not use the warm launcher" in done.stderr


def test_reload_imports_anew_in_the_same_process(running: Running) -> None:
    with socket.socket(socket.AF_UNIX) as lease:
        lease.connect(str(running.place))
        lease.send(b"L")
        running.status()  # it has heard of that
        before = imported_at(running.pid)
        done = run("reload", "--socket", running.place)
        assert done.exit_code == 0, done.output
        assert str(running.pid) in done.stdout
        assert imported_at(running.pid) != before
        lease.setblocking(False)
        with pytest.raises(BlockingIOError):
            lease.recv(1)  # still held


def imported_at(pid: int) -> str:
    """Return what differs between two programs in one process: where the kernel put them."""
    return Path(f"/proc/{pid}/stat").read_text().split()[27]


@pytest.mark.skipif(os.getuid() != 0, reason="only root can be somebody else")
def test_somebody_else_is_told_that_it_does_not_listen(running: Running) -> None:
    question = ("status", "--socket", running.place)
    running.place.chmod(0o600)
    assert "Permission denied" in run_as_nobody(*question)
    running.place.chmod(0o666)
    said = run_as_nobody(*question)
    running.place.chmod(0o600)
    assert "it listens to another account" in said


def test_nobody_listens(folder: Path) -> None:
    done = run("status", "--socket", folder / "missing.sock")
    assert (done.exit_code, "No warm launcher listens at" in done.stderr) == (1, True)
    left = folder / "left.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(left))
    for command in ("status", "reload"):
        done = run(command, "--socket", left)
        assert done.exit_code == 1
        assert "Connection refused" in done.stderr


def test_without_a_socket_it_says_how_it_is_started() -> None:
    done = run()
    assert done.exit_code == 2
    assert "Standard input is no listening socket" in done.stderr
    assert "--launcher warm" in done.stderr


def test_a_program_that_cannot_be_imported_for_is_told(folder: Path) -> None:
    place = folder / "useless.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(place))
        listener.listen()
        command = [PROGRAM, "launcher", "--program=/no/such/jupyterhub-singleuser"]
        process = subprocess.Popen(command, stdin=listener.fileno())
    done = run("status", "--socket", place)
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0
    assert done.exit_code == 1
    assert "/no/such/jupyterhub-singleuser is no script" in done.stdout
