"""Everything that can be known to be wrong before the first account is made."""

from __future__ import annotations

import datetime
import grp
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

from workshop_hub.errors import UsersRefused
from workshop_hub.people import ours, passwords, programs
from workshop_hub.people.ours import Found
from workshop_hub.people.wanted import Wanted
from workshop_hub.system import accounts

POWERFUL = frozenset({"adm", "disk", "docker", "incus", "kmem", "libvirt", "lxd", "mem", "podman"})
POWERFUL |= {"root", "shadow", "sudo", "sys", "systemd-journal", "wheel"}
"""Groups whose members are root, or can become it, or may read what is root's."""

FULL_NAME_MAX = 200
ADDRESS_MAX = 500


def require_root() -> None:
    """Raise UsersRefused for anyone else."""
    if os.geteuid() != 0:
        raise UsersRefused(
            "Only root can look after accounts.", remedy="Run this with sudo, or as root."
        )


def person_problems(
    wanted: Wanted, found: Found | None, *, pattern: str, homes: Path
) -> Iterator[str]:
    """Say all that keeps a person from having an account. pattern: what names must match.

    homes: the folder in which new homes are made.
    """
    if wanted.problem:
        yield wanted.problem
        if not wanted.name:
            return
    yield from _name_problems(wanted, found, pattern=pattern, homes=homes)
    if wanted.password and (reason := passwords.problem(wanted.password)):
        yield f"{wanted.where}: {reason}."
    if wanted.full_name and (reason := full_name_problem(wanted.full_name)):
        yield f"{wanted.where}: the full name {reason}."
    for group in wanted.groups:
        if reason := group_problem(group):
            yield f"{wanted.where}: {reason}"


def _name_problems(
    wanted: Wanted, found: Found | None, *, pattern: str, homes: Path
) -> Iterator[str]:
    reason = accounts.unsafe_name(wanted.name)
    if not reason and not re.fullmatch(pattern, wanted.name):
        reason = f"it does not match {pattern!r}"
    if not wanted.name:
        yield f"{wanted.where}: the name is missing."
    elif reason:
        yield f"{wanted.where} can be no name: {reason}."
    elif found is None:
        yield from _in_the_way(wanted, homes / wanted.name)
    elif not found.ours and not found.half_made:
        yield _not_ours(wanted, found)


def _not_ours(wanted: Wanted, found: Found) -> str:
    """Say that the account is not one of ours, and what to do instead."""
    said = (
        f"{wanted.where}: the machine has that account already, and it is not in the group "
        f"{ours.GROUP}: `workshop-hub users` has not made it. Choose another name"
    )
    if found.uid < max(1, accounts.uid_min()):
        return f"{said}."
    return (
        f"{said}; or, if it is this person's, let them log in with it: usermod --append --groups "
        f"GROUP {found.name}, with a group of the hub's allowed_groups that is not {ours.GROUP}."
    )


def _in_the_way(wanted: Wanted, home: Path) -> Iterator[str]:
    """Say what is there already that a new account of that name would have."""
    if os.path.lexists(home):
        yield f"{wanted.where}: {home} is there already, of uid {home.lstat().st_uid}."
    if _has_group(wanted.name):
        yield f"{wanted.where}: the machine has a group of that name, which the account needs."


def full_name_problem(name: str) -> str:
    """Say why a GECOS text cannot have this name, or a spreadsheet would run it; or ""."""
    if len(name) > FULL_NAME_MAX:
        return f"has more than {FULL_NAME_MAX} characters"
    if not name.isprintable() or any(letter in ":,=" for letter in name):
        return "has a comma, a colon, an equals sign or a character that cannot be seen"
    if name[0] in "+-@":
        return f"begins with {name[0]!r}"
    return ""


def group_problems(groups: Iterable[str]) -> Iterator[str]:
    """Say which groups nobody can be put into."""
    return (reason for group in groups if (reason := group_problem(group)))


def group_problem(group: str) -> str:
    """Say why nobody can be put into a group; or ""."""
    if group in POWERFUL:
        return (
            f"The group {group!r} gives its members root's rights, or nearly. If that is meant: "
            "usermod --append --groups, for one account at a time."
        )
    if not _has_group(group):
        return f"The machine has no group {group!r}. Make it (groupadd), or correct the name."
    return ""


def _has_group(name: str) -> bool:
    try:
        grp.getgrnam(name)
    except (KeyError, ValueError):
        return False
    return True


def day(text: str) -> datetime.date:
    """Return the day that a text names, as 2026-12-31. UsersRefused."""
    try:
        if not re.fullmatch(r"\d{4}-\d{2}-\d{2}", text, re.ASCII):
            raise ValueError(text)
        found = datetime.date.fromisoformat(text)
    except ValueError as exc:
        raise UsersRefused(f"{text!r} is no date.", remedy="Write it as 2026-12-31.") from exc
    if found <= ours.EPOCH:
        raise UsersRefused(f"{text} is too long ago for shadow(5).")
    return found


def expiry(text: str) -> datetime.date:
    """Return the first day on which new accounts are of no use. UsersRefused unless it is to come.

    Days begin at midnight UTC, as shadow(5) counts them.
    """
    found = day(text)
    if found <= ours.today():
        raise UsersRefused(f"{text} is not in the future: the accounts could never be used.")
    return found


def address_problem(address: str) -> str:
    """Say why an address cannot be on a slip; or ""."""
    try:
        parts = urlsplit(address)
        good = parts.scheme in ("http", "https") and parts.hostname and parts.password is None
    except ValueError:
        good = False
    if not good or not address.isprintable() or " " in address or len(address) > ADDRESS_MAX:
        return f"{address!r:.100} is no address. Write it as https://hub.example.org/."
    return ""


def homes_folder() -> Path:
    """Return where useradd makes homes. UsersFailed."""
    for line in programs.run(["useradd", "-D"]).splitlines():
        if line.startswith("HOME="):
            return Path(line.removeprefix("HOME="))
    return Path("/home")
