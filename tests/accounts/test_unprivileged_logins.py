"""A hub that is not root logs people in by sudo, by a socket, or says what is missing."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from accounts.conftest import Hubs, Machine
from accounts.test_logins import enter

from hubs import Hub
from support import eventually_sync

BROKER = "workshop_hub.system.pam_broker"
SUDOERS = "/etc/sudoers.d/wsacct-logins"
CONFIG = 'c.Authenticator.allow_all = True\nc.WorkshopAuthenticator.pam_broker = "{}"\n'


@pytest.fixture(scope="module")
def prepared(machine: Machine) -> Machine:
    for name in ("wsacct-uhub", "wsacct-uother", "wsacct-una", "wsacct-ushadow"):
        machine.add(name)
    machine.run("usermod", "--append", "--groups", "shadow", "wsacct-ushadow")
    machine.add("wsacct-usys", "--uid", "904")
    machine.set_password("root")
    return machine


def told(hub: Hub) -> str:
    """Return what the hub's log says of logins, when it says it."""
    found = eventually_sync(lambda: re.findall(r"\] Logins: .*", hub.log), "the hub says it")
    return str(found[0])


def rule_in(text: str) -> str:
    found = re.search(r"wsacct-\w+ ALL=\(root\) NOPASSWD: /.*?(?=\n|$)", text)
    assert found, text
    return found[0]


def assert_logs_people_in(hub: Hub) -> None:
    assert enter(hub, "wsacct-una") == "wsacct-una"
    assert enter(hub, "wsacct-una", "something else") == ""
    assert enter(hub, "root") == ""
    assert enter(hub, "wsacct-usys") == ""


def test_without_any_right_the_log_has_the_line_that_is_missing_and_it_works(
    prepared: Machine, hubs: Hubs
) -> None:
    poor = hubs.start(CONFIG.format("auto"), as_user="wsacct-uhub")
    said = told(poor)
    assert "Nobody whose password the machine itself keeps can log in" in said
    assert enter(poor, "wsacct-una") == ""
    rule = rule_in(said)
    assert rule.startswith("wsacct-uhub ")
    assert "*" not in rule
    prepared.write(SUDOERS, f"Defaults use_pty\n{rule}\n", mode="440")
    prepared.run("visudo", "--check", f"--file={SUDOERS}")
    hub = hubs.start(CONFIG.format("auto"), as_user="wsacct-uhub")
    assert "passwords are checked by a broker that sudo starts as root" in told(hub)
    assert_logs_people_in(hub)


def test_the_rule_is_for_that_command_alone(prepared: Machine) -> None:
    """With other services, other uids, or another program nothing is run."""
    line = prepared.run("cat", SUDOERS).splitlines()[1].replace("\\", "")
    words = line.partition("NOPASSWD: ")[2].split()
    as_hub = [*prepared.enter, "setpriv", "--reuid=wsacct-uhub", "--regid=wsacct-uhub"]
    as_hub += ["--init-groups", "sudo", "-n"]
    for other in (
        [*words, "--min-uid", "0"],
        [*words, "--service", "su"],
        [*words[:-1], "su"],
        [*words[:2], "-c", "0"],
        [*words[:-2]],
    ):
        done = subprocess.run([*as_hub, *other], capture_output=True, check=False)
        assert done.returncode == 1
        assert b"sudo:" in done.stderr


def test_an_account_without_a_rule_is_told_so_where_sudo_was_asked_for(
    prepared: Machine, hubs: Hubs
) -> None:
    hub = hubs.start(CONFIG.format("sudo"), as_user="wsacct-uother")
    said = told(hub)
    assert "sudo does not let the hub check passwords" in said
    assert rule_in(said).startswith("wsacct-uother ")


def test_a_hub_that_can_read_every_hash_is_warned(prepared: Machine, hubs: Hubs) -> None:
    hub = hubs.start(CONFIG.format("auto"), as_user="wsacct-ushadow")
    said = told(hub)
    assert "has the hashes of all passwords" in said
    assert "pam_faillock" in said
    assert rule_in(said)
    assert enter(hub, "wsacct-una") == "wsacct-una"


def test_a_pam_service_that_the_machine_lacks_is_named(prepared: Machine, hubs: Hubs) -> None:
    hub = hubs.start(CONFIG.format("own") + "c.PAMAuthenticator.service = 'no-such'\n")
    said = told(hub)
    assert 'The machine has no PAM service "no-such"' in said
    assert '"login"' in said
    assert "workshop-hub pam-service" in said


LISTEN = """
import os, socket, sys
listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
listener.bind(sys.argv[1])
os.chmod(sys.argv[1], 0o666)
listener.listen()
os.dup2(listener.fileno(), 0)
python = [sys.executable, "-I", "-m", "workshop_hub.system.pam_broker"]
os.execv(python[0], [*python, *sys.argv[2:]])
"""


@pytest.fixture
def place(prepared: Machine) -> Iterator[Path]:
    """A socket at which a broker listens, as systemd starts it."""
    prepared.run("mkdir", "--mode=755", "/home/run")
    path = Path("/home/run/pam.sock")
    words = ["--hub-user", "wsacct-uhub", "--service", "workshop-test"]
    with subprocess.Popen(
        [*prepared.enter, sys.executable, "-c", LISTEN, path, *words],
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        eventually_sync(lambda: "pam.sock" in prepared.run("ls", "/home/run"), "the broker listens")
        yield path
        process.terminate()
    prepared.run("rm", "-r", "/home/run")


def test_through_a_socket(place: Path, hubs: Hubs) -> None:
    hub = hubs.start(CONFIG.format(place), as_user="wsacct-uhub")
    assert f"the broker that listens at {place}" in told(hub)
    assert_logs_people_in(hub)


def test_who_else_connects_is_sent_away(place: Path, hubs: Hubs) -> None:
    hub = hubs.start(CONFIG.format(place), as_user="wsacct-uother")
    assert "could not check the password" in told(hub)


def test_a_socket_where_nobody_listens_or_not_root(prepared: Machine, hubs: Hubs) -> None:
    hub = hubs.start(CONFIG.format("/home/no/pam.sock"), as_user="wsacct-uhub")
    assert "No PAM broker can be reached at /home/no/pam.sock: No such file" in told(hub)


def test_a_broker_that_others_could_replace_does_not_run(prepared: Machine) -> None:
    """What root runs for the hub's account is not to be that account's."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    program = "import sys; sys.path.append('/home/wsacct-uhub'); from workshop_hub.system import "
    program += "pam_broker; pam_broker.main(sys.argv[1:])"
    with ours, theirs:
        done = subprocess.run(
            [*prepared.enter, sys.executable, "-I", "-c", program, "--service", "workshop-test"],
            stdin=theirs,
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 1
    assert "is not safe to run as root: /home/wsacct-uhub" in done.stderr


def test_a_python_that_listens_to_its_starter_is_not_safe(prepared: Machine) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        done = subprocess.run(
            [*prepared.enter, sys.executable, "-m", BROKER, "--service", "workshop-test"],
            stdin=theirs,
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 1
    assert "without -I" in done.stderr


def test_where_sudo_keeps_what_is_typed_the_broker_does_not_run(prepared: Machine) -> None:
    """Or all passwords would be in sudo's log."""
    done = subprocess.run(
        [*prepared.enter, sys.executable, "-I", "-m", BROKER],
        stdin=subprocess.PIPE,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "log_input" in done.stderr


def test_the_shipped_service_logs_people_in(prepared: Machine, hubs: Hubs) -> None:
    prepared.run(str(Path(sys.executable).with_name("workshop-hub")), "pam-service", "--output=/")
    hub = hubs.start(
        "c.Authenticator.allow_all = True\nc.PAMAuthenticator.service = 'workshop-hub'\n"
    )
    try:
        assert_logs_people_in(hub)
        prepared.write("/etc/nologin", "Closed today.\n")
        assert enter(hub, "wsacct-una") == ""
    finally:
        prepared.run("rm", "-f", "/etc/nologin", "/etc/pam.d/workshop-hub")


def test_a_group_that_root_is_in_is_not_written_into_the_rule(prepared: Machine) -> None:
    prepared.run("groupadd", "wsacct-ops")
    units = [Path(sys.executable).with_name("workshop-hub"), "units", "--hub-user=wsacct-uhub"]
    command = [*prepared.enter, *units, "--accounts=%wsacct-ops"]
    assert "(%wsacct-ops) NOPASSWD" in subprocess.check_output(command, text=True)
    prepared.run("usermod", "--append", "--groups", "wsacct-ops", "root")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    prepared.run("gpasswd", "--delete", "root", "wsacct-ops")
    assert (done.returncode, done.stdout) == (1, "")
    assert "could run servers as root" in done.stderr


def test_doctor_says_it_too(prepared: Machine) -> None:
    prepared.write(
        "/home/doctor.py",
        "c = get_config()\nc.JupyterHub.authenticator_class = 'workshop'\n"
        "c.PAMAuthenticator.service = 'workshop-test'\n",
    )
    said = {
        name: subprocess.run(
            [
                *(*prepared.enter, "setpriv", f"--reuid={name}", f"--regid={name}"),
                *("--init-groups", "sh", "-c", 'cd / && exec "$@"', "sh"),
                *(
                    Path(sys.executable).with_name("workshop-hub"),
                    "doctor",
                    "-f",
                    "/home/doctor.py",
                ),
            ],
            capture_output=True,
            text=True,
            check=False,
        ).stdout
        for name in ("wsacct-uhub", "wsacct-uother")
    }
    assert re.search(r"^ok +logins +.*that sudo starts", said["wsacct-uhub"], re.MULTILINE)
    assert re.search(r"^error +logins +.*Nobody whose", said["wsacct-uother"], re.MULTILINE)
    assert rule_in(said["wsacct-uother"]).startswith("wsacct-uother ")
