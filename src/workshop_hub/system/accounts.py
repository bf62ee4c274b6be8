"""Look accounts up in the system's databases, and say which of them belong to people."""

from __future__ import annotations

import asyncio
import ctypes
import grp
import os
import pwd
import unicodedata
from collections.abc import Callable, Iterable, Set
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from workshop_hub.errors import AccountRefused, WorkshopError
from workshop_hub.system.daemon_threads import DaemonThreads
from workshop_hub.system.deadline import within

T = TypeVar("T")

PASSWD = Path("/etc/passwd")

LOGIN_DEFS = Path("/etc/login.defs")

DEFAULT_UID_MIN = 1000
"""What login.defs(5) means by UID_MIN and GID_MIN where the file does not set them."""

NAME_PATTERN = r"[a-z_][a-z0-9_-]{0,31}"
"""What useradd(8) calls a name that works everywhere."""

NAME_MAX = 255
"""Characters of an account's name at most (LOGIN_NAME_MAX of limits.h, without the NUL)."""

NOLOGIN_SHELLS = frozenset({"nologin", "false", "true", "sync", "halt", "shutdown"})
"""Programs in the place of a shell that are none; some systems list them in /etc/shells."""

_LIBC = ctypes.CDLL(None)

_NOBODY_UIDS = frozenset({65534, 65535, 2**32 - 2, 2**32 - 1})
_NOBODY_NAMES = frozenset({"nobody", "nfsnobody"})

THREADS = 64
"""Look-ups of a kind at the same time. A look-up that a directory does not answer keeps its thread
until glibc's module for that directory gives up: nothing else can end it."""

_OWN = DaemonThreads(THREADS, "accounts")
_OTHERS = DaemonThreads(THREADS, "accounts-elsewhere")


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


async def off_loop(call: Callable[[], T], *, name: str = "", deadline: float = 10.0) -> T:
    """Run a blocking look-up in a thread: a directory service behind NSS may take long.

    name: the account that it is about, if any. Those that the machine's own file does not have
    have threads of their own: whatever is asked of a directory that hangs, the others go on.
    deadline: seconds. Raises WorkshopError where the answer does not come in time.
    """
    pool = _OWN if not name or in_passwd(name) else _OTHERS
    try:
        return await within(deadline, asyncio.wrap_future(pool.submit(call)))
    except TimeoutError as exc:
        raise WorkshopError(
            f"The machine's user database did not answer within {deadline:g} seconds.",
            remedy="Ask the administrator to look at the directory service (sssd, LDAP).",
        ) from exc


def in_passwd(name: str, passwd: Path = PASSWD) -> bool:
    """Say whether the machine's own file has the account. Asks no directory."""
    try:
        return f"\n{name}:".encode(errors="surrogateescape") in b"\n" + passwd.read_bytes()
    except (OSError, UnicodeError):
        return False


def find(name: str) -> Account:
    """Return the account called `name`; AccountRefused where there is none. May block."""
    try:
        entry = pwd.getpwnam(name)
    except KeyError as exc:
        raise AccountRefused(
            f'The machine has no account "{name}".',
            remedy="Ask the administrator to create it.",
        ) from exc
    groups = _group_ids(entry.pw_name, entry.pw_gid)
    ordered = (entry.pw_gid, *sorted(set(groups) - {entry.pw_gid}))
    return Account(entry.pw_name, entry.pw_uid, entry.pw_gid, entry.pw_dir, entry.pw_shell, ordered)


def _group_ids(name: str, gid: int) -> list[int]:
    """Return the ids of an account's groups (getgrouplist(3)). May block.

    Not by os.getgrouplist, which lets no other thread run while it waits for a directory.
    """
    most = 64
    while True:
        found, number = (ctypes.c_uint * most)(), ctypes.c_int(most)
        told = (os.fsencode(name), ctypes.c_uint(gid), found, ctypes.byref(number))
        if _LIBC.getgrouplist(*told) >= 0:
            return found[: number.value]
        most = max(2 * most, number.value)


async def lookup(name: str) -> Account:
    """Like `find`, off the event loop."""
    return await off_loop(lambda: find(name), name=name)


def current() -> Account:
    """Return the account that this process runs as."""
    return find(pwd.getpwuid(os.getuid()).pw_name)


def group_name(gid: int) -> str:
    """Return the group's name, or its number where it has none."""
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


def named_groups(account: Account) -> list[tuple[str, int]]:
    """Return names and ids of the account's groups, without those that have no name. May block."""
    found = []
    for gid in account.groups:
        with suppress(KeyError):
            found.append((grp.getgrgid(gid).gr_name, gid))
    return found


def uid_min(login_defs: Path = LOGIN_DEFS) -> int:
    """Return the first uid that belongs to a person (UID_MIN of login.defs(5))."""
    return _number("UID_MIN", login_defs, DEFAULT_UID_MIN)


def gid_min(login_defs: Path = LOGIN_DEFS) -> int:
    """Return the first id of a group of people (GID_MIN of login.defs(5))."""
    return _number("GID_MIN", login_defs, DEFAULT_UID_MIN)


def _number(name: str, login_defs: Path, otherwise: int) -> int:
    try:
        text = login_defs.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return otherwise
    for line in text.splitlines():
        words = line.split()
        if len(words) >= 2 and words[0] == name and words[1].isdecimal():
            return int(words[1])
    return otherwise


def find_or_none(name: str) -> Account | None:
    """Like `find`, with None where there is no such account. May block."""
    try:
        return find(name)
    except AccountRefused:
        return None


@dataclass(frozen=True)
class Membership:
    """Which of the groups that were asked for an account belongs to.

    missing: those of them that the machine does not have.
    """

    groups: frozenset[str] = frozenset()
    missing: frozenset[str] = frozenset()


def membership(account: Account | None, names: Iterable[str]) -> Membership:
    """Look the groups called `names` up; primary and supplementary ones count. May block.

    An account that does not exist (None) belongs to none.
    """
    member, missing = set(), set()
    for name in names:
        try:
            gid = grp.getgrnam(name).gr_gid
        except (KeyError, ValueError):  # ValueError: a NUL in the name
            missing.add(name)
        else:
            if account is not None and gid in account.groups:
                member.add(name)
    return Membership(frozenset(member), frozenset(missing))


def unsafe_name(name: str) -> str:
    """Say why no account may ever be called so, whatever the site's own pattern; or "".

    These names mean something else to the programs that they are passed to: an option, a uid
    (`chown 1000`, `sudo -u '#1000'`), a path, a field of passwd(5).
    """
    if not name:
        return "it is empty"
    if len(name) > NAME_MAX:
        return f"it has {len(name)} characters; at most {NAME_MAX} are possible"
    if name[0] in "-#+~%":
        return f"it begins with {name[0]!r}"
    if any(letter in "/:,\n" for letter in name) or name in (".", ".."):
        return "it has a character that names a path or ends a field"
    if name.isdecimal():
        return "it is a number, which programs take for a uid"
    if name != name.strip():
        return "it begins or ends with a space"
    if any(unicodedata.category(letter) in ("Cc", "Cf", "Cs", "Zl", "Zp") for letter in name):
        return "it has a character that cannot be seen"
    return ""


def login_shells(
    files: Iterable[Path] = (Path("/etc/shells"), Path("/usr/etc/shells")),
) -> frozenset[str]:
    """Return the shells of people as shells(5) lists them; what getusershell(3) says without it."""
    for file in files:
        try:
            lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            continue
        return frozenset(line.strip() for line in lines if line.startswith("/"))
    return frozenset({"/bin/sh", "/bin/csh"})


def not_a_person(account: Account, *, min_uid: int, shells: Set[str] | None) -> str:
    """Say why the account belongs to no person who may log in; "" where it does.

    min_uid: the first uid of people. shells: those of people; None to accept any.
    """
    if account.uid == 0:
        return "it is root's (uid 0)"
    if account.uid in _NOBODY_UIDS or account.name in _NOBODY_NAMES:
        return "it is the account of nobody"
    if account.uid < min_uid:
        return f"its uid {account.uid} is below min_uid ({min_uid}): a system account"
    if shells is None:
        return ""
    shell = account.shell or "/bin/sh"  # passwd(5): an empty field means this
    if Path(shell).name in NOLOGIN_SHELLS:
        return f"its shell {shell} lets nobody log in"
    if shell not in shells:
        return f"its shell {shell} is not in /etc/shells"
    return ""


def has_empty_password(name: str, shadow: Path = Path("/etc/shadow")) -> bool:
    """Say whether any password opens the account, as far as this process may read. May block.

    An empty field in passwd(5) or shadow(5) together with pam_unix's `nullok`, which Debian's
    `login` has, lets in whatever is typed.
    """
    try:
        if pwd.getpwnam(name).pw_passwd == "":
            return True
        lines = shadow.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except (KeyError, OSError):
        return False
    return any(line.split(":")[:2] == [name, ""] for line in lines)
