"""Guessing at passwords is slowed down, for whoever guesses."""

from __future__ import annotations

from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from http.cookiejar import CookieJar

import pytest
from accounts.conftest import PASSWORD, Hubs, Machine
from accounts.test_unprivileged_logins import rule_in, told

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


def test_strangers_do_not_have_a_known_browser_sent_away_by_a_broker_with_a_pace(
    hubs: Hubs, machine: Machine
) -> None:
    """As a hub has one that is not root. They keep their turns, and come all at the same time."""
    name, account = "wsacct-gia", "wsacct-ghub"
    machine.add(name)
    machine.add(account)
    unix = "auth required pam_unix.so\naccount required pam_unix.so\n"  # with its delay
    machine.write("/etc/pam.d/wsacct-paced", unix)
    config = CONFIG + "c.PAMAuthenticator.service = 'wsacct-paced'\n"
    rule = rule_in(told(hubs.start(config, as_user=account)))
    machine.write("/etc/sudoers.d/wsacct-guessing", f"{rule}\n", mode="440")
    hub = hubs.start(config, as_user=account)
    known = Browser(hub.root)
    assert known.login(name, PASSWORD).status == 200

    def stranger(number: int) -> int:
        headers = {"X-Forwarded-For": f"198.51.{number}.1"}
        return Browser(hub.root, headers=headers).login(name, "a guess").status

    machine.run("usermod", "--shell", "/usr/sbin/nologin", name)  # is refused without a delay
    assert {stranger(number) for number in range(NAME.free)} == {403}
    machine.run("usermod", "--shell", "/bin/bash", name)
    assert {stranger(number) for number in range(100, 120)} == {429}
    eventually_sync(lambda: stranger(119) == 403, "the last one's turn", every=1)
    with ThreadPoolExecutor(20) as pool:
        strangers = [pool.submit(stranger, number) for number in range(100, 120)]
        wait(strangers, timeout=60, return_when=FIRST_COMPLETED)
        assert without_session(known).login(name, PASSWORD).status == 200
    assert {each.result() for each in strangers} == {403, 429}


def test_the_right_password_of_an_account_that_cannot_be_used_is_no_guess(hub: Hub) -> None:
    for _ in range(PAIR.free + 3):
        assert Browser(hub.root).login("wsacct-gwen", PASSWORD).status == 403


def test_a_site_may_leave_it_to_pam(hubs: Hubs, hub: Hub) -> None:
    other = hubs.start(CONFIG + "c.WorkshopAuthenticator.slow_guessing = False\n")
    browser = Browser(other.root)
    for _ in range(PAIR.free + 3):
        assert browser.login("wsacct-gus", "a guess").status == 403
