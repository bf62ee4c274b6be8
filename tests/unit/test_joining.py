"""What can be said of a registration without the machine."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workshop_hub.authenticator import WorkshopAuthenticator
from workshop_hub.policy import joining
from workshop_hub.policy.joining import FIELDS, Window
from workshop_hub.system.reserved_names import is_reserved

CODE = "seven-green-bottles"
RIGHT = {"username": "ada", "password": "a long one", "password2": "a long one", "code": CODE}


def wrong(**fields: str) -> dict[str, str]:
    return joining.problems({**RIGHT, **fields}, CODE, lambda name: name == "ada")


def test_a_right_form() -> None:
    assert wrong() == {}
    assert wrong(code=f" {CODE}\t") == {}


@pytest.mark.parametrize(
    ("fields", "where"),
    [
        ({"username": ""}, {"username"}),
        ({"username": "eve"}, {"username"}),
        ({"code": ""}, {"code"}),
        ({"code": CODE[:-1]}, {"code"}),
        ({"code": CODE.upper()}, {"code"}),
        ({"code": "🔑" * 1000}, {"code"}),
        ({"password": ""}, {"password", "password2"}),
        ({"password2": "a long onE"}, {"password2"}),
        ({"password": "seven77", "password2": "seven77"}, {"password"}),
        ({"password": CODE, "password2": CODE}, {"password"}),
        ({"password": "abababab\n", "password2": "abababab\n"}, {"password"}),
        ({"password": "abababab", "password2": "abababab"}, {"password"}),
        (dict.fromkeys(FIELDS, ""), {"username", "password", "code"}),
    ],
)
def test_a_sentence_for_each_field_that_is_wrong(fields: dict[str, str], where: set[str]) -> None:
    assert set(wrong(**fields)) == where


def test_a_name_is_no_password() -> None:
    form = {**RIGHT, "username": "adaadada8", "password": "ADAadada8", "password2": "ADAadada8"}
    assert set(joining.problems(form, CODE, lambda name: True)) == {"password"}


@given(st.fixed_dictionaries(dict.fromkeys(FIELDS, st.text())))
def test_any_text_gets_an_answer(form: dict[str, str]) -> None:
    assert set(joining.problems(form, CODE, lambda name: False)) <= set(FIELDS)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("2027-03-01T08:30+01:00", "1 March 2027 at 08:30 (UTC+0100)"),
        ("2027-03-21T08:30:15Z", "21 March 2027 at 08:30 (UTC)"),
        (" 2027-03-01T08:30-03:30 ", "1 March 2027 at 08:30 (UTC-0330)"),
    ],
)
def test_dates(text: str, shown: str) -> None:
    found = joining.moment(text)
    assert found
    assert joining.shown(found) == shown


@pytest.mark.parametrize("text", ["2027-03-01", "2027-03-01T08:30", "tomorrow", "Z", "99"])
def test_dates_that_are_none(text: str) -> None:
    with pytest.raises(ValueError):
        joining.moment(text)


def test_the_window_has_its_first_moment_and_not_its_last() -> None:
    opens = datetime(2027, 3, 1, 8, tzinfo=timezone.utc)
    closes = opens + timedelta(hours=4)
    window = Window(opens, closes)
    assert "opens on 1 March" in window.closed(opens - timedelta(seconds=1))
    assert window.closed(opens) == ""
    assert window.closed(closes - timedelta(seconds=1)) == ""
    assert "closed since 1 March" in window.closed(closes)
    assert Window().closed(opens) == ""


@pytest.mark.parametrize("name", ["root", "docker", "admin", "_apt", "systemd-oom", "workshop-hub"])
def test_reserved_names(name: str) -> None:
    assert is_reserved(name)
    assert not WorkshopAuthenticator(join_code=CODE).may_register(name)


def test_who_may_log_in() -> None:
    joined = WorkshopAuthenticator(join_code=CODE, join_group="course", allowed_groups={"staff"})
    assert joined.allowed_groups == {"staff", "course"}
    assert WorkshopAuthenticator(join_group="course").allowed_groups == set()
