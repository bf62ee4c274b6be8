"""Passwords that can be read from a slip of paper, typed, and remembered."""

from __future__ import annotations

import secrets
from functools import cache
from importlib import resources

WORDS = 4
SEPARATOR = "-"

SHORTEST = 8
"""Letters that a password has at least that somebody else chose."""

LONGEST = 500
"""Bytes that it has at most: PAM takes 511 (PAM_MAX_RESP_SIZE), crypt(5) 512."""


@cache
def words() -> tuple[str, ...]:
    """Return the words that passwords are made of: 1024 short ones, each 10 bits."""
    text = resources.files("workshop_hub.people").joinpath("words.txt").read_text(encoding="ascii")
    return tuple(text.split())


def generate() -> str:
    """Return a new password: four words, each chosen by the system's random source.

    They are 40 bits. Who guesses at a name over the login page, from however many addresses and for
    ever, has one try in two seconds (`slowdown`) and needs 35,000 years on average; 1700 if that
    is left to PAM (`slow_guessing`) and PAM takes ten a second. Who has stolen /etc/shadow, and
    tries a million a second, needs a week. It is a password for a course, to be changed for
    anything longer.
    """
    return SEPARATOR.join(secrets.choice(words()) for _ in range(WORDS))


def problem(password: str) -> str:
    """Say why an account cannot be given this password; or ""."""
    if len(password) < SHORTEST:
        return f"the password has {len(password)} characters; at least {SHORTEST} are needed"
    if len(password.encode()) > LONGEST:
        return f"the password is longer than {LONGEST} bytes"
    if not password.isprintable():
        return "the password has a character that cannot be typed"
    return ""
