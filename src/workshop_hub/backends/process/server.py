"""One server of the process backend: what its handle says, and whether it lives."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from workshop_hub.backends.base import Handle
from workshop_hub.launch.message import Report, Target
from workshop_hub.system import cgroup, processes

VERSION = 1

REPORT_TIMEOUT = 1.0
"""Seconds that a launcher may take to report how a server has ended; a millisecond usually."""


@dataclass(frozen=True)
class Server:
    """A server, as its handle describes it.

    life: tells it from earlier and later servers of its owner; empty where that is not known.
    key: its name, see `process_names`. account, uid: who it runs as. cgroup: absolute path of its
    group; empty without one. pid, start_time: its supervisor, once that is known.
    """

    key: str
    account: str
    uid: int
    ip: str
    port: int
    boot_id: str
    cgroup: str = ""
    pid: int | None = None
    start_time: int | None = None
    life: str = ""

    @classmethod
    def of(cls, handle: Handle) -> Server:
        """Read a handle; ValueError where this version cannot."""
        if handle.get("version") != VERSION:
            raise ValueError(f"the handle has version {handle.get('version')!r}")
        try:
            server = cls(**{name: handle[name] for name in asdict(_EMPTY)})  # type: ignore[arg-type]
        except KeyError as exc:
            raise ValueError(f"the handle lacks {exc}") from exc
        for name, value in asdict(_EMPTY).items():
            wanted = (int, type(None)) if value is None else type(value)
            if not isinstance(getattr(server, name), wanted):
                raise ValueError(f"the handle's {name} is {getattr(server, name)!r}")
        return server

    @property
    def handle(self) -> Handle:
        """What goes into the hub's database."""
        return {"version": VERSION, **asdict(self)}

    @property
    def group(self) -> Path | None:
        """The server's cgroup; None without one."""
        return Path(self.cgroup) if self.cgroup else None

    @property
    def target(self) -> Target:
        """For the launcher, to signal it."""
        return Target(self.key, self.uid, self.pid or 0, self.start_time or 0)

    def with_report(self, report: Report) -> Server:
        """Return it with its process, where the handle was written before that was known."""
        if self.pid is not None or report.pid is None:
            return self
        return replace(self, pid=report.pid, start_time=report.start_time)

    def is_in(self, recorded: Handle) -> bool:
        """Say whether a recorded handle is this server's, and not a later one's of its owner."""
        own = (self.boot_id, self.life)
        return not self.life or own == (recorded.get("boot_id"), recorded.get("life"))

    def lives(self) -> bool:
        """Say whether its supervisor lives; OSError where that cannot be seen.

        A pid alone is no proof: it may be another process's by now.
        """
        if self.boot_id != processes.boot_id():
            return False
        if self.group:
            return self._lives_in(self.group)
        if self.pid is None:
            return False
        stat = processes.stat(self.pid)
        if stat is None:
            if processes.hidden(self.pid):
                raise OSError("the hub cannot see processes of others (/proc has hidepid set)")
            return False
        same = stat.start_time == self.start_time and processes.real_uid(self.pid) == self.uid
        return same and not stat.ended

    async def last_report(self, read: Callable[[], Report]) -> Report:
        """Return the report on it when it has ended; `read` reads what is there.

        A launcher that is its parent reports how it ended, and then lets go of the process.
        """
        deadline = time.monotonic() + REPORT_TIMEOUT
        while read().exit_code is None and self._is_zombie() and time.monotonic() < deadline:
            await asyncio.sleep(0.005)
        return read()

    def _is_zombie(self) -> bool:
        stat = processes.stat(self.pid) if self.pid else None
        return stat is not None and stat.start_time == self.start_time and stat.ended

    def may_be_there(self) -> bool:
        """Say whether anything of it is on the machine, or, without a cgroup, may be."""
        if self.boot_id != processes.boot_id():
            return False
        return self.group.exists() if self.group else True

    def oom_kills(self) -> int:
        """Return how many of its processes were ended for want of memory."""
        return cgroup.oom_kills(self.group) if self.group else 0

    def _lives_in(self, group: Path) -> bool:
        if self.pid is None:
            return cgroup.populated(group)
        if self.pid not in cgroup.pids(group):
            return False
        stat = processes.stat(self.pid)
        return stat is None or not stat.ended


_EMPTY = Server("", "", 0, "", 0, "")
