"""What a hub that is not root may ask a PAM broker that is, and how often."""

from __future__ import annotations

import os
import re
from argparse import ArgumentParser
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from workshop_hub.system import accounts

HOLD = 2.0
"""Seconds that the next attempt at a name waits for the end of one that goes on: what pam_unix
asks for after a wrong password."""

DELAY_MAX = 10.0
"""Seconds at most that a name waits after a wrong password, whatever PAM's modules ask for."""

NAMES_MAX = 4096
"""Names at most that are remembered at the same time."""

_SERVICE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")
_ORIGIN = re.compile(r"[0-9A-Za-z.:%_-]{0,255}")


@dataclass(frozen=True)
class Rules:
    """What a broker was started for.

    services: names of PAM services. min_uid: the first uid of people. any_shell: whether accounts
    whose shell is none of a person's count as people, too. hub_uid: who may connect, beside root,
    to a broker that listens.
    """

    services: frozenset[str]
    min_uid: int
    any_shell: bool = False
    hub_uid: int = 0

    def refusal(self, name: str, order: Mapping[str, Any]) -> str:
        """Say why PAM is not asked, or "". May block.

        name: as the broker was told before it made a process for it. order: what is asked of that
        process.
        """
        service = order.get("service")
        if order.get("name") != name:
            return "another name than was announced"
        if not isinstance(service, str) or service not in self.services:
            return f"{service!a:.80} is not among its services"
        if not _means_the_same(order.get("encoding"), name, service):
            return f"in the encoding {order.get('encoding')!a:.40} the name is another one"
        if not _ORIGIN.fullmatch(str(order.get("rhost", ""))):
            return "the address has characters that no address has"
        session = order.get("session")
        if session in ("close", "list"):
            return ""  # of its own, and an account may be gone, or no person's any more
        if reason := accounts.unsafe_name(name):
            return reason
        account = accounts.find_or_none(name)
        if account is None and session:
            return "the machine has no such account"
        if account is None:
            return ""  # PAM is to take as long as it does with a wrong password
        shells = None if self.any_shell else accounts.login_shells()
        return accounts.not_a_person(account, min_uid=self.min_uid, shells=shells)


def _means_the_same(encoding: object, *texts: str) -> bool:
    """Say whether PAM gets the bytes by which the machine's databases are asked.

    In EBCDIC, letters that name no account are the bytes of root's name.
    """
    try:
        return all(text.encode(str(encoding)) == os.fsencode(text) for text in texts)
    except (LookupError, ValueError):
        return False


def arguments(service: str, *, min_uid: int | None = None, any_shell: bool = False) -> list[str]:
    """Return the broker's arguments. min_uid: None for the machine's own (UID_MIN)."""
    words = [] if min_uid is None else ["--min-uid", str(min_uid)]
    return ["--service", service, *words, *(["--any-shell"] if any_shell else [])]


def parse(words: Sequence[str]) -> Rules | None:
    """Return the rules of a command line; None without any, for the broker of a hub that is root.

    Raises SystemExit with a message on standard error.
    """
    if not words:
        return None
    parser = ArgumentParser(prog="pam_broker", allow_abbrev=False)
    parser.add_argument("--service", action="append", required=True, dest="services")
    parser.add_argument("--min-uid", type=int, default=accounts.uid_min())
    parser.add_argument("--any-shell", action="store_true")
    parser.add_argument("--hub-user", default="root")
    found = parser.parse_args(words)
    for service in found.services:
        if not _SERVICE.fullmatch(service):
            parser.error(f"{service!r} is no name of a PAM service")
    hub = accounts.find_or_none(found.hub_user)
    if hub is None:
        parser.error(f"the machine has no account {found.hub_user!r}")
    return Rules(frozenset(found.services), max(1, found.min_uid), found.any_shell, hub.uid)


class Pace:
    """When the next attempt at a name may begin: PAM's delay after the last one that failed.

    Attempts that go on at the same time count as failed ones until they have ended, or who asks
    many at once would guess as fast as he likes. One that thinks for long holds a name up for
    the time of one delay, and not for ever. Times are those of time.monotonic(), in seconds.
    """

    def __init__(self) -> None:
        self._hold = HOLD
        self._not_before: dict[str, float] = {}

    def begin(self, name: str, now: float) -> bool:
        """Say whether an attempt begins now; the next one may not, then."""
        key = name.casefold()  # a directory may know one account under both
        if self._not_before.get(key, now) > now:
            return False
        if len(self._not_before) >= NAMES_MAX:
            self._forget(now)
        if len(self._not_before) >= NAMES_MAX and key not in self._not_before:
            return False
        self._not_before[key] = now + self._hold
        return True

    def end(self, name: str, delay: float, now: float) -> None:
        """Take note of an attempt's end. delay: what PAM asks for; 0 too after the right one."""
        key = name.casefold()
        if delay <= 0:
            self._not_before.pop(key, None)
            return
        delay = min(delay, DELAY_MAX)
        self._hold = max(self._hold, delay)
        self._not_before[key] = max(self._not_before.get(key, now), now + delay)

    def next(self, now: float) -> float:
        """Return how many seconds it is until a name's time has come; 0 where none waits."""
        return min((time - now for time in self._not_before.values() if time > now), default=0.0)

    def _forget(self, now: float) -> None:
        self._not_before = {key: time for key, time in self._not_before.items() if time > now}
