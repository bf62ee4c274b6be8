"""What shadow(5) says of an account, as far as this process may read it."""

from __future__ import annotations

import re
import time
from pathlib import Path

SHADOW = Path("/etc/shadow")

_PASSWORD, _EXPIRES = 1, 7

_HASH = re.compile(r"\$|_|[./0-9A-Za-z]{13}$")
"""How hashes of crypt(5) look: those with a name, BSDi's, and the oldest, without one."""

_DAY = 86400


def out_of_use(name: str, shadow: Path = SHADOW, *, now: float | None = None) -> str:
    """Say why nobody may log in to an account any more; "" where this file speaks against nobody.

    So for accounts that are elsewhere (LDAP), and where only root may read the file. A lock is a
    "!" before the hash of a password (passwd -l, usermod --lock). Without a hash ("!", "!!", "*",
    "!*", "*NP*") there is no password here that could be locked, and people log in by other means
    (Kerberos, a directory, keys).
    now: seconds since 1970. May block.
    """
    fields = _fields(name, shadow)
    if fields is None:
        return ""
    password, expires = fields[_PASSWORD], fields[_EXPIRES]
    if password.startswith("!") and _HASH.match(password.lstrip("!")):
        return "it is locked"
    today = int((time.time() if now is None else now) // _DAY)
    if expires.isdecimal() and int(expires) <= today:
        return "it has expired"
    return ""


def _fields(name: str, shadow: Path) -> list[str] | None:
    try:
        lines = shadow.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return None
    for line in lines:
        fields = line.split(":")
        if fields[0] == name and len(fields) > _EXPIRES:
            return fields
    return None
