"""Runs a launcher: one short-lived process that is told one thing and has a deadline."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from workshop_hub.errors import LauncherRefused

ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LC_ALL": "C",
}
"""For the launcher: nothing of the hub's own environment, which holds its secrets. sudo's words
come in English, for `sudo.explain` to understand."""

LAUNCH_TIMEOUT = 30.0
"""Seconds for sudo and the launcher, which take 0.02 where no directory service is slow."""

GRACE = 5.0
"""Seconds that a launcher is given to finish when nobody waits for it any more."""

JOIN_FAILED = 125
"""Exit code of the wrapper where it could not enter the cgroup."""

ENTER = 'echo $$ >"$1/cgroup.procs" || exit 125; shift; exec "$@"'
"""A shell enters the cgroup and becomes the launcher. Python's preexec_fn would do the same, but
makes each start copy the hub's page tables (8 ms against 0.7 ms for a hub of usual size)."""


class Launched(NamedTuple):
    """What a launcher has come to.

    code: its exit code. serves: whether the server is known to serve its port, and nobody else.
    """

    code: int
    serves: bool = False


def inside(group: Path | None, argv: Sequence[str]) -> list[str]:
    """Return the command that runs `argv` inside the cgroup; `argv` where there is none."""
    return ["/bin/sh", "-c", ENTER, "sh", str(group), *argv] if group else list(argv)


async def run(argv: Sequence[str], told: bytes, *, out: int, err: int, timeout: float) -> int:
    """Run `argv` in a session of its own, tell it `told`, return its exit code.

    out, err: open files. timeout: seconds. Raises LauncherRefused after that, or where the
    program cannot be run. When cancelled it waits for the launcher to finish first, for GRACE
    seconds: what was started can be ended only when it is known.
    """
    try:
        process = await asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.PIPE,
            stdout=out,
            stderr=err,
            env=ENVIRONMENT,
            cwd="/",
            start_new_session=True,
        )
    except OSError as exc:
        raise LauncherRefused(f"{argv[0]} cannot be run: {exc.strerror}.") from exc
    talk = asyncio.ensure_future(process.communicate(told))
    try:
        in_time, _ = await asyncio.wait({talk}, timeout=timeout)
    except asyncio.CancelledError:
        await asyncio.wait({talk}, timeout=GRACE)
        raise
    finally:
        if not talk.done():
            await _give_up(process, talk)
    if not in_time or process.returncode is None:
        raise LauncherRefused(
            f"The launcher did not finish within {timeout:g} seconds.",
            remedy="Ask the administrator: sudo may wait for a directory service (LDAP, sssd).",
        )
    return process.returncode


async def run_for_words(argv: Sequence[str], told: bytes, *, timeout: float) -> tuple[int, str]:
    """Like `run`, with the first of what it prints."""
    # a pipe would let a process of the user fill the hub's memory
    with tempfile.TemporaryFile() as words:
        code = await run(argv, told, out=words.fileno(), err=words.fileno(), timeout=timeout)
        words.seek(0)
        return code, words.read(8192).decode(errors="replace")


async def _give_up(
    process: asyncio.subprocess.Process, talk: asyncio.Future[tuple[bytes, bytes]]
) -> None:
    """End a launcher that does not end: sudo passes TERM on, and nobody but root may kill it."""
    for end in (process.terminate, process.kill):
        with suppress(ProcessLookupError, PermissionError):
            end()
        await asyncio.wait({talk}, timeout=1.0)
        if talk.done():
            return
    talk.cancel()
    with suppress(asyncio.CancelledError):
        await talk
