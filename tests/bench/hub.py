"""A real hub with its proxy, on ports of its own, that leaves nothing behind when it is closed."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType

from bench import machine
from bench.client import Client
from bench.machine import Process

REAPER = Path(__file__).with_name("reaper.py")
TESTS = Path(__file__).parents[1]

START_DEADLINE = 90.0
STOP_DEADLINE = 60.0
"""Seconds for the hub to answer, and to end when it is asked to."""

HELPERS_DEADLINE = 10.0
"""Seconds for what the hub had started to end after it."""

PATH = f"{Path(sys.executable).parent}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""Of the hub, which hands it on to servers that are processes."""

LOG_LINES = 15
LOG_WIDTH = 200

CONFIG = """
import sys
c = get_config()
c.JupyterHub.bind_url = "http://127.0.0.1:{port}"
c.JupyterHub.hub_port = {hub_port}
c.ConfigurableHTTPProxy.api_url = "http://127.0.0.1:{proxy_port}"
c.JupyterHub.authenticator_class = "dummy"
c.DummyAuthenticator.password = {password!r}
c.Authenticator.allow_all = True
c.JupyterHub.concurrent_spawn_limit = 0
c.JupyterHub.active_server_limit = 0
c.Spawner.default_url = "/lab"
c.Spawner.start_timeout = 900
c.Spawner.http_timeout = 900
c.JupyterHub.services = [dict(name="bench", api_token={token!r})]
c.JupyterHub.load_roles = [dict(name="bench", services=["bench"], scopes=[
    "admin:users", "admin:servers", "list:users", "access:servers"])]
"""


class HubFailed(Exception):
    """The hub did not start; the message has the last of its log."""


class BenchHub:
    """A hub with the configuration `config`, as a context.

    fields: what is filled into it. env: further variables of the hub's environment.
    noise: share of a core that the machine used, for whatever, when the hub was ready.
    """

    def __init__(
        self, config: str, fields: Mapping[str, str], env: Mapping[str, str] | None = None
    ) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="workshop-bench-"))
        self.folder.chmod(0o755)
        ports = free_ports(3)
        token = secrets.token_hex(16)
        self.client = Client(ports[0], token)
        self.hub_port = ports[1]
        self.log_file = self.folder / "hub.log"
        self.config_file = self.folder / "jupyterhub_config.py"
        self.config_file.write_text(
            CONFIG.format(
                port=ports[0],
                hub_port=ports[1],
                proxy_port=ports[2],
                password=secrets.token_hex(16),
                token=token,
            )
            + config.format(tests=str(TESTS), **fields)
        )
        self.config_file.chmod(0o600)
        self._env = dict(env or {})
        self._reaper: subprocess.Popen[str] | None = None
        self.pid = 0
        self.noise = 0.0

    def __enter__(self) -> BenchHub:
        try:
            self._launch()
            self._await_answer()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, at: TracebackType | None
    ) -> None:
        self.close()

    @property
    def log_tail(self) -> str:
        """The last lines that the hub has written."""
        text = self.log_file.read_text(errors="replace") if self.log_file.exists() else ""
        return "\n".join(line[:LOG_WIDTH] for line in text.splitlines()[-LOG_LINES:])

    def add_users(self, names: Sequence[str]) -> None:
        """Tell the hub of its users."""
        answer = self.client.api("POST", "/users", {"usernames": list(names)})
        if answer.status != 201:
            raise HubFailed(f"The hub takes no users: {answer.brief}")

    def descendants(self, among: Mapping[int, Process] | None = None) -> list[Process]:
        """Return all that the hub has started, and itself."""
        if self._reaper is None:
            return []
        return machine.below(self._reaper.pid, machine.processes() if among is None else among)

    def close(self) -> list[str]:
        """End the hub, then what it leaves; return the commands of what did not end by itself."""
        reaper, self._reaper = self._reaper, None
        if reaper is None:
            shutil.rmtree(self.folder, ignore_errors=True)
            return []
        self._end_hub()
        left = _end_below(reaper.pid)
        try:
            reaper.wait(HELPERS_DEADLINE)
        except subprocess.TimeoutExpired:
            reaper.kill()
            reaper.wait()
        finally:
            if reaper.stdout:
                reaper.stdout.close()
            shutil.rmtree(self.folder, ignore_errors=True)
        return left

    def _launch(self) -> None:
        programs = Path(sys.executable).parent
        env = {
            "PATH": PATH,
            "HOME": str(self.folder),
            "LANG": "C.UTF-8",
            **self._env,
        }
        hub = [str(programs / "jupyterhub"), "-f", str(self.config_file)]
        self._reaper = subprocess.Popen(
            [sys.executable, "-I", "-S", str(REAPER), str(self.log_file), *hub],
            cwd=self.folder,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert self._reaper.stdout
        self.pid = int(self._reaper.stdout.readline() or 0)
        if not self.pid:
            raise HubFailed("The hub's program cannot be started.")

    def _await_answer(self) -> None:
        end = time.monotonic() + START_DEADLINE
        while self.client.api("GET", "/", timeout=5).status != 200:
            if machine.process(self.pid) is None or time.monotonic() > end:
                raise HubFailed(f"The hub does not answer:\n{self.log_tail}")
            time.sleep(0.1)

    def _end_hub(self) -> None:
        end = time.monotonic() + STOP_DEADLINE
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGTERM)
            while machine.process(self.pid) is not None:
                if time.monotonic() > end:
                    os.kill(self.pid, signal.SIGKILL)
                time.sleep(0.05)


def _end_below(root: int) -> list[str]:
    """Wait for the descendants of a process to end, then kill them; return their commands."""
    patience = time.monotonic() + HELPERS_DEADLINE
    left: list[str] = []
    while found := machine.below(root, machine.processes()):
        if time.monotonic() > patience:
            left = left or [machine.command_line(each.pid) or each.name for each in found]
            for each in found:
                with suppress(ProcessLookupError):
                    os.kill(each.pid, signal.SIGKILL)
        if time.monotonic() > patience + HELPERS_DEADLINE:
            break
        time.sleep(0.05)
    return left


def free_ports(count: int) -> list[int]:
    """Return ports of the loopback that nothing listens at now."""
    with ExitStack() as stack:
        held = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in held:
            each.bind(("127.0.0.1", 0))
        return [int(each.getsockname()[1]) for each in held]
