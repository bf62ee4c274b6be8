"""Warm launchers in tests: what they are asked, and programs of milliseconds for them to run."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import PREFIX, TINY, ProcessHarness, command_line, processes_of, started

from support import eventually
from workshop_hub.backends.base import LaunchSpec, Listening, ServerStatus
from workshop_hub.backends.process import ProcessBackend
from workshop_hub.backends.process.names import key_of
from workshop_hub.system.accounts import Account

NAME = "jupyterhub-singleuser"

SMALL = """#!{python}
import os, runpy, signal, sys, threading, time
for word in sys.argv[1:]:
    if word.startswith("run:"):
        exec(word.removeprefix("run:"))
sys.argv[1:] = [word for word in sys.argv[1:] if not word.startswith("run:")]
runpy.run_path({tiny!r}, run_name="__main__")
"""
"""A single-user server to the launcher: tests/tiny_server.py, after it has run any `run:CODE`."""


def small_program(folder: Path, python: str = sys.executable) -> Path:
    """Write SMALL into a folder; return it."""
    script = folder / NAME
    script.write_text(SMALL.format(python=python, tiny=str(TINY)))
    script.chmod(0o755)
    return script


@dataclass(frozen=True)
class Venv:
    """An environment that has all packages of this one; what is put into it changes nothing here.

    It sees the system's packages, and so those of the users' own.
    """

    folder: Path

    @classmethod
    def made(cls, folder: Path) -> Venv:
        make = [sys.executable, "-m", "venv", "--without-pip", "--system-site-packages"]
        subprocess.run([*make, str(folder)], check=True)
        (folder / "share").symlink_to(Path(sys.prefix, "share"))
        shutil.copytree(Path(sys.prefix, "etc"), folder / "etc")
        venv = cls(folder)
        all_packages = next(p for p in sys.path if p.startswith(sys.prefix) and "site-" in p)
        venv.put("all.pth", all_packages + "\n")
        return venv

    @property
    def python(self) -> str:
        return str(self.folder / "bin" / "python")

    def singleuser(self) -> Path:
        """Make the single-user server's own script for this environment."""
        script = self.folder / "bin" / NAME
        own = Path(sys.executable).with_name(NAME).read_text()
        script.write_text(own.replace(sys.executable, self.python, 1))
        script.chmod(0o755)
        return script

    def put(self, name: str, text: str) -> Path:
        """Install a file, in the place of one that is there."""
        file = next(self.folder.glob("lib/python3*/site-packages")) / name
        file.unlink(missing_ok=True)
        file.write_text(text)
        return file

    def put_extension(self, name: str, text: str) -> None:
        """Install a server extension, and enable it for everybody."""
        self.put(f"{name}.py", text + "\ndef _load_jupyter_server_extension(app): pass\n")
        enabled = {"ServerApp": {"jpserver_extensions": {name: True}}}
        config = self.folder / "etc/jupyter/jupyter_server_config.d" / f"{name}.json"
        config.write_text(json.dumps(enabled))


@dataclass
class WarmHub:
    """A hub that starts `program` warm; see SMALL. Its launcher goes on as long as it does."""

    harness: ProcessHarness
    backend: ProcessBackend
    program: Path

    @classmethod
    def made(
        cls,
        folder: Path,
        account: Account,
        program: Path,
        *,
        with_cgroup: bool = False,
        **more: Any,
    ) -> WarmHub:
        options = {"launcher": "warm", "warm_program": str(program), **more}
        harness = ProcessHarness(folder, account, with_cgroup=with_cgroup, options=options)
        return cls(harness, harness.backend(), program)

    def spec(self, *words: str, server: str = "", cmd: str = "", **env: str) -> LaunchSpec:
        command = (cmd or str(self.program), *words)
        return self.harness.spec(cmd=command, server=server, env=env)

    async def start(self, *words: str, server: str = "", cmd: str = "", **env: str) -> Listening:
        return await started(self.backend, self.spec(*words, server=server, cmd=cmd, **env))

    def ask(self, wanted: bytes = b"?") -> str:
        """Ask the launcher as the hub does; return all that it answers."""
        with socket.socket(socket.AF_UNIX) as talk:
            talk.settimeout(60)
            talk.connect(str(self.harness.folder / "logs" / "launcher.sock"))
            talk.sendall(wanted)
            talk.shutdown(socket.SHUT_WR)
            with talk.makefile(errors="replace") as answer:
                return answer.read()

    @property
    def state(self) -> dict[str, Any]:
        """What the launcher says of itself."""
        said: dict[str, Any] = json.loads(self.ask())
        return said

    @property
    def launcher(self) -> int:
        return int(self.state["pid"])

    def is_warm(self, at: Listening) -> bool:
        return parent_of(int(str(at.handle["pid"]))) == self.launcher

    @property
    def servers(self) -> list[int]:
        """The processes of the user, that show a server's command by now."""
        pids = processes_of(self.harness.account.uid)
        return [pid for pid in pids if str(self.program) in command_line(pid)]

    async def only_server(self) -> int:
        async def there() -> list[int]:
            return self.servers

        (pid,) = await eventually(there, "a server's process is there", every=0.01)
        return pid

    async def asked(self, server: str = "") -> None:
        """Wait until a start has got so far that the launcher is asked."""
        key = key_of(self.spec(server=server).owner)
        log = self.harness.folder / "logs" / f"{key}.log"
        before = log.stat().st_ino if log.exists() else 0

        async def opened() -> bool:
            return log.exists() and log.stat().st_ino != before

        await eventually(opened, "the server's log is opened", every=0.01)

    async def end_of(self, at: Listening) -> ServerStatus:
        """Wait until it is told how the server has ended."""

        async def told() -> ServerStatus | None:
            status = await self.backend.poll(at.handle)
            return None if status.running or status.exit_code is None else status

        status = await eventually(told, "it is told how the server ended", every=0.01)
        assert status
        return status

    async def close(self) -> None:
        """End the hub, and wait for its launcher, which has no servers any more."""
        launcher = self.launcher
        self.backend.close()
        await ended(launcher)


@dataclass
class KeptLauncher:
    """A warm launcher that many hubs find, one after the other; each thinks it is its own."""

    folder: Path
    lease: socket.socket

    @classmethod
    @contextlib.contextmanager
    def made(cls) -> Iterator[KeptLauncher]:
        folder = Path(tempfile.mkdtemp(prefix=PREFIX))
        folder.chmod(0o755)
        small_program(folder)
        with socket.socket(socket.AF_UNIX) as lease:
            yield cls(folder, lease)
        shutil.rmtree(folder)

    def harness(self, account: Account, *, with_cgroup: bool) -> ProcessHarness:
        """Return a hub of its own id that finds the launcher in its folder."""
        program = str(self.folder / NAME)
        return ProcessHarness(
            self.folder,
            account,
            with_cgroup=with_cgroup,
            options={"launcher": "warm", "warm_program": program},
            program=program,
        )

    def keep(self) -> None:
        """Have the launcher stay, if there is one by now."""
        with contextlib.suppress(OSError):  # it is kept already, or was never needed
            self.lease.connect(str(self.folder / "logs" / "launcher.sock"))
            self.lease.send(b"L")


async def ended(pid: int) -> None:
    """Wait until a process has ended."""

    async def gone() -> bool:
        return parent_of(pid) is None

    await eventually(gone, f"process {pid} has ended", every=0.01)


def parent_of(pid: int) -> int | None:
    """Return a living process's parent; None for one that has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else int(fields[1])


def children_of(pid: int) -> list[int]:
    """Return the children of all of a process's threads, with those nobody has waited for."""
    lists = [file.read_text() for file in Path(f"/proc/{pid}/task").glob("*/children")]
    return [int(child) for text in lists for child in text.split()]


def open_files(pid: int) -> int:
    """Return how many files a process has open."""
    return len([*Path(f"/proc/{pid}/fd").iterdir()])
