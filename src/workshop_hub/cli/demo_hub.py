"""A hub for a demo: its configuration, its process, and its end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import signal
import socket
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from workshop_hub.backends.base import accepts_connections
from workshop_hub.errors import WorkshopError

START_DEADLINE = 90.0
STOP_DEADLINE = 60.0
"""Seconds for the hub to listen, and to end its servers, its proxy and itself."""

PROXY_FAILED = b"Failed to start proxy"
"""What a hub logs before it ends where its proxy did not listen within ten seconds: on a slow disk
Node needs longer the first time, and a hub cannot be told to wait for it."""

LOG_LINES = 20


def free_ports(number: int) -> list[int]:
    """Return ports of 127.0.0.1 that nothing listens at now."""
    with contextlib.ExitStack() as stack:
        held = [stack.enter_context(socket.socket()) for _ in range(number)]
        for one in held:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in held]


def check_port(port: int) -> None:
    """Raise WorkshopError where something listens at this port of 127.0.0.1, or we may not."""
    with socket.socket() as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as node binds it
        try:
            trial.bind(("127.0.0.1", port))
        except OSError as exc:
            other = port + 100 if 1024 <= port <= 65435 else 8100
            raise WorkshopError(
                f"Port {port} of this machine cannot be used: {exc.strerror}.",
                remedy=f"Choose another: workshop-hub demo --port {other} "
                f"(or: make demo PORT={other}).",
            ) from exc


def render(options: Mapping[str, object]) -> str:
    """Write options as a configuration file of JupyterHub: "Class.name" -> value."""
    return "".join(f"c.{name} = {value!r}\n" for name, value in options.items())


class DemoHub:
    """A hub in a process of its own, with everything that it writes in `folder`.

    url: where people reach it. secret: 32 bytes that its id is made from.
    api_token: may read what the hub knows of its servers.
    """

    def __init__(self, folder: Path, port: int, options: Mapping[str, object]) -> None:
        self.folder = folder
        self.url = f"http://127.0.0.1:{port}"
        self.api_token = secrets.token_hex(16)
        self.secret = secrets.token_bytes(32)
        self._port = port
        self._options = options
        self._process: asyncio.subprocess.Process | None = None

    @property
    def log(self) -> Path:
        """The file that the hub and its proxy write to."""
        return self.folder / "jupyterhub.log"

    @property
    def server_logs(self) -> Path:
        """The folder of the servers' logs, where a hub keeps them by default."""
        return self.folder / "workshop-logs"

    def configuration(self) -> dict[str, object]:
        """Return the hub's options: those of every demo, and those it was given."""
        hub_port, proxy_port = free_ports(2)
        return {
            "JupyterHub.bind_url": self.url,
            "JupyterHub.hub_port": hub_port,
            "ConfigurableHTTPProxy.api_url": f"http://127.0.0.1:{proxy_port}",
            "JupyterHub.db_url": f"sqlite:///{self.folder}/jupyterhub.sqlite",
            "JupyterHub.cookie_secret": self.secret,
            "JupyterHub.cleanup_servers": True,
            "JupyterHub.services": [{"name": "demo", "api_token": self.api_token}],
            "JupyterHub.load_roles": [
                {
                    "name": "demo",
                    "services": ["demo"],
                    "scopes": ["admin:servers", "admin:server_state", "read:users"],
                }
            ],
            "JupyterHub.spawner_class": "workshop",
            **self._options,
        }

    async def start(self) -> None:
        """Start the hub and wait until it and its proxy answer. Raises WorkshopError."""
        deadline = time.monotonic() + START_DEADLINE
        if await self._started(deadline) or (
            PROXY_FAILED in self.log.read_bytes() and await self._started(deadline)
        ):
            return
        raise WorkshopError("The hub did not start.", log=self.log_tail())

    async def _started(self, deadline: float) -> bool:
        """Start the hub; say whether it runs, and not has ended. Raises WorkshopError."""
        self._process = await self._run()
        while not self._has_announced_itself() or not await accepts_connections(
            "127.0.0.1", self._port
        ):
            if self._process.returncode is not None:
                return False
            if time.monotonic() > deadline:
                raise WorkshopError(
                    f"The hub did not listen within {START_DEADLINE:g} seconds.",
                    log=self.log_tail(),
                )
            await asyncio.sleep(0.1)
        return True

    async def _run(self) -> asyncio.subprocess.Process:
        config = self.folder / "jupyterhub_config.py"
        config.write_text(render(self.configuration()), encoding="utf-8")
        programs = str(Path(sys.executable).parent)
        env = {
            **os.environ,
            "PATH": f"{programs}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
            "NODE_DISABLE_COMPILE_CACHE": "1",  # it would be a folder in /tmp
        }
        with self.log.open("wb") as log:
            # A session of its own: Ctrl-C is for us, and we end the hub in good order.
            return await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "jupyterhub",
                f"--config={config}",
                cwd=self.folder,
                env=env,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _has_announced_itself(self) -> bool:
        return b"JupyterHub is now running" in self.log.read_bytes()

    async def wait(self) -> None:
        """Return when the hub has ended by itself."""
        if self._process is not None:
            await self._process.wait()

    async def stop(self) -> None:
        """End the servers, the proxy and the hub. Raises WorkshopError where they do not end."""
        process = self._process
        if process is None:
            return
        try:
            if process.returncode is None:
                process.terminate()
                await asyncio.wait_for(process.wait(), STOP_DEADLINE)
        except asyncio.TimeoutError as exc:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
            raise WorkshopError(
                f"The hub did not end within {STOP_DEADLINE:g} seconds and was killed.",
                log=self.log_tail(),
            ) from exc
        finally:
            self._end_proxy()

    def _end_proxy(self) -> None:
        """Kill the proxy of a hub that has ended: one that fails, or is only starting, leaves it.

        It is known by the folder in which it works; the hub has told of it nowhere yet.
        """
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError, ValueError):  # no process, or somebody else's
                pid = int(entry.name)
                if (entry / "cwd").readlink() == self.folder.resolve():
                    os.kill(pid, signal.SIGKILL)

    def log_tail(self) -> str:
        """Return the last lines of the hub's log."""
        try:
            lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            return ""
        return "\n".join(lines[-LOG_LINES:])
