"""What the units give to the hub's account, and what they do not."""

from __future__ import annotations

import os
import subprocess

import guest
from unit_hub import WITH_BOTH

pytestmark = WITH_BOTH


def test_this_is_the_machine_it_should_be() -> None:
    assert guest.run("cat", "/proc/1/comm").strip() == "systemd"
    mounts = guest.run("findmnt", "--noheadings", "--output", "FSTYPE", "/sys/fs/cgroup")
    assert mounts.strip() == "cgroup2"
    assert guest.systemctl("show", "--property=Version").startswith("Version=252")


def test_systemd_and_sudo_have_no_complaint(launcher: str) -> None:
    units = sorted(file for file in guest.UNITS.glob("workshop*") if file.is_file())
    assert len(units) == (6 if launcher == "warm" else 5)
    done = subprocess.run(
        ["systemd-analyze", "verify", *units], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert "parsed OK" in guest.run("visudo", "--check", "--file", guest.SUDOERS)


def test_the_hub_owns_the_group_of_the_servers_and_it_has_all_controllers() -> None:
    assert guest.USERS.owner() == guest.HUB_USER
    assert set(guest.value(guest.USERS, "cgroup.subtree_control").split()) == {
        "cpu",
        "memory",
        "pids",
    }
    assert guest.processes(guest.HOLDER) == []


def test_systemds_own_limits_do_not_cut_a_class_short() -> None:
    assert guest.value(guest.HOLDER, "pids.max") == "max"
    assert guest.value(guest.HOLDER, "memory.max") == "max"
    oom = guest.systemctl("show", "--property=OOMPolicy", "--value", "workshop-users.service")
    assert oom.strip() == "continue"


def test_the_hubs_account_can_move_its_own_process_under_a_limit() -> None:
    guest.run("chown", guest.HUB_USER, guest.CGROUPS / "workshop.slice/cgroup.procs")
    script = """
        set -e; group=$1/trial; mkdir "$group"
        echo 64M >"$group/memory.max"
        (echo 0 >"$group/cgroup.procs"; exec cat /proc/self/cgroup)
        rmdir "$group"
    """
    done = guest.as_hub("sh", "-c", script, "sh", guest.USERS)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "0::/workshop.slice/workshop-users.service/users/trial"


def test_the_hubs_account_cannot_lift_what_the_administrator_set_for_all() -> None:
    done = guest.as_hub("sh", "-c", 'echo max >"$1/memory.high"', "sh", guest.HOLDER)
    assert done.returncode != 0
    assert "Permission denied" in done.stderr


def test_a_user_cannot_speak_to_systemd_for_the_unit_that_holds_everybodys_servers() -> None:
    """Believed, these words would end the servers of all users."""
    group = guest.USERS / "trial"
    group.mkdir()
    enter = 'echo $$ >"$1/cgroup.procs"; shift; exec "$@"'
    # it returns when systemd has read the message
    words = ["setpriv", "--reuid=ana", "--regid=ana", "--clear-groups", "systemd-notify"]
    for message in ("MAINPID=1", "STATUS=ended", "STOPPING=1"):
        command = ["sh", "-c", enter, "sh", group, *words, message]
        guest.run(*command, env={**os.environ, "NOTIFY_SOCKET": "/run/systemd/notify"})
    shown = guest.systemctl("show", "--property=SubState,StatusText", "workshop-users.service")
    group.rmdir()
    assert set(shown.split()) == {"SubState=running", "StatusText="}
