"""Stand above a hub as process 1 does: take in and reap whatever it leaves behind.

    reaper.py LOG COMMAND...

Prints the command's process id, then its exit status, and ends when nothing is left of all that
the command has started, servers that have detached themselves included. Until then they are all
found below this process. Standard library only.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys

PR_SET_CHILD_SUBREAPER = 36


def become_subreaper() -> None:
    """Have orphans among the descendants become children of this process (prctl(2))."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def main(log: str, *command: str) -> int:
    become_subreaper()
    with open(log, "ab") as output:  # noqa: PTH123 - pathlib would be one import more
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    print(child.pid, flush=True)
    while True:
        try:
            pid, status = os.wait()
        except ChildProcessError:
            return 0
        if pid == child.pid:
            child.returncode = os.waitstatus_to_exitcode(status)
            print(child.returncode, flush=True)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
