"""One start of the process backend: the order, and what the launcher's report means."""

from __future__ import annotations

import asyncio
import re
import secrets
import socket
from collections.abc import Iterable
from ipaddress import ip_address
from pathlib import Path
from typing import Protocol

from workshop_hub.backends.base import (
    Address,
    CertificatePaths,
    Certificates,
    LaunchSpec,
    Owner,
    ServerStatus,
    early_exit,
)
from workshop_hub.backends.process.files import ServerFiles
from workshop_hub.backends.process.names import key_of
from workshop_hub.backends.process.refusals import error_for
from workshop_hub.backends.process.server import Server
from workshop_hub.errors import (
    ConfigError,
    LimitsNotEnforceable,
    PortTaken,
    ServerExited,
    StartTimeout,
    WorkshopError,
)
from workshop_hub.launch.message import Order, Target
from workshop_hub.launch.running import JOIN_FAILED, Launched
from workshop_hub.system import ports, processes
from workshop_hub.system.delegation import Tree

CERTIFICATES = ".workshop-hub"
"""Folder below the home that holds a folder of certificates for each server."""

_FILES: CertificatePaths = {
    "keyfile": "server.key",
    "certfile": "server.crt",
    "cafile": "ca.crt",
}

BIND_FAILED = re.compile(r"[Aa]ddress already in use|port \d+ is (already in use|not available)")
"""What Python's and Jupyter's servers print where they cannot bind their port."""


class Launcher(Protocol):
    """Makes a server out of an order, as another account; see `launch.sudo`."""

    async def start(
        self,
        order: Order,
        account: str,
        *,
        group: Path | None,
        status: int,
        log: int,
        timeout: float,
    ) -> Launched:
        """Start the server, which reports to `status`; return how the launcher ended."""

    async def signal(
        self, target: Target, account: str | None, signals: Iterable[int], *, tree: bool
    ) -> None:
        """Signal the server's session, or all of it."""

    def explain(self, code: int, words: str, account: str) -> WorkshopError:
        """Say why the launcher ended with `code` and `words` instead of a report."""


def order_for(
    spec: LaunchSpec, address: Address, cgroup_name: str, *, no_new_privileges: bool
) -> Order:
    """Return what the launcher is told. cgroup_name: as /proc/PID/cgroup has it; empty for any."""
    return Order(
        key=key_of(spec.owner),
        uid=spec.account.uid,
        account=spec.account.name,
        cmd=spec.cmd,
        env=spec.env,
        cgroup=cgroup_name,
        notebook_dir=spec.notebook_dir,
        create_notebook_dir=spec.create_notebook_dir,
        allowed_roots=spec.allowed_roots,
        certificates=certificate_folder(spec.owner) if spec.certificates else "",
        files=_texts(spec.certificates) if spec.certificates else {},
        ip=address.ip,
        port=address.port,
        no_new_privileges=no_new_privileges,
    )


def check_for_mediator(spec: LaunchSpec, *, no_new_privileges: bool) -> None:
    """Raise ConfigError for what sudospawner's mediator cannot do."""
    program = Path(spec.cmd[0]).name
    wants = {
        f'start "{program}": it starts nothing but jupyterhub-singleuser': (
            program != "jupyterhub-singleuser"
        ),
        "make a notebook_dir (create_notebook_dir)": (
            bool(spec.notebook_dir) and spec.create_notebook_dir
        ),
        "write certificates (internal_ssl)": spec.certificates is not None,
        "keep it from gaining rights (no_new_privileges)": no_new_privileges,
    }
    impossible = [what for what, wanted in wants.items() if wanted]
    if impossible:
        raise ConfigError(
            f"sudospawner cannot {'; nor can it '.join(impossible)}.",
            remedy='Set c.ProcessBackend.launcher = "sudo", or leave that out.',
        )


def certificate_folder(owner: Owner) -> str:
    """Return the folder of the server's certificates, below the home."""
    return f"{CERTIFICATES}/{key_of(owner)}"


def certificate_paths(spec: LaunchSpec) -> CertificatePaths | None:
    """Return where the server will find its certificates; None without any."""
    if spec.certificates is None:
        return None
    folder = f"{spec.account.home}/{certificate_folder(spec.owner)}"
    return {
        "keyfile": f"{folder}/{_FILES['keyfile']}",
        "certfile": f"{folder}/{_FILES['certfile']}",
        "cafile": f"{folder}/{_FILES['cafile']}",
    }


def _texts(certificates: Certificates) -> dict[str, str]:
    return {
        _FILES["keyfile"]: certificates.key,
        _FILES["certfile"]: certificates.certificate,
        _FILES["cafile"]: certificates.authority,
    }


class Start:
    """One start, from its record to its listening. server: what is known of it so far."""

    def __init__(
        self,
        launcher: Launcher,
        spec: LaunchSpec,
        address: Address,
        files: ServerFiles,
        tree: Tree | None,
        *,
        no_new_privileges: bool = False,
    ) -> None:
        self.files = files
        self._launcher = launcher
        self._spec = spec
        self._address = address
        self._tree = tree
        self._no_new_privileges = no_new_privileges
        self.server = Server(
            key=files.key,
            account=spec.account.name,
            uid=spec.account.uid,
            ip=address.ip,
            port=address.port,
            boot_id=processes.boot_id(),
            cgroup=str(tree.users / files.key) if tree else "",
            life=secrets.token_hex(8),
        )

    def write_down(self) -> Server:
        """Record the server, so that it is found again even if the hub is killed now."""
        self.files.save(self._spec.owner, self.server.handle)
        return self.server

    async def launch(self, timeout: float) -> bool:
        """Run the launcher; say whether the server is known to serve. Raises WorkshopError.

        timeout: seconds, for a launcher that returns only when the server serves.
        """
        group = self.server.group
        name = self._tree.mount.name_of(group) if self._tree and group else ""
        order = order_for(
            self._spec, self._address, name, no_new_privileges=self._no_new_privileges
        )
        with self.files.fresh() as streams:
            try:
                code, serves = await self._launcher.start(
                    order,
                    self.server.account,
                    group=group,
                    status=streams.status,
                    log=streams.log,
                    timeout=timeout,
                )
            except StartTimeout as exc:
                exc.log = self.files.log_tail()
                raise self.explain(exc) from exc
        report = self.files.report()
        if report.refusal is not None and report.refusal.kind == "port":
            raise self._port_taken()
        if report.refusal is not None:
            raise error_for(report.refusal, self.files.log_tail())
        if code or report.pid is None:
            raise self._no_report(code)
        self.server = self.server.with_report(report)
        self.write_down()
        return serves

    def _no_report(self, code: int) -> WorkshopError:
        """Explain a launcher that ended without a word of its own."""
        if oom_kills := self.server.oom_kills():
            return early_exit(ServerStatus(running=False, exit_code=code, oom_kills=oom_kills))
        if self.server.group and code == JOIN_FAILED:
            return LimitsNotEnforceable(
                f"The launcher could not enter the cgroup {self.server.group}.",
                remedy="Run `workshop-hub doctor` as the hub's account; it tells why.",
            )
        return self._launcher.explain(code, self.files.log_tail(), self.server.account)

    def is_own_listener(self) -> bool:
        """Say whether what listens at the address is the user's; False where nothing does.

        Raises PortTaken where it is somebody else's: who listens on the port of another's server
        would be given her requests, with all that authorises them.
        """
        uids = ports.listener_uids(self._address.ip, self._address.port)
        if uids - {self.server.uid}:
            raise self._port_taken()
        return bool(uids)

    def explain(self, error: ServerExited | StartTimeout) -> WorkshopError:
        """Return PortTaken where the server ended because its port was taken."""
        if isinstance(error, StartTimeout):
            return StartTimeout(
                f"The server did not listen within {self._spec.start_timeout:g} seconds.",
                remedy=error.remedy,
                log=error.log,
            )
        if isinstance(error, PortTaken) or not self._lost_its_port(error):
            return error
        return self._port_taken(error)

    def _lost_its_port(self, error: ServerExited) -> bool:
        # Who took the port may have left it again: then only the server's own words tell.
        return bool(BIND_FAILED.search(error.log)) or not ports.is_free(
            self._address.ip, self._address.port
        )

    def _port_taken(self, error: ServerExited | None = None) -> PortTaken:
        return PortTaken(
            f"Another program has taken the port {self._address.port} that was meant for the "
            "server.",
            exit_code=error.exit_code if error else None,
            remedy="Try again: another port will be used.",
            log=error.log if error else "",
        )


async def numeric_address(ip: str) -> str:
    """Return the IP address for `ip`, which may be a host's name; ConfigError for no such host."""
    try:
        return str(ip_address(ip))
    except ValueError:
        pass
    try:
        found = await asyncio.get_running_loop().getaddrinfo(ip, None, type=socket.SOCK_STREAM)
    except OSError as exc:
        raise ConfigError(
            f'ip is "{ip}", which is no address of this machine: {exc.strerror}.',
            remedy='Use "127.0.0.1".',
        ) from exc
    return str(found[0][4][0])
