"""Read what the kernel knows of a container: use, limits and ended processes, cgroup v1 or v2.

Files: https://docs.kernel.org/admin-guide/cgroup-v2.html and .../cgroup-v1/.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

UNLIMITED_V1 = 1 << 60
"""Version 1 has no word for "no limit": it says the largest number of whole pages."""

DEFAULT_SHARES = 1024
"""What the kernel gives to a group that asked for nothing (version 1)."""


@dataclass(frozen=True)
class ContainerCgroup:
    """The folders of one container's control group.

    memory, cpu, cpuacct, pids: folder of each controller; all the same in version 2.
    """

    version: int
    memory: Path
    cpu: Path
    cpuacct: Path
    pids: Path

    def memory_used(self) -> int | None:
        """Return the use in bytes."""
        return _number(self.memory / self._name("memory.usage_in_bytes", "memory.current"))

    def cpu_used(self) -> float | None:
        """Return the seconds so far."""
        if self.version == 2:
            return _scaled(_field(self.cpu / "cpu.stat", "usage_usec"), 1e6)
        return _scaled(_number(self.cpuacct / "cpuacct.usage"), 1e9)

    def processes(self) -> int | None:
        """Return how many processes and threads there are."""
        return _number(self.pids / "pids.current")

    def oom_kills(self) -> int | None:
        """Return how many processes the kernel ended for want of memory."""
        return _field(self.memory / self._name("memory.oom_control", "memory.events"), "oom_kill")

    def memory_limit(self) -> int | None:
        """Return the limit in bytes; None for no limit."""
        return self._bytes("memory.limit_in_bytes", "memory.max")

    def memory_guarantee(self) -> int | None:
        """Return the bytes that are reclaimed last; None for none."""
        return self._bytes("memory.soft_limit_in_bytes", "memory.low") or None

    def pids_limit(self) -> int | None:
        """Return how many there may be; None for no limit."""
        return _number(self.pids / "pids.max")

    def cpu_limit(self) -> float | None:
        """Return the limit in cores; None for no limit."""
        if self.version == 2:
            quota, _, period = _text(self.cpu / "cpu.max").partition(" ")
        else:
            quota = _text(self.cpu / "cpu.cfs_quota_us")
            period = _text(self.cpu / "cpu.cfs_period_us")
        if not quota.isdecimal() or not period.isdecimal():
            return None
        return int(quota) / int(period)

    def cpu_shares(self) -> int | None:
        """Return the weight on the scale of version 1, where 1024 is the default."""
        if self.version == 1:
            return _number(self.cpu / "cpu.shares")
        weight = _number(self.cpu / "cpu.weight")
        return None if weight is None else 2 + (weight - 1) * 262142 // 9999

    def cpu_weight_is(self, shares: int) -> bool:
        """Say whether the kernel's weight is what a runtime makes of that many shares.

        Two formulas are in use for version 2: the linear one, and the one of runc 1.3.2 and crun
        1.23 (https://github.com/opencontainers/cgroups/pull/20), which keeps the default default.
        """
        if self.version == 1:
            return self.cpu_shares() == shares
        import math

        power = math.log2(shares)
        curved = math.ceil(10 ** ((power * power + 125 * power) / 612 - 7 / 34))
        return _number(self.cpu / "cpu.weight") in (1 + (shares - 2) * 9999 // 262142, curved)

    def _name(self, v1: str, v2: str) -> str:
        return v1 if self.version == 1 else v2

    def _bytes(self, v1: str, v2: str) -> int | None:
        value = _number(self.memory / self._name(v1, v2))
        return None if value is None or value >= UNLIMITED_V1 else value


def find(pid: int, container: str, proc: Path = Path("/proc")) -> ContainerCgroup | None:
    """Find the control group of a container by one of its processes; None where it cannot be.

    container: its id, which must be part of the path: the pid may have been given to another
    process meanwhile, or belong to another machine's or container's numbering.
    """
    paths: dict[str, str] = {}
    for line in _text(proc / str(pid) / "cgroup").splitlines():
        _, names, path = line.split(":", 2)
        for name in names.split(","):
            paths[name] = path
    if container not in paths.get("memory", paths.get("", "")):
        return None
    mounts = _mounts(proc)
    if "memory" in paths:
        found = [_folder(mounts, name, paths) for name in ("memory", "cpu", "cpuacct", "pids")]
        memory, cpu, cpuacct, pids = found
        if memory is None or cpu is None or cpuacct is None or pids is None:
            return None
        return ContainerCgroup(1, memory, cpu, cpuacct, pids)
    unified = _folder(mounts, "", paths)
    return ContainerCgroup(2, unified, unified, unified, unified) if unified else None


def _mounts(proc: Path) -> dict[str, tuple[str, str]]:
    """Return root and mount point by controller, "" for version 2 (proc_pid_mountinfo(5))."""
    found: dict[str, tuple[str, str]] = {}
    for line in _text(proc / "self" / "mountinfo").splitlines():
        left, _, right = line.partition(" - ")
        kind, _, options = right.split(" ", 2)
        _, _, _, root, point, *_ = left.split(" ")
        if kind == "cgroup2":
            found.setdefault("", (root, point))
        elif kind == "cgroup":
            for name in options.split(","):
                found.setdefault(name, (root, point))
    return found


def _folder(
    mounts: dict[str, tuple[str, str]], controller: str, paths: dict[str, str]
) -> Path | None:
    if controller not in mounts or controller not in paths:
        return None
    root, point = mounts[controller]
    path = paths[controller]
    if root != "/":
        if not path.startswith(root):
            return None
        path = path[len(root) :]
    folder = Path(point) / path.lstrip("/")
    return folder if folder.is_dir() else None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def _number(path: Path) -> int | None:
    text = _text(path)
    return int(text) if text.isdecimal() else None


def _field(path: Path, name: str) -> int | None:
    for line in _text(path).splitlines():
        key, _, value = line.partition(" ")
        if key == name:
            return int(value)
    return None


def _scaled(value: int | None, unit: float) -> float | None:
    return None if value is None else value / unit
