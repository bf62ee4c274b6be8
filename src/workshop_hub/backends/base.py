"""What a backend is: the interface, and the values that cross it."""

from __future__ import annotations

import asyncio
import socket
import time
from abc import ABCMeta, abstractmethod
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal, TypeAlias, TypedDict

from traitlets import Bool, MetaHasTraits, Unicode, default
from traitlets.config import LoggingConfigurable

from workshop_hub.errors import AccountRefused, ServerExited, StartTimeout
from workshop_hub.policy.limits import Limits
from workshop_hub.system import accounts
from workshop_hub.system.accounts import Account
from workshop_hub.system.deadline import within
from workshop_hub.system.sockets import closing

JSON: TypeAlias = "bool | int | float | str | list[JSON] | dict[str, JSON] | None"
Handle: TypeAlias = "dict[str, JSON]"
"""What finds a server again after the hub was restarted; goes into the hub's database as JSON."""

LimitsPolicy: TypeAlias = Literal["enforce", "warn"]


@dataclass(frozen=True)
class Owner:
    """Whose server it is.

    hub: id of this hub, the same after a restart and different from any other hub's.
    user: the hub's name of the user. server: name of the server, empty for the default one.
    """

    hub: str
    user: str
    server: str = ""

    def __str__(self) -> str:
        return f"{self.user}:{self.server}" if self.server else self.user


@dataclass(frozen=True)
class Certificates:
    """PEM texts for `internal_ssl`."""

    key: str
    certificate: str
    authority: str


class CertificatePaths(TypedDict):
    """Where the server will find its certificates; the keys are JupyterHub's."""

    keyfile: str
    certfile: str
    cafile: str


@dataclass(frozen=True)
class Address:
    """Where a server is to listen, and where it and the hub meet.

    hub_url: scheme, host and port at which the server reaches the hub; None for the hub's own.
    certificates: where the server will find its certificates; None without `internal_ssl`.
    """

    ip: str
    port: int
    hub_url: str | None = None
    certificates: CertificatePaths | None = None


@dataclass(frozen=True)
class ContainerOptions:
    """What only a container has. Docker's names, and dockerspawner's where they differ."""

    image: str = ""
    pull_policy: str = "ifnotpresent"
    network_name: str = ""
    volumes: Mapping[str, str] = field(default_factory=dict)
    read_only_volumes: Mapping[str, str] = field(default_factory=dict)
    extra_create_kwargs: Mapping[str, object] = field(default_factory=dict)
    extra_host_config: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class LaunchSpec:
    """One server to be started. Made for one start, never stored.

    cmd: program and arguments. env: the complete environment that the hub wants it to have.
    ip, port: where the configuration wants it to listen; empty and 0 leave it to the backend.
    hub_port: port at which the hub's API listens. hub_ip: the address that it is bound to.
    notebook_dir: absolute, or empty for none. allowed_roots: absolute folders one of which
    must contain it. start_timeout: seconds until the server must listen.
    """

    owner: Owner
    account: Account
    limits: Limits
    limits_policy: LimitsPolicy
    cmd: tuple[str, ...]
    notebook_dir: str
    create_notebook_dir: bool
    allowed_roots: tuple[str, ...]
    start_timeout: float
    ip: str = ""
    port: int = 0
    hub_ip: str = "127.0.0.1"
    hub_port: int = 8081
    certificates: Certificates | None = None
    container: ContainerOptions = field(default_factory=ContainerOptions)
    env: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Progress:
    """One step of a start.

    percent: 0 to 100. handle: once, as soon as there is something to find again, or where another
    one finds it.
    """

    percent: int
    message: str
    handle: Handle | None = None


@dataclass(frozen=True)
class Listening:
    """The end of a start: the server listens at `ip` and `port`."""

    handle: Handle
    ip: str
    port: int


@dataclass(frozen=True)
class ServerStatus:
    """What is known of a server now.

    running: also True where the truth cannot be had ("unknown means running"); `unknown` then
    says why. exit_code: 128 + N after signal N; None where it is not known.
    oom_kills: how many of its processes the kernel ended for want of memory.
    log: last lines of its log, once it has ended.
    """

    running: bool
    unknown: str = ""
    exit_code: int | None = None
    oom_kills: int = 0
    log: str = ""


@dataclass(frozen=True)
class Usage:
    """What a server uses, and the limits in force, as the kernel's files say.

    memory: bytes. cpu: seconds so far. pids: processes and threads.
    None where this machine does not count it.
    """

    memory: int | None
    cpu: float | None
    pids: int | None
    oom_kills: int
    limits: Limits


@dataclass(frozen=True)
class Owned:
    """A server of this hub that was found on the machine."""

    owner: Owner
    handle: Handle


@dataclass(frozen=True)
class Finding:
    """One line of `doctor`.

    level: "ok"; "warning", works but not as one may think; "error", servers will not start.
    """

    level: Literal["ok", "warning", "error"]
    subject: str
    message: str
    remedy: str = ""


class _AbstractTraits(MetaHasTraits, ABCMeta):
    """Traits and abstract methods in one class."""


class Backend(LoggingConfigurable, metaclass=_AbstractTraits):
    """Starts servers, finds them again, and ends them.

    There is one backend object per kind and hub. Its methods never block the event loop, never
    wait without a deadline, and may be called for many servers at once, but for one server
    (one Owner) one after the other.
    """

    name: str
    """As in `c.WorkshopSpawner.backend`."""

    is_on_this_machine: ClassVar[bool] = True
    """Whether servers see the machine's own files: PATH and its like then mean the same to them."""

    hub_id = Unicode(help="Id of this hub; given by the spawner.")

    log_dir = Unicode(
        help="""Folder of the servers' logs; made with mode 0700 where it is missing.

        Default: `workshop-logs` in the folder that the hub was started in.
        Example: `c.ProcessBackend.log_dir = "/var/log/workshop-hub"`.
        """,
    ).tag(config=True)

    @default("log_dir")
    def _default_log_dir(self) -> str:
        return str(Path("workshop-logs").absolute())

    internal_ssl = Bool(False, help="Whether servers speak TLS to the proxy; given by the spawner.")

    async def account(self, user: str) -> Account:
        """Return the account that the server of `user` runs as.

        Raises AccountRefused where there is none, or where it is root.
        """
        account = await accounts.lookup(user)
        if account.uid == 0:
            raise AccountRefused(
                f'"{user}" has uid 0; no server is ever run as root.',
                remedy="Log in with an account of your own.",
            )
        return account

    @abstractmethod
    async def prepare(self, spec: LaunchSpec) -> Address:
        """Check all that can be checked before anything starts, and choose the address.

        What an earlier, half-done start of the same owner left is ended. Raises WorkshopError.
        """

    @abstractmethod
    def start(
        self, spec: LaunchSpec, address: Address
    ) -> AsyncGenerator[Progress | Listening, None]:
        """Start the server; the last item is Listening.

        Leaves nothing behind where it fails or is cancelled. Raises WorkshopError: ServerExited
        within half a second of an early exit, PortTaken where another address may succeed.
        """

    @abstractmethod
    async def poll(self, handle: Handle) -> ServerStatus:
        """Say how the server is. Never raises."""

    @abstractmethod
    async def stop(self, handle: Handle, *, now: bool = False) -> None:
        """End the server and everything it started; do nothing where it has ended.

        now: do not give it time to save its work. Raises WorkshopError where it cannot be ended.
        """

    def watch(self, handle: Handle, ended: Callable[[], None]) -> Callable[[], None]:
        """Call `ended` as soon as the server has ended, where the backend can tell.

        Returns a function that gives up the watch. Without a watch the hub's polling notices,
        up to `poll_interval` seconds later.
        """
        return lambda: None

    @abstractmethod
    async def list_owned(self) -> list[Owned]:
        """Find every server of this hub on the machine, whether or not the hub knows it."""

    @abstractmethod
    async def usage(self, handle: Handle) -> Usage:
        """Read what the server uses and the limits in force."""

    @abstractmethod
    async def check(self) -> list[Finding]:
        """Look for what would keep servers from starting, for `doctor` and the hub's start."""

    def close(self) -> None:
        """Give up what was started for this object alone; servers go on."""

    async def _await_listening(
        self, handle: Handle, ip: str, port: int, *, timeout: float, every: float = 0.05
    ) -> None:
        """Return when something accepts connections at `ip` and `port`.

        Raises ServerExited as soon as the server ends, StartTimeout after `timeout` seconds.
        """
        deadline = time.monotonic() + timeout
        next_poll = 0.0
        while not await self._listens(ip, port):
            if time.monotonic() >= next_poll:
                status = await self.poll(handle)
                if not status.running:
                    raise early_exit(status)
                next_poll = time.monotonic() + 0.2
            if time.monotonic() >= deadline:
                raise StartTimeout(
                    f"The server did not listen within {timeout:g} seconds.",
                    remedy=StartTimeout.advice,
                    log=await self.log_tail(handle),
                )
            await asyncio.sleep(every)

    async def _listens(self, ip: str, port: int) -> bool:
        # A container that has ended answers nothing at all: wait less than until the next look.
        return await accepts_connections(ip, port, timeout=0.2)

    @abstractmethod
    async def log_tail(self, handle: Handle) -> str:
        """Return the last lines of the server's log; empty where there is none."""


def early_exit(status: ServerStatus) -> ServerExited:
    """Describe a server that ended before it listened."""
    if status.oom_kills:
        return ServerExited(
            "The server needed more memory than its limit (mem_limit) before it was ready.",
            exit_code=status.exit_code,
            remedy="Ask the administrator for a higher limit.",
            log=status.log,
        )
    code = "an unknown exit code" if status.exit_code is None else f"exit code {status.exit_code}"
    return ServerExited(
        f"The server ended before it was ready, with {code}.",
        exit_code=status.exit_code,
        remedy="The last lines of its log:" if status.log else "It wrote nothing to its log.",
        log=status.log,
    )


async def accepts_connections(ip: str, port: int, *, timeout: float = 1.0) -> bool:
    """Say whether something listens there. timeout: seconds."""
    loop = asyncio.get_running_loop()
    with closing(socket.socket(socket.AF_INET6 if ":" in ip else socket.AF_INET)) as trial:
        trial.setblocking(False)
        try:
            await within(timeout, loop.sock_connect(trial, (ip, port)))
        except (OSError, TimeoutError):
            return False
    return True
