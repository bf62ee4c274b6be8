"""The processes of an account, and their end."""

from __future__ import annotations

import signal
import time
from functools import partial
from pathlib import Path

from workshop_hub.errors import UsersFailed
from workshop_hub.system import processes

DEADLINE = 10.0
"""Seconds for the last processes of an account to end."""


def processes_of(uid: int) -> list[int]:
    """Return the processes that belong to an account and have not ended."""
    found = (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal())
    return [
        pid
        for pid in found
        if _belongs(pid, uid) and (stat := processes.stat(pid)) is not None and not stat.ended
    ]


def end_all(uid: int) -> None:
    """Kill all processes of an account. UsersFailed where some are there after `DEADLINE`."""
    deadline = time.monotonic() + DEADLINE
    while running := processes_of(uid):
        if time.monotonic() >= deadline:
            raise UsersFailed(
                f"{len(running)} of its processes cannot be ended: {listed(running)}."
            )
        for pid in running:
            processes.send(pid, [signal.SIGKILL], still=partial(_belongs, pid, uid))
        time.sleep(0.05)


def listed(pids: list[int]) -> str:
    """Name some processes, for an error."""
    return ", ".join(map(str, pids[:5])) + (" ..." if len(pids) > 5 else "")


def _belongs(pid: int, uid: int) -> bool:
    return processes.real_uid(pid) == uid
