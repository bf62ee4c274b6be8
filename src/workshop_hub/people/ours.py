"""The accounts that `workshop-hub users` has made, and how they are now."""

from __future__ import annotations

import datetime
import grp
import pwd
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from workshop_hub.errors import UsersRefused
from workshop_hub.system import accounts

GROUP = "workshop-hub"
"""Every account that we make is in it, and only those in it are changed or removed unasked."""

MARK = "workshop-hub"
"""Fifth field of the GECOS text, which chfn(1) lets nobody but root change.

useradd writes an account's line before its groups: by the mark an account is known to be ours that
was half made when the machine lost power.
"""

SHADOW = Path("/etc/shadow")
EPOCH = datetime.date(1970, 1, 1)


@dataclass(frozen=True)
class Secret:
    """What shadow(5) says of an account. hash: "" where no password was ever set.

    expires: the first day on which it cannot be used; None for never.
    """

    hash: str = field(repr=False)
    locked: bool
    expires: datetime.date | None


@dataclass(frozen=True)
class Found:
    """An account as it is. groups: names of its supplementary groups. secret: None for no entry."""

    name: str
    uid: int
    gid: int
    home: str
    shell: str
    full_name: str
    marked: bool
    groups: frozenset[str]
    secret: Secret | None

    @property
    def ours(self) -> bool:
        """Whether we have made it: root and the system's accounts never count."""
        return GROUP in self.groups and self.uid >= max(1, accounts.uid_min())

    @property
    def half_made(self) -> bool:
        """Whether making it was interrupted: nobody can have logged in with a password yet."""
        unset = self.secret is None or not self.secret.hash
        return unset and (self.ours or (self.marked and self.uid >= max(1, accounts.uid_min())))

    @property
    def locked(self) -> bool:
        """Whether a password is set, and cannot be used: a half-made account is not locked."""
        return bool(self.secret and self.secret.hash and self.secret.locked)

    @property
    def expires(self) -> datetime.date | None:
        """The first day on which it cannot be used; None for never."""
        return self.secret.expires if self.secret else None

    @property
    def expired(self) -> bool:
        """Whether that day has come."""
        return self.expires is not None and self.expires <= today()


def today() -> datetime.date:
    """Return the day that it is for shadow(5), whose days begin at midnight UTC."""
    return datetime.datetime.now(datetime.timezone.utc).date()


def find(name: str) -> Found | None:
    """Return the account called `name`; None where there is none. Root's to ask; may block."""
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        return None
    gecos = entry.pw_gecos.split(",")
    account = accounts.find(name)
    groups = {accounts.group_name(gid) for gid in account.groups[1:]}
    return Found(
        entry.pw_name,
        entry.pw_uid,
        entry.pw_gid,
        entry.pw_dir,
        entry.pw_shell,
        gecos[0],
        gecos[4:5] == [MARK],
        frozenset(groups),
        secret(name),
    )


def gecos(full_name: str) -> str:
    """Return the GECOS text of an account that we make: see `MARK`."""
    return f"{full_name},,,,{MARK}"


def all_of_them() -> list[Found]:
    """Return every account of ours, by name."""
    try:
        names = grp.getgrnam(GROUP).gr_mem
    except KeyError:
        return []
    found = [each for name in sorted(set(names)) if (each := find(name)) is not None]
    return [each for each in found if each.ours]


def named(names: Iterable[str], *, force: bool, missing_ok: bool = False) -> list[Found]:
    """Return the accounts of these names. UsersRefused with all that is wrong with them.

    force: also those that we have not made; but never root's or the system's. missing_ok: leave
    out names that the machine does not have.
    """
    problems, accounts_found = [], []
    for name in names:
        found = find(name)
        if found is None:
            if not missing_ok:
                problems.append(f"The machine has no account {name!r}.")
        elif found.uid < max(1, accounts.uid_min()):
            problems.append(f"{name} is an account of the system's (uid {found.uid}).")
        elif not found.ours and not force:
            problems.append(
                f"{name} is not in the group {GROUP}: `workshop-hub users` has not made it. "
                "--force does it all the same."
            )
        else:
            accounts_found.append(found)
    if problems:
        raise UsersRefused.listing(problems)
    return accounts_found


def secret(name: str) -> Secret | None:
    """Return what shadow(5) says of `name`; None where it has no entry. UsersRefused."""
    try:
        lines = SHADOW.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError as exc:
        raise UsersRefused(f"{SHADOW} cannot be read: {exc.strerror}.") from exc
    for line in lines:
        fields = line.split(":")
        if fields[0] == name and len(fields) >= 8:
            return _secret(fields[1], fields[7])
    return None


def _secret(password: str, expires: str) -> Secret:
    """Read two fields of shadow(5). `!` before a hash locks it; `!`, `!!` and `*` are no hash."""
    hashed = password.lstrip("!")
    day = EPOCH + datetime.timedelta(days=int(expires)) if expires.isdecimal() else None
    return Secret("" if hashed == "*" else hashed, password.startswith("!"), day)
