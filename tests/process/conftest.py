"""The process tier runs as root, with real accounts and the real sudo."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from harness import ProcessHarness, made_account
from unprivileged import UnprivilegedHub

from support import require
from workshop_hub.system import cgroup
from workshop_hub.system.accounts import Account


@pytest.fixture(scope="session")
def machine() -> None:
    require(os.geteuid() == 0, "the tests with real accounts must run as root")
    require(shutil.which("sudo") and shutil.which("useradd"), "sudo and useradd are needed")


@pytest.fixture(scope="session")
def alice(machine: None) -> Iterator[Account]:
    with made_account("alice") as account:
        yield account


@pytest.fixture(scope="session")
def bob(machine: None) -> Iterator[Account]:
    with made_account("bob") as account:
        yield account


@pytest.fixture(params=["cgroup", "no-cgroup"])
def hub(request: pytest.FixtureRequest, alice: Account, tmp_path: Path) -> Iterator[ProcessHarness]:
    """A hub that is root, with cgroups to hold its servers, and one without."""
    harness = ProcessHarness(tmp_path, alice, with_cgroup=request.param == "cgroup")
    if harness.with_cgroup:
        require(harness.group, "no cgroup v2 is mounted, not even beside version 1")
    yield harness
    harness.close()


@pytest.fixture
def root_hub(alice: Account, tmp_path: Path) -> ProcessHarness:
    """A hub that is root, and may use no cgroup: what a cgroup has no part in."""
    return ProcessHarness(tmp_path, alice, with_cgroup=False)


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
