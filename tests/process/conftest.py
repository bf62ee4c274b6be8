"""The process tier runs as root, with real accounts and the real sudo."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from harness import ProcessHarness, kill_all_of, made_account, processes_of
from launchers import KeptLauncher
from unprivileged import UnprivilegedHub

from support import eventually_sync, require
from workshop_hub.system import cgroup
from workshop_hub.system.accounts import Account


@pytest.fixture(scope="session")
def machine() -> None:
    require(os.geteuid() == 0, "the tests with real accounts must run as root")
    require(shutil.which("sudo") and shutil.which("useradd"), "sudo and useradd are needed")


@pytest.fixture(scope="module")
def usual_environment() -> Iterator[None]:
    """What a hub hands on of its own environment is what a unit of systemd has."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("LANGUAGE", "LC_ALL", "LC_CTYPE", "LC_MESSAGES", "TZ"):
            patch.delenv(name, raising=False)
        patch.setenv("LANG", "C.UTF-8")
        patch.setenv("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        yield


@pytest.fixture(scope="session")
def alice(machine: None) -> Iterator[Account]:
    with made_account("alice") as account:
        yield account


@pytest.fixture(scope="session")
def bob(machine: None) -> Iterator[Account]:
    with made_account("bob") as account:
        yield account


@pytest.fixture(autouse=True)
def nothing_is_left(request: pytest.FixtureRequest) -> Iterator[None]:
    """End what a failed test leaves where no cgroup holds it, or the next test finds it."""
    names = {"alice", "bob"} & set(request.fixturenames)
    uids = [request.getfixturevalue(name).uid for name in names]
    yield
    for uid in uids:
        kill_all_of(uid)
        eventually_sync(lambda uid=uid: not processes_of(uid), "what was killed is gone")


@pytest.fixture(scope="session")
def kept(machine: None) -> Iterator[KeptLauncher]:
    with KeptLauncher.made() as kept:
        yield kept


@pytest.fixture(params=["cgroup", "no-cgroup", "warm"])
def hub(request: pytest.FixtureRequest, alice: Account, tmp_path: Path) -> Iterator[ProcessHarness]:
    """A hub that is root, with cgroups to hold its servers, without, and with a warm launcher."""
    if request.param == "warm":
        yield from warm_harness(request, alice, with_cgroup=True)
    else:
        harness = ProcessHarness(tmp_path, alice, with_cgroup=request.param == "cgroup")
        if harness.with_cgroup:
            require(harness.group, "no cgroup v2 is mounted, not even beside version 1")
        yield harness
        harness.close()


@pytest.fixture(params=["sudo", "root-warm"])
def root_hub(
    request: pytest.FixtureRequest, alice: Account, tmp_path: Path
) -> Iterator[ProcessHarness]:
    """A hub that is root, and may use no cgroup: what a cgroup has no part in."""
    if request.param == "root-warm":
        yield from warm_harness(request, alice, with_cgroup=False)
    else:
        yield ProcessHarness(tmp_path, alice, with_cgroup=False)


def warm_harness(
    request: pytest.FixtureRequest, account: Account, *, with_cgroup: bool
) -> Iterator[ProcessHarness]:
    """Give a hub that starts servers warm, by a launcher that earlier ones have left."""
    request.getfixturevalue("usual_environment")
    kept: KeptLauncher = request.getfixturevalue("kept")
    harness = kept.harness(account, with_cgroup=with_cgroup)
    yield harness
    kept.keep()
    harness.close()


@pytest.fixture(params=["cgroup", "no-cgroup"])
def plain_hub(
    request: pytest.FixtureRequest, alice: Account, tmp_path: Path
) -> Iterator[UnprivilegedHub]:
    """A hub with an account of its own, and a rule in sudoers for the accounts of the tests."""
    with_cgroup = request.param == "cgroup"
    if with_cgroup:
        require(cgroup.find_mount(), "no cgroup v2 is mounted, not even beside version 1")
    with UnprivilegedHub.made(alice, with_cgroup=with_cgroup) as hub:
        yield hub


@pytest.fixture
def bare_hub(alice: Account) -> Iterator[UnprivilegedHub]:
    """The same, without a cgroup."""
    with UnprivilegedHub.made(alice, with_cgroup=False) as hub:
        yield hub
