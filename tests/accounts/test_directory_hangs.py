"""A directory that never answers keeps nobody out whose account the machine itself has."""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from accounts.conftest import PASSWORD, Hubs, Machine
from accounts.test_login_pages import who
from accounts.test_logins import login

from hubs import Browser, Hub
from support import require
from workshop_hub.system.accounts import THREADS

DIRECTORY = "/var/lib/extrausers"


@pytest.fixture(scope="module")
def hanging(machine: Machine, hubs: Hubs) -> Iterator[Machine]:
    """A directory whose every answer about accounts is waited for: its file is a pipe."""
    require(Path(DIRECTORY).is_dir(), "the package libnss-extrausers is needed")
    machine.add("wsacct-here")
    before = machine.run("cat", "/etc/nsswitch.conf")
    lines = re.sub(r"(?m)^(passwd|group|shadow):.*$", r"\1: files extrausers", before)
    machine.run("mkfifo", f"{DIRECTORY}/passwd")
    machine.write("/etc/nsswitch.conf", lines)
    yield machine
    machine.write("/etc/nsswitch.conf", before)
    # whoever has begun to read goes on, and finds nothing
    machine.run("sh", "-c", 'exec 3<>"$1" && rm "$1"', "sh", f"{DIRECTORY}/passwd")


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


def assert_logs_in(hub: Hub) -> None:
    status, name, browser = login(hub, {"username": "wsacct-here", "password": PASSWORD})
    assert (status, name) == (200, "wsacct-here")
    assert who(browser) == "wsacct-here"
