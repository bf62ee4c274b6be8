"""Look accounts up in the system's databases, off the event loop."""

from __future__ import annotations

import asyncio
import grp
import os
import pwd
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from workshop_hub.errors import AccountRefused, WorkshopError

T = TypeVar("T")

DEFAULT_UID_MIN = 1000
"""What login.defs(5) means by UID_MIN where the file does not set it."""

_POOL = ThreadPoolExecutor(max_workers=4, thread_name_prefix="accounts")


@dataclass(frozen=True)
class Account:
    """One account of the machine.

    groups: ids of all its groups, the primary one first.
    """

    name: str
    uid: int
    gid: int
    home: str
    shell: str
    groups: tuple[int, ...]


async def off_loop(call: Callable[[], T], *, deadline: float = 10.0) -> T:
    """Run a blocking look-up in a thread: a directory service behind NSS may take long.

    deadline: seconds. Raises WorkshopError where the answer does not come in time.
    """
    future = asyncio.get_running_loop().run_in_executor(_POOL, call)
    try:
        return await asyncio.wait_for(future, deadline)
    except asyncio.TimeoutError as exc:
        raise WorkshopError(
            f"The machine's user database did not answer within {deadline:g} seconds.",
            remedy="Ask the administrator to look at the directory service (sssd, LDAP).",
        ) from exc


def find(name: str) -> Account:
    """Return the account called `name`; AccountRefused where there is none. May block."""
    try:
        entry = pwd.getpwnam(name)
    except KeyError as exc:
        raise AccountRefused(
            f'The machine has no account "{name}".',
            remedy="Ask the administrator to create it.",
        ) from exc
    groups = os.getgrouplist(entry.pw_name, entry.pw_gid)
    ordered = (entry.pw_gid, *sorted(set(groups) - {entry.pw_gid}))
    return Account(entry.pw_name, entry.pw_uid, entry.pw_gid, entry.pw_dir, entry.pw_shell, ordered)


async def lookup(name: str) -> Account:
    """Like `find`, off the event loop."""
    return await off_loop(lambda: find(name))


def current() -> Account:
    """Return the account that this process runs as."""
    return find(pwd.getpwuid(os.getuid()).pw_name)


def group_name(gid: int) -> str:
    """Return the group's name, or its number where it has none."""
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


def uid_min(login_defs: Path = Path("/etc/login.defs")) -> int:
    """Return the first uid that belongs to a person (UID_MIN of login.defs(5))."""
    try:
        text = login_defs.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return DEFAULT_UID_MIN
    for line in text.splitlines():
        words = line.split()
        if len(words) >= 2 and words[0] == "UID_MIN" and words[1].isdecimal():
            return int(words[1])
    return DEFAULT_UID_MIN
