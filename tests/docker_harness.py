"""What tests of the Docker backend need: an engine, the image, accounts with homes, a hub.

Facts about containers are asked of the engine and the kernel directly, not of the backend.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import json
import os
import secrets
import socket
import threading
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import docker
import docker.errors

from support import require
from workshop_hub.backends.base import (
    Address,
    ContainerOptions,
    Handle,
    LaunchSpec,
    Listening,
    Owner,
    Progress,
)
from workshop_hub.backends.docker import DockerBackend
from workshop_hub.policy.limits import Limits
from workshop_hub.system.accounts import Account

URL = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")
IMAGE = os.environ.get("WORKSHOP_TEST_IMAGE", "workshop-hub/singleuser:test")
TINY_SERVER = Path(__file__).parent / "tiny_server.py"
HUB_ID = secrets.token_hex(6)  # of this run alone: another one may use the same engine
OTHER_HUB_ID = secrets.token_hex(6)
FIRST_UID = 41001


class FakeHub:
    """Answers what a single-user server asks its hub at the start."""

    def __init__(self, ip: str, version: str) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = json.dumps({"version": version}).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("X-JupyterHub-Version", version)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def do_POST(self) -> None:
                self.do_GET()

            def log_message(self, *args: object) -> None:
                pass

        ThreadingHTTPServer.daemon_threads = True
        self._server = ThreadingHTTPServer((ip, 0), Handler)
        self.port = int(self._server.server_address[1])
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@dataclass
class Started:
    """A server that was started, and the steps that were reported."""

    backend: DockerBackend
    handle: Handle
    ip: str
    port: int
    steps: list[Progress] = field(default_factory=list)

    @property
    def id(self) -> str:
        return str(self.handle["id"])

    @property
    def url(self) -> str:
        return f"http://{self.ip}:{self.port}"


class DockerHarness:
    """One per test. Whatever containers its hubs have made are gone after `close`."""

    kind = "docker"

    def __init__(self, folder: Path, hub: FakeHub, hub_ip: str) -> None:
        self.folder = folder
        self.hub = hub
        self.hub_ip = hub_ip
        self.log_dir = folder / "logs"
        self.client = docker.APIClient(base_url=URL)
        self._backends: list[DockerBackend] = []
        self._accounts: dict[str, Account] = {}
        (folder / "homes").mkdir(mode=0o755)

    def backend(self, hub_id: str = HUB_ID, **options: Any) -> DockerBackend:
        """Make a backend object, as a hub that starts does."""
        made = DockerBackend(hub_id=hub_id, log_dir=str(self.log_dir), **options)
        self._backends.append(made)
        return made

    def account(self, name: str) -> Account:
        """Return an account with a home of its own; the machine need not know it."""
        if name not in self._accounts:
            uid = FIRST_UID + len(self._accounts)
            home = self.folder / "homes" / name
            home.mkdir(mode=0o700)
            os.chown(home, uid, uid)
            groups = (uid, 43001)
            self._accounts[name] = Account(name, uid, uid, str(home), "/bin/bash", groups)
        return self._accounts[name]

    def make_spec(
        self,
        cmd: tuple[str, ...] = (),
        *,
        user: str = "alice",
        server: str = "",
        hub_id: str = HUB_ID,
        env: Mapping[str, str] | None = None,
        container: Mapping[str, Any] | None = None,
        **changes: Any,
    ) -> LaunchSpec:
        """Describe a server. cmd: options of tiny_server.py, or a whole command with a path."""
        account = self.account(user)
        whole = cmd if cmd and "/" in cmd[0] else ("python3", "-S", "/opt/tiny_server.py", *cmd)
        options = {
            "image": IMAGE,
            "pull_policy": "never",
            "read_only_volumes": {str(TINY_SERVER): "/opt/tiny_server.py"},
            **(container or {}),
        }
        fields: dict[str, Any] = {
            "owner": Owner(hub_id, user, server),
            "account": account,
            "limits": Limits(),
            "limits_policy": "enforce",
            "cmd": whole,
            "notebook_dir": "",
            "create_notebook_dir": False,
            "allowed_roots": (account.home,),
            "start_timeout": 60.0,
            "hub_ip": self.hub_ip,
            "hub_port": self.hub.port,
            "container": ContainerOptions(**options),
            "env": dict(env or {}),
        }
        return LaunchSpec(**{**fields, **changes})

    async def start(self, backend: DockerBackend, spec: LaunchSpec) -> Started:
        """Start a server as the spawner does."""
        address = await backend.prepare(spec)
        return await self.launch(backend, spec, address)

    async def launch(self, backend: DockerBackend, spec: LaunchSpec, address: Address) -> Started:
        steps: list[Progress] = []
        async with contextlib.aclosing(backend.start(with_env(spec, address), address)) as events:
            async for event in events:
                if isinstance(event, Listening):
                    return Started(backend, event.handle, event.ip, event.port, steps)
                steps.append(event)
        raise AssertionError("the start ended without a server")

    def inspect(self, container: str) -> dict[str, Any]:
        found: dict[str, Any] = self.client.inspect_container(container)
        return found

    def exists(self, container: str) -> bool:
        try:
            self.inspect(container)
        except docker.errors.NotFound:
            return False
        return True

    def containers(self, hub_id: str = HUB_ID) -> list[str]:
        label = f"workshop-hub.hub={hub_id}"
        found = self.client.containers(all=True, filters={"label": label})
        return sorted(each["Names"][0].lstrip("/") for each in found)

    async def run(self, container: str, *cmd: str, user: str = "") -> tuple[int, str]:
        """Run a program inside; return its exit code and output."""

        def work() -> tuple[int, str]:
            made = self.client.exec_create(container, list(cmd), user=user)
            output = self.client.exec_start(made["Id"])
            code = self.client.exec_inspect(made["Id"])["ExitCode"]
            return int(code), output.decode(errors="replace")

        return await asyncio.to_thread(work)

    def kernel_file(self, container: str, controller: str, v1: str, v2: str) -> Path:
        """Return the path of a file of the container's control group, v1 or v2."""
        return cgroup_file(self.inspect(container)["State"]["Pid"], controller, v1, v2)

    def kernel_value(self, container: str, controller: str, v1: str, v2: str) -> str:
        return self.kernel_file(container, controller, v1, v2).read_text().strip()

    def kernel_field(self, container: str, controller: str, v1: str, v2: str, name: str) -> int:
        text = self.kernel_value(container, controller, v1, v2)
        return int(dict(line.split(None, 1) for line in text.splitlines())[name])

    def close(self) -> None:
        for hub_id in (HUB_ID, OTHER_HUB_ID):
            for name in self.containers(hub_id):
                with contextlib.suppress(docker.errors.NotFound):
                    self.client.remove_container(name, v=True, force=True)
        for backend in self._backends:
            backend.close()
        self.client.close()


def cgroup_file(pid: int, controller: str, v1: str, v2: str) -> Path:
    """Return the path of a file of the control group that a process is in, v1 or v2."""
    groups = {}
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        _, names, path = line.split(":", 2)
        groups.update(dict.fromkeys(names.split(","), path))
    if controller in groups:
        return Path("/sys/fs/cgroup") / controller / groups[controller].lstrip("/") / v1
    return Path("/sys/fs/cgroup") / groups[""].lstrip("/") / v2


def with_env(spec: LaunchSpec, address: Address) -> LaunchSpec:
    """Add what the spawner adds once the address is known."""
    scheme = "https" if spec.certificates else "http"
    return replace(
        spec,
        env={
            "JUPYTERHUB_SERVICE_URL": f"{scheme}://{address.ip}:{address.port}/user/x/",
            "JUPYTERHUB_API_URL": f"{address.hub_url}/hub/api",
            **spec.env,
        },
    )


async def ask(url: str) -> dict[str, Any]:
    """Return the JSON that a tiny server answers with."""

    def work() -> dict[str, Any]:
        with urllib.request.urlopen(url, timeout=60) as answer:
            found: dict[str, Any] = json.load(answer)
            return found

    return await asyncio.to_thread(work)


def _listens() -> bool:
    with socket.socket(socket.AF_UNIX) as trial:
        return not URL.startswith("unix://") or trial.connect_ex(URL.removeprefix("unix://")) == 0


def require_engine() -> str:
    """Return the host's address in the default bridge network; skip or fail without an engine."""
    require(os.getuid() == 0, "only root can give homes to test accounts")
    require(_listens(), f"no container engine listens at {URL}")
    with contextlib.closing(docker.APIClient(base_url=URL)) as client:
        try:
            client.inspect_image(IMAGE)  # type: ignore[no-untyped-call]
        except docker.errors.NotFound:
            require(False, f"the image {IMAGE} is absent; make it with tests/machine/image.sh")
        config = client.inspect_network("bridge")["IPAM"]["Config"][0]
    # Docker 20.10 does not tell; it takes the first address of the subnet.
    first = next(ipaddress.ip_network(config["Subnet"]).hosts())
    return str(config.get("Gateway") or first)


class EngineProxy:
    """Stands between a backend and the real engine, which it can make hang or vanish."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "proxy.sock"
        self.url = f"unix://{self.path}"
        self._open = asyncio.Event()
        self._open.set()
        self._server: asyncio.AbstractServer | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def up(self) -> None:
        """Take requests."""
        self._server = await asyncio.start_unix_server(self._serve, str(self.path))

    async def down(self) -> None:
        """Close every connection and take no more, as an engine that is restarted."""
        if self._server is not None:
            self._server.close()
            self.path.unlink(missing_ok=True)
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def hang(self) -> None:
        """Take requests and answer none."""
        self._open.clear()

    def recover(self) -> None:
        """Answer again, also what was asked meanwhile."""
        self._open.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        engine_reader, engine_writer = await asyncio.open_unix_connection(
            URL.removeprefix("unix://")
        )
        pumps = [
            asyncio.ensure_future(self._pump(reader, engine_writer)),
            asyncio.ensure_future(self._pump(engine_reader, writer)),
        ]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            for end in (writer, engine_writer):
                end.close()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            await self._open.wait()
            writer.write(data)
            await writer.drain()
