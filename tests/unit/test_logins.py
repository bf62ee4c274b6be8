"""One guess after the other; and a sentence for whoever knows the password."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path

import pytest

from workshop_hub import logins
from workshop_hub.conversation import Question
from workshop_hub.errors import WorkshopError
from workshop_hub.logins import Logins
from workshop_hub.system import pam
from workshop_hub.system.broker import Attempt, Broker, Converse


class SlowBroker(Broker):
    """Answers when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[Attempt] = []
        self.answer = asyncio.Event()

    async def ask(
        self, attempt: Attempt, converse: Converse, *, timeout: float = 60.0
    ) -> pam.Verdict:
        self.asked.append(attempt)
        await self.answer.wait()
        return pam.Verdict(7, "authentication", "no")


async def settled() -> None:
    """Let everything run that can."""
    for _ in range(20):
        await asyncio.sleep(0)


async def test_guesses_at_a_name_from_an_address_are_made_one_after_the_other() -> None:
    broker = SlowBroker()
    asking = Logins(broker)
    ada, elsewhere = Attempt("ada", "login", rhost="::1"), Attempt("ada", "login", rhost="::2")
    ben = Attempt("ben", "login", rhost="::1")
    tries = [asyncio.ensure_future(asking.begin(each)) for each in (ada, ada, elsewhere, ben)]
    await settled()
    assert broker.asked == [ada, elsewhere, ben]
    broker.answer.set()
    assert {verdict.code for verdict in await asyncio.gather(*tries)} == {7}
    assert broker.asked == [ada, elsewhere, ben, ada]


async def test_strangers_who_take_turns_are_asked_about_one_by_one_and_hold_up_nobody_else() -> (
    None
):
    broker = SlowBroker()
    asking = Logins(broker)
    strangers = [Attempt("ada", "login", rhost=f"192.0.2.{number}") for number in range(12)]
    tries = [asyncio.ensure_future(asking.begin(each, in_turn=True)) for each in strangers]
    await settled()
    owner, ben = Attempt("ada", "login", rhost="192.0.2.0"), Attempt("ben", "login")
    tries.append(asyncio.ensure_future(asking.begin(owner)))
    tries.append(asyncio.ensure_future(asking.begin(ben, in_turn=True)))
    await settled()
    assert broker.asked == [strangers[0], owner, ben]
    broker.answer.set()
    await asyncio.gather(*tries)
    assert broker.asked == [strangers[0], owner, ben, *strangers[1:]]


async def test_strangers_do_not_pile_up_at_a_name_where_pam_hangs() -> None:
    broker = SlowBroker()
    asking = Logins(broker)
    ada, owner = Attempt("ada", "login"), Attempt("ada", "login", rhost="192.0.2.1")
    tries = [
        asyncio.ensure_future(asking.begin(ada, in_turn=True)) for _ in range(logins.IN_TURN_MAX)
    ]
    await settled()
    with pytest.raises(WorkshopError, match="Try again"):
        await asking.begin(ada, in_turn=True)
    tries.append(asyncio.ensure_future(asking.begin(owner)))
    await settled()
    assert broker.asked == [ada, owner]
    tries[0].cancel()
    await settled()
    tries.append(asyncio.ensure_future(asking.begin(ada, in_turn=True)))
    broker.answer.set()
    assert {verdict.code for verdict in await asyncio.gather(*tries[1:])} == {7}


async def test_whoever_gives_up_lets_the_next_one_try() -> None:
    broker = SlowBroker()
    asking = Logins(broker)
    ada = Attempt("ada", "login")
    first, second = (asyncio.ensure_future(asking.begin(ada)) for _ in range(2))
    await settled()
    first.cancel()
    await settled()
    assert broker.asked == [ada, ada]
    broker.answer.set()
    assert (await second).code == 7


def test_the_service_is_our_own_where_the_machine_has_it(tmp_path: Path) -> None:
    folders = (tmp_path / "none", tmp_path)
    assert logins.service(folders) == "login"
    (tmp_path / "workshop-hub").touch()
    assert logins.service(folders) == "workshop-hub"


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (pam.ACCOUNT_EXPIRED, "has expired"),
        (pam.MUST_CHANGE, "must be changed"),
        (pam.DENIED, "rules of this machine"),
        (999, "cannot be used now: a module's words"),
    ],
)
def test_why_an_account_cannot_be_used(code: int, said: str) -> None:
    assert said in logins.sentence(pam.Verdict(code, "account", "a module's words"))


class AskingBroker(Broker):
    """Asks for a code each time."""

    async def ask(
        self, attempt: Attempt, converse: Converse, *, timeout: float = 60.0
    ) -> pam.Verdict:
        answers = await converse([pam.Prompt(pam.HIDDEN, "Code: ")])
        return pam.Verdict(0 if answers == ["right"] else 7, "authentication")


async def page(asking: Logins, name: str, address: str) -> str:
    """Begin a login; return the token of the page that asks for more."""
    heard = await asking.begin(Attempt(name, "login", rhost=address), asks=True)
    assert isinstance(heard, Question)
    return heard.token


async def test_a_class_behind_one_address_may_take_its_time() -> None:
    asking = Logins(AskingBroker())
    tokens = [await page(asking, f"ada{number}", "192.0.2.1") for number in range(100)]
    for token in tokens:
        heard = await asking.go_on(token, {"answer0": "right"})
        assert isinstance(heard, pam.Verdict)
        assert heard.granted


async def test_who_has_many_addresses_ends_nobody_elses_login() -> None:
    asking = Logins(AskingBroker())
    token = await page(asking, "ada", "192.0.2.1")
    for number in range(logins.WAITING_MAX + 50):
        with suppress(WorkshopError):
            await page(asking, f"ben{number}", f"2001:db8::{number:x}")
            await page(asking, "ada", f"2001:db8::{number:x}")
    assert asking.waiting(token)
    await page(asking, "cat", "192.0.2.2")


async def test_of_the_same_name_and_network_a_few_wait() -> None:
    asking = Logins(AskingBroker())
    tokens = [await page(asking, "ada", "192.0.2.1") for _ in range(logins.SAME_MAX + 1)]
    await settled()
    assert [bool(asking.waiting(token)) for token in tokens] == [False, True, True, True]


async def test_answers_that_do_not_fit_are_asked_for_again() -> None:
    asking = Logins(AskingBroker())
    token = await page(asking, "ada", "192.0.2.1")
    again = await asking.go_on(token, {"answer0": "x" * 600})
    assert isinstance(again, Question)
    assert "has 600 bytes" in again.complaint
    heard = await asking.go_on(again.token, {"answer0": "right"})
    assert isinstance(heard, pam.Verdict)
    assert heard.granted


@pytest.mark.parametrize(
    ("files", "locks"),
    [
        ({"hub": "auth required pam_unix.so\n"}, False),
        ({"hub": "auth required pam_faillock.so preauth\n"}, True),
        ({"hub": "# auth required pam_faillock.so preauth\n"}, False),
        ({"hub": "@include common\n", "common": "auth required pam_tally2.so\n"}, True),
        (
            {"hub": "auth  substack  a\n", "a": "-auth include b\n", "b": "x /x/pam_faillock.so"},
            True,
        ),
        ({"hub": "auth include other\n", "other": "auth include hub\n"}, False),
        ({"hub": "auth include missing\n"}, False),
        ({}, False),
    ],
)
def test_whether_pam_locks_accounts(tmp_path: Path, files: dict[str, str], locks: bool) -> None:
    (tmp_path / "vendor").mkdir()
    for name, text in files.items():
        (tmp_path / ("vendor" if name == "b" else "") / name).write_text(text)
    assert logins.locks("hub", (tmp_path, tmp_path / "vendor")) is locks


def test_what_pams_modules_say_is_told_where_nothing_better_is_known() -> None:
    said = "Disks are changed."
    verdict = pam.Verdict(7, "account", "Authentication failure", said=said)
    assert logins.sentence(verdict) == (
        "This account cannot be used now. The machine says: Disks are changed."
    )
    expired = pam.Verdict(pam.ACCOUNT_EXPIRED, "account", "it has", said=said)
    assert said not in logins.sentence(expired)
