"""How a server of the process backend is ended, with everything that it started."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from logging import Logger, LoggerAdapter
from pathlib import Path
from typing import Protocol, TypeAlias

from workshop_hub.backends.process.server import Server
from workshop_hub.errors import AccountRefused, WorkshopError
from workshop_hub.launch.message import Target
from workshop_hub.system import accounts, cgroup, processes

Log: TypeAlias = "Logger | LoggerAdapter[Logger]"

TERMINATE = (signal.SIGTERM, signal.SIGCONT)
"""A stopped process looks at SIGTERM only when it is continued: a user can stop what she owns."""


class Signals(Protocol):
    """What a launcher is needed for here; see `launch.sudo`."""

    async def signal(
        self, target: Target, account: str | None, signals: tuple[int, ...], *, tree: bool
    ) -> None:
        """Send signals as the user."""


@dataclass(frozen=True)
class Ender:
    """Ends servers. term_timeout, kill_timeout: seconds, see ProcessBackend."""

    launcher: Signals
    term_timeout: float
    kill_timeout: float
    log: Log

    async def end(self, server: Server, *, now: bool) -> None:
        """End the server; do nothing where it has ended. now: without asking first.

        Raises WorkshopError where something of it will not end.
        """
        if not server.may_be_there():
            return
        if not now and self.term_timeout and _unless_unseen(server.lives):
            await self._ask(server)
        if server.group:
            await cgroup.end(server.group, timeout=self.kill_timeout)
        else:
            await self._sweep(server)

    async def _ask(self, server: Server) -> None:
        """Ask the server to end, and wait until it has, or its time is over."""
        deadline = time.monotonic() + self.term_timeout
        try:
            if not self._signal_directly(server):
                await self._signal(server, TERMINATE, tree=False)
        except WorkshopError as exc:
            self.log.warning("Server %s cannot be asked to end: %s", server.key, exc)
            return
        pause = 0.005
        while _unless_unseen(server.lives) and time.monotonic() < deadline:
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, 0.1)

    def _signal_directly(self, server: Server) -> bool:
        """Signal the session inside the cgroup, as root may; say whether it was done."""
        group = server.group
        leader = processes.stat(server.pid) if server.pid else None
        if os.geteuid() != 0 or group is None or leader is None:
            return False
        for member in cgroup.pids(group):
            still = _is_member(group, leader.session, member)
            processes.send(member, TERMINATE, still=still)
        return True

    async def _sweep(self, server: Server) -> None:
        """Kill, without a cgroup, what is in the server's session or carries its mark."""
        try:
            await self._signal(server, (signal.SIGKILL,), tree=True)
        except WorkshopError:
            if _unless_unseen(server.lives):
                raise
            self.log.warning("Left of server %s there may be processes.", server.key, exc_info=True)
        deadline = time.monotonic() + self.kill_timeout
        while _unless_unseen(server.lives):
            if time.monotonic() > deadline:
                raise WorkshopError(
                    f"The server's process {server.pid} did not end within {self.kill_timeout:g} "
                    "seconds after SIGKILL.",
                    remedy="Ask the administrator: the kernel may be waiting for a file system.",
                )
            await asyncio.sleep(0.01)

    async def _signal(self, server: Server, signals: tuple[int, ...], *, tree: bool) -> None:
        """Signal through the launcher; by number where the account is not what it was."""
        try:
            found = await accounts.lookup(server.account)
            name = found.name if found.uid == server.uid else None
        except AccountRefused:
            name = None
        await self.launcher.signal(server.target, name, signals, tree=tree)


def _is_member(group: Path, session: int, member: int) -> Callable[[], bool]:
    def check() -> bool:
        stat = processes.stat(member)
        return stat is not None and stat.session == session and member in cgroup.pids(group)

    return check


def _unless_unseen(look: Callable[[], bool]) -> bool:
    """Return what `look` says; True where it cannot be seen."""
    try:
        return look()
    except OSError:
        return True
