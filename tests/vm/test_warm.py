"""The warm launcher of an unprivileged hub, run by systemd in the unit that holds the servers."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import guest
import pytest
from unit_hub import COMMAND, WARM, WARM_CONFIG, Server, UnitHub, group_of

from support import eventually_sync
from workshop_hub.launch import forkserver

pytestmark = WARM

Start = Callable[..., Server]
LIMITS = Path("/etc/security/limits.d/workshop-test.conf")

ALIKE = (
    *("Uid", "Gid", "Groups", "Umask", "Seccomp", "NoNewPrivs"),
    *("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"),
    *("SigBlk", "SigCgt", "Cpus_allowed"),
)
"""Fields of /proc/PID/status that tell nothing of how a server was started."""

OF_LIBC = 1 << 31 | 1 << 32
"""Signals that programs cannot set (nptl(7)); some leave them ignored, such as sudo."""


def status(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {line.partition(":")[0]: line.partition(":")[2].strip() for line in lines}


def is_warm(server: Server) -> bool:
    return guest.parent(server.pid) == guest.warm_launcher()


def facts(server: Server) -> dict[str, Any]:
    """Return what the kernel says of a server that must not depend on its launcher."""
    place = Path(f"/proc/{server.pid}")
    found = status(server.pid)
    files = ("cgroup", "limits", "oom_score_adj", "loginuid", "sessionid", "timerslack_ns")
    return {
        **{name: found[name] for name in ALIKE},
        "SigIgn": int(found["SigIgn"], 16) & ~OF_LIBC,
        **{name: (place / name).read_text() for name in files},
        "cwd": (place / "cwd").readlink(),
        "streams": [(place / "fd" / str(number)).readlink() for number in range(3)],
        "namespaces": sorted(each.readlink() for each in (place / "ns").iterdir()),
        "environment": server.ask("me")["env"].keys(),
    }


def ask_launcher(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [guest.BIN / "workshop-hub", "launcher", *words, "--socket", guest.LAUNCHER],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_a_server_is_forked_into_its_group_as_its_user_without_any_right(start: Start) -> None:
    server = start("ana")
    assert is_warm(server)
    assert group_of(guest.warm_launcher()) == guest.HOLDER / "holder"
    assert server.group.parent == guest.USERS
    found = status(server.pid)
    assert {found[name] for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")} == {"0" * 16}
    assert set(found["Uid"].split()) == {str(Path("/home/ana").stat().st_uid)}
    assert os.getsid(server.pid) == os.getpgid(server.pid) == server.pid


def test_the_launcher_has_the_rights_that_it_needs_and_no_others(hub: UnitHub) -> None:
    pid = guest.warm_launcher()
    assert Path(f"/proc/{pid}").owner() == guest.HUB_USER
    # CAP_KILL, CAP_SETGID, CAP_SETUID, CAP_SYS_RESOURCE
    needed = sum(1 << number for number in (5, 6, 7, 24))
    assert int(status(pid)["CapPrm"], 16) == needed
    # the hub, which has none of them, cannot make use of it
    script = "dd if=/proc/$1/mem of=/dev/null count=1; readlink /proc/$1/fd/0"
    done = guest.as_hub("sh", "-c", script, "sh", str(pid))
    assert (done.stdout, done.stderr.count("Permission denied")) == ("", 1)


def test_a_warm_server_is_to_the_kernel_what_an_execd_one_is(hub: UnitHub, start: Start) -> None:
    execd = start("ana", cmd=[*COMMAND])
    assert not is_warm(execd)
    assert "is started by sudo, not warm: its cmd is" in hub.log
    wanted = facts(execd)
    execd.stop()
    server = start("ana")
    assert is_warm(server)
    assert facts(server) == wanted


def test_a_warm_server_needs_no_right_on_the_slice(start: Start) -> None:
    """The hub's unit is given one for the servers that sudo starts, from outside of the other."""
    procs = guest.HOLDER.parent / "cgroup.procs"
    guest.run("chown", "root", procs)
    server = start("ana", mem_limit="96M")
    guest.run("chown", guest.HUB_USER, procs)
    assert is_warm(server)
    assert guest.value(server.group, "memory.max") == str(96 << 20)


@pytest.fixture
def limits_conf() -> Iterator[None]:
    """A machine with entries in limits.conf(5)."""
    LIMITS.write_text("ana - nofile 70000\nana hard nproc 900\n")
    yield
    LIMITS.unlink()


def test_limits_conf_holds_for_a_warm_server(limits_conf: None, start: Start) -> None:
    execd = start("ana", cmd=[*COMMAND])
    wanted = facts(execd)["limits"]
    execd.stop()
    server = start("ana")
    assert is_warm(server)
    assert facts(server)["limits"] == wanted
    assert "70000" in wanted


@pytest.mark.parametrize(
    ("end", "told"),
    [
        (lambda server: server.hub.request("GET", "/user/ana/leave/7"), "exit code 7"),
        (lambda server: os.kill(server.pid, signal.SIGKILL), "It was ended by SIGKILL"),
    ],
    ids=["exit", "signal"],
)
def test_how_a_server_ended_is_told(
    hub: UnitHub, start: Start, end: Callable[[Server], object], told: str
) -> None:
    server = start("ana")
    end(server)
    hub.wait_stopped("ana")
    assert told in server.page()
    assert not server.group.exists()


def test_servers_outlive_a_killed_launcher_and_the_next_start_is_warm(
    hub: UnitHub, start: Start
) -> None:
    server = start("ana")
    killed = guest.warm_launcher()
    os.kill(killed, signal.SIGKILL)
    assert server.ask("me")["pid"] == server.pid
    after = start("ben")
    assert guest.warm_launcher() not in (0, killed)
    assert is_warm(after)
    assert server.ask("me")["pid"] == server.pid
    server.stop()
    assert not Path(f"/proc/{server.pid}").exists()
    assert not server.group.exists()


def test_a_restart_of_the_hub_keeps_launcher_and_servers(hub: UnitHub, start: Start) -> None:
    server, launcher = start("ana"), guest.warm_launcher()
    hub.restart()
    assert guest.warm_launcher() == launcher
    assert server.ask("me")["pid"] == server.pid
    assert is_warm(start("ben"))
    server.hub.request("GET", "/user/ana/leave/7")
    hub.wait_stopped("ana")
    assert "exit code 7" in server.page()


def test_a_reload_imports_anew_and_servers_go_on(start: Start) -> None:
    server, launcher = start("ana"), guest.warm_launcher()
    done = ask_launcher("reload")
    assert done.returncode == 0, done.stdout + done.stderr
    assert guest.warm_launcher() == launcher
    assert server.ask("me")["pid"] == server.pid
    assert is_warm(start("ben"))


def test_nobody_but_the_hubs_account_and_root_may_ask(hub: UnitHub) -> None:
    connect = "import socket, sys; socket.socket(socket.AF_UNIX).connect(sys.argv[1])"
    as_ana = ["setpriv", "--reuid=ana", "--regid=ana", "--init-groups", "/usr/bin/python3", "-c"]
    done = subprocess.run(
        [*as_ana, connect, guest.LAUNCHER], capture_output=True, text=True, check=False
    )
    assert "PermissionError" in done.stderr
    config = guest.STATE / "warm_config.py"
    config.write_text('c.JupyterHub.spawner_class = "workshop"\n' + WARM_CONFIG)
    for words in (("doctor", "-f", config), ("launcher", "status", "-f", config)):
        path = {"Environment": f"PATH={guest.BIN}:/usr/bin:/bin"}
        said = guest.as_hub(guest.BIN / "workshop-hub", *words, properties=path)
        assert said.returncode == 0, said.stdout + said.stderr
        assert str(guest.warm_launcher()) in said.stdout
    assert ask_launcher("status").returncode == 0


def test_a_stop_of_the_unit_ends_all_servers_and_leaves_nothing(hub: UnitHub, start: Start) -> None:
    server, launcher = start("ana"), guest.warm_launcher()
    escaped = server.ask("escape", 1)["pids"]
    guest.systemctl("stop", "workshop-users.service")
    gone = (server.pid, launcher, *escaped)
    assert [pid for pid in gone if Path(f"/proc/{pid}").exists()] == []
    assert not guest.HOLDER.exists()
    assert hub.pid == 0
    guest.start_holder()
    hub.start()
    assert is_warm(start("ana"))


def test_what_the_launcher_prints_is_in_the_journal(hub: UnitHub) -> None:
    before = guest.warm_launcher()
    os.kill(before, signal.SIGKILL)
    eventually_sync(lambda: guest.warm_launcher() not in (0, before), "another launcher begins")
    said = guest.run("journalctl", "--unit=workshop-users.service", "--output=cat", "--no-pager")
    assert "The warm launcher has ended with exit code 137" in said


def test_a_launcher_that_cannot_begin_leaves_servers_to_sudo_until_it_can(
    hub: UnitHub, start: Start
) -> None:
    file = Path(forkserver.__file__)
    mode = file.stat().st_mode
    file.chmod(0)
    try:
        os.kill(guest.warm_launcher(), signal.SIGKILL)
        assert not is_warm(start("ana"))
        assert "is started by sudo, not warm: the launcher has ended" in hub.log
    finally:
        file.chmod(mode)
    eventually_sync(guest.warm_launcher, "another launcher begins")
    assert is_warm(start("ben"))
