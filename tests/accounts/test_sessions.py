"""`open_sessions`: a PAM session for each server, from before its start until after its end."""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from accounts.conftest import Hubs, Machine

from hubs import TINY_SERVER, Hub
from support import eventually_sync
from workshop_hub.system import processes

NOTES = "/home/wsacct-notes"
SUDOERS = "/etc/sudoers.d/wsacct-sessions"

WITNESS = f"""#!/bin/sh
servers=$(/usr/bin/pgrep --ns $$ --nslist mnt -c -u "$PAM_USER" -f tiny_server)
echo "$PAM_TYPE $PAM_USER $PPID $servers" >>{NOTES}
"""

SERVICE = """
auth required pam_unix.so nodelay
account required pam_unix.so
session required pam_exec.so /etc/wsacct-witness
session required pam_env.so envfile=/etc/wsacct-variables
session optional pam_mkhomedir.so umask=0077
session [success=2 default=ignore] pam_succeed_if.so quiet user != wsacct-sid
session optional pam_echo.so The server room is closed.
session requisite pam_deny.so
"""

VARIABLES = """
KRB5CCNAME=FILE:/tmp/wsacct-cc
FROM_BOTH=pam
PATH=/nowhere
LD_PRELOAD=/nowhere.so
PYTHONPATH=/nowhere
JUPYTERHUB_API_TOKEN=stolen
"""

CONFIG = f"""
c.Authenticator.allow_all = True
c.PAMAuthenticator.service = "wsacct-sessions"
c.PAMAuthenticator.open_sessions = True
c.JupyterHub.spawner_class = "workshop"
c.JupyterHub.allow_named_servers = True
c.JupyterHub.cleanup_servers = False
c.Spawner.cmd = [{sys.executable!r}, "-I", "-S", {str(TINY_SERVER)!r}]
c.Spawner.environment = {{"FROM_BOTH": "hub"}}
c.WorkshopSpawner.pids_limit = None
"""


@pytest.fixture(scope="module")
def prepared(machine: Machine) -> Iterator[Machine]:
    machine.write("/etc/pam.d/wsacct-sessions", SERVICE)
    machine.write("/etc/wsacct-witness", WITNESS, "755")
    machine.write("/etc/wsacct-variables", VARIABLES)
    machine.write(NOTES, "", "666")
    for name in ("wsacct-sue", "wsacct-sid", "wsacct-sam", "wsacct-shub"):
        machine.add(name)
    machine.run("useradd", "--no-create-home", "--shell=/bin/bash", "wsacct-snew")
    yield machine
    for note in notes(machine):
        if is_there(note[2]):
            os.kill(int(note[2]), signal.SIGTERM)


@pytest.fixture(scope="module")
def hub(prepared: Machine, hubs: Hubs) -> Hub:
    return hubs.start(CONFIG, proxy=True)


@pytest.fixture(autouse=True)
def nothing_noted(prepared: Machine) -> None:
    prepared.write(NOTES, "", "666")


def notes(machine: Machine) -> list[list[str]]:
    """Return what PAM was asked: what, for whom, by which process, and how many servers ran."""
    return [line.split() for line in machine.run("cat", NOTES).splitlines()]


def is_there(pid: str) -> bool:
    found = processes.stat(int(pid))
    return found is not None and not found.ended


def is_ready(events: list[dict]) -> bool:
    return bool(events[-1].get("ready"))


def test_a_session_lasts_from_before_the_start_until_after_the_end(
    hub: Hub, prepared: Machine
) -> None:
    assert is_ready(hub.start_server("wsacct-sue")), hub.log[-3000:]
    ((did, who, keeper, servers),) = notes(prepared)
    assert (did, who, servers) == ("open_session", "wsacct-sue", "0")
    assert is_there(keeper)
    hub.stop_server("wsacct-sue")
    assert notes(prepared)[1:] == [["close_session", "wsacct-sue", keeper, "0"]]
    eventually_sync(lambda: not is_there(keeper), "the keeper ends")


def test_what_pam_wants_in_the_environment_is_below_what_the_hub_wants(hub: Hub) -> None:
    assert is_ready(hub.start_server("wsacct-sue"))
    env = hub.server_json("wsacct-sue")["env"]
    assert env["KRB5CCNAME"] == "FILE:/tmp/wsacct-cc"
    assert env["FROM_BOTH"] == "hub"
    assert "LD_PRELOAD" not in env
    assert "nowhere" not in env["PATH"] + env.get("PYTHONPATH", "")
    assert env["JUPYTERHUB_API_TOKEN"] != "stolen"
    hub.stop_server("wsacct-sue")


def test_a_home_that_pam_makes_is_there_when_the_server_starts(hub: Hub) -> None:
    assert is_ready(hub.start_server("wsacct-snew")), hub.log[-3000:]
    assert hub.server_json("wsacct-snew")["cwd"] == "/home/wsacct-snew"
    hub.stop_server("wsacct-snew")


def test_one_who_is_refused_reads_why_and_nobody_else_is(hub: Hub, prepared: Machine) -> None:
    for _ in range(2):
        failed = hub.start_server("wsacct-sid")[-1]
        assert "did not open a session for" in failed["message"], failed
        assert "The server room is closed" in failed["message"]
        assert is_ready(hub.start_server("wsacct-sue"))
        hub.stop_server("wsacct-sue")
    assert [note[0] for note in notes(prepared) if note[1] == "wsacct-sue"] == [
        *("open_session", "close_session"),
        *("open_session", "close_session"),
    ]
    assert re.search(r"No PAM session for wsacct-sid .*PAM error \d+.*room is closed", hub.log)
    assert "Disabling PAM sessions" not in hub.log


def test_each_server_of_one_user_has_its_own(hub: Hub, prepared: Machine) -> None:
    assert is_ready(hub.start_server("wsacct-sue"))
    assert is_ready(hub.start_server("wsacct-sue", "two"))
    first, second = (note[2] for note in notes(prepared))
    hub.stop_server("wsacct-sue")
    assert [note[:3] for note in notes(prepared)[2:]] == [["close_session", "wsacct-sue", first]]
    assert is_there(second)
    hub.stop_server("wsacct-sue", "two")
    assert notes(prepared)[-1][2] == second


def test_a_server_that_ends_by_itself_ends_its_session(hub: Hub, prepared: Machine) -> None:
    assert is_ready(hub.start_server("wsacct-sue"))
    os.kill(hub.server_json("wsacct-sue")["pid"], signal.SIGKILL)
    hub.wait_stopped("wsacct-sue")
    eventually_sync(lambda: len(notes(prepared)) == 2, "the session is closed")


def test_a_failure_to_close_is_in_the_log_and_in_nobodys_way(hub: Hub, prepared: Machine) -> None:
    assert is_ready(hub.start_server("wsacct-sue"))
    prepared.run("mv", "/etc/wsacct-witness", "/etc/wsacct-gone")
    hub.stop_server("wsacct-sue")
    eventually_sync(lambda: "The PAM session of wsacct-sue:" in hub.log, "the hub says it")
    prepared.run("mv", "/etc/wsacct-gone", "/etc/wsacct-witness")
    assert is_ready(hub.start_server("wsacct-sue"))
    hub.stop_server("wsacct-sue")
    assert notes(prepared)[-1][0] == "close_session"


def test_sessions_outlive_a_killed_hub_and_the_next_one_closes_them(
    hub: Hub, prepared: Machine
) -> None:
    """With its server, or at once where the server has ended meanwhile."""
    assert is_ready(hub.start_server("wsacct-sue"))
    assert is_ready(hub.start_server("wsacct-sam"))
    stays, orphan = (note[2] for note in notes(prepared))
    ends = hub.server_json("wsacct-sam")["pid"]
    hub.kill(signal.SIGKILL)
    os.kill(ends, signal.SIGKILL)
    assert is_there(stays)
    assert is_there(orphan)
    hub.start()
    closed = ["close_session", "wsacct-sam", orphan, "0"]
    eventually_sync(lambda: closed in notes(prepared), "the orphan is closed")
    assert is_there(stays)
    hub.stop_server("wsacct-sue")
    assert notes(prepared)[3] == ["close_session", "wsacct-sue", stays, "0"], hub.log[-4000:]


def test_a_session_that_no_server_belongs_to_is_closed_when_the_hub_comes_up(
    hub: Hub, prepared: Machine
) -> None:
    """Its user was deleted, say, or the hub was killed before the start was written down."""
    assert is_ready(hub.start_server("wsacct-sam"))
    ends = hub.server_json("wsacct-sam")["pid"]
    hub.kill(signal.SIGKILL)
    os.kill(ends, signal.SIGKILL)
    prepared.run("rm", str(hub.folder / "jupyterhub.sqlite"))
    config = hub.config_file.read_text()
    hub.config_file.write_text(config + "c.PAMAuthenticator.open_sessions = False\n")
    hub.start()
    eventually_sync(lambda: len(notes(prepared)) == 2, "the orphan is closed")
    assert "Closing the left-over PAM session of wsacct-sam:" in hub.log
    assert is_ready(hub.start_server("wsacct-sue"))
    assert len(notes(prepared)) == 2  # the option is off
    hub.stop_server("wsacct-sue")
    hub.config_file.write_text(config)
    hub.kill()
    hub.start()


def test_a_hub_that_ends_its_servers_ends_their_sessions(prepared: Machine, hubs: Hubs) -> None:
    hub = hubs.start(CONFIG.replace("cleanup_servers = False", "cleanup_servers = True"))
    assert is_ready(hub.start_server("wsacct-sue"))
    hub.kill(signal.SIGTERM)
    assert [note[0] for note in notes(prepared)] == ["open_session", "close_session"]
    assert "may still be open" not in hub.log


UNPRIVILEGED = """
c.WorkshopAuthenticator.pam_broker = "sudo"
c.JupyterHub.spawner_class = "simple"
"""


def test_a_hub_that_is_not_root_and_another_spawner(prepared: Machine, hubs: Hubs) -> None:
    command = f"{Path(sys.prefix)}/bin/python3 -I -m workshop_hub.system.pam_broker"
    rule = f"wsacct-shub ALL=(root) NOPASSWD: {command} --service wsacct-sessions\n"
    prepared.write(SUDOERS, rule, mode="440")
    hub = hubs.start(CONFIG + UNPRIVILEGED, as_user="wsacct-shub", proxy=True)
    assert is_ready(hub.start_server("wsacct-sue")), hub.log[-3000:]
    ((did, who, keeper, _),) = notes(prepared)
    assert (did, who) == ("open_session", "wsacct-sue")
    assert Path(f"/proc/{keeper}").stat().st_uid == 0
    hub.kill(signal.SIGKILL)
    assert is_there(keeper)
    hub.start()
    hub.stop_server("wsacct-sue")
    closed = ["close_session", "wsacct-sue", keeper]
    assert [note[:3] for note in notes(prepared)[1:]] == [closed], hub.log[-4000:]
    failed = hub.start_server("wsacct-sid")[-1]
    assert "The server room is closed" in failed["message"]
    without_a_broker(prepared, hub)


def without_a_broker(machine: Machine, hub: Hub) -> None:
    """The sessions of servers that end meanwhile are closed once there is one again."""
    machine.write(NOTES, "", "666")
    assert is_ready(hub.start_server("wsacct-sue"))
    assert is_ready(hub.start_server("wsacct-sam"))
    machine.run("mv", SUDOERS, "/etc/wsacct-no-rule")
    assert hub.process
    for pid in processes.descendants(hub.process.pid):
        with suppress(FileNotFoundError, ProcessLookupError):  # it has ended
            if "pam_broker" in Path(f"/proc/{pid}/cmdline").read_text():
                os.kill(pid, signal.SIGKILL)
    hub.stop_server("wsacct-sue")
    assert "The PAM session of wsacct-sue: may still be open" in hub.log
    machine.run("mv", "/etc/wsacct-no-rule", SUDOERS)
    hub.stop_server("wsacct-sam")
    expected = {("close_session", note[1], note[2]) for note in notes(machine)[:2]}
    eventually_sync(
        lambda: {tuple(note[:3]) for note in notes(machine)[2:]} == expected, "both are closed"
    )
