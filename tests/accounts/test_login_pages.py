"""The pages that ask for what PAM wants beside a password: a code, or a new password."""

from __future__ import annotations

import hmac
import re
import struct
from collections.abc import Iterator

import pytest
from accounts.browser import PHONE, Chromium, picture, too_wide
from accounts.conftest import PASSWORD, Hubs, Machine
from selenium.common.exceptions import WebDriverException
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webdriver import WebDriver
from selenium.webdriver.support.wait import WebDriverWait

from hubs import Answer, Browser, Hub, words
from workshop_hub import pam_service
from workshop_hub.logins import SAME_MAX

NEW = "quite another sentence"
SECRET = bytes(range(20))

SERVICES = {
    "change": """
auth required pam_unix.so nodelay
account required pam_unix.so
password required pam_unix.so obscure yescrypt
""",
    "codes": """
auth required pam_unix.so nodelay
auth required pam_oath.so usersfile=/etc/wsacct-oath window=3 digits=6
account required pam_unix.so
""",
    "machine": pam_service.text(pam_service.form()),
}


def code(counter: int) -> str:
    """Return a one-time code (RFC 4226)."""
    digest = hmac.digest(SECRET, struct.pack(">Q", counter), "sha1")
    start = digest[-1] & 15
    return f"{(struct.unpack('>I', digest[start : start + 4])[0] & 0x7FFFFFFF) % 10**6:06}"


def config(service: str) -> str:
    return f"""
c.PAMAuthenticator.service = "wsacct-{service}"
c.Authenticator.allow_all = True
"""


@pytest.fixture(scope="module")
def prepared(machine: Machine) -> Machine:
    for name, text in SERVICES.items():
        machine.write(f"/etc/pam.d/wsacct-{name}", text)
    machine.add("wsacct-ola")
    return machine


@pytest.fixture(scope="module", params=["change", "machine"])
def changing(request: pytest.FixtureRequest, prepared: Machine, hubs: Hubs) -> Hub:
    return hubs.start(config(request.param))


@pytest.fixture(scope="module")
def coded(prepared: Machine, hubs: Hubs) -> Hub:
    return hubs.start(config("codes"))


@pytest.fixture
def due(prepared: Machine) -> Iterator[str]:
    """An account whose password must be changed."""
    name = "wsacct-due"
    prepared.add(name)
    prepared.run("chage", "--lastday", "0", name)
    yield name
    prepared.run("userdel", "--remove", "--force", name)


@pytest.fixture
def codes(prepared: Machine) -> None:
    """Begin the account's codes anew."""
    prepared.write("/etc/wsacct-oath", f"HOTP wsacct-ola - {SECRET.hex()}\n", "600")


def fields(page: Answer) -> dict[str, str]:
    """Return the names of a page's fields, and what they hold."""
    inputs = re.findall(r"<input\b[^>]*>", page.text)
    found = [dict(re.findall(r'(\w+)="([^"]*)"', each)) for each in inputs]
    return {each["name"]: each.get("value", "") for each in found if "name" in each}


def answer(browser: Browser, page: Answer, **answers: str) -> Answer:
    """Fill in the page's form, and send it."""
    assert set(answers) <= set(fields(page))
    action = re.search(r'<form action="([^"]+)"', page.text)
    assert action
    return browser.open(action[1], {**fields(page), **answers})


def who(browser: Browser) -> str:
    """Return who is logged in."""
    home = browser.open("/hub/home")
    found = re.search(r'\buser: "([^"]+)"', home.text)
    return found[1] if found and "/hub/login" not in home.url else ""


def test_a_password_that_must_be_changed_is_changed_on_the_way_in(changing: Hub, due: str) -> None:
    browser = Browser(changing.root)
    page = browser.login(due, PASSWORD)
    assert page.status == 200
    assert "required to change your password" in words(page.text)
    assert {"old", "new", "again"} <= set(fields(page))
    assert PASSWORD not in page.text
    assert who(browser) == ""
    assert answer(browser, page, old=PASSWORD, new=NEW, again=NEW).status == 200
    assert who(browser) == due
    other = Browser(changing.root)
    assert other.login(due, PASSWORD).status == 403
    assert other.login(due, NEW).status == 200
    assert who(other) == due


def test_pams_own_complaints_are_shown_and_another_password_is_taken(
    changing: Hub, due: str
) -> None:
    browser = Browser(changing.root)
    page = browser.login(due, PASSWORD)
    page = answer(browser, page, old=PASSWORD, new="abc", again="abc")
    assert "must choose a longer password" in words(page.text)
    assert "old" not in fields(page)
    answer(browser, page, new=NEW, again=NEW)
    assert who(browser) == due


def test_two_new_passwords_that_differ_are_asked_for_again(changing: Hub, due: str) -> None:
    browser = Browser(changing.root)
    page = browser.login(due, PASSWORD)
    page = answer(browser, page, old=PASSWORD, new=NEW, again="something else")
    assert "The two new passwords are not the same." in words(page.text)
    page = answer(browser, page, old=PASSWORD, new="x" * 600, again="x" * 600)
    assert "has 600 bytes; PAM takes 512" in words(page.text)
    page = answer(browser, page, old=PASSWORD)
    assert "Please choose a new password." in words(page.text)
    answer(browser, page, old=PASSWORD, new=NEW, again=NEW)
    assert who(browser) == due


def test_the_wrong_old_password_changes_nothing(changing: Hub, due: str) -> None:
    browser = Browser(changing.root)
    page = browser.login(due, PASSWORD)
    page = answer(browser, page, old="something else", new=NEW, again=NEW)
    assert page.status == 403
    assert "The password was not changed. Was the current one right?" in words(page.text)
    assert {"username", "password"} <= set(fields(page))
    assert who(browser) == ""
    assert "Please choose a new password" in words(browser.login(due, PASSWORD).text)


def test_the_wrong_password_is_not_told_that_it_must_be_changed(changing: Hub, due: str) -> None:
    page = Browser(changing.root).login(due, "something else")
    assert page.status == 403
    assert "Invalid username or password" in words(page.text)


def test_a_code_is_asked_for_on_a_page_of_its_own(coded: Hub, codes: None) -> None:
    browser = Browser(coded.root)
    page = browser.open("/hub/login?next=%2Fhub%2Ftoken")
    page = answer(browser, page, username="wsacct-ola", password=PASSWORD)
    assert "One-time password (OATH) for" in words(page.text)
    assert who(browser) == ""
    after = answer(browser, page, answer0=code(0))
    assert after.url.endswith("/hub/token")
    assert who(browser) == "wsacct-ola"


@pytest.mark.parametrize(
    ("password", "typed"), [(PASSWORD, "000000"), ("something else", code(0)), (PASSWORD, "")]
)
def test_both_must_be_right(coded: Hub, codes: None, password: str, typed: str) -> None:
    browser = Browser(coded.root)
    page = answer(browser, browser.login("wsacct-ola", password), answer0=typed)
    assert page.status == 403
    assert "Invalid username or password" in words(page.text)
    assert who(browser) == ""


def test_answers_are_taken_once(coded: Hub, codes: None) -> None:
    browser = Browser(coded.root)
    page = browser.login("wsacct-ola", PASSWORD)
    form = {**fields(page), "answer0": code(0)}
    assert browser.open("/hub/login", form).status == 200
    stranger = Browser(coded.root)
    stranger.open("/hub/login")
    late = stranger.open("/hub/login", form)
    assert late.status == 403
    assert "took too long, or was answered already" in words(late.text)
    assert who(stranger) == ""


def test_who_begins_anew_too_often_loses_the_first_page(coded: Hub, codes: None) -> None:
    browser = Browser(coded.root)
    pages = [browser.login("wsacct-ola", PASSWORD) for _ in range(SAME_MAX + 1)]
    assert answer(browser, pages[0], answer0=code(0)).status == 403
    assert answer(browser, pages[1], answer0=code(0)).status == 200


@pytest.mark.parametrize("token", ["", "x", "\0", "x" * 10000])
def test_answers_to_nothing_are_refused(coded: Hub, token: str) -> None:
    browser = Browser(coded.root)
    browser.open("/hub/login")
    assert browser.open("/hub/login", {"conversation": token}).status == 403


def test_the_first_page_may_ask_for_the_code_as_well(
    prepared: Machine, hubs: Hubs, codes: None
) -> None:
    hub = hubs.start(config("codes") + "c.Authenticator.request_otp = True\n")
    browser = Browser(hub.root)
    page = browser.open("/hub/login")
    answer(browser, page, username="wsacct-ola", password=PASSWORD, otp=code(0))
    assert who(browser) == "wsacct-ola"


def fill_in(browser: WebDriver, **values: str) -> None:
    """Type into the page's fields, and send them as somebody at a keyboard does."""
    for name, value in values.items():
        field = browser.find_element("name", name)
        field.send_keys(value)
    page = browser.find_element("tag name", "html").id
    field.send_keys(Keys.ENTER)
    waiting(browser).until(lambda _: browser.find_element("tag name", "html").id != page)


def waiting(browser: WebDriver) -> WebDriverWait[WebDriver]:
    """Return a wait; between two pages the driver knows neither, and says so in many ways."""
    return WebDriverWait(browser, 60, ignored_exceptions=[WebDriverException])


@pytest.mark.parametrize("javascript", [True, False])
def test_pages_are_readable_on_a_telephone_and_need_no_javascript(
    changing: Hub, coded: Hub, due: str, codes: None, chromium: Chromium, javascript: bool
) -> None:
    browser = chromium(width=PHONE, javascript=javascript)
    browser.get(f"{coded.root}/hub/login")
    assert_readable(browser, f"login-{javascript}")
    fill_in(browser, username="wsacct-ola", password=PASSWORD)
    assert_readable(browser, f"code-{javascript}")
    fill_in(browser, answer0=code(0))
    assert browser.current_url.endswith("/hub/home")
    browser.delete_all_cookies()
    browser.get(f"{changing.root}/hub/login")
    fill_in(browser, username=due, password=PASSWORD)
    assert_readable(browser, f"change-{javascript}")
    fill_in(browser, old=PASSWORD, new="abc", again="abc")
    assert "must choose a longer password" in browser.find_element("id", "login-main").text
    assert_readable(browser, f"complaint-{javascript}")
    fill_in(browser, new=NEW, again=NEW)
    assert browser.current_url.endswith("/hub/home")


def assert_readable(browser: WebDriver, name: str) -> None:
    """Check that nothing of a form lies beside the screen, and its letters are not small."""
    waiting(browser).until(lambda _: too_wide(browser) <= 0)  # it is laid out as it comes
    picture(browser, name)
    for field in browser.find_elements("css selector", "form input:not([type=hidden])"):
        assert field.rect["x"] >= 0
        assert field.rect["x"] + field.rect["width"] <= PHONE
        assert float(field.value_of_css_property("font-size").removesuffix("px")) >= 14
