"""What a PAM broker that is root may be asked, and how often."""

from __future__ import annotations

import os
import pwd
import socket
from collections import Counter

import pytest

from workshop_hub.system import pam_rules
from workshop_hub.system.pam_broker import serve
from workshop_hub.system.pam_desk import TALKS_MAX, WAITING_MAX, Desk, Talk
from workshop_hub.system.pam_rules import HOLD, Pace, Rules

ME = pwd.getpwuid(os.geteuid()).pw_name


def test_the_first_attempt_begins_and_the_next_waits_for_its_end() -> None:
    pace = Pace()
    assert pace.begin("ada", 100)
    assert not pace.begin("ada", 100)
    assert pace.begin("ben", 100)
    assert pace.next(100) == HOLD
    pace.end("ada", 0, 101)
    assert pace.begin("ada", 101)


def test_after_a_wrong_password_the_name_waits_as_long_as_pam_wants() -> None:
    pace = Pace()
    assert pace.begin("ada", 100)
    pace.end("ada", 3.0, 100.5)
    assert not pace.begin("ada", 103.4)
    assert pace.begin("ada", 103.5)


def test_one_that_thinks_for_long_holds_nobody_up_for_ever() -> None:
    pace = Pace()
    assert pace.begin("ada", 100)
    assert pace.begin("ada", 100 + HOLD)


@pytest.mark.parametrize("delay", [0.5, 2.0, 5.0])
def test_who_asks_all_the_time_guesses_no_faster_than_the_delay(delay: float) -> None:
    """Whether the answers come at once, or are kept back and come together."""
    for takes in (0.0, 30.0):
        pace, now, begun, ends = Pace(), 0.0, 0, []
        while now < 600:
            if pace.begin("ada", now):
                begun += 1
                ends.append(now + takes)
            while ends and ends[0] <= now:
                ends.pop(0)
                pace.end("ada", delay, now)
            now += 0.25
        assert begun <= 600 / delay + 30 / HOLD


def test_a_name_in_another_case_is_no_other_name() -> None:
    pace = Pace()
    assert pace.begin("ada", 100)
    assert not pace.begin("ADA", 100)


def test_a_module_that_asks_for_an_hour_does_not_get_it() -> None:
    pace = Pace()
    assert pace.begin("ada", 100)
    pace.end("ada", 3600, 100)
    assert pace.begin("ada", 100 + pam_rules.DELAY_MAX)


def test_names_without_end_take_no_memory_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pam_rules, "NAMES_MAX", 3)
    pace = Pace()
    assert [pace.begin(name, 100) for name in "abcd"] == [True, True, True, False]
    assert pace.begin("d", 100 + HOLD)


def test_no_arguments_are_no_rules() -> None:
    assert pam_rules.parse([]) is None


def test_arguments() -> None:
    words = pam_rules.arguments("workshop-hub", min_uid=500, any_shell=True)
    assert pam_rules.parse([*words, "--hub-user", ME]) == Rules(
        frozenset({"workshop-hub"}), 500, True, os.geteuid()
    )
    plain = pam_rules.parse(pam_rules.arguments("login"))
    assert plain
    assert (plain.any_shell, plain.hub_uid) == (False, 0)


@pytest.mark.parametrize(
    "words",
    [
        ["--min-uid", "500"],
        ["--service"],
        ["--service", "../x"],
        ["--service", ""],
        ["--service", "login", "--min-uid", "x"],
        ["--service", "login", "--hub-user", "no-such-account"],
        ["--serv", "login"],
    ],
)
def test_arguments_that_mean_nothing(words: list[str]) -> None:
    with pytest.raises(SystemExit):
        pam_rules.parse(words)


def test_root_is_root_whatever_the_rules_say() -> None:
    rules = Rules(frozenset({"login"}), 1, any_shell=True)
    order = {"name": "root", "service": "login", "encoding": "utf8"}
    assert "root's" in rules.refusal("root", order)


def test_conversations_of_a_hub_that_is_not_root_are_counted() -> None:
    rules = Rules(frozenset({"login"}), 1)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        many = [Talk("ada", ours)] * WAITING_MAX
        assert not Desk(serve, rules, waiting=many[1:]).crowded("ada", False)
        assert Desk(serve, rules, waiting=many).crowded("ada", False)
        assert not Desk(serve, rules, waiting=many).crowded("ben", False)
        assert not Desk(serve, rules, waiting=many).crowded("ada", True)
        for session in (False, True):
            full = Desk(serve, rules, children=Counter({session: TALKS_MAX}))
            assert full.crowded("ben", session)
            assert not full.crowded("ben", not session)
        theirs.close()
        assert not Desk(serve, rules, waiting=many).crowded("ada", False)
