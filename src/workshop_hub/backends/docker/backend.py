"""The Docker backend: a server is a container with the user's uid and home."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncGenerator, Callable
from typing import ClassVar

from workshop_hub.backends.base import (
    Address,
    Handle,
    LaunchSpec,
    Listening,
    Owned,
    Progress,
    ServerStatus,
    Usage,
    early_exit,
)
from workshop_hub.backends.docker import (
    container,
    container_end,
    container_failure,
    container_watch,
    enforcement,
    extras,
    hub_address,
    prelude,
)
from workshop_hub.backends.docker.options import DockerOptions
from workshop_hub.errors import (
    ConfigError,
    EngineError,
    ForeignContainer,
    PortTaken,
    WorkshopError,
    choices,
)
from workshop_hub.policy.limits import small_memory_warning
from workshop_hub.system import log_files, ports
from workshop_hub.system.engine_replies import Container, Network

LOG_LINES = 50
"""Lines of the log that are shown to the user."""

KILLED = 128 + signal.SIGKILL
"""Exit code of what was killed: by the kernel for want of memory, or by somebody."""

SAVED_LINES = 2000
"""Lines of the log that are kept when the container is removed."""


class DockerBackend(DockerOptions):
    """Runs each server as a container: the user's uid and groups, her home, her limits."""

    name = "docker"
    is_on_this_machine: ClassVar[bool] = False

    # -- before the start ---------------------------------------------------------------------

    async def prepare(self, spec: LaunchSpec) -> Address:
        """Check the limits, the image, the folders, the network and the way to the hub."""
        await self._check_limits(spec)
        network = await self._network(spec)
        hub_ip = hub_address.choose(spec, network, self.hub_connect_ip)
        if not self.hub_connect_ip:
            await hub_address.check(hub_ip, spec.hub_port)
        await self._check_image(spec)
        await self._remove_stale(container.name_of(spec.owner, self.prefix))
        scheme = "https" if spec.certificates else "http"
        address = Address(
            ip="127.0.0.1" if network is None else "0.0.0.0",  # noqa: S104 - inside of a container
            port=self._port(spec, network),
            hub_url=f"{scheme}://{hub_ip}:{spec.hub_port}",
            certificates=container.certificate_paths(spec),
        )
        await self._request(spec, address)
        return address

    async def _check_limits(self, spec: LaunchSpec) -> None:
        info = await self.engine_info()
        problems = enforcement.gaps(spec.limits, info, swap_in_use=self.swap_in_use())
        if problems and spec.limits_policy == "enforce":
            raise enforcement.refusal(problems)
        for problem in [*problems, small_memory_warning(spec.limits)]:
            if problem:
                self.log.warning("%s: %s", spec.owner, problem)

    async def _network(self, spec: LaunchSpec) -> Network | None:
        """Return the network; None for the host's own."""
        name = spec.container.network_name or self.network_name
        if name == container.HOST_NETWORK:
            if spec.certificates or self.publish:
                raise ConfigError(
                    "On the host's network nothing can be published, which "
                    "c.DockerBackend.publish and internal_ssl need.",
                    remedy="Choose a bridge network with c.WorkshopSpawner.network_name.",
                )
            return None
        network = await self.engine.network(name)
        if network is None:
            names = choices(await self.engine.network_names())
            raise ConfigError(
                f'The network "{name}" does not exist; there are: {names}.',
                remedy=f"Make it (docker network create {name}), or choose one of these with "
                "c.WorkshopSpawner.network_name.",
            )
        return network

    def _port(self, spec: LaunchSpec, network: Network | None) -> int:
        if network is None:
            holder = container.name_of(spec.owner, self.prefix)
            return self.host_ports.take(holder, "127.0.0.1", spec.port)
        return spec.port or self.container_port

    async def _check_image(self, spec: LaunchSpec) -> None:
        options = spec.container
        if not options.image:
            raise ConfigError("No image is chosen.", remedy="Set c.WorkshopSpawner.image.")
        if options.pull_policy == "never" and not await self.engine.has_image(options.image):
            raise container_failure.absent(options.image)

    async def _remove_stale(self, name: str) -> None:
        """Remove what an earlier start of the same owner left: its limits and token are old."""
        found = await self.engine.inspect(name)
        if found is None:
            return
        owner = container.owner_from(found.labels)
        if owner is None or container.name_of(owner, self.prefix) != name:
            raise ForeignContainer(
                f'A container called "{name}" exists, and no hub of this kind made it.',
                remedy="Ask the administrator to rename or remove it, or to set "
                "c.DockerBackend.prefix.",
            )
        await self._remove(found, now=False)

    async def _request(self, spec: LaunchSpec, address: Address) -> container.Request:
        """Return what the engine will be asked for; raise what is wrong with it."""
        mounts = await self.safe_mounts(container.mounts_of(spec), spec.account)
        machine = container.Machine(
            prefix=self.prefix,
            network=spec.container.network_name or self.network_name,
            publish=self._publishes(spec),
            read_only=self.read_only,
            cgroup_parent=self.cgroup_parent,
            log_max_size=self.log_max_size,
            log_max_files=self.log_max_files,
            fast_start=self.fast_start and not self.read_only,
        )
        options = spec.container
        request = extras.merge(
            container.request(spec, address, machine, mounts),
            options.extra_create_kwargs,
            options.extra_host_config,
        )
        extras.check_identity(request, mounts, spec.account.uid)
        return request

    def _publishes(self, spec: LaunchSpec) -> bool:
        # Certificates are made before the container has an address: they name the loopback.
        return self.publish or spec.certificates is not None

    # -- start --------------------------------------------------------------------------------

    async def start(
        self, spec: LaunchSpec, address: Address
    ) -> AsyncGenerator[Progress | Listening, None]:
        """Pull the image where it must be, create the container, start it, and wait for it."""
        image = spec.container.image
        policy = spec.container.pull_policy
        if policy == "always" or not await self.engine.has_image(image):
            if policy == "never":
                raise container_failure.absent(image)
            async for percent in self.pulls.follow(image):
                yield Progress(5 + percent // 2, f"Pulling the image {image}: {percent} %")
        yield Progress(60, "Creating the container")
        handle = await self._create(spec, address)
        try:
            try:
                yield Progress(70, "Starting the container", handle)
                await self._introduce(handle, spec)
                await self.engine.start(str(handle["id"]))
                ip, port = await self._meet(handle, spec, address)
                yield Progress(80, "Waiting for the server to listen", handle)
                await self._await_listening(handle, ip, port, timeout=spec.start_timeout)
                self._check_listener(spec, ip, port)
                # It may have ended, and its address been given to another container meanwhile.
                if (ip, port) != await self._meet(handle, spec, address):
                    raise EngineError("The container's address changed while it started.")
                await self._check_enforced(handle, spec)
            except WorkshopError as exc:
                log = await self._log(handle, SAVED_LINES)
                raise container_failure.explain(exc, spec, address, log) from exc
        except BaseException:
            await asyncio.shield(self._discard(handle))
            raise
        yield Listening(handle, ip, port)

    async def _create(self, spec: LaunchSpec, address: Address) -> Handle:
        request = await self._request(spec, address)
        creating = asyncio.ensure_future(
            self.engine.create(request.name, request.create, request.host)
        )
        try:
            made, warnings = await asyncio.shield(creating)
        except asyncio.CancelledError:
            # The engine may be at it: what it makes must not stay behind.
            with contextlib.suppress(WorkshopError):
                made, _ = await creating
                await self._discard({"id": made, "name": request.name, "port": address.port})
            raise
        except EngineError as exc:
            raise container_failure.explain(exc, spec, address) from exc
        for warning in warnings:
            self.log.warning("%s: the container engine warns: %s", spec.owner, warning)
        return {"id": made, "name": request.name, "port": address.port}

    async def _introduce(self, handle: Handle, spec: LaunchSpec) -> None:
        """Give the account a name inside, and the server what starts it fast.

        It can do without, so nothing of it is fatal.
        """
        if self.read_only:
            return
        files = prelude.starter() if self.fast_start else {}
        try:
            names = await self.names.files(self.engine, str(handle["id"]), spec.account)
            if files := {**names, **files}:
                await self.engine.write_files(str(handle["id"]), files)
        except WorkshopError as exc:
            self.log.warning("%s: nothing was written into the container: %s", spec.owner, exc)

    async def _meet(self, handle: Handle, spec: LaunchSpec, address: Address) -> tuple[str, int]:
        """Return where the hub reaches the server. Raises ServerExited where it has ended."""
        found = await self.engine.inspect(str(handle["id"]))
        if found is None or not found.running:
            raise early_exit(await self.poll(handle))
        network = spec.container.network_name or self.network_name
        if network == container.HOST_NETWORK:
            return address.ip, address.port
        if self._publishes(spec):
            return container.LOOPBACK, found.published[address.port]
        if network in found.addresses:
            return found.addresses[network], address.port
        raise EngineError(
            f'The container has no address in the network "{network}".',
            remedy="Give the network's name in network_name, not its id.",
        )

    def _check_listener(self, spec: LaunchSpec, ip: str, port: int) -> None:
        """Raise PortTaken where it is another account that listens on the host's own network.

        It would be given the user's requests, with all that authorises them.
        """
        network = spec.container.network_name or self.network_name
        if network != container.HOST_NETWORK or not self.engine.is_local:
            return
        if ports.listener_uids(ip, port) - {spec.account.uid}:
            raise PortTaken(
                f"Another program has taken the port {port} that was meant for the server.",
                remedy="Try again: another port will be used.",
            )

    async def _check_enforced(self, handle: Handle, spec: LaunchSpec) -> None:
        """Compare with the kernel's files: what an engine or a runtime drops, it drops silently."""
        found = await self.engine.inspect(str(handle["id"]))
        cgroup = self.cgroup_of(found)
        if found is None or cgroup is None:
            return
        kernel = enforcement.in_force(cgroup, found.host_config)
        problems = enforcement.differences(spec.limits, kernel)
        if problems and spec.limits_policy == "enforce":
            raise enforcement.refusal(problems)

    async def _discard(self, handle: Handle) -> None:
        """Remove a container whose start failed; what goes wrong with that must not hide why."""
        try:
            await self.stop(handle, now=True)
        except WorkshopError as exc:
            self.log.error("The container %s could not be removed: %s", handle["name"], exc)

    # -- while it runs, and after ---------------------------------------------------------------

    async def poll(self, handle: Handle) -> ServerStatus:
        """Ask the engine; an engine that does not answer is no reason to give servers up."""
        try:
            found = await self.engine.inspect(str(handle["id"]), timeout=self.poll_timeout)
            if found is None:
                return ServerStatus(False, log=self._saved_log(handle))
            cgroup = self.cgroup_of(found)
            if found.running:
                return ServerStatus(True, oom_kills=(cgroup and cgroup.oom_kills()) or 0)
            out_of_memory = found.oom_killed or (
                found.exit_code == KILLED and await self.engine.saw_oom(found.id)
            )
            return ServerStatus(
                False,
                exit_code=found.exit_code,
                oom_kills=int(out_of_memory),
                log=await self.log_tail(handle) or found.error,
            )
        except WorkshopError as exc:
            return ServerStatus(True, unknown=exc.message)
        except Exception as exc:
            self.log.exception("The container %s cannot be judged", handle)
            return ServerStatus(True, unknown=repr(exc))

    def watch(self, handle: Handle, ended: Callable[[], None]) -> Callable[[], None]:
        """Call `ended` as soon as the container has ended, where the engine is this machine's."""
        watching = asyncio.ensure_future(
            container_watch.until_ended(
                lambda: self.engine.inspect(str(handle["id"])),
                lambda found: self.cgroup_of(found) is not None,
                ended,
            )
        )

        def give_up() -> None:
            watching.cancel()

        return give_up

    async def stop(self, handle: Handle, *, now: bool = False) -> None:
        """End the container, keep the end of its log, and remove it."""
        found = await self.engine.inspect(str(handle["id"]))
        if found is not None:
            await self._remove(found, now=now)
        self.host_ports.release(str(handle["name"]))

    async def _remove(self, found: Container, *, now: bool) -> None:
        await container_end.end(
            self.engine,
            found,
            grace=0.0 if now else self.stop_timeout,
            is_here=self.cgroup_of(found) is not None,
        )
        await self._save_log(found)
        await container_end.remove(self.engine, found.id)

    async def _save_log(self, found: Container) -> None:
        try:
            text = await self.engine.logs(found.id, SAVED_LINES)
            log_files.save(self.log_dir, found.name, text)
        except (EngineError, OSError) as exc:
            self.log.warning("The log of %s could not be kept: %s", found.name, exc)

    def _saved_log(self, handle: Handle) -> str:
        return log_files.readable(log_files.tail(self.log_dir, str(handle["name"]), LOG_LINES))

    async def log_tail(self, handle: Handle) -> str:
        """Return the last lines from the engine, or of what was kept when it was removed."""
        found = await self._log(handle, LOG_LINES)
        return log_files.readable(found) or self._saved_log(handle)

    async def _log(self, handle: Handle, lines: int) -> str:
        try:
            return (await self.engine.logs(str(handle["id"]), lines))[-log_files.MAX_BYTES :]
        except EngineError:
            return ""

    async def usage(self, handle: Handle) -> Usage:
        """Read the kernel's files; ask the engine only where they are another machine's."""
        found = await self.engine.inspect(str(handle["id"]))
        if found is None:
            raise EngineError(f"The container {handle['name']} does not exist any more.")
        cgroup = self.cgroup_of(found)
        if cgroup is not None:
            limits = enforcement.in_force(cgroup, found.host_config)
            kills = cgroup.oom_kills() or 0
            used = (cgroup.memory_used(), cgroup.cpu_used(), cgroup.processes())
            return Usage(*used, oom_kills=kills, limits=limits)
        limits = enforcement.asked_for(found.host_config)
        kills = 1 if found.oom_killed else 0
        if not found.running:
            return Usage(None, None, None, kills, limits)
        self.log.info("%s: use and limits are the engine's word, not the kernel's", found.name)
        counters = await self.engine.stats(found.id)
        return Usage(counters.memory, counters.cpu, counters.pids, kills, limits)

    async def list_owned(self) -> list[Owned]:
        """Find the containers that carry this hub's label."""
        owned = []
        for listed in await self.engine.find(container.hub_label(self.hub_id)):
            owner = container.owner_from(listed.labels)
            if owner is not None:
                port = container.port_from(listed.labels)
                handle: Handle = {"id": listed.id, "name": listed.name, "port": port}
                owned.append(Owned(owner, handle))
        return owned
