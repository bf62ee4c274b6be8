"""Logins as PAM sees them: which service, one guess after the other, and what is said of it."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from secrets import token_urlsafe
from weakref import WeakValueDictionary

from workshop_hub.client import network
from workshop_hub.conversation import Conversation, Question
from workshop_hub.errors import ConfigError, WorkshopError, choices
from workshop_hub.system import pam
from workshop_hub.system.broker import Attempt, Broker

SERVICE = "workshop-hub"
"""Name of the PAM service where the machine has one of it."""

FOLDERS = (Path("/etc/pam.d"), Path("/usr/lib/pam.d"), Path("/usr/share/pam.d"))
"""Where a machine keeps its PAM services (pam.conf(5), and its folders of vendors)."""

MAX_DELAY = 10.0
"""Seconds at most that a refused login waits, whatever PAM asks for."""

WAITING_MAX = 150
"""Logins at the same time that wait for somebody to answer what PAM has asked."""

SAME_MAX = 3
"""Of these, those for one name from one network: who begins anew, or has two windows."""

IN_TURN_MAX = 20
"""Strangers at one name who are asked about one after the other. They are more where PAM hangs."""

UNUSABLE = {
    pam.ACCOUNT_EXPIRED: "This account has expired.",
    pam.MUST_CHANGE: "The password of this account must be changed before the next login.",
    pam.PASSWORD_EXPIRED: "The password of this account has expired.",
    pam.DENIED: "The rules of this machine do not let this account log in now, or from here.",
}
"""What is told, after the right password alone, of an account that may not be used."""

LOCKS = "After several wrong ones this machine refuses the right one as well, for a while."
"""Whoever is refused reads it, where the machine does so, whatever the name and the password: what
else could be said of an account that is locked would help who guesses."""

_LOCKING = re.compile(r"^[^#\n]*\bpam_(faillock|tally2?)\.so", re.MULTILINE)
_INCLUDES = re.compile(
    r"^(?:@include|-?\w+\s+(?:include|substack))\s+(\S+)", re.MULTILINE | re.IGNORECASE
)

TOO_LATE = "This took too long, or was answered already. Please sign in again."


def service(folders: Iterable[Path] = FOLDERS) -> str:
    """Return the name of the PAM service to ask: one of our own, or login's."""
    return SERVICE if any((folder / SERVICE).exists() for folder in folders) else "login"


def locks(name: str, folders: Iterable[Path] = FOLDERS) -> bool:
    """Say whether a PAM service, or what it includes, locks accounts after wrong passwords."""
    folders, left, seen = [*folders], [name], set()
    while left:
        file = next((each / left[-1] for each in folders if (each / left[-1]).is_file()), None)
        seen.add(left.pop())
        if file is None:
            continue
        text = file.read_text(encoding="utf-8", errors="replace")
        if _LOCKING.search(text):
            return True
        left += set(_INCLUDES.findall(text)) - seen
    return False


def check_service(name: str, folders: Sequence[Path] = FOLDERS) -> None:
    """Raise ConfigError where the machine has no PAM service of that name. PAM ignores its case."""
    if any((folder / name.lower()).is_file() for folder in folders):
        return
    there = {file.name for folder in folders if folder.is_dir() for file in folder.iterdir()}
    own = {each for each in there if not each.startswith("common-")} - {"other"}
    raise ConfigError(
        f'The machine has no PAM service "{name}" (c.PAMAuthenticator.service): PAM follows the '
        'rules of "other" for it, which are not meant for logins.',
        remedy=f"Choose one of {choices(own)}; or leave the option out, and have `workshop-hub "
        f'pam-service --output /` make "{SERVICE}".',
    )


def sentence(verdict: pam.Verdict) -> str:
    """Say to whoever gave the right password why the account cannot be used."""
    said = verdict.said.rstrip(".")
    if verdict.phase == pam.PASSWORD:
        if not said and verdict.code in pam.OLD_PASSWORD_WRONG:
            return "The password was not changed. Was the current one right? Sign in to try again."
        return f"The password was not changed: {said or verdict.message}. Sign in to try again."
    if verdict.code not in UNUSABLE and said:
        return f"This account cannot be used now. The machine says: {said}."
    why = UNUSABLE.get(verdict.code, f"This account cannot be used now: {verdict.message}.")
    return f"{why} Please ask the administrator."


class Logins:
    """Asks the broker, one guess at a name from an address after the other.

    PAM's delay after a wrong password would else be no obstacle: who guesses would wait for many
    answers at the same time. Strangers who take turns at a name are asked about one after the
    other from wherever they come: at a broker with a pace of its own they would fill the name's
    queue, and have its owner sent away, whose browser is known.
    """

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._guesses: WeakValueDictionary[tuple[str, ...], asyncio.Lock] = WeakValueDictionary()
        self._in_turn: Counter[str] = Counter()
        self._waiting: dict[str, Conversation] = {}

    async def begin(
        self, attempt: Attempt, *, asks: bool = False, in_turn: bool = False
    ) -> pam.Verdict | Question:
        """Return what PAM says, after the delay that it wants. Raises WorkshopError.

        asks: whether PAM may ask for more than the attempt's secrets; the answers are for `go_on`.
        in_turn: whether this is a stranger's, at a name that strangers take turns at.
        """
        whose = (attempt.name,) if in_turn else (attempt.name, attempt.rhost)
        # gone with the last who holds it or waits for it
        turn = self._guesses.setdefault(whose, asyncio.Lock())
        if in_turn and self._in_turn[attempt.name] >= IN_TURN_MAX:
            raise WorkshopError(
                f"{IN_TURN_MAX} logins with this name are being checked already.",
                remedy="Try again in a moment.",
            )
        self._in_turn[attempt.name] += in_turn
        try:
            async with turn:
                return await self._hear(Conversation(self._broker, attempt, asks=asks))
        finally:
            self._in_turn[attempt.name] -= in_turn
            if not self._in_turn[attempt.name]:
                del self._in_turn[attempt.name]

    def waiting(self, token: str) -> Conversation | None:
        """Return the conversation that waits for answers; None where there is none any more."""
        return self._waiting.get(token)

    async def go_on(self, token: str, form: Mapping[str, str]) -> pam.Verdict | Question:
        """Tell PAM the answers; return what `begin` does. Raises WorkshopError, KeyError."""
        conversation = self._waiting[token]
        attempt, question = conversation.attempt, conversation.question
        complaint = question.complaint_about(form, attempt.encoding) if question else ""
        if question and complaint:
            return replace(question, token=token, complaint=complaint)
        del self._waiting[token]
        turn = self._guesses.setdefault((attempt.name, attempt.rhost), asyncio.Lock())
        try:
            async with turn:
                conversation.answer(form)
                return await self._hear(conversation)
        except BaseException:
            conversation.end()
            raise

    async def _hear(self, conversation: Conversation) -> pam.Verdict | Question:
        try:
            heard = await conversation.heard()
        except BaseException:
            conversation.end()
            raise
        if isinstance(heard, Question):
            return replace(heard, token=self._keep(conversation))
        await asyncio.sleep(min(heard.delay, MAX_DELAY))
        return heard

    def _keep(self, conversation: Conversation) -> str:
        """Keep a conversation until there are answers; return its token. Raises WorkshopError.

        Each holds a process. A few for a name from a network are enough. Where there are too many,
        the network that has most of them loses its oldest one, or gets no new one.
        """
        own = _whence(conversation)
        same = [each for each in self._waiting.values() if _whence(each) == own]
        if len(same) >= SAME_MAX:
            self._forget(same[0])
        if len(self._waiting) >= WAITING_MAX:
            networks = Counter(_whence(each)[1] for each in self._waiting.values())
            busiest, most = networks.most_common(1)[0]
            if networks[own[1]] >= most:
                conversation.end()
                raise WorkshopError(
                    f"{len(self._waiting)} logins wait for an answer already.",
                    remedy="Try again in a moment.",
                )
            self._forget(next(e for e in self._waiting.values() if _whence(e)[1] == busiest))
        token = token_urlsafe(16)
        self._waiting[token] = conversation
        conversation.when_over(lambda: self._waiting.pop(token, None))
        return token

    def _forget(self, conversation: Conversation) -> None:
        self._waiting = {key: each for key, each in self._waiting.items() if each != conversation}
        conversation.end()


def _whence(conversation: Conversation) -> tuple[str, str]:
    """Return the name, and the network that it is tried from."""
    return conversation.attempt.name, network(conversation.attempt.rhost)
