"""What an unprivileged hub is refused, and why: the reason is exact, and so is the cure."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import guest
import pytest
from unit_hub import COMMAND, group_of

SCRIPT = Path(__file__).parent / "try_backend.py"
LIMITS = {"mem_limit": 128 * 1024 * 1024}
PAM = Path("/etc/pam.d/sudo")

IN_A_LEAF = """
group=/sys/fs/cgroup$(sed -n 's/^0:://p' /proc/self/cgroup)
mkdir "$group/leaf"
echo $$ >"$group/leaf/cgroup.procs"
"""


def ask(
    *steps: tuple[str, Any] | str, parent: str = "", properties: dict[str, str] | None = None
) -> list[Any]:
    """Ask the backend for these steps, as the hub's account in a unit with these properties."""
    pairs = [(each, None) if isinstance(each, str) else each for each in steps]
    request = {"config": {"cgroup_parent": parent}, "steps": pairs}
    done = guest.as_hub(sys.executable, SCRIPT, json.dumps(request), properties=properties)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)


def server(**different: Any) -> tuple[str, dict[str, Any]]:
    """The step that starts ana's server."""
    return "start", {"user": "ana", "cmd": COMMAND, "limits": LIMITS, **different}


@pytest.fixture(autouse=True)
def slice_is_handed_over(units: None) -> None:
    """What the hub's unit does before the hub starts."""
    guest.run("chown", guest.HUB_USER, guest.HOLDER.parent / "cgroup.procs")


@contextmanager
def other_holder(script: str, **properties: str) -> Iterator[str]:
    """Run another unit in the hub's slice; yield its group below the mount.

    It is in a slice of its own there, for siblings have the same controllers.
    """
    words = [f"--property={name}={value}" for name, value in properties.items()]
    script = f"{script}\nsystemd-notify --ready\nexec sleep infinity"
    guest.run(
        "systemd-run",
        "--unit=other-holder",
        "--collect",
        "--slice=workshop-other.slice",
        "--service-type=notify",
        "--property=NotifyAccess=all",
        *words,
        "/bin/sh",
        "-ec",
        script.replace("$", "$$"),  # or systemd fills it in
    )
    try:
        yield "workshop.slice/workshop-other.slice/other-holder.service"
    finally:
        guest.systemctl("stop", "other-holder.service")


def test_all_is_well_where_nothing_is_wrong() -> None:
    findings, handle, usage, status = ask("check", server(), "usage", "poll")
    assert [each for each in findings if each["level"] != "ok"] == []
    assert usage["limits"]["mem_limit"] == LIMITS["mem_limit"]
    assert usage["memory"] > 0
    assert status["running"]
    # another process, which has nothing but the handle
    again, _, ended = ask(("poll", handle), ("stop", handle), ("poll", handle))
    assert (again["running"], ended["running"]) == (True, False)
    assert guest.groups() == []


def test_without_delegation_the_account_may_not_write() -> None:
    with other_holder("") as parent:
        (refused,) = ask(server(), parent=parent)
    assert refused["error"] == "LimitsNotEnforceable"
    assert "may not write there (EACCES)" in refused["message"]
    assert "User=" in refused["remedy"]


def test_a_controller_that_is_not_delegated_is_named() -> None:
    # systemd hands memory and pids to every unit, and cpu only to those that want it
    with other_holder(IN_A_LEAF, User=guest.HUB_USER, Delegate="memory pids") as parent:
        refused, findings, _, status, _ = ask(
            server(limits={"cpu_limit": 0.5}), "check", server(), "poll", "stop", parent=parent
        )
    assert refused["error"] == "LimitsNotEnforceable"
    assert refused["message"].startswith("cpu_limit cannot be enforced on this machine.")
    (finding,) = [each for each in findings if each["subject"] == "limits"]
    for told in (refused, finding):
        assert "No cpu controller" in told["message"]
        assert "it is not delegated" in told["message"]
        assert "Delegate=cpu memory pids" in told["remedy"]
    assert status["running"]  # a memory limit can be held


def test_processes_beside_the_servers_groups_are_named() -> None:
    with other_holder("", User=guest.HUB_USER, Delegate="yes") as parent:
        (refused,) = ask(server(), parent=parent)
    assert refused["error"] == "LimitsNotEnforceable"
    assert "processes live in this group" in refused["message"]
    assert "(EBUSY)" in refused["message"]


def test_a_slice_that_was_not_handed_over_is_named() -> None:
    guest.run("chown", "root", guest.HOLDER.parent / "cgroup.procs")
    (refused,) = ask(server())
    assert refused["error"] == "LimitsNotEnforceable"
    assert "(EACCES)" in refused["message"]
    assert "own cgroup.procs of the slice" in refused["remedy"]


def test_a_hub_outside_of_the_slice_is_named_with_its_place() -> None:
    (refused,) = ask(server(), properties={"Slice": "system.slice"})
    assert refused["error"] == "LimitsNotEnforceable"
    assert "This process is in the cgroup /system.slice/run-" in refused["message"]
    assert "only from within workshop.slice" in refused["message"]
    assert "Slice=workshop.slice" in refused["remedy"]


def test_the_doctor_is_content_in_the_place_of_the_hub() -> None:
    config = guest.STATE / "doctor_config.py"
    config.write_text(
        'c.JupyterHub.spawner_class = "workshop"\n'
        'c.JupyterHub.authenticator_class = "dummy"\n'
        'c.Spawner.mem_limit = "300M"\n'
    )
    path = {"Environment": f"PATH={guest.BIN}:/usr/bin:/bin"}
    done = guest.as_hub(guest.BIN / "workshop-hub", "doctor", "-f", config, properties=path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert str(guest.USERS) in done.stdout


def test_no_holder_at_all_leads_to_the_command_that_makes_one() -> None:
    guest.systemctl("stop", "workshop-users.service")
    try:
        refused, _, status, _ = ask(server(), server(limits_policy="warn"), "poll", "stop")
    finally:
        guest.systemctl("start", "workshop-users.service")
    assert refused["error"] == "LimitsNotEnforceable"
    assert f"{guest.HOLDER} does not exist" in refused["message"]
    assert "workshop-hub" in refused["remedy"]
    assert status["running"]


@pytest.mark.parametrize(
    ("setting", "error", "message", "remedy"),
    [
        ("ProtectControlGroups", "LimitsNotEnforceable", "(EROFS)", "ProtectControlGroups="),
        ("NoNewPrivileges", "LauncherRefused", "NoNewPrivs", "NoNewPrivileges="),
        ("RestrictSUIDSGID", "LauncherRefused", "NoNewPrivs", "RestrictSUIDSGID"),
    ],
)
def test_a_setting_of_the_unit_that_is_in_the_way_is_named(
    setting: str, error: str, message: str, remedy: str
) -> None:
    (refused,) = ask(server(), properties={setting: "yes"})
    assert refused["error"] == error
    assert message in refused["message"]
    assert remedy in refused["remedy"]


def test_pam_systemd_in_sudos_stack_is_caught_and_the_cure_works() -> None:
    pam, rules = PAM.read_text(), guest.SUDOERS.read_text()
    cure = f"Defaults:{guest.HUB_USER} !pam_session"
    try:
        PAM.write_text(pam + "session optional pam_systemd.so\n")
        (refused,) = ask(server())
        left = guest.groups()
        guest.SUDOERS.write_text(rules.replace(f"#{cure}", cure))
        (handle,) = ask(server())
        group = group_of(handle["pid"])
        ask(("stop", handle))
    finally:
        PAM.write_text(pam)
        guest.SUDOERS.write_text(rules)
    assert refused["error"] == "LimitsNotEnforceable"
    assert "/user.slice/" in refused["message"]
    assert "pam_systemd" in refused["remedy"]
    assert cure in refused["remedy"]
    assert left == []
    assert group.parent == guest.USERS


def test_a_handle_of_before_the_machine_was_restarted_means_not_running() -> None:
    (handle,) = ask(server())
    earlier = {**handle, "boot_id": "00000000-0000-4000-8000-000000000000"}
    # and to end that server is not to end the one that has its place now
    steps = [("poll", earlier), ("stop", earlier), ("poll", handle), ("stop", handle)]
    of_earlier, _, now, _ = ask(*steps)
    assert (of_earlier["running"], now["running"]) == (False, True)
