"""PAM sessions of servers, with logind, for a hub that is not root: its units keep them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import guest
import pytest
from unit_hub import UnitHub

from support import eventually_sync

SERVICE = "workshop-users-pam.service"

CONFIG = """
c.JupyterHub.authenticator_class = "workshop"
c.Authenticator.allow_all = True
c.PAMAuthenticator.open_sessions = True
"""


@pytest.fixture(scope="module")
def sessions(hub: UnitHub) -> Iterator[UnitHub]:
    before = hub.config_file.read_text()
    hub.config_file.write_text(before + CONFIG)
    hub.restart()
    yield hub
    hub.config_file.write_text(before)
    hub.restart()
    guest.systemctl("stop", "workshop-users-pam.socket", SERVICE)


def in_loginctl(user: str) -> list[str]:
    """Return the ids of a user's sessions, as logind has them."""
    rows = guest.run("loginctl", "list-sessions", "--no-legend").splitlines()
    return [row.split()[0] for row in rows if row.split()[2] == user]


def leader(session: str) -> int:
    return int(guest.run("loginctl", "show-session", "--property=Leader", "--value", session))


def environment(pid: int) -> dict[str, str]:
    entries = Path(f"/proc/{pid}/environ").read_bytes().decode().split("\0")
    return dict(entry.split("=", 1) for entry in entries if entry)


def test_logind_has_a_session_while_the_server_runs(sessions: UnitHub) -> None:
    server = sessions.run_server("ana")
    (session,) = in_loginctl("ana")
    keeper = leader(session)
    folder = environment(server.pid)["XDG_RUNTIME_DIR"]
    assert folder == f"/run/user/{guest.run('id', '--user', 'ana').strip()}"
    assert Path(folder).is_dir()
    assert "session-" in Path(f"/proc/{keeper}/cgroup").read_text()
    assert "workshop-users.service" in str(server.group)  # the server stays where its limits are
    guest.systemctl("restart", SERVICE)
    sessions.kill_9()
    sessions.restart()
    assert in_loginctl("ana") == [session]
    assert Path(folder).is_dir()
    server.stop()
    eventually_sync(lambda: in_loginctl("ana") == [], "logind's session ends")
    assert not Path(f"/proc/{keeper}").exists()


def test_without_logind_a_restart_of_the_unit_leaves_sessions_open(sessions: UnitHub) -> None:
    """Then they stay in the unit's own cgroup."""
    login = Path("/etc/pam.d/login")
    rules = login.read_text()
    login.write_text("session required pam_permit.so\nsession required pam_mkhomedir.so\n")
    try:
        server = sessions.run_server("ben")
        (file,) = Path("/run/workshop-hub/sessions").iterdir()
        assert in_loginctl("ben") == []
        guest.systemctl("restart", SERVICE)
        assert file.exists()
        server.stop()
        eventually_sync(lambda: not file.exists(), "the session is closed")
    finally:
        login.write_text(rules)


def test_the_unit_is_sound() -> None:
    said = guest.run("systemd-analyze", "verify", f"/etc/systemd/system/{SERVICE}")
    assert "pam" not in said
    assert "stopping || exec" in guest.run("systemctl", "cat", SERVICE)
