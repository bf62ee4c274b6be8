"""cgroup v2: groups of processes with limits, found, made, read and removed as plain files.

Version 1 is not used: it has no cgroup.kill, and its soft limit is no guarantee.
https://docs.kernel.org/admin-guide/cgroup-v2.html
"""

from __future__ import annotations

import asyncio
import errno
import os
import re
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from workshop_hub.errors import LimitsNotEnforceable, WorkshopError

CONTROLLERS = ("cpu", "memory", "pids")

SWAP = "memory.swap.max"
"""Absent where the kernel does not count swap."""


_READ_ONLY = (
    "Remove ProtectControlGroups= from the hub's unit; in a container, mount cgroups writable."
)
_NO_RIGHT = (
    "The holder unit needs User= with the hub's account, and the hub's account must own "
    "cgroup.procs of the slice that both units are in (ExecStartPre=+/bin/chown in the hub's unit)."
)
_NOT_DELEGATED = "Add Delegate=cpu memory pids to the holder unit."


@dataclass(frozen=True)
class Mount:
    """Where cgroup v2 is mounted. root: what of the hierarchy is seen there; `/` for all."""

    path: Path
    root: str = "/"

    def name_of(self, group: Path) -> str:
        """Return the group's name as /proc/PID/cgroup has it."""
        inner = str(group.relative_to(self.path))
        return "/".join([self.root.rstrip("/"), inner]) if inner != "." else self.root


@dataclass(frozen=True)
class Setting:
    """One value to be written. option: the limit that it enforces, for messages."""

    file: str
    value: str
    option: str

    @property
    def controller(self) -> str:
        """The controller that the file belongs to."""
        return self.file.partition(".")[0]


def find_mount(mountinfo: Path = Path("/proc/self/mountinfo")) -> Mount | None:
    """Return the mount of cgroup v2, on a hybrid host too; None where there is none."""
    for line in mountinfo.read_text(errors="surrogateescape").splitlines():
        fields, _, tail = line.partition(" - ")
        if tail.split(" ", 1)[0] == "cgroup2":
            root, point = fields.split(" ")[3:5]
            return Mount(Path(_unescaped(point)), _unescaped(root))
    return None


def create(group: Path, settings: Iterable[Setting]) -> None:
    """Make the group and write its settings; LimitsNotEnforceable names file and errno."""
    try:
        group.mkdir()
    except OSError as exc:
        raise explain(exc, group) from exc
    for setting in settings:
        if setting.file == SWAP and not (group / SWAP).exists():
            refuse_uncounted_swap()
            continue
        try:
            write(group / setting.file, setting.value)
        except OSError as exc:
            raise explain(exc, group / setting.file, setting.option) from exc


def write(file: Path, value: str) -> None:
    """Write one value; OSError as the kernel gives it, which comes with the write or the close."""
    descriptor = os.open(file, os.O_WRONLY)
    try:
        os.write(descriptor, value.encode())
    finally:
        os.close(descriptor)


def pids(group: Path) -> set[int]:
    """Return the processes in the group itself; empty where it is gone."""
    try:
        return {int(line) for line in (group / "cgroup.procs").read_text().split()}
    except (FileNotFoundError, OSError) as exc:
        if _is_gone(exc):
            return set()
        raise


def populated(group: Path) -> bool:
    """Say whether any process lives in the group or below it."""
    try:
        return _table(group / "cgroup.events").get("populated") == 1
    except OSError as exc:
        if _is_gone(exc):
            return False
        raise


def oom_kills(group: Path) -> int:
    """Return how many processes were ended because the group's memory was used up."""
    with suppress(OSError):
        return _table(group / "memory.events").get("oom_kill", 0)
    return 0


def names(parent: Path) -> list[str]:
    """Return the names of the groups in `parent`; empty where it is gone."""
    try:
        return sorted(entry.name for entry in parent.iterdir() if entry.is_dir())
    except FileNotFoundError:
        return []


def cpu_seconds(group: Path) -> float | None:
    """Return the processor time used so far; None where it is not counted."""
    with suppress(OSError, KeyError):
        return _table(group / "cpu.stat")["usage_usec"] / 1e6
    return None


def number(group: Path, file: str) -> int | None:
    """Return the number that a file holds; None where it is absent, or says `max`."""
    with suppress(OSError, ValueError):
        return int((group / file).read_text())
    return None


def texts(group: Path, files: Iterable[str]) -> Mapping[str, str]:
    """Return the contents of those of the files that exist."""
    found = {}
    for file in files:
        with suppress(OSError):
            found[file] = (group / file).read_text().strip()
    return found


async def end(group: Path, *, timeout: float) -> None:
    """Kill all in the group and remove it; do nothing where it is gone.

    timeout: seconds for the processes to be gone. Raises WorkshopError after that.
    """
    deadline = time.monotonic() + timeout
    while populated(group):
        with suppress(FileNotFoundError):
            write(group / "cgroup.kill", "1")
        if time.monotonic() > deadline:
            raise WorkshopError(
                f"Processes in {group} did not end within {timeout:g} seconds after SIGKILL.",
                remedy="Ask the administrator: the kernel may be waiting for a disk or a network "
                "file system.",
            )
        await asyncio.sleep(0.005)
    while not remove(group):
        if time.monotonic() > deadline:
            raise WorkshopError(f"The empty cgroup {group} cannot be removed.")
        await asyncio.sleep(0.005)


def explain(error: OSError, path: Path, option: str = "") -> LimitsNotEnforceable:
    """Put a refusal of the cgroup file system into words."""
    reason, remedy = _REASONS.get(
        error.errno or 0, (f"{error.strerror} (errno {error.errno})", "Look at the kernel's log.")
    )
    what = f"{option} cannot be enforced: " if option else ""
    return LimitsNotEnforceable(f"{what}{path}: {reason}.", remedy=remedy)


_REASONS = {
    errno.EROFS: ("cgroups are mounted read-only (EROFS)", _READ_ONLY),
    errno.EACCES: ("the hub's account may not write there (EACCES)", _NO_RIGHT),
    errno.EBUSY: (
        "processes live in this group, which is to hold groups only (EBUSY)",
        "Move them into a group below it first, as the holder unit does.",
    ),
    errno.ENOENT: ("the file or a controller is missing (ENOENT)", _NOT_DELEGATED),
    errno.EOPNOTSUPP: (
        "the group cannot hold processes (EOPNOTSUPP)",
        "Choose another ProcessBackend.cgroup_parent.",
    ),
}


def refuse_uncounted_swap(swaps: Path = Path("/proc/swaps")) -> None:
    """Raise LimitsNotEnforceable where a server could go round its memory limit by swapping."""
    if swaps.exists() and len(swaps.read_text().splitlines()) > 1:
        raise LimitsNotEnforceable(
            "mem_limit cannot be enforced: the kernel does not count swap, and swap is in use.",
            remedy="Boot with swapaccount=1, or turn swap off (swapoff -a).",
        )


def remove(group: Path) -> bool:
    """Remove the group and those below it; say whether it is gone."""
    try:
        gone = [remove(entry) for entry in group.iterdir() if entry.is_dir()]
        if all(gone):
            group.rmdir()
            return True
    except OSError as exc:
        if _is_gone(exc):
            return True
        if exc.errno != errno.EBUSY:  # a zombie's last traces take a moment to go
            raise
    return False


def _is_gone(error: OSError) -> bool:
    return error.errno in (errno.ENOENT, errno.ENODEV)


def _table(file: Path) -> dict[str, int]:
    rows = (line.split() for line in file.read_text().splitlines())
    return {row[0]: int(row[1]) for row in rows if len(row) == 2 and row[1].isdecimal()}


def _unescaped(text: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)
