"""What this machine lets the process backend do, tried for real and told by `doctor`."""

from __future__ import annotations

import asyncio
import os
import time
from dataclasses import dataclass, field
from pathlib import Path

from workshop_hub.backends.base import Finding
from workshop_hub.errors import LauncherRefused, LimitsNotEnforceable, WorkshopError
from workshop_hub.launch import running
from workshop_hub.launch.sudo import NO_NEW_PRIVILEGES, add_rule, sudo_command
from workshop_hub.launch.warm import WarmLauncher
from workshop_hub.system import cgroup, delegation, processes, safety
from workshop_hub.system.accounts import off_loop
from workshop_hub.system.delegation import Tree

RETRY = 10.0
"""Seconds after which a machine that could not do something is tried again."""


@dataclass
class Machine:
    """Answers for one backend. What works is remembered; what does not is tried again.

    command: the launcher. sudo: how it is made the user's; empty where the hub runs servers itself.
    cgroup_parent: see ProcessBackend.
    """

    command: tuple[str, ...]
    sudo: tuple[str, ...]
    cgroup_parent: str
    _tree: Tree | LimitsNotEnforceable | None = None
    _tried: float = 0.0
    _safe: bool = False
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def tree(self) -> Tree | LimitsNotEnforceable:
        """Return the part of the cgroup tree for servers, or why there is none."""
        async with self._lock:
            works = isinstance(self._tree, Tree) and not self._tree.lacks
            gone = isinstance(self._tree, Tree) and not self._tree.users.is_dir()
            if self._tree is None or gone or (not works and time.monotonic() - self._tried > RETRY):
                self._tree = await off_loop(self._open_tree)
                self._tried = time.monotonic()
            return self._tree

    def _open_tree(self) -> Tree | LimitsNotEnforceable:
        try:
            return delegation.open_tree(self.cgroup_parent, cgroup.find_mount())
        except LimitsNotEnforceable as exc:
            return exc

    async def check_launcher(self) -> None:
        """Raise LauncherRefused where no server can be started, or not safely."""
        if self._safe:
            return
        if self.sudo:
            sudo_command(self.sudo)
            if os.geteuid() and processes.no_new_privileges():
                raise LauncherRefused(
                    "The hub runs with NoNewPrivs set, and sudo cannot become anybody else.",
                    remedy=NO_NEW_PRIVILEGES,
                )
            check_files(self.command)
        self._safe = True

    async def findings(self) -> list[Finding]:
        """Look for what would keep servers from starting."""
        return [
            await self._launcher_finding(),
            *await self._sudo_findings(),
            *await self._cgroup_findings(),
            *_hidepid_findings(),
        ]

    async def _launcher_finding(self) -> Finding:
        try:
            await self.check_launcher()
        except WorkshopError as exc:
            return Finding("error", "launcher", exc.message, exc.remedy)
        return Finding("ok", "launcher", " ".join([*self.sudo, *self.command]))

    async def _sudo_findings(self) -> list[Finding]:
        if not self.sudo or os.geteuid() == 0:
            return []
        try:
            argv = [*sudo_command(self.sudo), "-n", "-l"]
            code, words = await running.run_for_words(argv, b"", timeout=10)
        except WorkshopError as exc:
            return [Finding("error", "sudo", exc.message, exc.remedy)]
        remedy = add_rule(self.command)
        if code:
            return [Finding("error", "sudo", f"sudo said: {words.strip()[:300]}", remedy)]
        if not any(name in words for name in (self.command[-1], "NOPASSWD: ALL")):
            return [Finding("error", "sudo", "sudo does not let the hub run the launcher.", remedy)]
        return [Finding("ok", "sudo", "The hub may run the launcher without a password.")]

    async def _cgroup_findings(self) -> list[Finding]:
        tree = await self.tree()
        if isinstance(tree, LimitsNotEnforceable):
            return [Finding("warning", "limits", f"No limits: {tree.message}", tree.remedy)]
        if tree.lacks:
            return [Finding("warning", "limits", tree.lacks, tree.remedy)]
        found = [Finding("ok", "limits", f"cgroup v2 in {tree.users}")]
        if bare := tree.unprotected():
            found.append(
                Finding(
                    "warning",
                    "mem_guarantee",
                    f"Memory guarantees do not hold: {bare[0]} has no memory.low itself.",
                    "Set MemoryLow= of the slice and of the holder unit to at least the sum of "
                    "all guarantees.",
                )
            )
        return found


async def warm_findings(launcher: WarmLauncher) -> list[Finding]:
    """Say whether servers are started warm; start the launcher where there is none."""
    subject = "warm launcher"
    try:
        state = await launcher.state()
    except LauncherRefused as exc:
        return [Finding("warning", subject, exc.message, exc.remedy)]
    if state["trouble"]:
        message = f"Servers are started by sudo, not warm: {state['trouble']}."
        return [Finding("warning", subject, message, launcher.where_it_tells)]
    answers = f"process {state['pid']} answers, with {state['modules']} modules imported"
    left_out = [
        Finding(
            "warning",
            subject,
            f"The server extension {extension} is not shared: {reason}.",
            "Each server imports it itself, and starts later for that.",
        )
        for extension, reason in state["without"].items()
    ]
    return [Finding("ok", subject, answers), *left_out]


def _hidepid_findings() -> list[Finding]:
    if os.geteuid() == 0 or Path("/proc/1").exists():
        return []
    return [
        Finding(
            "warning",
            "processes",
            "/proc has hidepid set: without cgroups the hub cannot tell whether servers live.",
            "Mount /proc with the option gid= of a group that the hub's account is in.",
        )
    ]


def check_files(command: tuple[str, ...]) -> None:
    """Raise LauncherRefused where the launcher is missing, or others could replace it."""
    program = Path(command[0])
    if not program.is_file():
        raise LauncherRefused(
            f"The launcher {program} does not exist.",
            remedy="Set c.ProcessBackend.launcher_command, or sudospawner_path where launcher is "
            '"sudospawner", to the full path of what is installed.',
        )
    for file in safety.launcher_files(command):
        if reason := safety.trouble(file, os.geteuid()):
            raise LauncherRefused(
                f"The launcher is not safe to run as every user: {reason}",
                remedy="Install workshop-hub into a folder that belongs to root, such as "
                "/opt/workshop-hub, which everybody may read and nobody else may write.",
            )
