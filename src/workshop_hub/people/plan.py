"""Decide what there is to do for a person, from what is wanted and what is there. Does nothing."""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from workshop_hub.people.ours import GROUP, Found
from workshop_hub.people.wanted import Wanted


@dataclass(frozen=True)
class Settings:
    """What holds for everybody of a run.

    expires: the first day on which the accounts cannot be used. quota: bytes. files: names that
    the starter files have in a home. address: of the hub, for the sheet.
    """

    groups: tuple[str, ...] = ()
    expires: datetime.date | None = None
    quota: int | None = None
    files: tuple[str, ...] = ()
    address: str = ""


@dataclass(frozen=True)
class Plan:
    """What is done for one person, step by step; of `Found` is what was there before.

    password: one that is known to be the account's now; "" where none is, or it gets one.
    notes: what is left as it is although something else was asked for.
    """

    wanted: Wanted
    found: Found | None
    make: bool = False
    mend: bool = False
    groups: tuple[str, ...] = ()
    expires: datetime.date | None = None
    quota: int | None = None
    files: tuple[str, ...] = ()
    set_password: bool = False
    password: str = field(default="", repr=False)
    notes: tuple[str, ...] = ()

    @property
    def has_slip(self) -> bool:
        """Whether a password that is known can be handed out."""
        return self.set_password or bool(self.password)

    @property
    def steps(self) -> list[str]:
        """What is done, in words; empty where nothing is to do."""
        said = []
        if self.make:
            said.append("make the account")
        if self.mend:
            said.append("complete the account, which is half made")
        if self.groups:
            said.append(f"put it into {', '.join(self.groups)}")
        if self.expires:
            said.append(f"let it expire on {self.expires}")
        if self.quota:
            said.append(f"set its quota to {self.quota} bytes")
        if self.files:
            said.append(f"copy {', '.join(self.files)} into its home")
        if self.set_password:
            given = "the given password" if self.wanted.password else "a new password"
            said.append(f"give it {given}")
        return said


def plan(
    wanted: Wanted, found: Found | None, settings: Settings, files: Sequence[str], known: str
) -> Plan:
    """Return what is to do.

    files: those of the starter files that the home lacks. known: the password that the account is
    known to have, by the sheet or the list of people; "" for none. A day of expiry that an account
    has is left alone, as its password is: somebody may have closed it, or keep it open, by that.
    """
    groups = tuple(dict.fromkeys((GROUP, *settings.groups, *wanted.groups)))
    if found is None or found.half_made:
        return Plan(
            wanted,
            found,
            make=found is None,
            mend=found is not None,
            groups=groups,
            expires=None if found and found.expires else settings.expires,
            quota=settings.quota,
            files=tuple(files),
            set_password=True,
            notes=tuple(_of_expiry(found, settings.expires)),
        )
    notes = []
    if wanted.password and known != wanted.password:
        notes.append("has another password than the given one, and keeps it")
    if found.locked:
        notes.append("is locked, and stays so")
    notes += _of_expiry(found, settings.expires)
    return Plan(
        wanted,
        found,
        groups=tuple(group for group in groups if group not in found.groups),
        expires=None if found.expires else settings.expires,
        quota=settings.quota,
        files=tuple(files),
        password=known,
        notes=tuple(notes),
    )


def _of_expiry(found: Found | None, day: datetime.date | None) -> Iterator[str]:
    """Say when it expires, where that is not what was asked for. day: None for nothing asked."""
    if found is None:
        return
    command = f"workshop-hub users expire {found.name} --on {day or 'never'}"
    if found.expired:
        yield f"has expired on {found.expires}, and stays so: `{command}` opens it"
    elif day and found.expires and found.expires != day:
        yield f"expires on {found.expires}, and keeps that: `{command}` changes it"
