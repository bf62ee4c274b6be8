"""Hundreds of logins, right and wrong and odd: the hub's process is as it was before."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle, islice
from pathlib import Path

import pytest
from accounts.conftest import PASSWORD, Hubs, Machine

from hubs import Browser, Hub
from support import eventually_sync

ATTEMPTS = 500
SERVICE = """
auth required pam_unix.so nodelay
auth optional pam_group.so
account required pam_unix.so
"""
CONFIG = """
c.Authenticator.allow_all = True
c.PAMAuthenticator.service = "wsacct-storm"
c.WorkshopAuthenticator.slow_guessing = False
c.JupyterHub.log_level = "WARN"
"""
OF_THE_PROCESS = (
    *("Uid", "Gid", "Groups", "Umask"),
    *("SigBlk", "SigIgn", "SigCgt", "CapPrm", "CapEff", "NoNewPrivs"),
)


@pytest.fixture(scope="module")
def hub(machine: Machine, hubs: Hubs) -> Hub:
    machine.write("/etc/pam.d/wsacct-storm", SERVICE)
    machine.run("sh", "-c", 'echo "*;*;*;Al0000-2400;floppy,audio" >>/etc/security/group.conf')
    for name in ("wsacct-storm0", "wsacct-storm1"):
        machine.add(name)
    machine.add("wsacct-stormout", "--expiredate", "2001-01-01")
    return hubs.start(CONFIG)


def forms() -> Iterator[tuple[dict[str, str], int]]:
    """Return forms of all kinds, over and over, and the answer that each is to have."""
    return cycle(
        [
            ({"username": "wsacct-storm0", "password": PASSWORD}, 200),
            ({"username": "wsacct-storm0", "password": "a guess"}, 403),
            ({"username": "wsacct-storm1", "password": PASSWORD}, 200),
            ({"username": "wsacct-stormout", "password": PASSWORD}, 403),
            ({"username": "wsacct-absent", "password": PASSWORD}, 403),
            ({"username": "root", "password": PASSWORD}, 403),
            ({"username": "\x07../..", "password": "x" * 600}, 403),
            ({"conversation": "none"}, 403),
        ]
    )


def attempt(hub: Hub, form: dict[str, str]) -> int:
    """Send a form; return the status of what follows."""
    browser = Browser(hub.root)
    browser.open("/hub/login")
    return browser.open("/hub/login", form).status


def state(hub: Hub) -> dict[str, object]:
    """Return what the kernel knows of the hub's process."""
    assert hub.process
    process = Path(f"/proc/{hub.process.pid}")
    lines = (line.partition(":") for line in (process / "status").read_text().splitlines())
    found: dict[str, object] = {name: value for name, _, value in lines if name in OF_THE_PROCESS}
    found["children"] = {
        child
        for task in (process / "task").iterdir()
        for child in (task / "children").read_text().split()
    }
    return found


def files(hub: Hub) -> int:
    """Return how many files the hub has open."""
    assert hub.process
    return len(list(Path(f"/proc/{hub.process.pid}/fd").iterdir()))


def test_the_hub_is_as_it_was(hub: Hub) -> None:
    with ThreadPoolExecutor(8) as pool:
        for number in (40, ATTEMPTS):  # the first ones open what a hub keeps open
            tries = list(islice(forms(), number))
            answers = list(pool.map(lambda each: attempt(hub, each[0]), tries))
            assert answers == [status for _, status in tries]
            if number != ATTEMPTS:
                before, most = state(hub), files(hub)
    eventually_sync(lambda: files(hub) <= most, "as few open files as before")
    assert state(hub) == before
