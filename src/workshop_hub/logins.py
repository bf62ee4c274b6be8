"""A login as PAM sees it: which service, one guess after the other, and what is told of the end."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from pathlib import Path
from weakref import WeakValueDictionary

from workshop_hub.system import pam
from workshop_hub.system.broker import Attempt, Broker

SERVICE = "workshop-hub"
"""Name of the PAM service where the machine has one of it."""

FOLDERS = (Path("/etc/pam.d"), Path("/usr/lib/pam.d"), Path("/usr/share/pam.d"))
"""Where a machine keeps its PAM services (pam.conf(5), and its folders of vendors)."""

MAX_DELAY = 10.0
"""Seconds at most that a refused login waits, whatever PAM asks for."""

UNUSABLE = {
    pam.ACCOUNT_EXPIRED: "This account has expired.",
    pam.MUST_CHANGE: "The password of this account must be changed before the next login.",
    pam.PASSWORD_EXPIRED: "The password of this account has expired.",
    pam.DENIED: "The rules of this machine do not let this account log in now, or from here.",
}
"""What is told, after the right password alone, of an account that may not be used."""


def service(folders: Iterable[Path] = FOLDERS) -> str:
    """Return the name of the PAM service to ask: one of our own, or login's."""
    return SERVICE if any((folder / SERVICE).exists() for folder in folders) else "login"


def sentence(verdict: pam.Verdict) -> str:
    """Say to whoever gave the right password why the account cannot be used."""
    why = UNUSABLE.get(verdict.code, f"This account cannot be used now: {verdict.message}.")
    return f"{why} Please ask the administrator."


class Logins:
    """Asks the broker, one guess at a name from an address after the other.

    PAM's delay after a wrong password would else be no obstacle: who guesses would wait for many
    answers at the same time.
    """

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._guesses: WeakValueDictionary[tuple[str, str], asyncio.Lock] = WeakValueDictionary()

    async def check(self, attempt: Attempt, secrets: Sequence[str]) -> pam.Verdict:
        """Return what PAM says, after the delay that it wants. Raises WorkshopError."""
        answers = pam.answers(secrets)

        async def converse(prompts: list[pam.Prompt]) -> Sequence[str | None] | None:
            return answers(prompts)

        # gone with the last who holds it or waits for it
        turn = self._guesses.setdefault((attempt.name, attempt.rhost), asyncio.Lock())
        async with turn:
            verdict = await self._broker.ask(attempt, converse)
            await asyncio.sleep(min(verdict.delay, MAX_DELAY))
            return verdict
