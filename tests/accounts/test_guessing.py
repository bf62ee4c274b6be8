"""Guessing at passwords is slowed down, for whoever guesses."""

from __future__ import annotations

from http.cookiejar import CookieJar

import pytest
from accounts.conftest import PASSWORD, Hubs, Machine

from hubs import Answer, Browser, Hub, words
from support import eventually_sync
from workshop_hub.slowdown import NAME, PAIR

CONFIG = "c.Authenticator.allow_all = True\n"


@pytest.fixture(scope="module")
def hub(machine: Machine, hubs: Hubs) -> Hub:
    for name in ("wsacct-gil", "wsacct-gus", "wsacct-gwen"):
        machine.add(name)
    machine.run("usermod", "--expiredate", "2001-01-01", "wsacct-gwen")
    return hubs.start(CONFIG)


def guess(hub: Hub, name: str) -> Answer:
    """Guess wrongly, until whoever does so is to wait."""
    browser = Browser(hub.root)
    return next(
        answer
        for _ in range(PAIR.free + 2)
        if (answer := browser.login(name, "a guess")).status == 429
    )


def without_session(browser: Browser) -> Browser:
    """Return a browser that has logged out, and is closed and opened again."""
    other = Browser(browser.root)
    for cookie in browser.jar:
        if "known" in cookie.name:
            other.jar.set_cookie(cookie)
    assert len(other.jar) == 1
    return other


def test_who_guesses_waits_and_is_told_how_long(hub: Hub) -> None:
    sent_away = guess(hub, "wsacct-gil")
    assert int(sent_away.headers["Retry-After"]) >= 1
    assert "Too many wrong passwords have been tried. Please wait " in words(sent_away.text)
    assert 'name="password"' in sent_away.text
    # the right password does not help, but waiting does; nor does a form without cookies
    eventually_sync(
        lambda: Browser(hub.root).login("wsacct-gil", PASSWORD).status == 200, "the login"
    )


def test_others_do_not_wait_and_nor_does_a_browser_that_is_known(hub: Hub) -> None:
    known = Browser(hub.root)
    assert known.login("wsacct-gil", PASSWORD).status == 200
    sent_away = guess(hub, "wsacct-gil")
    assert sent_away.status == 429
    assert Browser(hub.root).login("wsacct-gus", PASSWORD).status == 200
    assert without_session(known).login("wsacct-gil", PASSWORD).status == 200


def test_a_browser_is_known_for_its_own_name_only(hub: Hub) -> None:
    known = Browser(hub.root)
    assert known.login("wsacct-gus", PASSWORD).status == 200
    guess(hub, "wsacct-gil")
    guess(hub, "wsacct-gil")
    assert without_session(known).login("wsacct-gil", "a guess").status in (403, 429)
    forged = Browser(hub.root, CookieJar())
    for cookie in known.jar:
        if "known" in cookie.name:
            cookie.value = f"{cookie.value}0"
            forged.jar.set_cookie(cookie)
    assert guess(hub, "wsacct-gil").status == 429
    assert forged.login("wsacct-gil", PASSWORD).status == 429


def test_claimed_addresses_do_not_help_at_one_name_and_a_known_browser_waits_for_none(
    hub: Hub, machine: Machine
) -> None:
    """As an account of the machine can claim them, which reaches the hub's own port."""
    name = "wsacct-gina"
    machine.add(name)
    known = Browser(hub.root)
    assert known.login(name, PASSWORD).status == 200

    def claiming(number: int) -> Browser:
        return Browser(hub.root, headers={"X-Forwarded-For": f"198.51.100.{number}"})

    tries = [claiming(number).login(name, "a guess") for number in range(NAME.free + 6)]
    through = sum(answer.status == 403 for answer in tries)
    assert through < NAME.free + 5  # one was forgotten for each minute that it took
    assert {answer.status for answer in tries} == {403, 429}
    assert without_session(known).login(name, PASSWORD).status == 200
    owner = claiming(250)
    eventually_sync(lambda: owner.login(name, PASSWORD).status == 200, "the owner's turn")


def test_the_right_password_of_an_account_that_cannot_be_used_is_no_guess(hub: Hub) -> None:
    for _ in range(PAIR.free + 3):
        assert Browser(hub.root).login("wsacct-gwen", PASSWORD).status == 403


def test_a_site_may_leave_it_to_pam(hubs: Hubs, hub: Hub) -> None:
    other = hubs.start(CONFIG + "c.WorkshopAuthenticator.slow_guessing = False\n")
    browser = Browser(other.root)
    for _ in range(PAIR.free + 3):
        assert browser.login("wsacct-gus", "a guess").status == 403
