"""What it costs to start a program as another user, beyond what the program itself costs.

    python -m bench.start_cost WAY USER STARTS

starts `true` so many times and prints, as JSON, the CPU seconds of one start: of the process that
asks for it, as a hub does (`hub`), and of everything that runs because of it (`rest`).
"""

from __future__ import annotations

import asyncio
import json
import os
import pwd
import resource
import subprocess
import sys
import tempfile
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

from bench.reaper import become_subreaper

PROGRAM = "/bin/true"
STARTS = 40
FIRST = 3
"""Starts that do not count: files are read, modules imported."""

TIMEOUT = 300.0
"""Seconds for all starts of one way."""

Way = Callable[[str, Path], Awaitable[None]]


async def direct(user: str, folder: Path) -> None:
    """Fork, become the user, execute: as a hub that is root can."""
    account = pwd.getpwnam(user)
    process = await asyncio.create_subprocess_exec(
        PROGRAM,
        user=account.pw_uid,
        group=account.pw_gid,
        extra_groups=os.getgrouplist(user, account.pw_gid),
        cwd=account.pw_dir,
        stdin=DEVNULL,
        start_new_session=True,
    )
    await process.wait()


async def sudo(user: str, folder: Path) -> None:
    """Use our launcher, through sudo."""
    from workshop_hub.backends.process import ProcessBackend
    from workshop_hub.launch.message import Order, read_report
    from workshop_hub.launch.sudo import SudoLauncher

    command = tuple(ProcessBackend().launcher_command)
    order = Order(key="bench", uid=pwd.getpwnam(user).pw_uid, cmd=(PROGRAM,), env={})
    with tempfile.TemporaryFile(dir=folder) as status, tempfile.TemporaryFile(dir=folder) as log:
        await SudoLauncher(("sudo",), command).start(
            order, user, group=None, status=status.fileno(), log=log.fileno(), timeout=TIMEOUT
        )
        status.seek(0)
        told = status.read().decode()
    if read_report(told).pid is None:
        raise RuntimeError(f"nothing was started: {told}")


async def sudospawner(user: str, folder: Path) -> None:
    """Use the mediator of sudospawner, as SudoSpawner does."""
    process = await asyncio.create_subprocess_exec(
        *("sudo", "-u", user, "-nH", str(mediator(folder)), "--logging=INFO"),
        stdin=PIPE,
        stdout=PIPE,
        stderr=PIPE,
    )
    told, _ = await process.communicate(b'{"action": "spawn", "args": [], "env": {}}')
    if b'"pid"' not in told:
        raise RuntimeError(f"nothing was started: {told.decode(errors='replace')}")


WAYS: dict[str, Way] = {"direct": direct, "sudo": sudo, "sudospawner": sudospawner}


def mediator(folder: Path) -> Path:
    """Return the mediator, beside which it finds our program in the place of a server."""
    script = folder / "sudospawner"
    if not script.exists():
        script.write_text(
            f"#!{sys.executable}\nimport sys\nfrom sudospawner.mediator import main\n"
            "sys.exit(main())\n"
        )
        script.chmod(0o755)
        (folder / "sudospawner-singleuser").symlink_to(PROGRAM)
    return script


def cpu(who: int) -> float:
    """Return CPU seconds so far."""
    used = resource.getrusage(who)
    return used.ru_utime + used.ru_stime


def reap() -> None:
    """Wait for what has detached itself: it comes to this process, and is counted."""
    with suppress(ChildProcessError):
        while True:
            os.wait()


async def repeat(way: Way, user: str, starts: int, folder: Path) -> dict[str, float]:
    """Start so many times, one after the other; return the CPU seconds of one start."""
    own = children = 0.0
    for number in range(-FIRST, starts):
        if number == 0:
            own, children = cpu(resource.RUSAGE_SELF), cpu(resource.RUSAGE_CHILDREN)
        await way(user, folder)
        reap()
    return {
        "hub": (cpu(resource.RUSAGE_SELF) - own) / starts,
        "rest": (cpu(resource.RUSAGE_CHILDREN) - children) / starts,
    }


def measure(user: str, starts: int = STARTS) -> dict[str, dict[str, float]]:
    """Measure every way in a process of its own. Raises CalledProcessError, TimeoutExpired."""
    found = {}
    for name in WAYS:
        done = subprocess.run(
            [sys.executable, "-m", "bench.start_cost", name, user, str(starts)],
            cwd=Path(__file__).parents[1],
            stdout=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
            timeout=TIMEOUT,
            check=True,
        )
        found[name] = json.loads(done.stdout)
    return found


def main(name: str, user: str, starts: str) -> None:
    become_subreaper()
    with tempfile.TemporaryDirectory(prefix="workshop-bench-") as folder:
        Path(folder).chmod(0o755)
        print(json.dumps(asyncio.run(repeat(WAYS[name], user, int(starts), Path(folder)))))


if __name__ == "__main__":
    main(*sys.argv[1:])
