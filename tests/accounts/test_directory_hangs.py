"""A directory that never answers keeps nobody out whose account the machine itself has."""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from accounts.conftest import PASSWORD, Hubs, Machine
from accounts.test_login_pages import who
from accounts.test_logins import login

from hubs import Browser, Hub
from support import eventually_sync, require
from workshop_hub.slowdown import PAIR
from workshop_hub.system.accounts import THREADS

DIRECTORY = "/var/lib/extrausers"


@contextmanager
def hangs(machine: Machine, database: str) -> Iterator[None]:
    """Have a directory whose every answer about accounts, or groups, is waited for."""
    require(Path(DIRECTORY).is_dir(), "the package libnss-extrausers is needed")
    before = machine.run("cat", "/etc/nsswitch.conf")
    lines = re.sub(r"(?m)^(passwd|group|shadow):.*$", r"\1: files extrausers", before)
    machine.run("mkfifo", f"{DIRECTORY}/{database}")
    machine.write("/etc/nsswitch.conf", lines)
    try:
        yield
    finally:
        machine.write("/etc/nsswitch.conf", before)
        # whoever has begun to read goes on, and finds nothing
        machine.run("sh", "-c", 'exec 3<>"$1" && rm "$1"', "sh", f"{DIRECTORY}/{database}")


@pytest.fixture
def hanging(machine: Machine, hubs: Hubs) -> Iterator[Machine]:
    """A directory that does not answer about accounts; one of them is the machine's own."""
    if "wsacct-here" not in machine.run("cat", "/etc/passwd"):
        machine.add("wsacct-here")
    with hangs(machine, "passwd"):
        yield machine


@pytest.mark.parametrize("normalizes", [False, True])
def test_people_of_the_machine_log_in_while_a_directory_hangs(
    hanging: Machine, hubs: Hubs, normalizes: bool
) -> None:
    hub = hubs.start(
        "c.Authenticator.allow_all = True\n"
        "c.Authenticator.auth_refresh_age = 1\n"
        "c.WorkshopAuthenticator.slow_guessing = False\n"
        f"c.PAMAuthenticator.pam_normalize_username = {normalizes}\n"
    )
    assert_logs_in(hub)
    names = [f"wsacct-elsewhere{number}" for number in range(THREADS + 5)]
    with ThreadPoolExecutor(len(names)) as people:
        statuses = people.map(lambda name: Browser(hub.root).login(name, PASSWORD).status, names)
        assert {*statuses} == {503}
    assert "user database did not answer within 10 seconds" in hub.log
    assert_logs_in(hub)
    hub.kill()  # waits for no look-up


def test_a_directory_that_hangs_about_groups_does_not_hold_up_the_hub(
    machine: Machine, hubs: Hubs
) -> None:
    machine.add("wsacct-member")
    hub = hubs.start("c.Authenticator.allow_all = True\n")
    with hangs(machine, "group"), ThreadPoolExecutor(1) as people:
        login = people.submit(lambda: Browser(hub.root).login("wsacct-member", PASSWORD).status)
        eventually_sync(lambda: hub.api("GET", "/").status == 200 and login.done(), "an answer")
        assert login.result() == 503
        with ThreadPoolExecutor(PAIR.free) as others:
            tries = others.map(
                lambda _: Browser(hub.root).login("wsacct-member", "x").status,
                range(PAIR.free),
            )
            assert {*tries} == {503}
        # whom the machine cannot check has not guessed
        assert Browser(hub.root).login("wsacct-member", "x").status == 503
        hub.kill()
    assert "user database did not answer within 10 seconds" in hub.log


def assert_logs_in(hub: Hub) -> None:
    status, name, browser = login(hub, {"username": "wsacct-here", "password": PASSWORD})
    assert (status, name) == (200, "wsacct-here")
    assert who(browser) == "wsacct-here"
