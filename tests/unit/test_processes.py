"""Which process is which, while they come and go."""

from __future__ import annotations

import os
import subprocess

from workshop_hub.system.processes import descendants


def test_descendants_are_found_while_some_of_them_end() -> None:
    """Each has a child of its own, so that some end between two looks."""
    busy = "i=0; while [ $i -lt 500 ]; do (/bin/true; :); i=$((i + 1)); done"
    with subprocess.Popen(["sh", "-c", busy]) as shell:
        assert shell.pid in descendants(os.getpid())
        while shell.poll() is None:
            descendants(os.getpid())
    assert shell.pid not in descendants(os.getpid())
