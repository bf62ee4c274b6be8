"""Right passwords that PAM refuses all the same: what is said of it, and to whom."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from accounts.conftest import PASSWORD, Hubs, Machine
from accounts.test_login_pages import SECRET, answer, code, fields, who

from hubs import Answer, Browser, Hub, words
from workshop_hub import pam_service
from workshop_hub.login_handler import REFUSED
from workshop_hub.logins import LOCKS, UNUSABLE
from workshop_hub.slowdown import PAIR
from workshop_hub.system import pam

TEXT = (Path(__file__).parents[2] / "docs/howto/accounts.md").read_text()


def block(language: str, word: str) -> str:
    """Return the example of the documentation that has a word in it."""
    found = re.findall(rf"^```{language}\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
    (only,) = (each for each in found if word in each)
    return str(only)


UNIX = "auth required pam_unix.so nodelay\naccount required pam_unix.so\n"

FAILLOCK = block("ini", "deny").replace("deny = 5", "deny = 2")  # each costs PAM's pause

SERVICES = {
    "locks": block("pam", "faillock") + "account required pam_unix.so\n",
    "locks-codes": UNIX.replace("auth", "auth required pam_faillock.so preauth\nauth", 1)
    + "auth required pam_oath.so usersfile=/etc/wsacct-oath window=3 digits=6\n",
    "rules": f"{UNIX}account required pam_access.so\naccount required pam_time.so\n",
    "nologin": f"{UNIX}account required pam_nologin.so\n",
    "machine": pam_service.text(pam_service.form()),
}


@pytest.fixture(scope="module")
def prepared(machine: Machine) -> Machine:
    for name, text in SERVICES.items():
        machine.write(f"/etc/pam.d/wsacct-{name}", text)
    machine.write("/etc/security/faillock.conf", FAILLOCK)
    machine.run("mount", "-t", "tmpfs", "private", "/run")  # pam_faillock counts there
    machine.add("wsacct-ola")
    return machine


def start(hubs: Hubs, service: str) -> Hub:
    return hubs.start(
        f"c.PAMAuthenticator.service = 'wsacct-{service}'\n"
        "c.Authenticator.allow_all = True\n"
        "c.WorkshopAuthenticator.slow_guessing = False\n",
        proxy=True,
    )


@pytest.fixture(scope="module")
def locking(prepared: Machine, hubs: Hubs) -> Hub:
    return start(hubs, "locks")


@pytest.fixture(scope="module")
def coded(prepared: Machine, hubs: Hubs) -> Hub:
    return start(hubs, "locks-codes")


@pytest.fixture(scope="module")
def ruled(prepared: Machine, hubs: Hubs) -> Hub:
    return start(hubs, "rules")


@pytest.fixture
def locked(prepared: Machine, locking: Hub) -> Iterator[str]:
    """An account that pam_faillock has locked."""
    name = "wsacct-ola"
    for _ in range(2):
        assert shown(Browser(locking.root).login(name, "a guess")).startswith("Invalid username")
    assert prepared.run("faillock", "--user", name).count("RHOST 127.0.0.1") == 2
    yield name
    prepared.run("faillock", "--user", name, "--reset")


def shown(page: Answer) -> str:
    """Return what the login page says of a login that failed."""
    assert page.status == 403
    found = re.search(r'<p class="login_error">(.*?)</p>', page.text, re.DOTALL)
    assert found, words(page.text)
    return words(found[1]).strip()


# --- locked after wrong passwords ---------------------------------------------------------------


def test_a_locked_account_is_refused_until_it_is_unlocked(
    locking: Hub, locked: str, prepared: Machine
) -> None:
    before = len(locking.log)
    assert shown(Browser(locking.root).login(locked, PASSWORD)).endswith(LOCKS)
    assert "The account is locked due to 2 failed logins. (10 minutes left" in locking.log[before:]
    (unlock,) = re.findall("^(faillock .*--reset)$", TEXT, re.MULTILINE)
    prepared.run(*unlock.replace("ada", locked).split())
    browser = Browser(locking.root)
    assert browser.login(locked, PASSWORD).status == 200
    assert who(browser) == locked


def test_whoever_guesses_at_a_locked_account_learns_nothing(locking: Hub, locked: str) -> None:
    """Not that it is locked, nor which password is right, nor whether there is such an account."""
    tries = [(locked, PASSWORD), (locked, "a guess"), ("wsacct-nobody", "x"), ("root", "x")]
    pages = {shown(Browser(locking.root).login(name, password)) for name, password in tries}
    assert pages == {f"{REFUSED}. {LOCKS}"}


def test_no_page_tells_of_the_lock_before_the_password_is_known_to_be_right(
    coded: Hub, locked: str, prepared: Machine
) -> None:
    """With `required` PAM goes on to ask for a code, whatever the password."""
    prepared.write("/etc/wsacct-oath", f"HOTP {locked} - {SECRET.hex()}\n", "600")
    for password in (PASSWORD, "a guess"):
        browser = Browser(coded.root)
        page = browser.login(locked, password)
        assert "answer0" in fields(page)
        assert "locked" not in page.text
        before = len(coded.log)
        assert shown(answer(browser, page, answer0=code(0))).endswith(LOCKS)
        assert "The account is locked due to 2 failed logins." in coded.log[before:]
    prepared.run("faillock", "--user", locked, "--reset")
    browser = Browser(coded.root)
    answer(browser, browser.login(locked, PASSWORD), answer0=code(1))
    assert who(browser) == locked


def test_guesses_that_the_hub_sends_away_lock_nobody(prepared: Machine, hubs: Hubs) -> None:
    hub = hubs.start(
        "c.PAMAuthenticator.service = 'wsacct-locks'\nc.Authenticator.allow_all = True\n"
    )
    prepared.write("/etc/security/faillock.conf", f"deny = {PAIR.free + 1}\n")
    prepared.add("wsacct-spared")
    known = Browser(hub.root)
    assert known.login("wsacct-spared", PASSWORD).status == 200
    statuses = [Browser(hub.root).login("wsacct-spared", "x").status for _ in range(PAIR.free + 3)]
    assert statuses == [403] * PAIR.free + [429] * 3
    counted = prepared.run("faillock", "--user", "wsacct-spared")
    assert counted.count("RHOST") == PAIR.free
    assert known.login("wsacct-spared", PASSWORD).status == 200
    prepared.write("/etc/security/faillock.conf", FAILLOCK)


# --- out of use ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "command", "told"),
    [
        ("wsacct-gone", "usermod --expiredate 2001-01-01", UNUSABLE[pam.ACCOUNT_EXPIRED]),
        (
            "wsacct-stale",
            "chage --lastday 2001-01-01 --maxdays 10 --inactive 10",
            UNUSABLE[pam.PASSWORD_EXPIRED],
        ),
        ("wsacct-shut", "passwd --quiet --lock", ""),  # its password is no more the right one
    ],
)
def test_what_the_right_password_of_an_account_out_of_use_is_told(
    ruled: Hub, prepared: Machine, name: str, command: str, told: str
) -> None:
    prepared.add(name)
    prepared.run(*command.split(), name)
    said = shown(Browser(ruled.root).login(name, PASSWORD))
    assert said == (f"{told} Please ask the administrator." if told else REFUSED)
    assert shown(Browser(ruled.root).login(name, "a guess")) == REFUSED
    unlock = "passwd --quiet --unlock" if "passwd" in command else "chage -E -1 -I -1 -M -1"
    prepared.run(*unlock.split(), name)
    assert Browser(ruled.root).login(name, PASSWORD).status == 200


def test_what_the_machines_own_rules_make_of_an_account_that_has_expired(
    prepared: Machine, hubs: Hubs
) -> None:
    """Debian has pam_deny answer in the place of pam_unix: the words are all there is."""
    hub = start(hubs, "machine")
    prepared.add("wsacct-old")
    prepared.run("usermod", "--expiredate", "2001-01-01", "wsacct-old")
    said = shown(Browser(hub.root).login("wsacct-old", PASSWORD))
    assert said == (
        "This account cannot be used now. The machine says: "
        "Your account has expired; please contact your system administrator."
    )
    assert shown(Browser(hub.root).login("wsacct-old", "a guess")) == REFUSED


# --- the machine's rules ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "denies", "allows"),
    [
        ("access.conf", "-:{}:ALL EXCEPT 192.0.2.7", "-:{}:ALL EXCEPT 127.0.0.1"),
        ("time.conf", "wsacct-rules;*;{};!Al0000-2400", "wsacct-rules;*;{};Al0000-2400"),
    ],
)
def test_who_is_denied_by_host_or_hour_is_told_after_the_right_password_alone(
    ruled: Hub, prepared: Machine, file: str, denies: str, allows: str
) -> None:
    name = f"wsacct-{file.partition('.')[0]}"
    prepared.add(name)
    prepared.write(f"/etc/security/{file}", denies.format(name) + "\n")
    told = f"{UNUSABLE[pam.DENIED]} Please ask the administrator."
    browser = Browser(ruled.root)
    assert shown(browser.login(name, PASSWORD)) == told
    assert who(browser) == ""
    assert shown(Browser(ruled.root).login(name, "a guess")) == REFUSED
    prepared.write(f"/etc/security/{file}", allows.format(name) + "\n")
    assert browser.login(name, PASSWORD).status == 200
    assert who(browser) == name
    prepared.write(f"/etc/security/{file}", "")


def test_why_the_machine_is_closed_is_told_after_the_right_password_alone(
    prepared: Machine, hubs: Hubs
) -> None:
    hub = start(hubs, "nologin")
    prepared.write("/etc/nologin", "Disks are\nchanged until ten <o'clock>.\n")
    said = shown(Browser(hub.root).login("wsacct-ola", PASSWORD))
    assert said.endswith("The machine says: Disks are changed until ten &lt;o&#39;clock&gt;.")
    assert shown(Browser(hub.root).login("wsacct-ola", "x")) == REFUSED
    prepared.run("rm", "/etc/nologin")
