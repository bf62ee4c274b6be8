"""Who gets in: real accounts, real pam_unix, the hub's own login page."""

from __future__ import annotations

import os
import re
import sys

import pytest
from accounts.conftest import PASSWORD, Hubs, Machine

from hubs import Browser, Hub, words

CONFIG = """
c.LocalAuthenticator.allowed_groups = {"wsacct-class"}
c.PAMAuthenticator.admin_groups = {"wsacct-staff", "wsacct-nowhere"}
c.Authenticator.username_map = {"teacher": "wsacct-tess"}
c.Authenticator.blocked_users = {"wsacct-bart"}
"""


@pytest.fixture(scope="module")
def hub(machine: Machine, hubs: Hubs) -> Hub:
    for group in ("wsacct-class", "wsacct-staff"):
        machine.run("groupadd", group)
    into = ("--groups", "wsacct-class")
    machine.add("wsacct-ada", *into)
    machine.add("wsacct-bart", *into)
    machine.add("wsacct-out")
    machine.add("wsacct-sys", *into, "--uid", "901")
    machine.add("wsacct-nologin", *into, "--shell", "/usr/sbin/nologin")
    machine.add("wsacct-false", *into, "--shell", "/bin/false")
    machine.add("wsacct-odd", *into, "--shell", "/usr/bin/env")
    machine.add("wsacct-locked", *into)
    machine.run("usermod", "--lock", "wsacct-locked")
    machine.add("wsacct-expired", *into, "--expiredate", "2001-01-01")
    machine.add("wsacct-empty", *into)
    machine.run("passwd", "--delete", "wsacct-empty")
    machine.add("wsacct-prim", "--gid", "wsacct-class")
    machine.add("wsacct-tess", "--gid", "wsacct-staff", *into)
    machine.add("wsacct-tom", "--groups", "wsacct-class,wsacct-staff")
    machine.add("wsacct-case", *into, password="the small one's own")
    machine.add("WSACCT-Case", *into, "--badname", password="the large one's own")
    machine.set_password("root")
    return hubs.start(CONFIG)


def login(hub: Hub, form: dict[str, str]) -> tuple[int, str, Browser]:
    """Send the login form; return the status, who is logged in then or "", and the session."""
    browser = Browser(hub.root)
    browser.open("/hub/login")
    answer = browser.open("/hub/login", form)
    mine = browser.open("/hub/home")
    found = re.search(r'\buser: "([^"]+)"', mine.text)
    who = found[1] if found and "/hub/login" not in mine.url else ""
    return answer.status, who, browser


def enter(hub: Hub, name: str, password: str = PASSWORD) -> str:
    """Log in; return who is logged in then, "" after an ordinary refusal."""
    status, who, _ = login(hub, {"username": name, "password": password})
    assert status == (200 if who else 403)
    return who


def test_a_member_of_an_allowed_group_gets_in(hub: Hub) -> None:
    assert enter(hub, "wsacct-ada") == "wsacct-ada"
    assert enter(hub, "wsacct-prim") == "wsacct-prim"


def test_the_wrong_password_does_not(hub: Hub) -> None:
    assert enter(hub, "wsacct-ada", "something else") == ""
    assert enter(hub, "wsacct-nobody-of-this-name") == ""


def test_a_right_password_of_someone_outside_the_groups_does_not(hub: Hub) -> None:
    assert enter(hub, "wsacct-out") == ""


def test_one_name_for_pam_and_hub(hub: Hub) -> None:
    assert enter(hub, "WSACCT-Ada") == "wsacct-ada"
    assert enter(hub, "Teacher") == "wsacct-tess"
    assert enter(hub, "wsacct-case", "the small one's own") == "wsacct-case"
    assert enter(hub, "WSACCT-Case", "the small one's own") == "wsacct-case"


def test_the_password_of_another_account_that_differs_in_case_does_not_help(hub: Hub) -> None:
    assert enter(hub, "WSACCT-Case", "the large one's own") == ""
    assert enter(hub, "wsacct-case", "the large one's own") == ""


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("root", "root's"),
        ("ROOT", "root's"),
        ("wsacct-sys", "uid 901 is below min_uid"),
        ("wsacct-nologin", "/usr/sbin/nologin lets nobody log in"),
        ("wsacct-false", "/bin/false lets nobody log in"),
        ("wsacct-odd", "/usr/bin/env is not in /etc/shells"),
        ("wsacct-empty", "empty password"),
        ("wsacct-bart", "blocked_users"),
        ("wsacct-locked", "PAM (authentication): Authentication failure (it is locked)"),
        ("wsacct-expired", "PAM (account)"),
    ],
)
def test_refused_with_the_right_password_and_the_log_says_why(
    hub: Hub, name: str, reason: str
) -> None:
    before = len(hub.log)
    assert enter(hub, name) == ""
    assert reason in hub.log[before:]


def test_whoever_knows_the_password_is_told_why_the_account_cannot_be_used(hub: Hub) -> None:
    browser = Browser(hub.root)
    for password in (PASSWORD, "something else"):
        answer = browser.login("wsacct-expired", password)
        assert answer.status == 403
        told = "This account has expired. Please ask the administrator." in words(answer.text)
        assert told == (password == PASSWORD)


def test_an_account_without_a_password_takes_none(hub: Hub) -> None:
    assert enter(hub, "wsacct-empty", "") == ""
    assert enter(hub, "wsacct-ada", "") == ""


ASK_PAM = """
import sys
from workshop_hub.system import pam
verdict = pam.check(sys.argv[1], ("typed",), service="workshop-test", encoding="utf8", account=True)
print(verdict.granted)
"""


def test_pam_itself_is_told_to_take_no_empty_password(hub: Hub, machine: Machine) -> None:
    """So too where we cannot read where the passwords are; the service has `nullok`."""
    machine.set_password("wsacct-ada", "typed")
    ask = ["env", f"PYTHONPATH={os.environ.get('PYTHONPATH', '')}", sys.executable, "-c", ASK_PAM]
    assert machine.run(*ask, "wsacct-ada") == "True\n"
    assert machine.run(*ask, "wsacct-empty") == "False\n"
    machine.set_password("wsacct-ada")


@pytest.mark.parametrize(
    "form", [{}, {"username": "wsacct-ada"}, {"password": PASSWORD}, {"x": "y"}, {"otp": "1"}]
)
def test_missing_fields_are_a_failed_login(hub: Hub, form: dict[str, str]) -> None:
    status, who, _ = login(hub, form)
    assert (status, who) == (403, "")


@pytest.mark.parametrize(
    "name",
    [
        "-rf",
        "a b",
        "../x",
        "a/b",
        "wsacct-٣",
        "wsacct-ada\nx",
        "#1000",
        "1000",
        "x" * 300,
        "\0",
        "%s",
    ],
)
def test_hostile_names_are_a_failed_login(hub: Hub, name: str) -> None:
    assert enter(hub, name) == ""


def test_a_page_of_a_failed_login_says_so(hub: Hub) -> None:
    browser = Browser(hub.root)
    assert "Invalid username or password" in words(browser.login("root", PASSWORD).text)


def is_admin(hub: Hub, name: str) -> bool:
    return bool(hub.api("GET", f"/users/{name}").json["admin"])


@pytest.mark.parametrize(
    ("name", "admin"), [("wsacct-tess", True), ("wsacct-tom", True), ("wsacct-ada", False)]
)
def test_admin_by_primary_or_supplementary_group(hub: Hub, name: str, admin: bool) -> None:
    assert enter(hub, name) == name
    assert is_admin(hub, name) is admin


def test_who_leaves_the_group_is_no_administrator_from_the_next_login_on(
    hub: Hub, machine: Machine
) -> None:
    assert enter(hub, "wsacct-tom")
    assert is_admin(hub, "wsacct-tom")
    machine.run("gpasswd", "--delete", "wsacct-tom", "wsacct-staff")
    assert enter(hub, "wsacct-tom")
    assert not is_admin(hub, "wsacct-tom")
    machine.run("gpasswd", "--add", "wsacct-tom", "wsacct-staff")


def test_a_missing_group_is_a_warning_at_the_start_that_names_the_option(hub: Hub) -> None:
    assert 'The option admin_groups names the group "wsacct-nowhere"' in hub.log


def test_wider_rules_where_the_site_asks_for_them(hub: Hub, hubs: Hubs, machine: Machine) -> None:
    wide = hubs.start(
        CONFIG
        + "c.PAMAuthenticator.service = 'login'\n"
        + "c.WorkshopAuthenticator.require_login_shell = False\n"
        + "c.WorkshopAuthenticator.min_uid = 900\n"
        + "c.PAMAuthenticator.pam_normalize_username = True\n"
        + "c.Authenticator.username_pattern = '[A-Za-z][A-Za-z0-9-]*'\n"
    )
    assert enter(wide, "wsacct-nologin") == "wsacct-nologin"
    assert enter(wide, "wsacct-sys") == "wsacct-sys"
    assert enter(wide, "WSACCT-Case", "the large one's own") == "WSACCT-Case"
    assert enter(wide, "wsacct-case", "the small one's own") == "wsacct-case"
    assert enter(wide, "root") == ""
