"""The hub as the unit runs it: an account without rights, restarted by systemd."""

from __future__ import annotations

import shutil
import sys
import time
from pathlib import Path
from typing import Any

import guest
import pytest

from hubs import Hub, words
from support import eventually_sync

UNIT = "workshop-hub.service"
BREAKER = Path(__file__).parent / "breaker.py"
COMMAND = (sys.executable, "-I", "-S", str(BREAKER))

WARM_CONFIG = """
c.ProcessBackend.launcher = "warm"
c.ProcessBackend.warm_socket = "/run/workshop-hub/launcher.sock"
"""

WITH_BOTH = pytest.mark.parametrize("launcher", ["sudo", "warm"], indirect=True, scope="session")
WARM = pytest.mark.parametrize("launcher", ["warm"], indirect=True, scope="session")

CONFIG = f"""
c.JupyterHub.spawner_class = "workshop"
c.Spawner.cmd = {[*COMMAND]!r}
c.Spawner.start_timeout = 120
c.Spawner.http_timeout = 120

def apply(spawner, options):
    "Let a test choose the limits of each server."
    for name, value in options.items():
        setattr(spawner, name, value)

c.Spawner.apply_user_options = apply
"""


class UnitHub(Hub):
    """The hub of workshop-hub.service. launcher: what starts its servers."""

    def __init__(self, launcher: str) -> None:
        guest.CONFIG.parent.mkdir(exist_ok=True)
        self.launcher = launcher
        super().__init__(guest.CONFIG.parent, CONFIG + (WARM_CONFIG if launcher == "warm" else ""))
        shutil.chown(self.config_file, "root", guest.HUB_USER)
        self.config_file.chmod(0o640)  # it has a token

    @property
    def log(self) -> str:
        return guest.run("journalctl", f"--unit={UNIT}", "--output=cat", "--no-pager")

    @property
    def pid(self) -> int:
        """The hub's main process; 0 while there is none."""
        return int(guest.systemctl("show", "--property=MainPID", "--value", UNIT))

    @property
    def restarts(self) -> int:
        """How often systemd has started the hub again after a failure."""
        return int(guest.systemctl("show", "--property=NRestarts", "--value", UNIT))

    def start(self, deadline: float = 300) -> UnitHub:
        guest.systemctl("start", UNIT)
        return self.wait(deadline)

    def wait(self, deadline: float = 300) -> UnitHub:
        """Wait until the hub answers through its proxy.

        It may be started again a few times: it gives its proxy ten seconds, which are not always
        enough for the one processor of the guest.
        """
        end = time.monotonic() + deadline
        since = self.restarts
        while time.monotonic() < end and self.restarts <= since + 3:
            try:
                if self.api("GET", "/info").status == 200:
                    return self
            except OSError:
                pass
            time.sleep(0.2)
        pytest.fail(f"the hub did not answer:\n{self.log[-6000:]}")

    def end(self) -> None:
        """Stop every server, then the hub."""
        for user in self.api("GET", "/users").json:
            for server in user.get("servers", {}):
                self.stop_server(user["name"], server)
        guest.systemctl("stop", UNIT)
        assert guest.groups() == []

    def restart(self) -> None:
        guest.systemctl("restart", UNIT)
        self.wait()

    def kill_9(self) -> None:
        """Kill the hub's main process alone, and wait until systemd has started it again."""
        old = self.pid
        guest.systemctl("kill", "--kill-who=main", "--signal=KILL", UNIT)
        eventually_sync(lambda: self.pid not in (0, old), "systemd starts the hub again")
        self.wait()

    def breaker(self, *options: str) -> list[str]:
        """Return the command of a server that breaks its limits at once."""
        return [*(COMMAND if self.launcher == "sudo" else warm_command()), *options]

    def run_server(self, user: str, **options: object) -> Server:
        """Start the user's server with these options; it must start."""
        # Without any, the hub would take those of the server before.
        events = self.start_server(user, options={"cmd": self.breaker(), **options})
        assert events[-1].get("ready"), (events, self.log[-6000:])
        return Server(self, user)


class Server:
    """A user's running breaker, asked through the proxy."""

    def __init__(self, hub: UnitHub, user: str) -> None:
        self.hub = hub
        self.user = user
        self.pid: int = self.ask("me")["pid"]
        self.group = group_of(self.pid)

    def ask(self, verb: str, amount: int = 0) -> Any:
        return self.hub.server_json(self.user, path=f"{verb}/{amount}")

    def page(self) -> str:
        """Return the text of the hub's page that the user sees next."""
        answer = self.hub.browser(self.user).open("/hub/home")
        assert answer.status == 200, answer.text
        return words(answer.text)

    def stop(self) -> None:
        self.hub.stop_server(self.user)


def warm_command() -> list[str]:
    """Return the breaker as a program that is started warm: of that name, run by that Python."""
    program = guest.BIN.parent / "breaker" / "jupyterhub-singleuser"
    program.parent.mkdir(exist_ok=True)
    program.write_text(f"#!{sys.executable}\n{BREAKER.read_text()}")
    program.chmod(0o755)
    return [str(program)]


def group_of(pid: int) -> Path:
    """Return the process's cgroup, as the kernel says."""
    line = Path(f"/proc/{pid}/cgroup").read_text().strip()
    return guest.CGROUPS / line.removeprefix("0::/")
