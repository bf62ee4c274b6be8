"""The kinds of backend that the suite is run over: the fake one, local processes, containers."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from docker_harness import DockerHarness, FakeHub, require_engine
from harness import ProcessHarness, made_account

from fake_backend import FakeBackend
from hubs import TINY_SERVER
from support import require
from workshop_hub.backends.base import Address, Backend, LaunchSpec, Listening, Owner
from workshop_hub.policy.limits import Limits
from workshop_hub.system import accounts


class Rig:
    """A kind of backend to try.

    new_backend: makes a backend object of the same hub, as after the hub's restart.
    spec: describes a server that runs tests/tiny_server.py with these options.
    """

    def __init__(
        self,
        kind: str,
        new_backend: Callable[[], Backend],
        spec: Callable[..., LaunchSpec],
    ) -> None:
        self.kind = kind
        self.new_backend = new_backend
        self.spec = spec

    async def start(self, backend: Backend, spec: LaunchSpec) -> Listening:
        """Start a server as the spawner does; fail where the last step is not that it listens."""
        address = await backend.prepare(spec)
        *_, last = [event async for event in backend.start(self.ready(spec, address), address)]
        assert isinstance(last, Listening)
        return last

    def ready(self, spec: LaunchSpec, address: Address) -> LaunchSpec:
        """Add to the environment what the spawner adds once the address is known."""
        url = f"http://{address.ip}:{address.port}/"
        hub = f"{address.hub_url or 'http://127.0.0.1:8081'}/hub/api"
        added = {"JUPYTERHUB_SERVICE_URL": url, "JUPYTERHUB_API_URL": hub}
        return replace(spec, env={**added, **spec.env})


def _fake(folder: Path) -> Iterator[Rig]:
    account = accounts.current()

    def spec(*options: str, server: str = "", **changes: object) -> LaunchSpec:
        made = LaunchSpec(
            owner=Owner("c0ffee", "alice", server),
            account=account,
            limits=Limits(),
            limits_policy="enforce",
            cmd=(sys.executable, "-I", "-S", str(TINY_SERVER), *options),
            notebook_dir="",
            create_notebook_dir=False,
            allowed_roots=(account.home,),
            start_timeout=20.0,
        )
        return replace(made, **changes)

    yield Rig("fake", lambda: FakeBackend(hub_id="c0ffee", log_dir=str(folder)), spec)


def _process(folder: Path) -> Iterator[Rig]:
    require(os.geteuid() == 0, "the tests with real accounts must run as root")
    require(shutil.which("sudo") and shutil.which("useradd"), "sudo and useradd are needed")
    with made_account("contract") as account:
        harness = ProcessHarness(folder, account)
        yield Rig("process", harness.backend, harness.spec)
        harness.close()


def _docker(folder: Path) -> Iterator[Rig]:
    from importlib.metadata import version

    hub_ip = require_engine()
    hub = FakeHub(hub_ip, version("jupyterhub"))
    harness = DockerHarness(folder, hub, hub_ip)
    try:
        yield Rig("docker", harness.backend, lambda *cmd, **more: harness.make_spec(cmd, **more))
    finally:
        harness.close()
        hub.close()


KINDS = {"fake": _fake, "process": _process, "docker": _docker}
