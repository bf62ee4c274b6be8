"""Who may register, and with what: the rules of the page where accounts are made with a code."""

from __future__ import annotations

import hmac
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime

CODE_MIN = 8
"""Characters of a join code at least: with the limit on wrong ones, more than can be guessed."""

PASSWORD_MIN = 8
"""Characters of a password at least (NIST SP 800-63B, 3.1.1.2)."""

PASSWORD_MAX = 200
"""Characters at most, so that PAM's 511 bytes are enough for most alphabets."""

FIELDS = ("username", "password", "password2", "code")

Problems = dict[str, str]
"""A sentence for each field of the form that something is wrong with."""


@dataclass(frozen=True)
class Window:
    """When registration is open. Both ends are dates with a zone; None for no end."""

    opens: datetime | None = None
    closes: datetime | None = None

    def closed(self, now: datetime) -> str:
        """Say why nobody can register now; "" where everybody can."""
        if self.opens is not None and now < self.opens:
            return f"Registration opens on {shown(self.opens)}."
        if self.closes is not None and now >= self.closes:
            return f"Registration has been closed since {shown(self.closes)}."
        return ""


def moment(text: str) -> datetime | None:
    """Read an ISO 8601 date with a time and a zone; None for "". Raises ValueError."""
    if not text:
        return None
    # before Python 3.11, fromisoformat takes no Z
    found = datetime.fromisoformat(re.sub(r"[Zz]$", "+00:00", text.strip()))
    if found.tzinfo is None:
        raise ValueError("it has no zone")
    return found


def shown(when: datetime) -> str:
    """Write a date for people, in the zone that it was given in."""
    return when.strftime("%d %B %Y at %H:%M (UTC%z)").lstrip("0").replace("(UTC+0000)", "(UTC)")


def same_code(typed: str, code: str) -> bool:
    """Compare in a time that tells nothing of how much is right."""
    return hmac.compare_digest(typed.strip().encode("utf-8", "replace"), code.encode())


def problems(form: Mapping[str, str], code: str, allowed: Callable[[str], bool]) -> Problems:
    """Return what is wrong with a form, as far as it can be said without the machine.

    form: the fields FIELDS, each a text; the name is in its one form. allowed: says whether a
    name may be registered.
    """
    found = {
        "username": _name_problem(form["username"], allowed),
        "password": _password_problem(form, code),
        "password2": ""
        if form["password"] == form["password2"]
        else "The two passwords are not the same.",
        "code": "" if same_code(form["code"], code) else "This is not the code of the workshop.",
    }
    return {name: sentence for name, sentence in found.items() if sentence}


def _name_problem(name: str, allowed: Callable[[str], bool]) -> str:
    if not name:
        return "Please choose a name."
    if not allowed(name):
        return (
            "This name cannot be used. Please choose another one: small letters and digits, "
            "beginning with a letter."
        )
    return ""


def _password_problem(form: Mapping[str, str], code: str) -> str:
    password = form["password"]
    if not password:
        return "Please choose a password."
    if len(password) < PASSWORD_MIN:
        return f"The password needs at least {PASSWORD_MIN} characters."
    if len(password) > PASSWORD_MAX:
        return f"The password may have at most {PASSWORD_MAX} characters."
    if not password.isprintable():
        return "The password has a character that cannot be seen, such as a tab."
    if password.casefold() in (form["username"].casefold(), code.casefold()):
        return "The password must be neither your name nor the code."
    if len(set(password)) < 3:
        return "The password needs at least 3 different characters."
    return ""
