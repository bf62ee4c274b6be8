"""WorkshopSpawner: what the hub asks of a spawner, handed on to a backend."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import aclosing
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar

from jupyterhub.spawner import Spawner
from jupyterhub.utils import fmt_ip_url
from traitlets import default

from workshop_hub import spec, startup
from workshop_hub.backends.base import (
    Address,
    Backend,
    Certificates,
    Handle,
    LaunchSpec,
    Listening,
    Owner,
)
from workshop_hub.backends.docker import DockerBackend
from workshop_hub.backends.process import ProcessBackend
from workshop_hub.errors import PortTaken, StartTimeout, WorkshopError
from workshop_hub.hub_errors import hub_error
from workshop_hub.options import ServerOptions
from workshop_hub.policy import ending, paths, selection
from workshop_hub.policy.limits import Limits
from workshop_hub.policy.templates import render
from workshop_hub.roster import Roster
from workshop_hub.steps import Steps
from workshop_hub.system import accounts
from workshop_hub.system.background import in_background

STATE_VERSION = 1
PORT_ATTEMPTS = 3


class WorkshopSpawner(ServerOptions, Spawner):
    """Starts a user's server as a local process or as a container, and holds it to its limits."""

    backends: ClassVar[Mapping[str, type[Backend]]] = {
        "process": ProcessBackend,
        "docker": DockerBackend,
    }

    ip: str
    port: int
    hub_connect_url: str | None

    notice = ""
    """What the user of the running server should know; shown on the hub's pages."""

    session_variables: Mapping[str, str] = MappingProxyType({})
    """What PAM wants in the environment of a server on this machine; the authenticator sets it."""

    _backend_name = ""
    _handle: Handle | None = None
    _ending: ending.Ending | None = None
    _starting = False
    _half_started = False
    _certificates: Certificates | None = None
    _account: accounts.Account | None = None
    _exit_code = 0
    _give_up_watch: Callable[[], None] | None = None

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._steps = Steps()

    # -- state ------------------------------------------------------------------------------

    def load_state(self, state: dict[str, Any]) -> None:
        """Read what `get_state` wrote, perhaps before the hub was restarted."""
        super().load_state(state)
        self._ending = ending.Ending.from_state(state.get("ended"))
        if not state.get("handle"):
            return
        if state.get("version") != STATE_VERSION or state.get("backend") not in self.backends:
            self.log.warning(
                "%s: what is stored of the server (version %s, backend %s) is not understood; "
                "it counts as ended.",
                self._log_name,
                state.get("version"),
                state.get("backend"),
            )
        else:
            self._backend_name = str(state["backend"])
            self._handle = state["handle"]
            self._half_started = bool(state.get("starting"))

    def get_state(self) -> dict[str, Any]:
        """Return what finds the server again, or why it ended."""
        state: dict[str, Any] = super().get_state()
        if self._handle is not None:
            state.update(version=STATE_VERSION, backend=self._backend_name, handle=self._handle)
            if self._starting:
                state["starting"] = True
        if self._ending is not None:
            state["ended"] = self._ending.to_state()
        return state

    def clear_state(self) -> None:
        """Forget the server, but not why it ended: the next page tells the user."""
        super().clear_state()
        self._handle = None
        self._exit_code = 0
        self.notice = ""

    # -- start ------------------------------------------------------------------------------

    async def start(self) -> str:
        """Start the server and return its URL once it listens.

        Raises HTTPError, which carries the message of a WorkshopError.
        """
        self._steps.clear()
        self._ending = None
        self._starting = True
        self._half_started = False
        margin = min(5.0, self.start_timeout / 10)
        try:
            return await self._start_within(self.start_timeout - margin, grace=margin / 2)
        except WorkshopError as exc:
            raise hub_error(exc) from exc
        finally:
            self._starting = False

    async def _start_within(self, seconds: float, *, grace: float) -> str:
        """Start the server, or give up and have what was begun cleared away.

        grace: seconds to wait for that. What takes longer goes on, and keeps everybody else from
        the server until it is done: the hub gives up too, and the user may start it again.
        """
        start = in_background(self._start_alone())
        try:
            await asyncio.wait({start}, timeout=seconds)
            if start.done():
                return start.result()
            raise self._timeout()
        finally:
            if start.cancel():
                self._handle = None  # what there is of it the start itself ends
                await asyncio.wait({start}, timeout=grace)

    async def _start_alone(self) -> str:
        lock = self._roster.lock(self._owner)
        if lock.locked():
            self._steps.add(1, "Waiting until what is left of the last server has ended")
        async with lock:
            return await self._start()

    async def _start(self) -> str:
        self._backend_name = self._choose_backend()
        backend = self._roster.backend(self._backend_name)
        self._steps.add(2, f"Preparing ({self._backend_name})")
        wanted = (self.ip, self.port)
        for attempt in range(1, PORT_ATTEMPTS + 1):
            self.ip, self.port = wanted
            self._account = await backend.account(self.user.name)
            wish = spec.launch_spec(self, self._owner, self._account, self._certificates)
            address = await backend.prepare(wish)
            try:
                server = await self._launch(backend, wish, address)
            except PortTaken:
                if attempt == PORT_ATTEMPTS or wanted[1]:
                    raise
                self._steps.add(5, "Another program took the port; trying another one")
            else:
                scheme = "https" if self.internal_ssl else "http"
                return f"{scheme}://{fmt_ip_url(server.ip)}:{server.port}"
        raise AssertionError("unreachable")

    async def _launch(self, backend: Backend, wish: LaunchSpec, address: Address) -> Listening:
        self.ip, self.port = address.ip, address.port
        self.cert_paths = dict(address.certificates or {})
        wish = replace(wish, env=spec.server_environment(self, backend, wish, address))
        try:
            async with aclosing(backend.start(wish, address)) as events:
                async for event in events:
                    if isinstance(event, Listening):
                        self._handle = dict(event.handle)  # the hub stores it when we return
                        return event
                    self._steps.add(event.percent, event.message)
                    if event.handle is not None:
                        self._remember(event.handle)
        except BaseException:
            self._handle = None
            raise
        raise WorkshopError("The server's start ended without a server.")

    def _remember(self, handle: Handle) -> None:
        """Store the handle at once, so that a hub that is killed now finds the server again."""
        if handle == self._handle:
            return
        self._handle = dict(handle)
        if self.orm_spawner is not None:
            self.orm_spawner.state = self.get_state()
            self.user.db.commit()

    def _choose_backend(self) -> str:
        chosen = self.backend(self) if callable(self.backend) else self.backend
        return selection.check_backend(chosen, self.backends)

    def get_env(self) -> dict[str, Any]:
        """Return the server's environment, with a `default_url` that stays on the server."""
        env: dict[str, Any] = super().get_env()
        if self.default_url and "JUPYTERHUB_DEFAULT_URL" not in self.environment:
            env["JUPYTERHUB_DEFAULT_URL"] = paths.default_url(
                self.default_url, self.template_namespace()
            )
        return env

    def template_namespace(self) -> dict[str, str]:
        """Return the fields of templates: the same on every backend."""
        account = self._account
        return {
            "username": self.user.name if self.user else "user",
            "servername": self.name,
            "home": account.home if account else "/home/user",
            "uid": str(account.uid) if account else "1000",
            "base_url": self.server.base_url if self.server else "/",
        }

    def format_string(self, s: str) -> str:
        """Fill in a template; ConfigError lists the fields where it is broken."""
        return render("template", s, self.template_namespace())

    async def move_certs(self, paths: dict[str, str]) -> dict[str, str]:
        """Keep the certificates for the start: they are written as the user, by the user."""
        key, certificate, authority = (
            Path(paths[name]).read_text(encoding="ascii")
            for name in ("keyfile", "certfile", "cafile")
        )
        self._certificates = Certificates(key, certificate, authority)
        return paths

    # -- while it runs ----------------------------------------------------------------------

    async def progress(self) -> AsyncIterator[dict[str, Any]]:
        """Yield the steps of the start, as they happen."""
        async for step in self._steps.follow():
            yield {"progress": step.percent, "message": step.message}

    async def poll(self) -> int | None:
        """Return None while the server runs, else its exit code (0 where it is not known)."""
        if self._starting:
            return None
        if self._handle is None:
            return self._exit_code
        backend = self._roster.backend(self._backend_name)
        if self._half_started:
            self.log.warning("%s: ending what a killed hub left half started", self._owner)
            await self._clear_away(backend)
            return 1
        handle = self._handle
        status = await backend.poll(handle)
        if self._handle is not handle:
            return None  # it was ended meanwhile, by somebody who tells the hub
        if status.unknown:
            self.log.warning(
                "%s: cannot tell whether the server runs, so it counts as running: %s",
                self._owner,
                status.unknown,
            )
        if status.running:
            await self._note_memory(status.oom_kills)
            return None
        limits = await self._limits_in_force()
        self._ending = ending.died(
            status.exit_code, status.oom_kills, limits, at=_now(), log=status.log
        )
        self.log.warning("%s's server has ended. %s", self._owner, self._ending.message)
        self._exit_code = status.exit_code or 0
        await self._clear_away(backend)
        return self._exit_code

    def start_polling(self) -> None:
        """Poll now and then as every spawner does, and look at once when the server ends."""
        super().start_polling()
        if self._handle is not None:
            self._give_up_watch = self._roster.backend(self._backend_name).watch(
                self._handle, self._look_now
            )

    def _look_now(self) -> None:
        in_background(self.poll_and_notify())

    def stop_polling(self) -> None:
        """End what `start_polling` began."""
        super().stop_polling()
        give_up, self._give_up_watch = self._give_up_watch, None
        if give_up is not None:
            give_up()

    async def _clear_away(self, backend: Backend) -> None:
        """End what a dead server left: its kernels, its container, its cgroup."""
        handle, self._handle = self._handle, None
        if handle is None:
            return
        try:
            async with self._roster.lock(self._owner):
                await backend.stop(handle, now=True)
        except WorkshopError as exc:
            self.log.error("%s: what the server left could not be removed: %s", self._owner, exc)
            in_background(self._roster.end_later(backend.name, self._owner, handle))

    async def _note_memory(self, oom_kills: int) -> None:
        limits = await self._limits_in_force() if oom_kills else Limits()
        notice = ending.memory_notice(oom_kills, limits) if oom_kills else ""
        if notice and notice != self.notice:
            self.log.warning("%s: %s", self._owner, notice)
        self.notice = notice

    async def _limits_in_force(self) -> Limits:
        """Return the server's limits as the machine has them; none where it cannot be asked.

        Those of the options may be others: a hub that was restarted does not know what groups,
        profiles and users had made of them at the server's start.
        """
        if self._handle is None:
            return Limits()
        try:
            usage = await self._roster.backend(self._backend_name).usage(self._handle)
        except (WorkshopError, OSError, ValueError) as exc:
            self.log.warning("%s: the limits cannot be read: %s", self._owner, exc)
            return Limits()
        return usage.limits

    async def stop(self, now: bool = False) -> None:
        """End the server and all that it started; do nothing where it has ended.

        Where it cannot be ended now the hub forgets it all the same; the roster goes on trying.
        Raises HTTPError, which carries the message of a WorkshopError.
        """
        handle = self._handle
        if handle is None:
            return
        try:
            async with self._roster.lock(self._owner):
                await self._roster.backend(self._backend_name).stop(handle, now=now)
        except WorkshopError as exc:
            in_background(self._roster.end_later(self._backend_name, self._owner, handle))
            raise hub_error(exc) from exc
        self._handle = None
        self._ending = ending.stopped(at=_now())

    # -- what is shared, and what is derived --------------------------------------------------

    def check_options(self) -> None:
        """Raise ConfigError where the options, taken together, cannot work for any user."""
        spec.check_options(self)

    @property
    def _roster(self) -> Roster:
        return Roster.of(self.user.settings, self.backends, config=self.config, log=self.log)

    @property
    def _owner(self) -> Owner:
        return Owner(self._roster.hub_id, self.user.name, self.name)

    def _timeout(self) -> StartTimeout:
        return StartTimeout(
            f"The server was not ready within {self.start_timeout} seconds; "
            f'the last step was "{self._steps.last}".',
            remedy="Try again; if it happens again, ask the administrator to raise start_timeout.",
        )


class WorkshopDockerSpawner(WorkshopSpawner):
    """WorkshopSpawner that makes containers unless it is told otherwise.

    For a configuration written for dockerspawner, which then needs nothing but new class names.
    """

    @default("backend")
    def _default_backend(self) -> str:
        return "docker"


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


startup.watch()
