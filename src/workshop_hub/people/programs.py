"""Run the system's programs for accounts, one run of `workshop-hub users` at a time."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

from workshop_hub.errors import UsersFailed, UsersRefused
from workshop_hub.system.account_hooks import last_lines
from workshop_hub.system.commands import SBIN

LOCK = Path("/run/workshop-hub-users.lock")

TIMEOUT = 60.0
"""Seconds for one program; useradd waits 15 for another one that changes accounts."""

LOCK_PATIENCE = 60.0
"""Seconds to wait for another run."""

_held: list[int] = []


@contextlib.contextmanager
def one_at_a_time() -> Iterator[None]:
    """Hold off other runs. UsersRefused where one does not end in time.

    The programs that are started share the lock. So what a killed run has started is waited for,
    too, and is not met half-way.
    """
    file = os.open(LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        _await_lock(file)
        _held.append(file)
        yield
    finally:
        _held.clear()
        os.close(file)


def _await_lock(file: int) -> None:
    deadline = time.monotonic() + LOCK_PATIENCE
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise UsersRefused(
                    f"Another `workshop-hub users` has been at work for {LOCK_PATIENCE:g} seconds.",
                    remedy=f"Wait for it, or end what holds {LOCK} (see: fuser -v {LOCK}).",
                ) from None
            time.sleep(0.05)
        else:
            return


def find(name: str) -> str | None:
    """Return the path of a program, also where PATH lacks the folders of root's."""
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:{SBIN}")


def environment() -> dict[str, str]:
    """Return what programs are given: nothing that is ours, and messages in English."""
    return {"PATH": f"/usr/local/bin:/usr/bin:/bin:{SBIN}", "LC_ALL": "C.UTF-8", "HOME": "/root"}


def run(
    words: Sequence[str],
    *,
    text: str = "",
    stdin: IO[bytes] | None = None,
    stdout: int = subprocess.PIPE,
    timeout: float = TIMEOUT,
    locked: bool = True,
    more: dict[str, str] | None = None,
) -> str:
    """Run a program to its end, and return what it prints. UsersFailed with its last lines.

    text: for its standard input; secrets go there, and never among the words. stdin: a file
    instead. locked: False for what runs as someone who is not to hold the lock. A signal to our
    group (Ctrl-C) does not reach it: what changes accounts is not to be ended half-way.
    """
    program = find(words[0])
    if program is None:
        raise UsersFailed(
            f"The program {words[0]} is missing.", remedy="Install the package that has it."
        )
    try:
        done = subprocess.run(
            [program, *words[1:]],
            input=text.encode() if stdin is None else None,
            stdin=stdin,
            stdout=stdout,
            stderr=subprocess.PIPE,
            timeout=timeout,
            env={**environment(), **(more or {})},
            cwd="/",
            start_new_session=True,
            pass_fds=_held if locked else (),
            check=False,
        )
    except subprocess.TimeoutExpired as exc:
        raise UsersFailed(f"{words[0]} did not end within {timeout:g} seconds.") from exc
    except OSError as exc:
        raise UsersFailed(f"{program} cannot be run: {exc.strerror}.") from exc
    said = done.stderr.decode("utf-8", "replace")
    if done.returncode:
        raise ProgramFailed(words[0], done.returncode, last_lines(said))
    return (done.stdout or b"").decode("utf-8", "replace")


class ProgramFailed(UsersFailed):
    """A program of the system's ended with an exit code other than 0."""

    label = "users_program"

    def __init__(self, program: str, exit_code: int, said: str) -> None:
        how = f"exit code {exit_code}" if exit_code >= 0 else f"signal {-exit_code}"
        super().__init__(f"{program} failed ({how}): {said or 'it did not say why'}")
        self.exit_code = exit_code
