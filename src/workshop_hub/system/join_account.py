"""Make one account in one group, with a password: the part of self-registration that needs root.

    PYTHON -I -m workshop_hub.system.join_account --group GROUP --most NUMBER

A hub that is not root runs this through sudo, with these arguments and no others, so that it can
give nobody more than an ordinary account in that group, and change nobody's password: only that
of an account which was made here, and never had one.

Reads JSON from its standard input: {"name": ..., "password": ...}. Prints a line of JSON:

    {"outcome": "made"}                       the account is there and has the password
    {"outcome": "name"}                       no such name may be registered
    {"outcome": "taken"}                      an account, a group or a home of this name is there
    {"outcome": "full"}                       the group has as many members as it may
    {"outcome": "password", "text": ...}      the machine's rules (PAM) refuse the password

Anything else that goes wrong is told on standard error, with an exit code that is not 0. It can be
ended at any time; the next call with the same name begins again.
"""

from __future__ import annotations

import argparse
import fcntl
import grp
import json
import os
import pwd
import re
import subprocess
import sys
from pathlib import Path
from subprocess import SubprocessError

from workshop_hub.errors import WorkshopError
from workshop_hub.system import accounts
from workshop_hub.system.commands import SBIN
from workshop_hub.system.privileged import forget_the_starter, unsafe
from workshop_hub.system.reserved_names import is_reserved
from workshop_hub.system.useradd import home_problem, useradd_command

NAME = re.compile(r"[a-z][a-z0-9_-]{0,31}")
"""What useradd(8) takes everywhere; "_" at the beginning is the packages' own."""

UNFINISHED = "!workshop-hub-join"
"""Password field of an account that was made here and has no password yet. Nobody can log in with
it, and only root can write it."""

LOCK = Path("/run/workshop-hub-join.lock")

TIMEOUT = 40.0
"""Seconds for each program that is run."""

ORDER_MAX = 8192
"""Bytes that are read at most."""

BAD_PASSWORD = re.compile(r"BAD PASSWORD: *([ -~]{1,200})")
"""How pam_pwquality and its like tell what they want (pam_pwquality(8))."""


class Refused(Exception):
    """The account is not made, for a reason that is the asker's to know."""

    def __init__(self, outcome: str, text: str = "") -> None:
        super().__init__(outcome)
        self.answer = {"outcome": outcome, **({"text": text} if text else {})}


def main(words: list[str]) -> int:
    """Read an order, do it, print the answer; return the exit code."""
    parser = argparse.ArgumentParser(prog="join_account")
    parser.add_argument("--group", required=True)
    parser.add_argument("--most", required=True, type=int)
    given = parser.parse_args(words)
    by_sudo = "SUDO_UID" in os.environ
    forget_the_starter()
    if by_sudo and (reason := unsafe()):
        print(f"join_account: not safe to run as root: {reason}", file=sys.stderr)  # noqa: T201
        return 1
    try:
        order = json.loads(sys.stdin.buffer.read(ORDER_MAX))
        name, password = str(order["name"]), str(order["password"])
        with open(LOCK, "a", opener=_private) as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            join(name, password, group=given.group, most=given.most)
    except Refused as exc:
        print(json.dumps(exc.answer))  # noqa: T201 -- the answer
    except (WorkshopError, OSError, LookupError, TypeError, ValueError, SubprocessError) as exc:
        # not the exception's own text where that could be the order's
        what = exc if isinstance(exc, (WorkshopError, OSError)) else type(exc).__name__
        print(f"join_account: {what}", file=sys.stderr)  # noqa: T201
        return 1
    else:
        print(json.dumps({"outcome": "made"}))  # noqa: T201
    return 0


def join(name: str, password: str, *, group: str, most: int) -> None:
    """Make the account and give it its password. Raises Refused, WorkshopError."""
    check_group(group)
    if not NAME.fullmatch(name) or is_reserved(name):
        raise Refused("name")
    if any(letter in password for letter in "\n\0") or not password:
        raise Refused("password", "It has a character that cannot be typed.")
    if _password_field(name) == UNFINISHED:  # an earlier call was ended before it was done
        _remove(name)
    if accounts.find_or_none(name) or _has_group(name) or os.path.lexists(_home_base() / name):
        raise Refused("taken")
    if members(group) >= most:
        raise Refused("full")
    _run(*useradd_command(), "--groups", group, "--password", UNFINISHED, "--", name)
    account = accounts.find(name)
    problem = (
        accounts.not_a_person(account, min_uid=accounts.uid_min(), shells=None)
        or home_problem(account)
        or ("" if grp.getgrnam(group).gr_gid in account.groups else f"it is not in {group}")
    )
    if problem:
        raise WorkshopError(f'The account "{name}" exists and is not fit for use: {problem}.')
    _set_password(name, password)


def check_group(group: str) -> None:
    """Raise WorkshopError where the group is missing, or one of the system's own."""
    try:
        gid = grp.getgrnam(group).gr_gid
    except (KeyError, ValueError) as exc:
        raise WorkshopError(
            f'The machine has no group "{group}" (join_group).', remedy=f"Run: groupadd {group}"
        ) from exc
    least = accounts.gid_min()
    if gid < least:
        raise WorkshopError(
            f'The group "{group}" (join_group) has the gid {gid}, below GID_MIN ({least}): it is '
            "one of the system's own, whose members may more than others.",
            remedy="Name a group that was made for the workshop (groupadd).",
        )


def members(group: str) -> int:
    """Count the accounts that a group has, by name and as their primary one."""
    entry = grp.getgrnam(group)
    primary = {each.pw_name for each in pwd.getpwall() if each.pw_gid == entry.gr_gid}
    return len(primary | set(entry.gr_mem))


def _set_password(name: str, password: str) -> None:
    """Give it its first password; where that is refused, there is no account any more."""
    done = subprocess.run(
        ["chpasswd"],
        input=f"{name}:{password}\n".encode(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=_environment(),
        timeout=TIMEOUT,
        check=False,
    )
    if done.returncode == 0 and _password_field(name) != UNFINISHED:
        return
    _remove(name)
    told = BAD_PASSWORD.findall(done.stdout.decode("ascii", "replace"))
    if told:
        raise Refused("password", told[-1].strip())
    raise WorkshopError(f"chpasswd failed with exit code {done.returncode}.")


def _remove(name: str) -> None:
    """Remove what was made here and never used: by force, for a process may have had its uid."""
    _run("userdel", "--force", "--remove", "--", name)


def _run(*command: str) -> None:
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=_environment(),
        timeout=TIMEOUT,
        check=False,
    )
    if done.returncode:
        said = done.stdout.decode("utf-8", "replace").strip()[-1000:]
        raise WorkshopError(f"{command[0]} failed with exit code {done.returncode}: {said}")


def _environment() -> dict[str, str]:
    # what PAM's modules say is read
    return {"PATH": f"/usr/bin:/bin:{SBIN}", "LC_ALL": "C", "LANGUAGE": "C"}


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)


def _has_group(name: str) -> bool:
    try:
        grp.getgrnam(name)
    except KeyError:
        return False
    return True


def _home_base(defaults: Path = Path("/etc/default/useradd")) -> Path:
    """Return the folder of new homes (useradd(8), HOME)."""
    found = re.findall(r"^HOME=(/\S*)$", defaults.read_text() if defaults.exists() else "", re.M)
    return Path(found[-1] if found else "/home")


def _password_field(name: str, shadow: Path = Path("/etc/shadow")) -> str:
    """Return what shadow(5) has for an account; "" where it has none of that name."""
    for line in shadow.read_text(encoding="utf-8", errors="surrogateescape").splitlines():
        fields = line.split(":")
        if fields[0] == name:
            return fields[1]
    return ""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
