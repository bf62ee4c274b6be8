"""Limits and guarantees of an unprivileged hub: in the kernel's files, and when broken."""

from __future__ import annotations

import os
import pwd
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import guest
import pytest
from unit_hub import WITH_BOTH, Server, UnitHub

from hubs import words
from support import eventually_sync

pytestmark = WITH_BOTH

MB = 1024 * 1024
Start = Callable[..., Server]


def cpu_used(server: Server) -> float:
    return guest.table(server.group, "cpu.stat")["usage_usec"] / 1e6


def cpu_shares(*servers: Server, seconds: float) -> list[float]:
    """Return how many cores each server used over the next seconds."""
    before = [cpu_used(each) for each in servers]
    since = time.monotonic()
    time.sleep(seconds)  # the length of the measurement
    took = time.monotonic() - since
    return [(cpu_used(each) - old) / took for each, old in zip(servers, before, strict=True)]


def test_the_server_is_the_users_and_the_hub_is_nobody(hub: UnitHub, start: Start) -> None:
    server = start("ana")
    ana = pwd.getpwnam("ana")
    assert Path(f"/proc/{server.pid}").stat().st_uid == ana.pw_uid
    assert Path(f"/proc/{hub.pid}").owner() == guest.HUB_USER
    assert server.group.parent == guest.USERS
    # sudo and its launcher are gone, but for the shell that waits for the server's end
    ours = {server.pid, *guest.processes(server.group)}
    commands = [Path(f"/proc/{pid}/cmdline").read_bytes() for pid in ours]
    assert len(ours) == (1 if hub.launcher == "warm" else 2), commands


def test_limits_are_in_the_kernels_files(start: Start) -> None:
    server = start(
        "ana",
        mem_limit="256M",
        mem_guarantee="64M",
        cpu_limit=0.5,
        cpu_guarantee=0.25,
        pids_limit=100,
    )
    assert guest.value(server.group, "memory.max") == str(256 * MB)
    assert guest.value(server.group, "memory.low") == str(64 * MB)
    assert guest.value(server.group, "memory.oom.group") == "0"
    assert guest.value(server.group, "cpu.max") == "50000 100000"
    assert guest.value(server.group, "cpu.weight") == "25"
    assert guest.value(server.group, "pids.max") == "100"
    swap = server.group / "memory.swap.max"
    assert not swap.exists() or guest.value(server.group, "memory.swap.max") == "0"


def test_the_memory_limit_ends_the_hog_and_not_the_server_and_the_user_is_told(
    start: Start,
) -> None:
    server = start("ana", mem_limit="96M")
    other = start("ben", mem_limit="96M")
    assert server.ask("eat", 20)["exit"] == 0
    assert server.ask("eat", 200)["exit"] == -9
    assert guest.table(server.group, "memory.events")["oom_kill"] == 1
    assert server.ask("me")["pid"] == server.pid
    told = "Your server reached its memory limit of 96M once."
    eventually_sync(lambda: told in server.page(), "the hub's page tells of the memory limit")
    assert guest.table(other.group, "memory.events")["oom_kill"] == 0
    assert "memory limit" not in other.page()


def test_a_server_that_the_kernel_ended_is_explained_on_the_next_page(
    hub: UnitHub, start: Start
) -> None:
    server = start("ana", mem_limit="64M")
    assert hub.request("GET", "/user/ana/bloat/200").status >= 500
    hub.wait_stopped("ana")
    assert "It reached its memory limit of 64M and was ended by the kernel." in server.page()
    assert not server.group.exists()


def test_a_memory_limit_that_is_too_small_to_start_is_named(hub: UnitHub) -> None:
    cmd = hub.breaker("need:100")
    events = hub.start_server("ana", options={"mem_limit": "48M", "cmd": cmd})
    assert events[-1]["failed"]
    assert "needed more memory than its limit (mem_limit)" in words(events[-1]["message"])
    assert guest.groups() == []


def test_the_cpu_limit_throttles(start: Start) -> None:
    server = start("ana", cpu_limit=0.3)
    server.ask("spin", 2)
    (used,) = cpu_shares(server, seconds=3)
    assert 0.2 < used < 0.4
    assert guest.table(server.group, "cpu.stat")["nr_throttled"] > 5


def test_the_cpu_guarantee_divides_a_busy_machine(start: Start) -> None:
    most, less = start("ana", cpu_guarantee=0.6), start("ben", cpu_guarantee=0.2)
    none = start("cleo")
    for server in (none, less, most):  # the other way, the last would hardly get to it
        server.ask("spin", 1)
    shares = cpu_shares(most, less, none, seconds=3)
    assert shares[0] / shares[1] == pytest.approx(3, rel=0.3), shares
    assert shares[2] < shares[1] / 3, shares


def test_the_memory_guarantee_is_protected_all_the_way_up(hub: UnitHub) -> None:
    for group in (guest.USERS, guest.HOLDER, guest.HOLDER.parent):
        assert guest.value(group, "memory.low") == str(100 * MB), group
    assert "Memory guarantees do not hold" not in hub.log


@pytest.fixture
def crowded() -> Iterator[None]:
    """Less memory for all servers together than they want; as on a machine that is full."""
    room = int(guest.value(guest.HOLDER / "holder", "memory.current")) + 240 * MB
    guest.systemctl("set-property", "--runtime", "workshop-users.service", f"MemoryMax={room}")
    yield
    guest.systemctl("set-property", "--runtime", "workshop-users.service", "MemoryMax=infinity")


def cached(server: Server) -> float:
    """Return how many MB of files the server still has in memory."""
    return guest.table(server.group, "memory.stat")["file"] / MB


@pytest.mark.usefixtures("crowded")
def test_the_memory_guarantee_holds_beside_a_hog(start: Start) -> None:
    safe, bare = start("ana", mem_guarantee="100M"), start("ben")
    safe.ask("cache", 80)
    bare.ask("cache", 80)
    assert min(cached(safe), cached(bare)) > 75
    assert start("cleo").ask("eat", 100)["exit"] == 0
    assert cached(safe) > 75
    assert cached(bare) < 50


def test_the_pids_limit_stops_a_fork_bomb(start: Start) -> None:
    bomber, other = start("ana", pids_limit=40), start("ben")
    tried = bomber.ask("fork", 500)
    assert tried["reason"] == "EAGAIN"
    assert 30 < tried["started"] < 40
    assert guest.value(bomber.group, "pids.current") == "40"
    assert guest.table(bomber.group, "pids.events")["max"] > 0
    assert other.ask("fork", 45) == {"started": 45, "reason": ""}


def test_a_stop_ends_all_that_the_user_started(start: Start) -> None:
    server = start("ana")
    escaped = server.ask("escape", 3)["pids"]
    server.ask("spin", 1)
    for pid in escaped:
        assert os.getsid(pid) != os.getsid(server.pid)
        assert Path(f"/proc/{pid}/environ").read_bytes().count(b"=") < 4
    server.stop()
    assert [pid for pid in (server.pid, *escaped) if Path(f"/proc/{pid}").exists()] == []
    assert not server.group.exists()
