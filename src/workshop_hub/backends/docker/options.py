"""The Docker backend's options, its engine, and the facts that it asks this machine for."""

from __future__ import annotations

import asyncio
import socket
import time
from pathlib import Path

from traitlets import Bool, Float, Integer, Tuple, Unicode

from workshop_hub.backends.base import Backend, Finding
from workshop_hub.backends.docker import doctor
from workshop_hub.backends.docker.container import Mount, with_sources
from workshop_hub.backends.docker.container_accounts import AccountNames
from workshop_hub.errors import WorkshopError
from workshop_hub.system import binds, container_cgroup
from workshop_hub.system.accounts import Account
from workshop_hub.system.calls import CallPool
from workshop_hub.system.container_cgroup import ContainerCgroup
from workshop_hub.system.deadline import within
from workshop_hub.system.engine import Engine
from workshop_hub.system.engine_replies import Container, EngineInfo
from workshop_hub.system.ports import PortTable
from workshop_hub.system.pulls import Pulls, Report
from workshop_hub.system.sockets import closing

INFO_LASTS = 60.0
"""Seconds for which the engine is not asked again what it can enforce."""

FOLDER_DEADLINE = 10.0
"""Seconds to look at a folder, which may be on a network file system that hangs."""


class DockerOptions(Backend):
    """Options of the Docker backend; see DockerBackend for what it does."""

    base_url = Unicode(
        "",
        help="""Where the container engine listens; empty for DOCKER_HOST, or else
        unix:///var/run/docker.sock.

        With an engine on another machine its folders are not checked, and limits are not read
        back from the kernel. Example: `c.DockerBackend.base_url = "unix:///run/docker-2.sock"`.
        """,
    ).tag(config=True)

    call_timeout = Float(
        10.0,
        min=0.1,
        help="""Seconds after which a request to the engine is given up.

        Creating, starting and removing a container get more. Example:
        `c.DockerBackend.call_timeout = 20`.
        """,
    ).tag(config=True)

    poll_timeout = Float(
        5.0,
        min=0.1,
        help="""Seconds that the engine gets to say how a server is.

        After that the server counts as running, with a warning in the hub's log.
        Example: `c.DockerBackend.poll_timeout = 2`.
        """,
    ).tag(config=True)

    pull_timeout = Float(
        1800.0,
        min=1.0,
        help="""Seconds for the pull of an image.

        A pull goes on when the start that began it was given up (start_timeout): the next start
        finds it. Example: `c.DockerBackend.pull_timeout = 3600`.
        """,
    ).tag(config=True)

    stop_timeout = Float(
        10.0,
        min=0.0,
        help="""Seconds that a server gets to end by itself before it is killed; 0 kills at once.

        Example: `c.DockerBackend.stop_timeout = 30`.
        """,
    ).tag(config=True)

    hub_connect_ip = Unicode(
        "",
        help="""Address or name at which containers find the hub; empty to find it by ourselves:
        this machine's address in the containers' network, or c.JupyterHub.hub_ip.

        Not checked before a start. Example: `c.DockerBackend.hub_connect_ip = "192.0.2.7"`.
        """,
    ).tag(config=True)

    network_name = Unicode(
        "bridge",
        help="""Docker network of the containers, unless c.WorkshopSpawner.network_name is set.

        "host" shares the machine's network, where users reach each other's servers and services
        on its loopback. Example: `c.DockerBackend.network_name = "workshop"`.
        """,
    ).tag(config=True)

    publish = Bool(
        False,
        help="""Whether to reach servers at a port of the machine's loopback, and not at the
        container's own address.

        Costs a process per server (docker-proxy) with the engine's default settings. Needed where
        the hub cannot reach containers' addresses, as with Docker Desktop; done by itself with
        internal_ssl. Example: `c.DockerBackend.publish = True`.
        """,
    ).tag(config=True)

    container_port = Integer(
        8888,
        min=1024,
        max=65535,
        help="""Port that servers listen at in their containers, unless c.Spawner.port is set.

        Example: `c.DockerBackend.container_port = 9999`.
        """,
    ).tag(config=True)

    host_port_range = Tuple(
        Integer(),
        Integer(),
        default_value=(30000, 31999),
        help="""First and last port of servers on the host's network; not used for other networks.

        Example: `c.DockerBackend.host_port_range = (18000, 18999)`.
        """,
    ).tag(config=True)

    prefix = Unicode(
        "workshop",
        help="""How the names of containers begin.

        Example: `c.DockerBackend.prefix = "course"`.
        """,
    ).tag(config=True)

    fast_start = Bool(
        True,
        help="""Whether a jupyterhub-singleuser in a container does without what no server uses:
        most of its start, and nearly half of its memory. Needs `/bin/sh` in the image; nothing
        comes of it with `read_only`. See the option of this name of the process backend.
        Example: False, for an image without a shell.""",
    ).tag(config=True)

    read_only = Bool(
        False,
        help="""Whether the container's own files are read-only. The home, volumes, /tmp, /var/tmp
        and /run stay writable.

        Example: `c.DockerBackend.read_only = True`.
        """,
    ).tag(config=True)

    cgroup_parent = Unicode(
        "",
        help="""Control group that the containers' are made in; empty for the engine's default.

        With systemd the name of a slice. With cgroup v2, mem_guarantee works only below one that
        has memory.low (MemoryLow=) itself. Example: `c.DockerBackend.cgroup_parent =
        "workshop.slice"`.
        """,
    ).tag(config=True)

    log_max_size = Unicode(
        "10m",
        help="""Size at which the engine starts a server's log anew, as in "500k" or "10m".

        Example: `c.DockerBackend.log_max_size = "50m"`.
        """,
    ).tag(config=True)

    log_max_files = Integer(
        1,
        min=1,
        help="""How many files of that size the engine keeps of a server's log.

        Example: `c.DockerBackend.log_max_files = 3`.
        """,
    ).tag(config=True)

    _engine: Engine | None = None
    _pulls: Pulls | None = None
    _ports: PortTable | None = None
    _folders: CallPool | None = None
    _names: AccountNames | None = None
    _info: tuple[float, EngineInfo] | None = None

    @property
    def engine(self) -> Engine:
        """The engine, connected to when it is first asked something."""
        if self._engine is None:
            self._engine = Engine(self.base_url, call_timeout=self.call_timeout)
        return self._engine

    @property
    def pulls(self) -> Pulls:
        """The pulls that run, each of them once."""
        if self._pulls is None:

            async def pull(image: str, report: Report) -> None:
                await self.engine.pull(image, report, timeout=self.pull_timeout)

            self._pulls = Pulls(pull)
        return self._pulls

    @property
    def host_ports(self) -> PortTable:
        """Ports of servers on the host's network."""
        if self._ports is None:
            self._ports = PortTable(*self.host_port_range)
        return self._ports

    @property
    def names(self) -> AccountNames:
        """What gives accounts a name in their containers."""
        if self._names is None:
            self._names = AccountNames()
        return self._names

    def close(self) -> None:
        """Close the connections to the engine."""
        if self._engine is not None:
            self._engine.close()
        if self._folders is not None:
            self._folders.close()

    async def engine_info(self) -> EngineInfo:
        """Say what the engine can enforce, at most a minute old."""
        if self._info is None or time.monotonic() - self._info[0] > INFO_LASTS:
            self._info = (time.monotonic(), await self.engine.info())
        return self._info[1]

    def swap_in_use(self) -> bool:
        """Say whether the engine's machine has swap; a foreign machine is taken to have some."""
        if not self.engine.is_local:
            return True
        try:
            return len(Path("/proc/swaps").read_text(encoding="utf-8").splitlines()) > 1
        except OSError:
            return True

    def cgroup_of(self, container: Container | None) -> ContainerCgroup | None:
        """Return the kernel's files of a running container; None where they are not ours."""
        if container is None or not container.pid or not self.engine.is_local:
            return None
        return container_cgroup.find(container.pid, container.id)

    async def safe_mounts(self, mounts: tuple[Mount, ...], account: Account) -> tuple[Mount, ...]:
        """Return the mounts with their folders' real paths; DirectoryRefused for unsafe ones."""
        if not self.engine.is_local:
            return mounts
        if self._folders is None:
            self._folders = CallPool("folders", threads=8)
        sources = {}
        for mount in mounts:
            if not mount.is_bind:
                continue
            what = "The home" if mount.source == account.home else "The folder"
            sources[mount.source] = await self._resolve(mount.source, account, what)
        return with_sources(mounts, sources)

    async def _resolve(self, source: str, account: Account, what: str) -> str:
        assert self._folders is not None  # noqa: S101 - for the type checker
        try:
            return await self._folders.run(
                lambda _: binds.resolve(source, account, what),
                about=source,
                timeout=FOLDER_DEADLINE,
            )
        except TimeoutError as exc:
            raise WorkshopError(
                f"{what} {source} did not answer within {FOLDER_DEADLINE:g} seconds.",
                remedy="Ask the administrator to look at the file system it is on.",
            ) from exc

    async def check(self) -> list[Finding]:
        """Look at the engine, what it can enforce, and the network."""
        try:
            info = await self.engine.info()
            network = None
            if self.network_name != "host":
                network = await self.engine.network(self.network_name)
            names = await self.engine.network_names()
        except WorkshopError as exc:
            return [Finding("error", "engine", exc.message, exc.remedy)]
        findings = doctor.engine_findings(info, swap_in_use=self.swap_in_use())
        low = doctor.memory_low_finding(*self._memory_low(info))
        if low is not None:
            findings.append(low)
        findings.append(doctor.network_finding(self.network_name, network, names))
        return findings

    async def check_image(self, image: str, pull_policy: str) -> Finding:
        """Say whether the image is there, for `doctor`, which knows the spawner's options."""
        try:
            present = await self.engine.has_image(image)
        except WorkshopError as exc:
            return Finding("error", "image", exc.message, exc.remedy)
        return doctor.image_finding(image, present, pull_policy)

    def _memory_low(self, info: EngineInfo) -> tuple[str, bool | None]:
        """Return the containers' parent group, and whether it has memory.low."""
        systemd = info.cgroup_driver == "systemd"
        parent = self.cgroup_parent or ("system.slice" if systemd else "docker")
        if info.cgroup_version != "2" or not self.engine.is_local:
            return parent, None
        try:
            path = Path("/sys/fs/cgroup") / parent.lstrip("/") / "memory.low"
            return parent, path.read_text(encoding="ascii").strip() != "0"
        except OSError:
            return parent, None

    async def _listens(self, ip: str, port: int) -> bool:
        if not await super()._listens(ip, port):
            return False
        if ip != "127.0.0.1":
            return True
        # docker-proxy accepts at a published port, and hangs up while the server is not there.
        return not await _hangs_up(ip, port)


async def _hangs_up(ip: str, port: int) -> bool:
    loop = asyncio.get_running_loop()
    with closing(socket.socket(socket.AF_INET)) as trial:
        trial.setblocking(False)
        try:
            await within(1.0, loop.sock_connect(trial, (ip, port)))
            return await within(0.2, loop.sock_recv(trial, 1)) == b""
        except TimeoutError:
            return False  # it waits for a request, as servers do
        except OSError:
            return True
