"""One login, from its first page to PAM's verdict: what PAM asks on the way, and who answers."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from workshop_hub.system import pam
from workshop_hub.system.background import in_background
from workshop_hub.system.broker import Attempt, Broker
from workshop_hub.system.deadline import within
from workshop_hub.system.pam import Prompt, Verdict

ANSWER_TIMEOUT = 180.0
"""Seconds that somebody may take for one page: to find a telephone, or to think of a password."""


@dataclass(frozen=True)
class Field:
    """One field of a page.

    name: in the form. label: for whoever fills it in. hidden: what is typed is not shown.
    purpose: for the browser and password managers ("autocomplete" of HTML).
    """

    name: str
    label: str
    hidden: bool
    purpose: str


@dataclass(frozen=True)
class Question:
    """What is to be asked on the next page.

    phase: of PAM's. said: PAM's messages that ask nothing. token: brings the answers back to this
    conversation. complaint: what is wrong with the answers that were given.
    """

    phase: str
    said: tuple[Prompt, ...]
    fields: tuple[Field, ...]
    token: str = ""
    complaint: str = ""

    def complaint_about(self, form: Mapping[str, str], encoding: str) -> str:
        """Say what is wrong with the answers, before PAM is told them; or ""."""
        for field in self.fields:
            if reason := pam.unusable(form.get(field.name, ""), encoding):
                return f"“{field.label}” {reason}."
        if NEW in self.fields and not form.get(NEW.name):
            return "Please choose a new password."
        if AGAIN in self.fields and form.get(NEW.name, "") != form.get(AGAIN.name, ""):
            return "The two new passwords are not the same."
        return ""


OLD = Field("old", "Current password", hidden=True, purpose="current-password")
NEW = Field("new", "New password", hidden=True, purpose="new-password")
AGAIN = Field("again", "New password, once more", hidden=True, purpose="new-password")

CHANGES = (
    (re.compile(r"\b(re-?(type|enter|peat)|again|verify|confirm)", re.IGNORECASE), AGAIN),
    (re.compile(r"\b(current|old)\b", re.IGNORECASE), OLD),
    (re.compile(r"\bnew\b", re.IGNORECASE), NEW),
)
"""What PAM's modules mean when a password is changed, in words that the broker has them say in
English: it sets no locale for messages."""

TOGETHER = {OLD: (OLD, NEW, AGAIN), NEW: (NEW, AGAIN), AGAIN: (AGAIN,)}
"""What goes on one page, although PAM asks for one after the other."""


class Conversation:
    """Asks PAM about a login through the broker.

    asks: whether somebody can be asked for what PAM wants to know beside the attempt's secrets.
    """

    def __init__(self, broker: Broker, attempt: Attempt, *, asks: bool) -> None:
        self.attempt = attempt
        self.question: Question | None = None
        """What was asked last and is not answered."""
        self._asks = asks
        self._said: list[Prompt] = []
        self._shown = 0
        """How many of these came before what was asked last."""
        self._given: dict[str, str] = {}
        self._asked = asyncio.Event()
        self._answered = asyncio.Event()
        self._verdict = in_background(broker.ask(attempt, self._converse))

    async def heard(self) -> Verdict | Question:
        """Return what PAM wants to know next, or its verdict. Raises WorkshopError.

        The broker gives it a deadline.
        """
        asked = asyncio.ensure_future(self._asked.wait())
        try:
            await asyncio.wait({asked, self._verdict}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            asked.cancel()
        if self.question is not None and not self._verdict.done():
            return self.question
        verdict = await self._verdict
        # of a new password, what was wrong with the last one
        said = self._said[self._shown :] if verdict.phase == pam.PASSWORD else self._said
        words = " ".join(each.text for each in said if each.phase == verdict.phase)
        return replace(verdict, said=pam.one_line(words))

    def answer(self, form: Mapping[str, str]) -> None:
        """Tell PAM what was asked last."""
        if self.question is not None:
            self._given = {each.name: form.get(each.name, "") for each in self.question.fields}
            self.question = None
            self._asked.clear()
            self._answered.set()

    def when_over(self, call: Callable[[], object]) -> None:
        """Have something called when it has ended."""
        self._verdict.add_done_callback(lambda _: call())

    def end(self) -> None:
        """End it, whatever PAM is doing."""
        self._verdict.cancel()

    async def _converse(self, prompts: list[Prompt]) -> Sequence[str | None] | None:
        self._said += [each for each in prompts if not each.asks and each.text.strip()]
        wanted = [each for each in prompts if each.asks]
        names = [_field(each, number).name for number, each in enumerate(wanted)]
        if not set(names) <= set(self._given) and not await self._ask(wanted):
            return None
        left = iter([self._given.pop(name, "") for name in names])
        return [next(left) if each.asks else None for each in prompts]

    async def _ask(self, wanted: Sequence[Prompt]) -> bool:
        """Have somebody asked; say whether there are answers."""
        if not self._asks:
            return False
        # what PAM says before it has a password (that the account is locked) is for the log alone
        said = tuple(each for each in self._said[self._shown :] if not each.early)
        self.question = Question(wanted[0].phase, said, fields_for(wanted))
        self._shown = len(self._said)
        self._answered.clear()
        self._asked.set()
        try:
            await within(ANSWER_TIMEOUT, self._answered.wait())
        except TimeoutError:
            return False
        return True


def fields_for(wanted: Sequence[Prompt]) -> tuple[Field, ...]:
    """Return the fields of a page for what PAM asks."""
    found = [_field(each, number) for number, each in enumerate(wanted)]
    with_company = [field for each in found for field in TOGETHER.get(each, (each,))]
    return tuple(dict.fromkeys(with_company))


def _field(prompt: Prompt, number: int) -> Field:
    """Return the field that means what one prompt asks. number: its place among others."""
    if prompt.phase == pam.PASSWORD and prompt.style == pam.HIDDEN:
        asked = re.split(r"[.!\n]\s", prompt.text.strip())[-1]  # advice may come before it
        for pattern, field in CHANGES:
            if pattern.search(asked):
                return field
    label = prompt.text.strip().rstrip(":").strip() or "Answer"
    hidden = prompt.style == pam.HIDDEN
    return Field(f"answer{number}", label, hidden, "one-time-code" if hidden else "off")
