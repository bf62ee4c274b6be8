"""Carry out what was planned for a person. Each step can be done again after a crash."""

from __future__ import annotations

import grp
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from workshop_hub.errors import UsersFailed
from workshop_hub.people import hashes, ours, passwords, programs, quota, starter
from workshop_hub.people.ours import Found
from workshop_hub.people.plan import Plan
from workshop_hub.people.sheet import Row, Sheet
from workshop_hub.people.starter import Archive
from workshop_hub.system import accounts, useradd

SHELLS = ("/bin/bash", "/bin/sh")


@dataclass(frozen=True)
class Tools:
    """What the steps need. mount: where quotas are set. files: what homes are given."""

    sheet: Sheet
    address: str = ""
    mount: Path | None = None
    files: Archive | None = None


def ensure_group() -> None:
    """Make the group of our accounts where it is missing. UsersFailed."""
    try:
        grp.getgrnam(ours.GROUP)
    except KeyError:
        programs.run(["groupadd", "--system", "--", ours.GROUP])


def carry_out(plan: Plan, tools: Tools) -> str:
    """Do what is planned for one person; say in a word what it was. UsersFailed.

    The password comes last, so that nobody gets into an account that is not complete; and the
    sheet before the password, so that there is none which nobody knows.
    """
    name = plan.wanted.name
    if plan.make:
        make(plan)
    found = _there(name)
    if plan.mend:
        found = mend(found)
    if not plan.make:
        _join(name, plan.groups)
        if plan.expires:
            set_expiry(name, str(plan.expires))
    if plan.quota and tools.mount:
        quota.set_limit(name, plan.quota, tools.mount)
    if plan.files and tools.files:
        starter.put(tools.files, found)
    if plan.set_password:
        give_password(found, plan.wanted.password or passwords.generate(), tools)
        return "made" if plan.make else "completed"
    if plan.password or name in tools.sheet.rows:
        record(found, plan.password, tools)  # a slip of what this sheet never knew is of no use
    if plan.expires:
        return f"changed; it expires on {plan.expires}, and did not before"
    return "changed" if plan.steps else "there already"


def make(plan: Plan) -> None:
    """Make the account, with its home and in its groups, and without a password. UsersFailed."""
    shell = next(each for each in SHELLS if Path(each).exists())
    words = ["useradd", "--create-home", "--key", "HOME_MODE=0700", "--user-group"]
    words += ["--shell", shell, "--comment", ours.gecos(plan.wanted.full_name)]
    words += ["--groups", ",".join(plan.groups)]
    if plan.expires:
        words += ["--expiredate", str(plan.expires)]
    programs.run([*words, "--", plan.wanted.name])
    found = _there(plan.wanted.name)
    account = accounts.find(found.name)
    problem = accounts.not_a_person(account, min_uid=accounts.uid_min(), shells=None)
    problem = problem or useradd.home_problem(account)
    if problem:
        raise UsersFailed(
            f"The account was made, and is not fit for use: {problem}.",
            remedy=f"Remove it (userdel {found.name}), and mend login.defs.",
        )
    Path(found.home).chmod(0o700)


def mend(found: Found) -> Found:
    """Complete an account that useradd had no time to complete. Nobody has used it yet.

    useradd writes passwd(5), shadow(5), group(5), then makes the home, in this order.
    """
    if found.secret is None:
        programs.run(["pwconv"])
    try:
        grp.getgrgid(found.gid)
    except KeyError:
        programs.run(["groupadd", "--gid", str(found.gid), "--", found.name])
    _mend_home(found)
    with starter.skeleton() as skeleton:
        starter.put(skeleton, found)
    return _there(found.name)


def _mend_home(found: Found) -> None:
    """Make the home, or give the account the one that is root's still. Its parent is root's."""
    home = Path(found.home)
    try:
        home.mkdir(mode=0o700, exist_ok=True)
        opened = os.open(home, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            owner = os.fstat(opened).st_uid
            if owner not in (0, found.uid):
                raise UsersFailed(f"Its home {home} belongs to uid {owner}.")
            os.fchown(opened, found.uid, found.gid)
            os.fchmod(opened, 0o700)
        finally:
            os.close(opened)
    except OSError as exc:
        raise UsersFailed(f"Its home {home} cannot be made: {exc.strerror}.") from exc
    if programs.find("restorecon"):
        programs.run(["restorecon", str(home)])


def _join(name: str, groups: tuple[str, ...]) -> None:
    if groups:
        programs.run(["usermod", "--append", "--groups", ",".join(groups), "--", name])


def set_expiry(name: str, day: str) -> None:
    """Let an account expire on a day, as 2026-12-31; "" for never. UsersFailed."""
    programs.run(["usermod", "--expiredate", day, "--", name])


def give_password(found: Found, password: str, tools: Tools) -> None:
    """Write a password down, and then set it. UsersFailed.

    Behind the `!` of a locked account, where it is: chpasswd(8) would open it.
    """
    if found.locked:
        words, text = ["chpasswd", "--encrypted"], f"{found.name}:!{hashes.make(password)}\n"
    else:
        words, text = ["chpasswd"], f"{found.name}:{password}\n"
    record(found, password, tools)
    programs.run(words, text=text)
    secret = ours.secret(found.name)
    if secret is None or not secret.hash:
        raise UsersFailed("chpasswd ended without an error, and no password was set.")


def record(found: Found, password: str, tools: Tools) -> None:
    """Have the sheet say what is known; it is written where that is new. UsersFailed."""
    before = tools.sheet.rows.get(found.name)
    address = tools.address or (before.address if before else "")
    row = Row(found.name, password, found.full_name, address, found.uid)
    if row != before:
        tools.sheet.put(row)


def current(rows: Mapping[str, Row]) -> dict[str, Row]:
    """Return the rows whose accounts are the ones that they were written for."""
    found = {name: ours.find(name) for name in rows}
    return {
        name: row
        for name, row in rows.items()
        if (account := found[name]) is not None and account.uid == row.uid
    }


def _there(name: str) -> Found:
    found = ours.find(name)
    if found is None:
        raise UsersFailed("useradd ended without an error, and the account is not there.")
    return found
