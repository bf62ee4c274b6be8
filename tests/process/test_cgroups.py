"""Real cgroups, as far as a mount of version 2 without controllers goes; the rest is in vm/."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import ProcessHarness, processes_of, started
from unprivileged import UnprivilegedHub, last

from support import require
from workshop_hub.backends.process.names import key_of
from workshop_hub.errors import LimitsNotEnforceable
from workshop_hub.policy.limits import Limits
from workshop_hub.system import cgroup
from workshop_hub.system.accounts import Account

READ_ONLY = 'mount -o remount,bind,ro "$0" && exec "$@"'


@pytest.fixture
def held(alice: Account, tmp_path: Path) -> Iterator[ProcessHarness]:
    harness = ProcessHarness(tmp_path, alice)
    require(harness.group, "no cgroup v2 is mounted, not even beside version 1")
    yield harness
    harness.close()


@pytest.fixture
def held_hub(machine: None, alice: Account) -> Iterator[UnprivilegedHub]:
    require(cgroup.find_mount(), "no cgroup v2 is mounted, not even beside version 1")
    with UnprivilegedHub.made(alice, with_cgroup=True) as hub:
        yield hub


async def test_a_server_lives_in_a_group_of_its_name(held: ProcessHarness) -> None:
    backend = held.backend()
    at = await started(backend, held.spec(server="named"))
    assert held.group
    group = held.group / "users" / key_of(held.spec(server="named").owner)
    assert cgroup.pids(group) == set(processes_of(held.account.uid))
    assert Path(str(at.handle["cgroup"])) == group
    usage = await backend.usage(at.handle)
    assert usage.cpu is not None
    assert usage.cpu > 0
    await backend.stop(at.handle)
    assert not group.exists()


async def test_a_holder_that_was_restarted_is_found_again(held: ProcessHarness) -> None:
    """systemd removes the unit's group with all below it, and makes it anew."""
    backend = held.backend()
    at = await started(backend, held.spec())
    await backend.stop(at.handle)
    assert held.group
    assert cgroup.remove(held.group)
    held.group.mkdir()
    at = await started(backend, held.spec())
    assert Path(str(at.handle["cgroup"])).is_dir()
    await backend.stop(at.handle)


async def test_a_group_that_cannot_be_left_empty_is_killed(held: ProcessHarness) -> None:
    """What has left session, parent and environment behind is still in the group."""
    escape = "setsid env -i sleep 3600 & exec"
    spec = held.spec()
    backend = held.backend()
    at = await started(backend, held.spec(cmd=("sh", "-c", f'{escape} "$@"', "sh", *spec.cmd)))
    await backend.stop(at.handle)
    assert processes_of(held.account.uid) == []


async def test_being_moved_out_of_the_group_is_noticed(held: ProcessHarness) -> None:
    """As pam_systemd in sudo's stack does it."""
    assert held.group
    elsewhere = held.group / "elsewhere"
    backend = held.backend()
    await backend.check()
    elsewhere.mkdir()
    mover = held.folder / "sudo"
    mover.write_text(f'#!/bin/sh\necho $$ >{elsewhere}/cgroup.procs\nexec sudo "$@"\n')
    mover.chmod(0o755)
    with pytest.raises(LimitsNotEnforceable) as caught:
        await started(held.backend(sudo_command=[str(mover)]), held.spec())
    assert "pam_systemd" in str(caught.value)
    assert "Defaults:root !pam_session" in str(caught.value)
    assert processes_of(held.account.uid) == []


async def test_what_is_in_a_servers_group_is_ended_before_it_starts(held: ProcessHarness) -> None:
    backend = held.backend()
    first = await started(backend, held.spec("child"))
    (held.folder / "logs" / f"{key_of(held.spec().owner)}.json").unlink()
    second = await started(held.backend(), held.spec())
    assert not (await backend.poll(first.handle)).running
    await backend.stop(second.handle)
    assert processes_of(held.account.uid) == []


async def test_missing_controllers_are_named(held: ProcessHarness) -> None:
    mount = cgroup.find_mount()
    assert mount
    controllers = (mount.path / "cgroup.controllers").read_text().split()
    if "memory" in controllers:
        return  # on such a machine the limit is enforced; vm/ sees to that
    with pytest.raises(LimitsNotEnforceable) as caught:
        await held.backend().prepare(held.spec(limits=Limits(mem_limit=2**30)))
    assert "memory" in caught.value.message
    assert "version 1" in caught.value.message or "v1" in caught.value.message


def test_read_only_cgroups_are_named(held_hub: UnprivilegedHub) -> None:
    mount = cgroup.find_mount()
    assert mount
    held_hub.wrapper = ("unshare", "--mount", "sh", "-c", READ_ONLY, str(mount.path))
    found = {one["subject"]: one for one in held_hub.run("check")}
    assert "EROFS" in found["limits"]["message"]
    assert "ProtectControlGroups" in found["limits"]["remedy"]


def test_a_group_of_somebody_else_is_named(held_hub: UnprivilegedHub) -> None:
    assert held_hub.group
    os.chown(held_hub.group / "servers", 0, 0)
    found = {one["subject"]: one for one in held_hub.run("check")}
    assert "EACCES" in found["limits"]["message"]


def test_a_common_parent_that_may_not_be_crossed_is_named(held_hub: UnprivilegedHub) -> None:
    assert held_hub.group
    os.chown(held_hub.group / "cgroup.procs", 0, 0)
    found = {one["subject"]: one for one in held_hub.run("check")}
    assert "EACCES" in found["limits"]["message"]
    assert "cgroup.procs" in found["limits"]["message"]


def test_without_a_group_servers_run_all_the_same(held_hub: UnprivilegedHub) -> None:
    assert held_hub.group
    os.chown(held_hub.group / "cgroup.procs", 0, 0)
    said = held_hub.run("start", "poll", "stop", tiny=["child"])
    assert last(said, "poll")["running"]
    assert processes_of(held_hub.user.uid) == []
