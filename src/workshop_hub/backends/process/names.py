"""Names of the process backend's servers: readable, without collisions, and back again."""

from __future__ import annotations

import hashlib
import re
from urllib.parse import quote, unquote

from workshop_hub.backends.base import Owner

MAX_KEY = 200
"""Bytes: what Linux lets a file name have, less what is added to it."""

_KEY = re.compile(r"([^.]+)\.([^.]+)\.([^.]*)")


def key_of(owner: Owner) -> str:
    """Return a file name for the owner's server: `HUB.USER.SERVER`, other characters as %XX.

    A name too long for a file ends in a hash, and cannot be read back.
    """
    key = ".".join(_escaped(part) for part in (owner.hub, owner.user, owner.server))
    if len(key) <= MAX_KEY:
        return key
    digest = hashlib.sha256(key.encode()).hexdigest()[:32]
    return f"{key[: MAX_KEY - len(digest) - 1]}~{digest}"


def owner_of(key: str) -> Owner | None:
    """Return whose server has that name; None for any other name, and for one with a hash."""
    match = _KEY.fullmatch(key)
    if not match:
        return None
    try:
        owner = Owner(*(unquote(part, errors="strict") for part in match.groups()))
    except UnicodeDecodeError:
        return None
    return owner if key_of(owner) == key else None


def _escaped(part: str) -> str:
    return quote(part, safe="").replace(".", "%2E").replace("~", "%7E")
