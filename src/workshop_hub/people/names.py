"""Names of accounts, written short: `training{01..30}`, `team-{a,b}`."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator

from workshop_hub.errors import UsersRefused

MOST = 1000
"""Names in one command; more are a slip of the finger."""

_RANGE = re.compile(r"([0-9]{1,9})\.\.([0-9]{1,9})")


def expand_all(patterns: Iterable[str]) -> list[str]:
    """Return all names that the patterns stand for. UsersRefused with all that is wrong."""
    problems, names = [], []
    for pattern in patterns:
        try:
            names += expand(pattern)
        except UsersRefused as exc:
            problems.append(exc.message)
    twice = sorted({name for name in names if names.count(name) > 1}) if len(names) <= MOST else []
    problems += [f"{name!r} is named twice." for name in twice]
    if len(names) > MOST:
        problems.append(too_many(len(names)))
    if problems:
        raise UsersRefused.listing(problems)
    return names


def too_many(count: int) -> str:
    """Say that these are more names than one command takes."""
    return f"These are {count} names; at most {MOST} can be given at once."


def expand(pattern: str) -> list[str]:
    """Return the names that a pattern stands for, as bash does: `{01..30}`, `{a,b}`.

    Numbers get as many digits as the longer end of the range where either begins with a zero.
    UsersRefused where the braces mean nothing.
    """
    parts = [_choices(part, pattern) for part in re.split(r"(\{[^{}]*\})", pattern)]
    count = 1
    for part in parts:
        count *= len(part)
    if count > MOST:
        raise UsersRefused(f"{pattern!r} stands for {count} names; at most {MOST} are possible.")
    return ["".join(each) for each in itertools.product(*parts)]


def _choices(part: str, pattern: str) -> list[str]:
    if not part.startswith("{"):
        if "{" in part or "}" in part:
            raise UsersRefused(f"{pattern!r} has a brace without its other one, or one in another.")
        return [part]
    inner = part[1:-1]
    found = _RANGE.fullmatch(inner)
    if found:
        return list(_numbers(found[1], found[2], pattern))
    if "," not in inner:
        raise UsersRefused(f"{part} in {pattern!r} means nothing: write {{01..30}} or {{a,b}}.")
    return inner.split(",")


def _numbers(first: str, last: str, pattern: str) -> Iterator[str]:
    padded = any(len(end) > 1 and end.startswith("0") for end in (first, last))
    width = max(len(first), len(last)) if padded else 0
    if int(first) > int(last):
        raise UsersRefused(f"{pattern!r} counts from {first} down to {last}.")
    if int(last) - int(first) >= MOST:
        raise UsersRefused(f"{pattern!r} stands for more than {MOST} names.")
    return (str(number).zfill(width) for number in range(int(first), int(last) + 1))
