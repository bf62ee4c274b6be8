"""What the kernel tells of processes, CPU, memory, sockets and control groups."""

from __future__ import annotations

import os
import re
import stat
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")
PROC = Path("/proc")
CGROUPS = Path("/sys/fs/cgroup")
LISTENING = "0A"
"""State of a listening socket in /proc/net/tcp (include/net/tcp_states.h)."""

SOCKET_PLACES = ("/tmp", "/run", "/var/tmp", "/dev/shm")

QUIET = 0.15
"""Share of one core that a machine with nothing to do may use."""


@dataclass(frozen=True)
class Process:
    """One process. cpu: seconds of its own; reaped: of its children that have ended.

    started: clock ticks since boot; with the pid it names a process for good.
    """

    pid: int
    parent: int
    uid: int
    name: str
    started: int
    cpu: float
    reaped: float


def parse_process(stat_text: str, uid: int) -> Process | None:
    """Read a line of /proc/PID/stat (proc(5)); None for a process that has ended."""
    head, _, tail = stat_text.rpartition(")")
    pid, _, name = head.partition(" (")
    fields = tail.split()
    if fields[0] in "ZX":
        return None
    user, system, user_reaped, system_reaped = (int(each) for each in fields[11:15])
    return Process(
        pid=int(pid),
        parent=int(fields[1]),
        uid=uid,
        name=name,
        started=int(fields[19]),
        cpu=(user + system) / TICKS,
        reaped=(user_reaped + system_reaped) / TICKS,
    )


def processes() -> dict[int, Process]:
    """Return every living process of the machine by its id."""
    found = {}
    for entry in PROC.iterdir():
        if not entry.name.isdecimal():
            continue
        with suppress(OSError):
            # the owner of /proc/PID is root for a process that may not be dumped
            status = (entry / "status").read_text(errors="replace")
            uid = re.search(r"^Uid:\t(\d+)", status, re.MULTILINE)
            process = parse_process(
                (entry / "stat").read_text(errors="replace"), int(uid[1]) if uid else 0
            )
            if process is not None:
                found[process.pid] = process
    return found


def process(pid: int) -> Process | None:
    """Return one living process; None where there is none."""
    try:
        return parse_process((PROC / str(pid) / "stat").read_text(errors="replace"), 0)
    except OSError:
        return None


def below(root: int, among: Mapping[int, Process]) -> list[Process]:
    """Return the descendants of the process `root`, without itself."""
    children: dict[int, list[Process]] = {}
    for each in among.values():
        children.setdefault(each.parent, []).append(each)
    found: list[Process] = []
    waiting = [root]
    while waiting:
        own = children.get(waiting.pop(), [])
        found += own
        waiting += [each.pid for each in own]
    return found


def owned_by(uids: Collection[int], among: Mapping[int, Process]) -> list[Process]:
    """Return the processes of these users."""
    return [each for each in among.values() if each.uid in uids]


def command_line(pid: int) -> str:
    """Return a process's command; empty where it has ended."""
    try:
        return (PROC / str(pid) / "cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
    except OSError:
        return ""


def cpu_gone(before: Iterable[Process], after: Mapping[int, Process]) -> float:
    """Return the CPU seconds that these processes have used since, with children they reaped."""
    used = 0.0
    for old in before:
        new = after.get(old.pid)
        if new is not None and new.started == old.started:
            used += new.cpu + new.reaped - old.cpu - old.reaped
    return round(used, 4)


def busy_seconds() -> float:
    """Return the CPU seconds that the whole machine has worked since boot."""
    return parse_busy((PROC / "stat").read_text().splitlines()[0])


def parse_busy(line: str) -> float:
    """Read the first line of /proc/stat: all but the time spent idle or waiting for a disk."""
    user, nice, system, _, _, irq, softirq = (int(each) for each in line.split()[1:8])
    return (user + nice + system + irq + softirq) / TICKS


def available_mb() -> float:
    """Return the memory that could be had without swapping (MemAvailable)."""
    text = (PROC / "meminfo").read_text()
    found = re.search(r"^MemAvailable:\s+(\d+) kB", text, re.MULTILINE)
    assert found, "no MemAvailable in /proc/meminfo"
    return int(found[1]) / 1024


def pss_mb(pids: Iterable[int]) -> float:
    """Return the memory of these processes, what they share divided among its users (PSS)."""
    total = 0
    for pid in pids:
        with suppress(OSError):
            text = (PROC / str(pid) / "smaps_rollup").read_text()
            found = re.search(r"^Pss:\s+(\d+) kB", text, re.MULTILINE)
            total += int(found[1]) if found else 0
    return total / 1024


def listeners(uids: Collection[int]) -> list[str]:
    """Return the listening TCP sockets of these users, as `port 20001`."""
    found = []
    for table in ("tcp", "tcp6"):
        with suppress(OSError):
            found += parse_listeners((PROC / "net" / table).read_text(), uids)
    return found


def parse_listeners(table: str, uids: Collection[int]) -> list[str]:
    """Read /proc/net/tcp (proc(5))."""
    rows = (line.split() for line in table.splitlines()[1:])
    return [
        f"port {int(row[1].rpartition(':')[2], 16)}"
        for row in rows
        if row[3] == LISTENING and int(row[7]) in uids
    ]


def socket_files(uids: Collection[int]) -> list[str]:
    """Return the sockets of these users in the folders where everybody may make some."""
    return [
        path for place in SOCKET_PLACES for path in _files_below(place) if _is_socket_of(path, uids)
    ]


def _files_below(place: str) -> Iterator[str]:
    for folder, _, names in os.walk(place):
        for name in names:
            yield os.path.join(folder, name)  # noqa: PTH118 - many, and only to be looked at


def _is_socket_of(path: str, uids: Collection[int]) -> bool:
    with suppress(OSError):
        found = os.lstat(path)
        return stat.S_ISSOCK(found.st_mode) and found.st_uid in uids
    return False


def cgroups() -> set[str]:
    """Return the folders of all control groups, of every hierarchy."""
    return {folder for folder, _, _ in os.walk(CGROUPS)}


def cgroups_of(pids: Iterable[int]) -> set[str]:
    """Return the names of the control groups that processes are in, as the kernel has them."""
    found = set()
    for pid in pids:
        with suppress(OSError):
            lines = (PROC / str(pid) / "cgroup").read_text().splitlines()
            found |= {line.split(":", 2)[2] for line in lines}
    return found - {"/"}


def wait_quiet(deadline: float, *, share: float = QUIET) -> float:
    """Wait until the machine does next to nothing; return the last second's share of a core.

    deadline: seconds after which to go on all the same.
    """
    end = time.monotonic() + deadline
    while True:
        before, began = busy_seconds(), time.monotonic()
        time.sleep(1)
        used = (busy_seconds() - before) / (time.monotonic() - began)
        if used <= share or time.monotonic() >= end:
            return used
