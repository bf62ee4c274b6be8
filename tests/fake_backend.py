"""A backend without privileges: it runs the command as a child of nobody in particular.

It stands in for sudo and for an engine where a test is about the hub's side of things.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import ClassVar

from workshop_hub.backends.base import (
    Address,
    Backend,
    Finding,
    Handle,
    LaunchSpec,
    Listening,
    Owned,
    Owner,
    Progress,
    ServerStatus,
    Usage,
)
from workshop_hub.errors import EngineUnavailable
from workshop_hub.policy.limits import Limits
from workshop_hub.spawner import WorkshopSpawner
from workshop_hub.system import accounts
from workshop_hub.system.exits import on_exit

RUNNER = """
import json, os, signal, subprocess, sys
record, log, cmd = sys.argv[1], sys.argv[2], sys.argv[3:]
signal.signal(signal.SIGTERM, lambda *_: None)
child = subprocess.Popen(cmd, stdout=open(log, "ab"), stderr=subprocess.STDOUT,
                         preexec_fn=lambda: signal.signal(signal.SIGTERM, signal.SIG_DFL))
code = child.wait()
open(record + ".exit", "w").write(str(code if code >= 0 else 128 - code))
"""


class FakeBackend(Backend):
    """Runs servers in sessions of their own, known by files in `log_dir`."""

    name = "fake"

    async def account(self, user: str) -> accounts.Account:
        return accounts.Account(
            user, os.getuid(), os.getgid(), os.environ.get("HOME", "/"), "/bin/sh", (os.getgid(),)
        )

    async def prepare(self, spec: LaunchSpec) -> Address:
        for owned in await self.list_owned():
            if owned.owner == spec.owner:
                await self.stop(owned.handle, now=True)
        port = spec.port or await _free_port()
        return Address("127.0.0.1", port)

    async def start(
        self, spec: LaunchSpec, address: Address
    ) -> AsyncGenerator[Progress | Listening, None]:
        folder = Path(self.log_dir)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        record = folder / f"{spec.owner.hub}-{spec.owner.user}-{spec.owner.server}.json"
        with contextlib.suppress(FileNotFoundError):
            Path(f"{record}.exit").unlink()
        log = record.with_suffix(".log")
        yield Progress(10, "Starting the fake server")
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-S",
            "-c",
            RUNNER,
            str(record),
            str(log),
            *spec.cmd,
            env={"PATH": os.environ["PATH"], **spec.env},
            start_new_session=True,
        )
        handle: Handle = {
            "pid": process.pid,
            "record": str(record),
            "port": address.port,
            "mem_limit": spec.limits.mem_limit,
        }
        draft = record.with_suffix(".new")
        draft.write_text(json.dumps({"owner": list(_fields(spec.owner)), "handle": handle}))
        draft.replace(record)
        try:
            yield Progress(50, "Waiting for the fake server to listen", handle)
            await self._await_listening(
                handle, address.ip, address.port, timeout=spec.start_timeout
            )
        except BaseException:
            await self.stop(handle, now=True)
            raise
        yield Listening(handle, address.ip, address.port)

    async def poll(self, handle: Handle) -> ServerStatus:
        record = Path(str(handle["record"]))
        code = Path(f"{record}.exit")
        if not record.exists() or code.exists():
            known = code.read_text() if code.exists() else ""
            return ServerStatus(
                False,
                exit_code=int(known) if known else None,
                oom_kills=self._oom_kills(handle),
                log=await self.log_tail(handle),
            )
        if not _alive(int(str(handle["pid"]))):
            return ServerStatus(False, log=await self.log_tail(handle))
        return ServerStatus(True, oom_kills=self._oom_kills(handle))

    async def stop(self, handle: Handle, *, now: bool = False) -> None:
        if Path(str(handle["record"])).with_suffix(".stuck").exists():
            raise EngineUnavailable("The fake engine is down.")
        with contextlib.suppress(ProcessLookupError):
            os.killpg(int(str(handle["pid"])), signal.SIGKILL if now else signal.SIGTERM)
        while _alive(int(str(handle["pid"]))):
            await asyncio.sleep(0.02)
        Path(str(handle["record"])).unlink(missing_ok=True)

    def watch(self, handle: Handle, ended: Callable[[], None]) -> Callable[[], None]:
        give_up = on_exit(int(str(handle["pid"])), ended)
        if _alive(int(str(handle["pid"]))):
            return give_up
        give_up()
        return asyncio.get_running_loop().call_soon(ended).cancel

    async def list_owned(self) -> list[Owned]:
        found = []
        for path in Path(self.log_dir).glob(f"{self.hub_id}-*.json"):
            data = json.loads(path.read_text())
            found.append(Owned(Owner(*data["owner"]), data["handle"]))
        return found

    async def usage(self, handle: Handle) -> Usage:
        limit = handle["mem_limit"]
        limits = Limits(mem_limit=limit if isinstance(limit, int) else None)
        return Usage(None, None, None, self._oom_kills(handle), limits)

    async def check(self) -> list[Finding]:
        return [Finding("ok", "fake", "The fake backend needs nothing.")]

    async def log_tail(self, handle: Handle) -> str:
        log = Path(str(handle["record"])).with_suffix(".log")
        return log.read_text(errors="replace")[-2000:] if log.exists() else ""

    def _oom_kills(self, handle: Handle) -> int:
        path = Path(str(handle["record"])).with_suffix(".oom")
        return int(path.read_text()) if path.exists() else 0


class FakeSpawner(WorkshopSpawner):
    """WorkshopSpawner with the fake backend beside the real ones."""

    backends: ClassVar[dict[str, type[Backend]]] = {**WorkshopSpawner.backends, "fake": FakeBackend}


def _fields(owner: Owner) -> tuple[str, str, str]:
    return owner.hub, owner.user, owner.server


async def _free_port() -> int:
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    port = int(server.sockets[0].getsockname()[1])
    server.close()
    return port


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False
