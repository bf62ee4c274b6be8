"""Real accounts, real sudo, and a backend to try with them; for this tier and the contract."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pwd
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from support import launcher_under_coverage
from workshop_hub.backends.base import (
    Address,
    Backend,
    LaunchSpec,
    Listening,
    Owner,
)
from workshop_hub.backends.process import ProcessBackend
from workshop_hub.launch import become
from workshop_hub.policy.limits import Limits
from workshop_hub.system import accounts, cgroup
from workshop_hub.system.accounts import Account

PREFIX = "wsh-test-"
TINY = Path(__file__).parents[1] / "tiny_server.py"


@contextlib.contextmanager
def made_account(label: str, home: Path | None = None, group: str = "") -> Iterator[Account]:
    """Make a system account for a test, and remove it with all its processes."""
    name = f"{PREFIX}{label}-{uuid.uuid4().hex[:6]}"
    options = [*(["--home-dir", str(home)] if home else []), *(["--gid", group] if group else [])]
    subprocess.run(["useradd", "--create-home", *options, "--shell", "/bin/sh", name], check=True)
    account = accounts.find(name)
    try:
        yield account
    finally:
        kill_all_of(account.uid)
        with contextlib.suppress(KeyError):
            pwd.getpwnam(name)
            subprocess.run(["userdel", "--force", name], check=True, capture_output=True)
        shutil.rmtree(account.home, ignore_errors=True)


def kill_all_of(uid: int) -> None:
    for pid in processes_of(uid):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, 9)


def processes_of(uid: int) -> list[int]:
    """Return the living processes of an account, as /proc has them."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdecimal() and entry.stat().st_uid == uid:
                state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
                if state not in "ZX":
                    found.append(int(entry.name))
    return found


def command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


@dataclass
class ProcessHarness:
    """What a test of the Backend interface needs, for the process backend.

    with_cgroup: False to make the backend find no cgroup that it may use. program: a script that
    runs tests/tiny_server.py, see `launchers`; empty to run it without one.
    """

    folder: Path
    account: Account
    hub_id: str = field(default_factory=lambda: uuid.uuid4().hex[:12])
    with_cgroup: bool = True
    options: dict[str, Any] = field(default_factory=dict)
    program: str = ""
    made: list[ProcessBackend] = field(default_factory=list)

    def __post_init__(self) -> None:
        mount = cgroup.find_mount()
        self.group = mount.path / f"{PREFIX}{self.hub_id}" if mount and self.with_cgroup else None

    def backend(self, **options: Any) -> ProcessBackend:
        """Make a new backend object of the same hub, as after a restart."""
        parent = self.group.name if self.group else "no-such-group/holder"
        defaults = {
            "hub_id": self.hub_id,
            "log_dir": str(self.folder / "logs"),
            "cgroup_parent": parent,
            "term_timeout": 3.0,
            **launcher_under_coverage(become.__file__),
        }
        self.made.append(ProcessBackend(**{**defaults, **self.options, **options}))
        return self.made[-1]

    def spec(
        self, *tiny: str, server: str = "", cmd: tuple[str, ...] = (), **changes: Any
    ) -> LaunchSpec:
        """Describe a server that runs tests/tiny_server.py with the options `tiny`, or `cmd`."""
        spec = spec_for(self.account, self.hub_id, *tiny, server=server)
        cmd = cmd or ((self.program, *tiny) if self.program else spec.cmd)
        return replace(spec, cmd=cmd, **changes)

    def close(self) -> None:
        """Remove the cgroups of this hub; a test that leaves processes there has failed."""
        for backend in self.made:
            backend.close()
        if self.group is not None:
            assert remove_group(self.group) == set()


def remove_group(group: Path) -> set[int]:
    """Remove a cgroup with all in it; return the processes that were there."""
    found = set()
    deadline = time.monotonic() + 10
    while not cgroup.remove(group) and time.monotonic() < deadline:
        for procs in group.rglob("cgroup.procs"):
            with contextlib.suppress(OSError):
                left = cgroup.pids(procs.parent)
                found |= left
                for pid in left:
                    os.kill(pid, 9)
        time.sleep(0.01)
    return found


def spec_for(account: Account, hub_id: str, *tiny: str, server: str = "") -> LaunchSpec:
    """Describe a server that runs tests/tiny_server.py with the options `tiny`."""
    return LaunchSpec(
        owner=Owner(hub_id, account.name, server),
        account=account,
        limits=Limits(),
        limits_policy="enforce",
        cmd=(sys.executable, "-I", "-S", str(TINY), *tiny),
        notebook_dir="",
        create_notebook_dir=False,
        allowed_roots=(account.home,),
        start_timeout=20.0,
    )


def with_url(spec: LaunchSpec, address: Address) -> LaunchSpec:
    """Add to the environment what the spawner does."""
    url = f"http://{address.ip}:{address.port}/"
    return replace(spec, env={"JUPYTERHUB_SERVICE_URL": url, **spec.env})


async def started(backend: Backend, spec: LaunchSpec, address: Address | None = None) -> Listening:
    """Start a server as the spawner does, and return where it listens."""
    address = address or await backend.prepare(spec)
    steps = [step async for step in backend.start(with_url(spec, address), address)]
    assert isinstance(steps[-1], Listening)
    return steps[-1]


async def answer(at: Listening, path: str = "/") -> dict[str, Any]:
    """Ask tests/tiny_server.py what it is."""
    reader, writer = await asyncio.open_connection(at.ip, at.port)
    writer.write(f"GET {path} HTTP/1.0\r\n\r\n".encode())
    reply = await asyncio.wait_for(reader.read(), 60)
    writer.close()
    found: dict[str, Any] = json.loads(reply.partition(b"\r\n\r\n")[2] or b"{}")
    return found
