"""What all contenders share: the machine's accounts, the engine, and hubs made one by one."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from bench import machine
from bench.accounts import Accounts, User, end_processes
from bench.contenders import CGROUP, PREFIX, Contender
from bench.engine import Engine
from bench.hub import BenchHub
from workshop_hub.system import cgroup

SETTLE = 30.0
"""Seconds that a machine is given to become quiet before and after a class starts."""

GRACE = 3.0
"""Seconds after a stop in which what is ending may end."""

OF_A_USER = re.compile(r"wshbench\d{3}[^/]*$")
"""Names of control groups that were made for one user's server."""


class LeftOut(Exception):
    """A contender cannot run on this machine now; the message says why."""


class Groups:
    """The control groups that are made for servers; made itself before the first of them."""

    def __init__(self) -> None:
        self._before = machine.cgroups()
        self._used: set[str] = set()

    def note(self, pids: Iterable[int]) -> None:
        """Take down where servers are: a container's group is named after the container only."""
        self._used |= machine.cgroups_of(pids)

    def left(self) -> list[str]:
        """Return the folders of those that are still there."""
        return [
            folder
            for folder in machine.cgroups() - self._before
            if OF_A_USER.search(folder) or folder.endswith(tuple(self._used))
        ]


@dataclass(frozen=True)
class Stage:
    """Where a contender performs. engine: None without; why: what is wrong with it then.

    cells: how many users of a class run a cell.
    """

    accounts: Accounts
    cells: int
    engine: Engine | None = None
    why: str = ""

    def check(self, contender: Contender, users: int) -> None:
        """Raise LeftOut where a contender cannot run with so many users."""
        if contender.image and self.engine is None:
            raise LeftOut(self.why)
        need, there = contender.need_mb(users, min(users, self.cells)), machine.available_mb()
        if need > there:
            raise LeftOut(f"{users} users need {need:.0f} MB, and {there:.0f} MB are available")

    @contextmanager
    def hub(self, contender: Contender, users: Sequence[User]) -> Iterator[BenchHub]:
        """Start a contender's hub for users with fresh homes, on a quiet machine; end all of it."""
        self.accounts.freshen()
        fields = {"prefix": PREFIX, "cgroup": CGROUP, "image": "", "gateway": ""}
        env = {}
        if self.engine is not None and contender.image:
            fields |= {
                "image": self.engine.images[contender.image],
                "gateway": self.engine.gateway,
            }
            env = self.engine.env
        try:
            with BenchHub(contender.config, fields, env) as hub:
                hub.add_users([user.name for user in users])
                hub.noise = machine.wait_quiet(SETTLE)
                yield hub
        finally:
            self.clear_away(users)

    def clear_away(self, users: Sequence[User]) -> None:
        """Remove whatever servers may have left."""
        if self.engine is not None:
            self.engine.remove_containers()
        end_processes({user.uid for user in users})
        remove_cgroup(CGROUP)

    def leftovers(self, users: Sequence[User], groups: Groups) -> list[str]:
        """Return what is left of servers that were stopped: all that should be gone by now."""
        end = time.monotonic() + GRACE
        while True:
            left = self._left(users, groups)
            if not left or time.monotonic() > end:
                return left
            time.sleep(0.1)

    def _left(self, users: Sequence[User], groups: Groups) -> list[str]:
        uids = {user.uid for user in users}
        left = [
            f"process {machine.command_line(each.pid) or each.name}"
            for each in machine.owned_by(uids, machine.processes())
        ]
        left += machine.listeners(uids)
        left += [f"socket {path}" for path in machine.socket_files(uids)]
        left += [f"cgroup {folder}" for folder in groups.left()]
        if self.engine is not None:
            left += [f"container {name}" for name in self.engine.containers()]
        return sorted(left)


def remove_cgroup(name: str) -> None:
    """Remove a control group of ours with all below it; what still has processes stays."""
    mount = cgroup.find_mount()
    if mount is None:
        return
    top = mount.path / name
    for folder in sorted((each for each in top.rglob("*") if each.is_dir()), reverse=True):
        with suppress(OSError):
            folder.rmdir()
    with suppress(OSError):
        top.rmdir()
