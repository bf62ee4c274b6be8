"""`workshop-hub demo` on a machine with cgroup v2 holds its servers to their limits."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from guest import CGROUPS

PROGRAM = Path(sys.executable).with_name("workshop-hub")


def test_the_demo_of_root_is_limited_by_the_kernel_and_leaves_nothing() -> None:
    before = {entry.name for entry in (*CGROUPS.iterdir(), *Path("/home").iterdir())}
    done = subprocess.run(
        [PROGRAM, "demo", "--check", "--port", "0"],
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for limit in ("cpu_limit 1", "mem_limit 1G", "pids_limit 4096"):
        assert f"in force, as the kernel's files say: {limit}" in done.stdout
    assert {entry.name for entry in (*CGROUPS.iterdir(), *Path("/home").iterdir())} <= before
