"""Which process is which: a pid alone means another process tomorrow."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")


@dataclass(frozen=True)
class Stat:
    """From proc_pid_stat(5). start_time: clock ticks since boot."""

    state: str
    session: int
    start_time: int

    @property
    def ended(self) -> bool:
        """Whether it only waits for its parent to ask for its exit code."""
        return self.state in "ZX"


def boot_id() -> str:
    """Return what is different after every boot of the machine."""
    return (PROC / "sys/kernel/random/boot_id").read_text().strip()


def stat(pid: int) -> Stat | None:
    """Return what the kernel says of a process; None where none is to be seen."""
    try:
        # the name before the last ")" is the process's own choice, spaces and brackets included
        fields = (PROC / str(pid) / "stat").read_bytes().rpartition(b")")[2].split()
        return Stat(fields[0].decode(), int(fields[3]), int(fields[19]))
    except (OSError, IndexError, ValueError):
        return None


def real_uid(pid: int) -> int | None:
    """Return the account that a process belongs to; None where there is no such process."""
    return _status_number(PROC / str(pid) / "status", "Uid:")


def gids_of(uid: int) -> set[int]:
    """Return the primary groups that an account's processes have."""
    found = {
        _status_number(entry / "status", "Gid:")
        for entry in PROC.iterdir()
        if entry.name.isdecimal() and real_uid(int(entry.name)) == uid
    }
    return {gid for gid in found if gid is not None}


def hidden(pid: int) -> bool:
    """Say whether a process exists that /proc does not show (its mount option `hidepid`)."""
    try:
        os.kill(pid, 0)
    except PermissionError:
        return not (PROC / str(pid)).exists()
    except OSError:
        pass
    return False


def no_new_privileges() -> bool:
    """Say whether this process, and with it sudo, was denied every other account's rights."""
    return _status_number(PROC / "self/status", "NoNewPrivs:") == 1


def send(pid: int, signals: Iterable[int], *, still: Callable[[], bool]) -> None:
    """Send signals to the process `pid` if `still` says that it is the one that was meant.

    With a pidfd (pidfd_open(2), Linux 5.3) nothing can come between the question and the signal.
    Raises PermissionError for a process of somebody else; does nothing where it is gone.
    """
    with suppress(ProcessLookupError):
        if not hasattr(os, "pidfd_open"):
            if still():
                for number in signals:
                    os.kill(pid, number)
            return
        held = os.pidfd_open(pid)
        try:
            if still():
                for number in signals:
                    signal.pidfd_send_signal(held, number)
        finally:
            os.close(held)


def _status_number(path: Path, label: str) -> int | None:
    try:
        for line in path.read_text(errors="replace").splitlines():
            if line.startswith(label):
                return int(line.split()[1])
    except (OSError, IndexError, ValueError):
        pass
    return None


def descendants(pid: int) -> list[int]:
    """Return the processes that a process has started, and those that these have."""
    found: list[int] = []
    with suppress(OSError):  # it has ended
        for task in (PROC / f"{pid}/task").iterdir():
            with suppress(OSError):
                found += [int(child) for child in (task / "children").read_text().split()]
    return [*(each for child in found for each in descendants(child)), *found]
