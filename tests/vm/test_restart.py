"""Servers outlive the hub, whatever becomes of it, and are the hub's again after it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import guest
from unit_hub import WITH_BOTH, Server, UnitHub

from support import eventually_sync

pytestmark = WITH_BOTH

Start = Callable[..., Server]
FILES = ("memory.max", "cpu.max", "cpu.weight", "pids.max")


def limits(server: Server) -> list[str]:
    return [guest.value(server.group, file) for file in FILES]


def test_a_restart_keeps_the_server_its_limits_and_what_the_user_is_told(
    hub: UnitHub, start: Start
) -> None:
    server = start("ana", mem_limit="96M", cpu_limit=0.8, pids_limit=50)
    ended = start("ben", mem_limit="64M")
    hub.request("GET", "/user/ben/bloat/200")
    hub.wait_stopped("ben")
    before = limits(server)
    hub.restart()
    assert hub.servers("ana")[""]["ready"]
    assert server.ask("me")["pid"] == server.pid
    assert limits(server) == before
    assert server.ask("eat", 200)["exit"] == -9
    told = "Your server reached its memory limit of 96M once."
    eventually_sync(lambda: told in server.page(), "the hub's page tells of the memory limit")
    assert "It reached its memory limit of 64M and was ended by the kernel." in ended.page()
    server.stop()
    assert not Path(f"/proc/{server.pid}").exists()


def test_a_killed_hub_finds_its_servers_and_ends_what_it_was_starting(
    hub: UnitHub, start: Start
) -> None:
    server = start("ana", mem_limit="96M", cpu_limit=0.8, pids_limit=50)
    before = limits(server)
    hub.api("POST", "/users/cleo")
    started = hub.api("POST", "/users/cleo/server", {"cmd": hub.breaker("silent")})
    assert started.status == 202
    half = eventually_sync(lambda: running("cleo"), "cleo's server runs, and does not listen")
    hub.kill_9()
    assert server.ask("me")["pid"] == server.pid
    assert limits(server) == before
    eventually_sync(lambda: running("cleo") == [], "cleo's half-started server is ended")
    assert [pid for pid in half if Path(f"/proc/{pid}").exists()] == []
    assert guest.groups() == [server.group]
    assert hub.servers("cleo") == {}
    assert hub.run_server("cleo").ask("me")["env"]["JUPYTERHUB_USER"] == "cleo"


def running(user: str) -> list[int]:
    """Return the processes of the servers of `user`, the launcher's not counted."""
    pids = [pid for group in guest.groups() for pid in guest.processes(group)]
    owners = {pid: owner_of(pid) for pid in pids}
    return [pid for pid, owner in owners.items() if owner == user]


def owner_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}").owner()
    except FileNotFoundError:
        return ""
