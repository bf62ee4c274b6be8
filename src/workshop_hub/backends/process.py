"""Servers as processes of their users, started through sudo and held by cgroups."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import AsyncGenerator
from pathlib import Path

from traitlets import Enum, Float, Integer, List, Tuple, Unicode, validate

from workshop_hub.backends import process_launch, process_limits
from workshop_hub.backends.base import (
    Address,
    Backend,
    Finding,
    Handle,
    LaunchSpec,
    Listening,
    Owned,
    Owner,
    Progress,
    ServerStatus,
    Usage,
)
from workshop_hub.backends.process_files import LogWatch, ServerFiles, records
from workshop_hub.backends.process_launch import Start
from workshop_hub.backends.process_machine import Machine
from workshop_hub.backends.process_names import key_of, owner_of
from workshop_hub.backends.process_server import Server
from workshop_hub.backends.process_stop import Ender
from workshop_hub.errors import (
    AccountRefused,
    ConfigError,
    LimitsNotEnforceable,
    ServerExited,
    WorkshopError,
)
from workshop_hub.launch import become
from workshop_hub.launch.sudo import SudoLauncher
from workshop_hub.policy.limits import Limits, small_memory_warning
from workshop_hub.system import accounts, cgroup, ports, processes
from workshop_hub.system.accounts import Account
from workshop_hub.system.cgroup import Setting
from workshop_hub.system.delegation import Tree


class ProcessBackend(Backend):
    """A server is a process of the user's own account on this machine."""

    name = "process"

    launcher = Enum(
        ["sudo", "sudospawner"],
        default_value="sudo",
        help="""What starts servers: "sudo", our launcher; or "sudospawner", the mediator of the
        package of that name, for sites whose sudoers file allows it already. The mediator can
        neither make a notebook_dir nor start anything but jupyterhub-singleuser.""",
    ).tag(config=True)

    launcher_command = List(
        Unicode(),
        default_value=[
            str(Path(sys.executable).resolve()),  # the same by whatever name the hub was started
            "-I",
            "-S",
            str(Path(become.__file__).resolve()),
        ],
        minlen=1,
        help="""The launcher, as the sudoers file allows it. All of it must be readable by every
        user and writable by root alone. Example: ["/opt/workshop-hub/bin/python", "-I", "-S",
        "/opt/workshop-hub/lib/python3.12/site-packages/workshop_hub/launch/become.py"].""",
    ).tag(config=True)

    sudo_command = List(
        Unicode(),
        default_value=["sudo"],
        minlen=1,
        help="""sudo, and options for it in addition to `-n -H -u NAME`.
        Example: ["/usr/local/bin/sudo"].""",
    ).tag(config=True)

    run_as = Enum(
        ["user", "hub"],
        default_value="user",
        help="""Whose processes servers are: "user", the account of that name; "hub", the hub's
        own account for everybody, for a demonstration on a laptop: no user is protected from
        another then. "hub" is refused where the hub is root.""",
    ).tag(config=True)

    cgroup_parent = Unicode(
        help="""The cgroup, below the mount of cgroup v2, that is delegated to the hub for its
        servers. Empty to use workshop.slice/workshop-users.service where that exists, else, for a
        hub that is root, workshop-hub. Example: "jupyter.slice/jupyter-users.service".""",
    ).tag(config=True)

    port_range = Tuple(
        Integer(),
        Integer(),
        default_value=(20000, 29999),
        help="""First and last port for servers. It must lie outside of
        net.ipv4.ip_local_port_range, or outgoing connections take ports away between their choice
        and their use. Example: (20000, 20999).""",
    ).tag(config=True)

    log_max_bytes = Integer(
        1024**2,
        min=4096,
        help="Bytes above which a server's log is cut to its last half. Example: 10485760.",
    ).tag(config=True)

    term_timeout = Float(
        10.0,
        min=0.0,
        help="""Seconds that a server is given to save its work after it was asked to end (SIGTERM),
        before it is killed. 0 to kill at once. Example: 30.""",
    ).tag(config=True)

    kill_timeout = Float(
        5.0,
        min=0.1,
        help="Seconds that killed processes may take to be gone. Example: 20.",
    ).tag(config=True)

    @validate("port_range")
    def _valid_port_range(self, proposal: dict[str, tuple[int, int]]) -> tuple[int, int]:
        ports.check_range(*proposal["value"])
        return proposal["value"]

    @validate("run_as")
    def _valid_run_as(self, proposal: dict[str, str]) -> str:
        if proposal["value"] == "hub" and os.geteuid() == 0:
            raise ConfigError(
                'run_as is "hub" and the hub is root: every user would be root.',
                remedy='Set c.ProcessBackend.run_as = "user", or run the hub as another account.',
            )
        return proposal["value"]

    def __init__(self, **kwargs: object) -> None:
        super().__init__(**kwargs)
        prefix = tuple(self.sudo_command) if self.run_as == "user" else ()
        command = tuple(self.launcher_command)
        self._launcher = SudoLauncher(prefix, command)
        self._ender = Ender(self._launcher, self.term_timeout, self.kill_timeout, self.log)
        self._machine = Machine(command, prefix, self.cgroup_parent)
        self._ports = ports.PortTable(*self.port_range)
        self._folder = Path(self.log_dir).absolute()
        self._log_watch = LogWatch(self.log_max_bytes)

    async def prepare(self, spec: LaunchSpec) -> Address:
        """Check the account, the limits and the launcher; end what is left; choose the port."""
        self._check_account(spec)
        await self._machine.check_launcher()
        await self._settings(spec)
        if warning := small_memory_warning(spec.limits):
            self.log.warning("Server %s: %s", spec.owner, warning)
        await self._end_left_over(spec.owner)
        ip = await process_launch.numeric_address(spec.ip or "127.0.0.1")
        port = self._ports.take(key_of(spec.owner), ip, spec.port)
        return Address(ip, port, certificates=process_launch.certificate_paths(spec))

    async def start(
        self, spec: LaunchSpec, address: Address
    ) -> AsyncGenerator[Progress | Listening, None]:
        """Start the server; the last item is Listening."""
        deadline = time.monotonic() + spec.start_timeout
        tree, settings = await self._settings(spec)
        start = Start(self._launcher, spec, address, self._files(key_of(spec.owner)), tree)
        try:
            server = start.write_down()
            if server.group:
                cgroup.create(server.group, settings)
            yield Progress(10, f"Starting a process as {server.account}", server.handle)
            server = await start.launch()
            self._log_watch.add(start.files)
            yield Progress(50, "The process runs; waiting until it listens", server.handle)
            try:
                await self._await_listening(
                    server.handle, address.ip, address.port, timeout=deadline - time.monotonic()
                )
                await start.check_listener(timeout=deadline - time.monotonic())
            except ServerExited as exc:
                raise start.explain_exit(exc) from exc
        except BaseException:
            await asyncio.shield(self._end(start.server, now=True))
            raise
        yield Listening(server.handle, address.ip, address.port)

    async def poll(self, handle: Handle) -> ServerStatus:
        """Say how the server is. Never raises."""
        try:
            server, files = self._find(handle)
            if server.lives():
                self._ports.hold(server.key, server.port)
                self._log_watch.add(files)
                return ServerStatus(running=True, oom_kills=server.oom_kills())
            report = files.report()
            own = report.pid is not None and report.pid == server.pid
            return ServerStatus(
                running=False,
                exit_code=report.exit_code if own else None,
                oom_kills=max(server.oom_kills(), report.oom_kills if own else 0),
                log=files.log_tail(),
            )
        except (OSError, ValueError) as exc:
            self.log.warning("Cannot see how server %s is: %s", handle.get("key"), exc)
            return ServerStatus(running=True, unknown=str(exc))

    async def stop(self, handle: Handle, *, now: bool = False) -> None:
        """End the server and everything it started; do nothing where it has ended."""
        try:
            server, _ = self._find(handle)
        except ValueError as exc:
            raise WorkshopError(
                f"The server cannot be stopped: {exc}.",
                remedy="It was started by another version of workshop-hub; end it by hand.",
            ) from exc
        await self._end(server, now=now)

    async def list_owned(self) -> list[Owned]:
        """Find every server of this hub on the machine, whether or not the hub knows it."""
        found = {}
        for owner, handle in records(self._folder, self.hub_id):
            try:
                server, files = self._find(handle)
                if server.leaves_processes():
                    found[server.key] = Owned(owner, server.handle)
                else:
                    files.forget()
            except (OSError, ValueError) as exc:
                self.log.warning("Cannot see how the server of %s is: %s", owner, exc)
        tree = await self._machine.tree()
        if isinstance(tree, Tree):
            for key in cgroup.names(tree.users):
                owner_found = owner_of(key)
                if key not in found and owner_found and owner_found.hub == self.hub_id:
                    server = self._unrecorded(key, tree)
                    found[key] = Owned(owner_found, server.handle)
        return list(found.values())

    async def usage(self, handle: Handle) -> Usage:
        """Read what the server uses and the limits in force."""
        server, _ = self._find(handle)
        if server.group is None:
            return Usage(None, None, None, 0, Limits())
        return Usage(
            memory=cgroup.number(server.group, "memory.current"),
            cpu=cgroup.cpu_seconds(server.group),
            pids=cgroup.number(server.group, "pids.current"),
            oom_kills=server.oom_kills(),
            limits=process_limits.limits_in(cgroup.texts(server.group, process_limits.LIMIT_FILES)),
        )

    async def check(self) -> list[Finding]:
        """Look for what would keep servers from starting."""
        return await self._machine.findings()

    async def log_tail(self, handle: Handle) -> str:
        """Return the last lines of the server's log; empty where there is none."""
        return self._files(str(handle.get("key"))).log_tail()

    def _files(self, key: str) -> ServerFiles:
        return ServerFiles(self._folder, key)

    def _find(self, handle: Handle) -> tuple[Server, ServerFiles]:
        """Read a handle, completed by what was reported since it was made. ValueError, OSError."""
        server = Server.of(handle)
        files = self._files(server.key)
        return server.with_report(files.report()), files

    def _unrecorded(self, key: str, tree: Tree) -> Server:
        """Describe a server that is known by nothing but its cgroup."""
        return Server(key, "", 0, "", 0, processes.boot_id(), cgroup=str(tree.users / key))

    async def account(self, user: str) -> Account:
        """Return the account that the server of `user` runs as. Raises AccountRefused."""
        return accounts.current() if self.run_as == "hub" else await super().account(user)

    def _check_account(self, spec: LaunchSpec) -> None:
        if spec.account.uid == 0:
            raise AccountRefused("No server is started as root.", remedy="Use another account.")
        if self.run_as == "hub" and spec.account.uid != os.geteuid():
            raise ConfigError(
                f'run_as is "hub", and {spec.account.name} is not the hub\'s account.',
                remedy="Give the hub's own account for every user.",
            )

    async def _settings(self, spec: LaunchSpec) -> tuple[Tree | None, list[Setting]]:
        """Return where the server's cgroup goes and what is written there; LimitsNotEnforceable."""
        found = await self._machine.tree()
        tree = found if isinstance(found, Tree) else None
        settings, missed = process_limits.split(spec.limits, tree.controllers if tree else ())
        if not missed:
            return tree, settings
        reason, remedy = (
            (found.lacks, found.remedy)
            if isinstance(found, Tree)
            else (found.message, found.remedy)
        )
        if spec.limits_policy == "enforce":
            raise LimitsNotEnforceable(
                f"{', '.join(missed)} cannot be enforced on this machine. {reason}", remedy=remedy
            )
        self.log.warning("Server %s runs without %s: %s", spec.owner, ", ".join(missed), reason)
        return tree, settings

    async def _end_left_over(self, owner: Owner) -> None:
        """End what an earlier start of this owner has left, by its name."""
        key = key_of(owner)
        for owned, handle in records(self._folder, self.hub_id, key):
            self.log.warning("Ending what is left of an earlier server of %s", owned)
            await self.stop(handle, now=True)
        tree = await self._machine.tree()
        if isinstance(tree, Tree):
            await cgroup.end(tree.users / key, timeout=self.kill_timeout)

    async def _end(self, server: Server, *, now: bool) -> None:
        files = self._files(server.key)
        oom_kills = server.oom_kills()
        await self._ender.end(server, now=now)
        if oom_kills:
            files.note(f"oom {oom_kills}")
        files.forget()
        self._log_watch.remove(files)
        self._ports.release(server.key)
