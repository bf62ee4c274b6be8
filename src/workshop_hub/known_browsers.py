"""Who has logged in before in a browser: a cookie without names, which only the hub can make."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from collections.abc import Callable

COOKIE_DAYS = 90
"""Days for which a browser is known after a login."""

COOKIE_NAMES = 8
"""Names at most that a browser is known for, the newest: a machine that a class shares."""


class KnownBrowsers:
    """Makes and checks the value of a cookie: who has logged in before in this browser.

    key: 32 bytes or more that only the hub has, for example from `key_from`. clock: seconds since
    1970, for the cookie outlives the hub. Keep it as a cookie with HttpOnly and SameSite=Lax, for
    `lifetime` seconds.

    The value has no name in it that a person could read, and cannot be made without a login: it is
    `1.ID.NAMES.SIGNATURE`, where NAMES has for each name the time until which it is known, and a
    hash with the key. A copy of it is worth a count of its own, and no more: 5 free tries, then the
    same waits, at the names in it.
    """

    lifetime = COOKIE_DAYS * 86400

    def __init__(self, key: bytes, *, clock: Callable[[], float] = time.time) -> None:
        self._key = key
        self._clock = clock

    @staticmethod
    def key_from(cookie_secret: bytes) -> bytes:
        """Return a key made from the hub's secret, which outlives restarts."""
        return hmac.new(cookie_secret, b"workshop-hub known browsers", hashlib.sha256).digest()

    def check(self, value: str, name: str) -> str:
        """Return the browser's id where `name` has logged in in it; "" for anything else."""
        found = self._read(value)
        if found is None:
            return ""
        browser, names = found
        return browser if names.get(self._sign(f"name.{browser}.{name}"), 0) > self._clock() else ""

    def add(self, value: str, name: str) -> str:
        """Return the cookie's new value after a login. value: the old one; "" where none is."""
        browser, names = self._read(value) or (secrets.token_hex(16), {})
        now = self._clock()
        names[self._sign(f"name.{browser}.{name}")] = int(now + self.lifetime)
        newest = sorted(names.items(), key=lambda entry: entry[1])[-COOKIE_NAMES:]
        listed = "-".join(f"{known}_{until}" for known, until in newest if until > now)
        text = f"1.{browser}.{listed}"
        return f"{text}.{self._sign(text)}"

    def _read(self, value: str) -> tuple[str, dict[str, int]] | None:
        text, _, signature = value.rpartition(".")
        # compared as bytes: a text that is not ASCII raises TypeError
        if not hmac.compare_digest(
            signature.encode(errors="surrogatepass"), self._sign(text).encode()
        ):
            return None
        _, browser, listed = text.split(".")
        entries = (entry.split("_") for entry in listed.split("-"))
        return browser, {known: int(until) for known, until in entries}

    def _sign(self, text: str) -> str:
        signed = hmac.new(self._key, text.encode(errors="surrogatepass"), hashlib.sha256)
        return signed.hexdigest()[:40]
