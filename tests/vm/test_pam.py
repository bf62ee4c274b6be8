"""The unit that checks passwords for a hub which is not root, as systemd runs it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import guest
import pytest

SOCKET = Path("/run/workshop-hub/pam.sock")
SERVICE = "workshop-users-pam.service"
PASSWORD = "a long sentence of theirs"

LOGIN = """
import asyncio, json, sys
from workshop_hub.authenticator import WorkshopAuthenticator
from workshop_hub.errors import WorkshopError
from workshop_hub.system.broker import Attempt

async def main():
    asks = WorkshopAuthenticator()
    access = await asks.check_access()
    said = {"level": access.level, "message": access.message}
    for name, password in zip(sys.argv[1::2], sys.argv[2::2]):
        try:
            attempt = Attempt(name, asks.service, secrets=(password,))
            verdict = await asks._logins.begin(attempt)
        except WorkshopError as exc:
            said[name] = str(exc)
        else:
            said[name] = "granted" if verdict.granted else verdict.message
    await asks.broker.close()
    print(json.dumps(said))

asyncio.run(main())
"""


@pytest.fixture(scope="module", autouse=True)
def listening(units: None) -> Iterator[None]:
    subprocess.run(["chpasswd"], input=f"ana:{PASSWORD}\nroot:{PASSWORD}\n", text=True, check=True)
    guest.systemctl("start", "workshop-users-pam.socket")
    yield
    guest.systemctl("stop", "workshop-users-pam.socket", SERVICE)


def asked(*words: str) -> dict[str, str]:
    """Log people in as the hub's account; return what came out."""
    done = guest.as_hub(sys.executable, "-I", "-c", LOGIN, *words)
    assert done.returncode == 0, done.stderr
    said: dict[str, str] = json.loads(done.stdout)
    return said


def test_the_socket_is_the_hubs_groups_and_nobody_elses() -> None:
    stat = guest.run("stat", "--format", "%U %G %a", SOCKET).strip()
    assert stat == f"root {guest.HUB_USER} 660"


def test_the_hub_has_passwords_checked_and_gets_no_more_than_that() -> None:
    said = asked("ana", PASSWORD, "root", PASSWORD)
    assert (said["level"], said["ana"]) == ("ok", "granted"), said
    assert f"listens at {SOCKET}" in said["message"]
    assert "it is root's" in said["root"]
    assert asked("ana", "something else")["ana"] not in ("granted", "")


def test_it_is_started_again_when_it_has_ended() -> None:
    guest.systemctl("kill", "--signal=KILL", SERVICE)
    assert asked("ana", PASSWORD)["ana"] == "granted"


def test_root_may_ask_too_and_other_accounts_may_not() -> None:
    connect = "import socket, sys; s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET); "
    connect += "s.settimeout(30); s.connect(sys.argv[1])"
    command = [sys.executable, "-I", "-c", connect, str(SOCKET)]
    guest.run(*command)
    done = subprocess.run(
        ["setpriv", "--reuid=ben", "--regid=ben", "--clear-groups", *command],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "PermissionError" in done.stderr


def test_what_gets_past_the_sockets_mode_is_sent_away() -> None:
    """In the hub's group, and not the hub."""
    wait = "import socket, sys; s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET); "
    wait += "s.settimeout(60); s.connect(sys.argv[1]); print(s.recv(1))"
    ids = ["--reuid=ben", f"--regid={guest.HUB_USER}", "--clear-groups"]
    said = guest.run("setpriv", *ids, sys.executable, "-I", "-c", wait, str(SOCKET), timeout=120)
    assert said == "b''\n"
    uid = guest.run("id", "--user", "ben").strip()
    assert f"uid {uid} may not ask" in guest.run("journalctl", f"--unit={SERVICE}", "--no-pager")


def test_the_unit_has_few_capabilities_and_no_writable_programs() -> None:
    asked()
    pid = guest.systemctl("show", "--property=MainPID", "--value", SERVICE).strip()
    status = Path(f"/proc/{pid}/status").read_text()
    bounding = next(line for line in status.splitlines() if line.startswith("CapBnd"))
    sys_admin, sys_module = 1 << 21, 1 << 16
    assert not int(bounding.split()[1], 16) & (sys_admin | sys_module)
    mounts = Path(f"/proc/{pid}/mountinfo").read_text().splitlines()
    usr = [line.split()[5] for line in mounts if line.split()[4] == "/usr"]
    assert usr
    assert usr[0].split(",")[0] == "ro"
    assert "@" not in guest.run("systemctl", "cat", SERVICE).replace("@system-service", "")


def test_the_hubs_unit_brings_it_along() -> None:
    wants = guest.systemctl("show", "--property=Wants", "--value", "workshop-hub.service")
    assert "workshop-users-pam.socket" in wants.split()


def test_doctor_says_that_logins_work() -> None:
    config = Path("/tmp/wsvm-doctor.py")
    config.write_text('c = get_config()\nc.JupyterHub.authenticator_class = "workshop"\n')
    done = guest.as_hub(guest.BIN / "workshop-hub", "doctor", "-f", config)
    config.unlink()
    assert f"passwords are checked by the broker that listens at {SOCKET}" in done.stdout, done
