"""Servers as processes of their users, started through sudo and held by cgroups."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from pathlib import Path

from workshop_hub.backends.base import (
    Address,
    Finding,
    Handle,
    LaunchSpec,
    Listening,
    Owned,
    Progress,
    ServerStatus,
    Usage,
)
from workshop_hub.backends.process import cgroup_limits, launching
from workshop_hub.backends.process.files import LogWatch, ServerFiles, records
from workshop_hub.backends.process.launching import Launcher, Start
from workshop_hub.backends.process.machine import Machine, warm_findings
from workshop_hub.backends.process.names import key_of, owner_of
from workshop_hub.backends.process.options import ProcessOptions
from workshop_hub.backends.process.server import Server
from workshop_hub.backends.process.stop import Ender
from workshop_hub.errors import (
    AccountRefused,
    ConfigError,
    LimitsNotEnforceable,
    ServerExited,
    StartTimeout,
    WorkshopError,
)
from workshop_hub.launch import warm
from workshop_hub.launch.sudo import SudoLauncher
from workshop_hub.launch.sudospawner import MediatorLauncher
from workshop_hub.launch.warm import WarmLauncher
from workshop_hub.policy.limits import Limits, small_memory_warning
from workshop_hub.system import accounts, cgroup, ports, processes, safety
from workshop_hub.system.accounts import Account
from workshop_hub.system.cgroup import Setting
from workshop_hub.system.delegation import Tree
from workshop_hub.system.exits import on_exit


class ProcessBackend(ProcessOptions):
    """A server is a process of the user's own account on this machine."""

    name = "process"

    def __init__(self, **kwargs: object) -> None:
        super().__init__(**kwargs)
        prefix = tuple(self.sudo_command) if self.run_as == "user" else ()
        command = tuple(self.launcher_command)
        if self.launcher == "sudospawner":
            command = (self.sudospawner_path,)
            self._launcher: Launcher = MediatorLauncher(prefix, self.sudospawner_path)
        else:
            sudo = SudoLauncher(prefix, command, fast=self.fast_start)
            self._launcher = self._warm_launcher(sudo) if self.launcher == "warm" else sudo
        self._ender = Ender(self._launcher, self.term_timeout, self.kill_timeout, self.log)
        self._machine = Machine(command, prefix, self.cgroup_parent)
        self._ports = ports.PortTable(*self.port_range)
        self._folder = Path(self.log_dir).absolute()
        self._log_watch = LogWatch(self.log_max_bytes, self.log)

    def _warm_launcher(self, sudo: SudoLauncher) -> WarmLauncher:
        as_root = sudo.sudo if os.geteuid() else ()
        argv = warm.command(
            self.warm_command,
            as_root,
            uids=self.warm_uids,
            group=self.warm_group,
            program=self.warm_program,
            fast=self.fast_start,
        )
        return WarmLauncher(
            place=self.launcher_socket,
            argv=() if self.warm_socket else argv,
            fallback=sudo,
            words=Path(self.log_dir).absolute() / "launcher.log",
            log=self.log,
            files=safety.warm_files(self.warm_command, self.warm_program),
            owner=0 if as_root else os.geteuid(),
        )

    async def prepare(self, spec: LaunchSpec) -> Address:
        """Check the account, the limits and the launcher; end what is left; choose the port."""
        self._check_account(spec)
        if self.launcher == "sudospawner":
            launching.check_for_mediator(spec, no_new_privileges=self.no_new_privileges)
        await self._machine.check_launcher()
        await self._settings(spec)
        if warning := small_memory_warning(spec.limits):
            self.log.warning("Server %s: %s", spec.owner, warning)
        await self._end_left_over(spec)
        ip = await launching.numeric_address(spec.ip or "127.0.0.1")
        port = self._ports.take(key_of(spec.owner), ip, spec.port)
        return Address(ip, port, certificates=launching.certificate_paths(spec))

    async def start(
        self, spec: LaunchSpec, address: Address
    ) -> AsyncGenerator[Progress | Listening, None]:
        """Start the server; the last item is Listening."""
        deadline = time.monotonic() + spec.start_timeout
        tree, settings = await self._settings(spec)
        start = Start(
            self._launcher,
            spec,
            address,
            self._files(key_of(spec.owner)),
            tree,
            no_new_privileges=self.no_new_privileges,
        )
        try:
            server = start.write_down()
            if tree and server.group:
                cgroup.create(server.group, settings)
                tree.protect()
            yield Progress(10, f"Starting a process as {server.account}", server.handle)
            serves = await start.launch(deadline - time.monotonic())
            self._log_watch.add(start.files)
            # a hub that knows the first handle only finds the process in the report
            yield Progress(50, "The process runs; waiting until it listens")
            try:
                if not serves:
                    await self._await_listener(start, deadline - time.monotonic())
            except (ServerExited, StartTimeout) as exc:
                raise start.explain(exc) from exc
        except BaseException:
            await asyncio.shield(self._clear_away(start.server))
            raise
        yield Listening(start.server.handle, address.ip, address.port)

    async def poll(self, handle: Handle) -> ServerStatus:
        """Say how the server is. Never raises."""
        try:
            server, files = self._find(handle)
            if server.lives():
                self._ports.hold(server.key, server.port)
                self._log_watch.add(files)
                return ServerStatus(running=True, oom_kills=server.oom_kills())
            report = await server.last_report(files.report)
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
        try:
            await self._end(server, now=now)
        except OSError as exc:
            raise WorkshopError(
                f"The server cannot be stopped: {exc}.",
                remedy="Ask the administrator to look at the hub's machine.",
            ) from exc

    def watch(self, handle: Handle, ended: Callable[[], None]) -> Callable[[], None]:
        """Call `ended` as soon as the server's supervisor has ended."""
        with suppress(OSError, ValueError):
            server, _ = self._find(handle)
            if server.pid is not None:
                give_up = on_exit(server.pid, ended)
                if server.lives():
                    return give_up
                give_up()
                return asyncio.get_running_loop().call_soon(ended).cancel
        return super().watch(handle, ended)

    async def list_owned(self) -> list[Owned]:
        """Find every server of this hub on the machine, whether or not the hub knows it."""
        found = {}
        for owner, handle in records(self._folder, self.hub_id):
            try:
                server, files = self._find(handle)
                if server.may_be_there():
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
            limits=cgroup_limits.limits_in(cgroup.texts(server.group, cgroup_limits.LIMIT_FILES)),
        )

    async def check(self) -> list[Finding]:
        """Look for what would keep servers from starting."""
        if not isinstance(self._launcher, WarmLauncher):
            return await self._machine.findings()
        found, of_launcher = await asyncio.gather(
            self._machine.findings(), warm_findings(self._launcher)
        )
        return [*found, *of_launcher]

    def close(self) -> None:
        """Let a warm launcher that was started here end when its last server has."""
        if isinstance(self._launcher, WarmLauncher):
            self._launcher.release()

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
        if self.run_as == "hub":
            return await accounts.off_loop(accounts.current)
        return await super().account(user)

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
        settings, missed = cgroup_limits.split(spec.limits, tree.controllers if tree else ())
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

    async def _end_left_over(self, spec: LaunchSpec) -> None:
        """End what an earlier start of this owner has left, by its name."""
        key = key_of(spec.owner)
        files = self._files(key)
        if handle := files.recorded():
            self.log.warning("Ending what is left of an earlier server of %s", spec.owner)
            try:
                server, _ = self._find(handle)
            except ValueError:
                boot = processes.boot_id()
                server = Server(key, spec.account.name, spec.account.uid, "", 0, boot)
            await self._end(server, now=True)
        tree = await self._machine.tree()
        if isinstance(tree, Tree):
            await cgroup.end(tree.users / key, timeout=self.kill_timeout)

    async def _await_listener(self, start: Start, timeout: float) -> None:
        """Return when the server listens, and it is the server. Raises WorkshopError."""
        at = start.server
        deadline = time.monotonic() + timeout
        while True:
            left = deadline - time.monotonic()
            await self._await_listening(at.handle, at.ip, at.port, timeout=left)
            if start.is_own_listener():
                return
            await asyncio.sleep(0.02)

    async def _clear_away(self, server: Server) -> None:
        """End what a failed start leaves; its own error must not hide why the start failed."""
        try:
            await self._end(server, now=True)
        except (WorkshopError, OSError):
            self.log.exception("Server %s could not be cleared away", server.key)

    async def _end(self, server: Server, *, now: bool) -> None:
        files = self._files(server.key)
        recorded = files.recorded()
        if recorded and not server.is_in(recorded):
            return  # the owner has another server by now
        if recorded is None and server.group is None and not server.lives():
            self._ports.release(server.key)
            return
        oom_kills = server.oom_kills()
        await self._ender.end(server, now=now)
        try:
            if oom_kills:
                files.note(f"oom {oom_kills}")
            files.forget()
        except OSError as exc:  # the server has ended all the same
            self.log.warning("The files of server %s cannot be changed: %s", server.key, exc)
        self._log_watch.remove(files)
        self._ports.release(server.key)
