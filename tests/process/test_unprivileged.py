"""A hub that is not root: what sudo lets it do, and what it says where sudo does not."""

from __future__ import annotations

import pwd
import signal
import subprocess
from collections.abc import Iterator

import pytest
from harness import made_account, processes_of
from unprivileged import UnprivilegedHub, last

from support import eventually_sync, require
from workshop_hub.system import cgroup
from workshop_hub.system.accounts import Account


@pytest.fixture
def dave(machine: None) -> Iterator[Account]:
    with made_account("dave") as account:
        yield account


def test_a_server_is_started_seen_and_stopped(plain_hub: UnprivilegedHub) -> None:
    said = plain_hub.run("start", "poll", "stop", "poll", "stop", "list", tiny=["child"])
    polls = [one for one in said if one["kind"] == "poll"]
    assert [one["running"] for one in polls] == [True, False]
    assert polls[1]["exit_code"] == 128 + signal.SIGTERM
    assert last(said, "list")["handles"] == []
    assert processes_of(plain_hub.user.uid) == []


def test_a_server_outlives_its_hub_and_is_adopted(plain_hub: UnprivilegedHub) -> None:
    handle = last(plain_hub.run("start"), "Listening")["handle"]
    assert processes_of(plain_hub.user.uid)
    assert processes_of(plain_hub.account.uid) == []
    said = plain_hub.run("poll", "list", "stop", "poll", handle=handle)
    polls = [one["running"] for one in said if one["kind"] == "poll"]
    assert polls == [True, False]
    assert [one["pid"] for one in last(said, "list")["handles"]] == [handle["pid"]]
    assert processes_of(plain_hub.user.uid) == []


@pytest.mark.parametrize("moment", ["prepared", "Progress", "Listening"])
def test_what_a_killed_hub_leaves_is_found_and_ended(
    plain_hub: UnprivilegedHub, moment: str
) -> None:
    with plain_hub.popen("start", tiny=["child"]) as hub:
        assert hub.stdout
        for line in hub.stdout:
            if f'"{moment}"' in line:
                hub.kill()
                break
    found = plain_hub.run("list", "start", "stop", "list")
    before = next(one for one in found if one["kind"] == "list")["handles"]
    assert len(before) == 1 or moment == "prepared"
    assert last(found, "list")["handles"] == []
    eventually_sync(lambda: not processes_of(plain_hub.user.uid), "all is ended")


def test_a_server_that_ignores_term_is_killed(plain_hub: UnprivilegedHub) -> None:
    plain_hub.run("start", "stop", tiny=["stubborn", "child"], term_timeout=0.2)
    assert processes_of(plain_hub.user.uid) == []


def test_an_account_deleted_while_its_server_runs(
    plain_hub: UnprivilegedHub, dave: Account
) -> None:
    plain_hub.allow(dave)
    plain_hub.user = dave
    handle = last(plain_hub.run("start"), "Listening")["handle"]
    subprocess.run(["userdel", "--force", dave.name], check=True, capture_output=True)
    with pytest.raises(KeyError):
        pwd.getpwnam(dave.name)
    user = plain_hub.account.name
    said = plain_hub.run("poll", "stop", "poll", handle=handle, user=user)
    assert last(said[:1], "poll")["running"]
    if plain_hub.group:
        assert not last(said, "poll")["running"]
        assert processes_of(dave.uid) == []
    else:
        assert f"pkill -KILL -U {dave.uid}" in last(said, "error")["message"]


def test_a_missing_rule_is_quoted_and_its_line_given(bare_hub: UnprivilegedHub) -> None:
    bare_hub.rule.unlink()
    error = last(bare_hub.run("start"), "error")
    assert error["label"] == "launcher"
    assert "a password is required" in error["message"]
    assert f"{bare_hub.account.name} ALL=(%GROUP) NOPASSWD: " in error["message"]
    assert "become.py" in error["message"]


def test_a_rule_that_asks_for_a_password_is_not_enough(bare_hub: UnprivilegedHub) -> None:
    bare_hub.allow(bare_hub.user, tag="PASSWD")
    assert "a password is required" in last(bare_hub.run("start"), "error")["message"]


def test_a_rule_for_others_is_not_enough(bare_hub: UnprivilegedHub, bob: Account) -> None:
    bare_hub.allow(bob)
    message = last(bare_hub.run("start"), "error")["message"]
    assert "password is required" in message or "not allowed" in message
    assert processes_of(bare_hub.user.uid) == []


def test_no_new_privileges_is_named(bare_hub: UnprivilegedHub) -> None:
    bare_hub.wrapper = ("setpriv", "--no-new-privs")
    message = last(bare_hub.run("start"), "error")["message"]
    assert "NoNewPrivs" in message
    assert "RestrictSUIDSGID" in message


def test_a_hub_may_run_servers_as_itself(plain_hub: UnprivilegedHub) -> None:
    plain_hub.rule.unlink()
    plain_hub.wrapper = ("setpriv", "--no-new-privs")
    said = plain_hub.run("start", "poll", "stop", tiny=["child"], run_as="hub", user="anybody")
    assert last(said, "poll")["running"]
    assert last(said, "stopped")
    assert processes_of(plain_hub.account.uid) == []


def test_doctor_finds_nothing_wrong(plain_hub: UnprivilegedHub) -> None:
    found = {one["subject"]: one["level"] for one in plain_hub.run("check")}
    assert (found["launcher"], found["sudo"]) == ("ok", "ok")


def test_doctor_finds_a_missing_rule(bare_hub: UnprivilegedHub) -> None:
    bare_hub.rule.unlink()
    found = {one["subject"]: one for one in bare_hub.run("check")}
    assert found["sudo"]["level"] == "error"
    assert "NOPASSWD" in found["sudo"]["remedy"]


def test_doctor_names_a_missing_delegation(bare_hub: UnprivilegedHub) -> None:
    require(cgroup.find_mount(), "no cgroup v2 is mounted, not even beside version 1")
    found = {one["subject"]: one for one in bare_hub.run("check", cgroup_parent="")}
    assert found["limits"]["level"] == "warning"
    assert "workshop-users.service does not exist" in found["limits"]["message"]


def test_sudo_that_records_its_programs_is_named(bare_hub: UnprivilegedHub) -> None:
    """The server's log would be a pipe to a sudo that has ended."""
    name = bare_hub.account.name
    record = f"Defaults:{name} log_output, iolog_dir={bare_hub.folder}/io\n"
    bare_hub.rule.write_text(bare_hub.rule.read_text() + record)
    message = last(bare_hub.run("start"), "error")["message"]
    assert "sudo records what the launcher prints" in message
    assert f"Defaults:{name} !log_output" in message
    assert processes_of(bare_hub.user.uid) == []
