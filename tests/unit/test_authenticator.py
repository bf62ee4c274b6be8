"""The authenticator's own rules; real accounts and PAM are in tests/accounts."""

from __future__ import annotations

import logging
import pwd
import threading
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import pytest
from tornado.web import HTTPError
from traitlets import TraitError
from traitlets.config import Config

from workshop_hub.authenticator import Named, WorkshopAuthenticator
from workshop_hub.conversation import ANSWER_TIMEOUT
from workshop_hub.errors import AccountRefused
from workshop_hub.system import accounts, pam
from workshop_hub.system.broker import Attempt, Broker, Converse

ABSENT = "workshop-absent"


def make(**options: object) -> WorkshopAuthenticator:
    return WorkshopAuthenticator(config=Config({"WorkshopAuthenticator": options}))


@pytest.mark.parametrize("name", ["ada", "_ada", "a-b_c9", "a" * 32])
def test_valid_names(name: str) -> None:
    assert make().validate_username(name)


@pytest.mark.parametrize(
    "name",
    ["", "Ada", "-rf", "a b", "../x", "a.b", "ada\n", "#1000", "1ada", "٣", "a٣", "a" * 33, "ä"],
)
def test_invalid_names(name: str) -> None:
    assert not make().validate_username(name)


def test_a_site_may_widen_the_pattern_and_not_the_safe_rules() -> None:
    wide = make(username_pattern=r"[a-z0-9.@\\-]+")
    assert wide.validate_username("ada.l@corp")
    assert not wide.validate_username("-rf")
    assert not wide.validate_username("1000")
    assert not wide.validate_username("ada_")
    assert make(username_pattern="").validate_username("Ada Lovelace")
    assert not make(username_pattern="").validate_username("a:b")


def test_the_whole_name_must_match() -> None:
    assert not make(username_pattern="ada|bob").validate_username("adaX")


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("Ada", "ada"),
        ("ADA", "ada"),
        ("teacher", "ada"),
        ("Teacher", "ada"),
        ("ada", "ada"),
        ("Chief", "Bob"),
        ("Bob", "Bob"),
        ("first", "second"),
        ("second", "second"),
    ],
)
def test_one_form_of_each_name_however_often_it_is_asked_for(typed: str, expected: str) -> None:
    mapped = make(
        username_map={"teacher": "ada", "chief": "Bob", "first": "second", "second": "third"}
    )
    assert mapped.normalize_username(typed) == expected
    assert mapped.normalize_username(expected) == expected


def test_normalizing_through_the_machine_does_not_fail_for_strangers() -> None:
    through = make(pam_normalize_username=True)
    assert through.normalize_username("root") == "root"
    assert through.normalize_username(ABSENT.upper()) == ABSENT
    assert through.normalize_username("a\0b") == "a\0b"


def test_a_name_that_is_no_text_is_a_bad_request() -> None:
    with pytest.raises(HTTPError) as caught:
        make().normalize_username(None)
    assert caught.value.status_code == 400


@pytest.mark.parametrize(
    "form",
    [
        {},
        {"username": "ada"},
        {"password": "x"},
        {"username": "ada", "password": ""},
        {"username": "ada", "password": "x" * 513},
        {"username": "ada", "password": "a\0b"},
        {"username": "ada", "password": "\ud800"},
        {"username": "ada", "password": "x", "otp": "\0"},
        {"username": "", "password": "x"},
        {"username": "x" * 300, "password": "x"},
        {"username": "a\0b", "password": "x"},
        {"username": "a\nb", "password": "x"},
        {"username": "root", "password": "x"},
        {"username": "ROOT", "password": "x"},
        {"username": "daemon", "password": "x"},
        {"username": "nobody", "password": "x"},
        {"username": "blocked", "password": "x"},
    ],
)
async def test_refused_before_pam(form: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    async def asked(*args: object, **options: object) -> pam.Verdict:
        pytest.fail("PAM was asked")

    monkeypatch.setattr(Broker, "ask", asked)
    data = dict(form)
    assert await make(blocked_users={"blocked"}).get_authenticated_user(None, data) is None
    assert "username" in data


async def test_no_form_at_all() -> None:
    assert await make().get_authenticated_user(None, None) is None


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, tuple[str, ...], bool]]:
    """Stand in for PAM, which says yes to everybody; return what it was asked."""
    calls = []

    async def ask(self: Broker, attempt: Attempt, converse: Converse) -> pam.Verdict:
        calls.append((attempt.name, attempt.secrets, attempt.account))
        return pam.Verdict(0, "account")

    monkeypatch.setattr(Broker, "ask", ask)
    return calls


async def test_pam_is_asked_about_the_name_that_the_hub_uses(
    asked: list[tuple[str, tuple[str, ...], bool]],
) -> None:
    person = make(username_map={"teacher": ABSENT}, check_account=False, create_system_users=False)
    model = await person.authenticate(None, {"username": "Teacher", "password": "x", "otp": ""})
    assert model is not None
    assert model["name"] == ABSENT
    assert asked == [(ABSENT, ("x", ""), False)]


@pytest.mark.parametrize("name", ["root", ABSENT])
async def test_the_hub_never_waits_for_a_directory_however_long_a_login_takes(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = 1000.0

    async def ask(self: Broker, attempt: Attempt, converse: Converse) -> pam.Verdict:
        nonlocal clock
        clock += ANSWER_TIMEOUT
        return pam.Verdict(0, "account")

    asked_in = []

    def getpwnam(wanted: str, really: Any = pwd.getpwnam) -> Any:
        asked_in.append(threading.current_thread())
        return really(wanted)

    monkeypatch.setattr(Broker, "ask", ask)
    frozen = SimpleNamespace(monotonic=lambda: clock)
    monkeypatch.setattr("workshop_hub.authenticator.time", frozen)
    monkeypatch.setattr(pwd, "getpwnam", getpwnam)
    through = make(pam_normalize_username=True, allow_all=True)
    monkeypatch.setattr(through, "_account_refusal", lambda name: "")
    with suppress(HTTPError):  # there is no such account
        await through.get_authenticated_user(None, {"username": name, "password": "x"})
    with suppress(AccountRefused):
        await through.add_user(Named(name))
    assert asked_in
    assert threading.main_thread() not in asked_in


async def test_a_stranger_whom_pam_knows_is_told_that_the_account_is_missing(asked: object) -> None:
    welcome = make(allow_all=True, admin_groups={"root"}, allowed_groups={"root"})
    with pytest.raises(HTTPError) as caught:
        await welcome.get_authenticated_user(None, {"username": ABSENT, "password": "x"})
    assert caught.value.status_code == 403
    assert "no account" in str(caught.value.log_message)


async def test_a_stranger_is_in_no_group(asked: object) -> None:
    groups = make(admin_groups={"root"}, allowed_groups={"root"})
    assert not groups.check_allowed(ABSENT)
    assert not groups.check_allowed(ABSENT, {"name": ABSENT})
    assert await groups.is_admin(None, {"name": ABSENT}) is False


async def test_groups_decide_who_is_an_administrator() -> None:
    def named(name: str) -> dict[str, Any]:
        return {"name": name}

    assert await make().is_admin(None, named("root")) is None
    assert await make(admin_groups={"root"}).is_admin(None, named("root")) is True
    assert await make(admin_groups={"root"}).is_admin(None, named("daemon")) is False
    by_name = make(admin_groups={"root"}, admin_users={"daemon"})
    assert await by_name.is_admin(None, named("daemon")) is True


async def test_a_missing_group_is_a_warning_that_names_the_option(
    caplog: pytest.LogCaptureFixture,
) -> None:
    missing = make(admin_groups={"no-such-group", "root"}, allowed_groups={"nor-this-one"})
    missing.log = logging.getLogger("workshop-test")
    assert await missing.is_admin(None, {"name": "root"}) is True
    assert not missing.check_allowed("root")
    assert 'option admin_groups names the group "no-such-group"' in caplog.text
    assert 'option allowed_groups names the group "nor-this-one"' in caplog.text
    caplog.clear()
    missing.check_allow_config()
    assert "no-such-group" in caplog.text
    assert "nor-this-one" in caplog.text


@pytest.mark.parametrize("name", ["root", "daemon", "nobody"])
async def test_system_accounts_are_refused_on_every_path(name: str) -> None:
    open_to_all = make(allow_all=True, create_system_users=True)
    assert not open_to_all.check_blocked_users(name)
    with pytest.raises(AccountRefused, match="may not use the hub"):
        await open_to_all.add_user(Named(name))


def test_a_subclass_that_forgets_to_await_does_not_open_the_door() -> None:
    closed = make(allowed_users={"ada"}, allowed_groups={"no-such-group"})
    assert closed.check_allowed(ABSENT) is False
    assert closed.check_allowed_groups(ABSENT) is False
    assert closed.check_blocked_users("root") is False


@pytest.mark.parametrize("name", ["Ada", "-rf", "a b", "../x", "a\nb", "#1000", "x" * 300, "٣"])
async def test_hostile_names_are_not_taken_in(name: str) -> None:
    eager = make(create_system_users=True, add_user_cmd=["false"])
    with pytest.raises(AccountRefused, match="no valid name"):
        await eager.add_user(Named(name))


async def test_a_name_in_another_form_is_not_taken_in_even_where_it_is_valid() -> None:
    capitals = make(username_pattern="[A-Za-z-]+", create_system_users=True, add_user_cmd=["false"])
    with pytest.raises(AccountRefused, match="no valid name"):
        await capitals.add_user(Named(ABSENT.upper()))


async def test_without_create_system_users_a_missing_account_is_refused() -> None:
    with pytest.raises(AccountRefused, match="create_system_users"):
        await make().add_user(Named(ABSENT))


def test_options_keep_their_names_in_every_class_they_come_from() -> None:
    config = Config(
        {
            "Authenticator": {"allowed_users": {"ada"}},
            "LocalAuthenticator": {"add_user_cmd": ["./add_user.sh"], "allowed_groups": {"lab"}},
            "PAMAuthenticator": {"admin_groups": {"wheel"}, "open_sessions": False},
        }
    )
    made = WorkshopAuthenticator(config=config)
    assert made.add_user_cmd == ["./add_user.sh"]
    assert made.allowed_groups == {"lab"}
    assert made.admin_groups == {"wheel"}
    assert made.service == "login"
    assert make().min_uid == accounts.uid_min()


def test_root_cannot_be_let_in_by_min_uid() -> None:
    with pytest.raises(TraitError):
        make(min_uid=0)


def test_our_options_do_not_silence_the_hubs_warning_that_nobody_may_enter() -> None:
    assert make().any_allow_config is False


def test_every_option_is_described() -> None:
    own = WorkshopAuthenticator.class_own_traits(config=True)
    assert own
    for name, trait in own.items():
        assert len(trait.help.strip()) > 80, name
