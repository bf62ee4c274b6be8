"""The control group in which a demo's servers are held to their limits."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator

from workshop_hub.system import cgroup

DEADLINE = 5.0
"""Seconds for the traces of ended processes to go."""


@contextlib.contextmanager
def demo_cgroup() -> Iterator[str]:
    """Give the name of a group of the demo's own, which is removed afterwards.

    The name is empty where we are not root: the backend then looks for a group that is there.
    """
    mount = cgroup.find_mount()
    if os.geteuid() != 0 or mount is None:
        yield ""
        return
    name = f"workshop-hub-demo-{os.getpid()}"
    try:
        yield name
    finally:
        deadline = time.monotonic() + DEADLINE
        while not cgroup.remove(mount.path / name) and time.monotonic() < deadline:
            time.sleep(0.05)
