"""The Docker API as async calls with a deadline each.

The Docker library blocks and is imported only when first used (0.2 s). Its calls run in threads
(`CallPool`), with one client per thread, whose timeout is what is left of the call's deadline:
so a hung call gives its thread back. Looking, changing, and pulling have threads of their own:
a class that starts does not delay the polls.
"""

from __future__ import annotations

import asyncio
import os
import socket
import threading
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from workshop_hub.errors import ConfigError, EngineError
from workshop_hub.system import tar_files
from workshop_hub.system.calls import CallPool
from workshop_hub.system.engine_errors import (
    EngineConflict,
    EngineNotFound,
    hung,
    is_timeout,
    translate,
)
from workshop_hub.system.engine_replies import Container, Counters, EngineInfo, Listed, Network
from workshop_hub.system.pulls import pull_failed, split_tag

if TYPE_CHECKING:
    from docker import APIClient

T = TypeVar("T")

DEFAULT_URL = "unix:///var/run/docker.sock"
"""Where an engine listens unless it was told otherwise."""

CREATE_TIMEOUT = 60.0
KILL_TIMEOUT = 20.0
REMOVE_TIMEOUT = 30.0
"""Seconds for what takes long on a busy machine; the engine itself waits 10 s for a kill."""

LATE_NEWS = 0.3
"""Seconds."""

STALL = 300.0
"""Seconds without a word from the registry after which a pull is given up."""


class Engine:
    """One container engine.

    base_url: as in DOCKER_HOST. call_timeout: seconds for each short call.

    Every method raises EngineUnavailable where the engine is down or hung, and EngineError,
    quoting the engine, where it refuses.
    """

    def __init__(
        self, base_url: str = "", *, call_timeout: float = 10.0, threads: int = 24
    ) -> None:
        self.base_url = base_url or os.environ.get("DOCKER_HOST") or DEFAULT_URL
        self.call_timeout = call_timeout
        self._looks = CallPool("engine", threads=threads)
        self._changes = CallPool("engine-change", threads=threads)
        self._pulls = CallPool("engine-pull", threads=4, slow_threads=1)
        self._local = threading.local()
        self._clients: list[APIClient] = []
        self._api_version: str | None = None

    @property
    def is_local(self) -> bool:
        """Whether the engine runs on this machine, so that its paths and processes are ours."""
        return self.base_url.startswith(("unix://", "http+unix://", "/"))

    def close(self) -> None:
        """Close the connections. Calls that still run fail."""
        self._looks.close()
        self._changes.close()
        self._pulls.close()
        for client in self._clients:
            client.close()

    async def info(self) -> EngineInfo:
        """Say what the engine is and what it can enforce."""
        return await self._call(
            lambda client: EngineInfo.read(client.info(), client.version()), "the engine"
        )

    async def inspect(self, container: str, *, timeout: float | None = None) -> Container | None:
        """Look at a container, by id or name; None where there is none."""
        try:
            reply = await self._call(
                lambda client: client.inspect_container(container), container, timeout
            )
        except EngineNotFound:
            return None
        return Container.read(reply)

    async def create(
        self, name: str, create: Mapping[str, object], host: Mapping[str, object]
    ) -> tuple[str, tuple[str, ...]]:
        """Create a container; return its id and the engine's warnings.

        create, host: arguments of the Docker library's create_container and create_host_config.
        """

        def work(client: APIClient) -> tuple[str, tuple[str, ...]]:
            library: Any = client  # the arguments are the administrator's, and checked by it
            try:
                host_config = library.create_host_config(**host)
                reply = library.create_container(name=name, host_config=host_config, **create)
            except (TypeError, ValueError) as exc:
                raise ConfigError(
                    f"The container's options do not fit together: {exc}.",
                    remedy="Look at extra_create_kwargs and extra_host_config.",
                ) from exc
            return str(reply["Id"]), tuple(reply.get("Warnings") or ())

        # The engine may unpack a large image's layers meanwhile.
        return await self._change(work, name, CREATE_TIMEOUT)

    async def read_files(self, container: str, *paths: str) -> dict[str, str]:
        """Return small text files of a container by path, without those that it does not have."""

        def work(client: APIClient) -> dict[str, str]:
            return {
                path: text for path in paths if (text := tar_files.fetch(client, container, path))
            }

        return await self._change(work, container, self.call_timeout)

    async def write_files(self, container: str, files: Mapping[str, str]) -> None:
        """Write small text files into a container, owned by root and readable by all."""
        await self._change(
            lambda client: tar_files.store(client, container, files), container, self.call_timeout
        )

    async def start(self, container: str) -> None:
        """Start a created container."""
        await self._change(lambda client: client.start(container), container, CREATE_TIMEOUT)

    async def kill(self, container: str, signal: str) -> None:
        """Send a signal to a container's first process. EngineConflict where it does not run."""
        await self._change(lambda client: client.kill(container, signal), container, KILL_TIMEOUT)

    async def remove(self, container: str) -> None:
        """Remove a container and its anonymous volumes, ending it first where it runs."""

        def work(client: APIClient) -> None:
            client.remove_container(container, v=True, force=True)

        await self._change(work, container, REMOVE_TIMEOUT)

    async def logs(self, container: str, lines: int) -> str:
        """Return the last lines of a container's log; empty where it is gone."""

        def work(client: APIClient) -> bytes:
            return client.logs(container, stdout=True, stderr=True, tail=lines)

        try:
            raw = await self._call(work, container)
        except EngineNotFound:
            return ""
        return raw.decode("utf-8", errors="replace")

    async def saw_oom(self, container: str) -> bool:
        """Say whether the engine was told that the kernel ended a process for want of memory.

        A container's OOMKilled is wrong where that was told after the container's own end; so
        this waits a little for late news. The engine remembers the last 256 events of all.
        """

        def work(client: APIClient) -> bool:
            filters = {"type": "container", "container": container, "event": "oom"}
            until: Any = time.time() + LATE_NEWS
            return any(True for _ in client.events(since=1, until=until, filters=filters))

        return await self._call(work, container)

    async def stats(self, container: str) -> Counters:
        """Ask the engine what a container uses. For engines whose kernel files are not ours."""

        def work(client: APIClient) -> Counters:
            return Counters.read(client.stats(container, stream=False, one_shot=True))

        return await self._call(work, container)

    async def find(self, labels: Mapping[str, str]) -> list[Listed]:
        """List the containers, running or not, that carry all these labels."""
        wanted = [f"{key}={value}" for key, value in labels.items()]
        replies = await self._call(
            lambda client: client.containers(all=True, filters={"label": wanted}), "containers"
        )
        return [Listed.read(reply) for reply in replies]

    async def has_image(self, image: str) -> bool:
        """Say whether the engine has the image."""
        try:
            await self._call(lambda client: _inspect_image(client, image), f"image {image}")
        except EngineNotFound:
            return False
        return True

    async def network(self, name: str) -> Network | None:
        """Look at a network; None where there is none."""
        try:
            reply = await self._call(lambda client: client.inspect_network(name), f"network {name}")
        except EngineNotFound:
            return None
        return Network.read(reply)

    async def network_names(self) -> list[str]:
        """List the networks' names."""
        replies = await self._call(lambda client: client.networks(), "networks")
        return sorted(str(reply["Name"]) for reply in replies)

    async def pull(
        self, image: str, report: Callable[[Mapping[str, object]], None], *, timeout: float
    ) -> None:
        """Pull an image. timeout: seconds for all of it.

        report: called in the event loop with every line of the engine's progress.
        Raises ImageError, quoting the engine, where it cannot be had.
        """
        loop = asyncio.get_running_loop()

        def work(left: float) -> None:
            deadline = time.monotonic() + left
            client = self._client(self.call_timeout)
            client.timeout = min(left, STALL)  # type: ignore[assignment]
            name, tag = split_tag(image)
            for line in client.pull(name, tag=tag, stream=True, decode=True):
                if "error" in line:
                    raise pull_failed(image, str(line["error"]))
                if time.monotonic() > deadline:
                    raise TimeoutError
                loop.call_soon_threadsafe(report, line)

        try:
            await self._guarded(self._pulls, work, f"image {image}", timeout)
        except EngineNotFound as exc:
            raise pull_failed(image, exc.message) from exc
        except EngineError as exc:
            if type(exc) is EngineError:
                raise pull_failed(image, exc.message) from exc
            raise

    async def _call(
        self, work: Callable[[APIClient], T], about: str, timeout: float | None = None
    ) -> T:
        return await self._with_client(self._looks, work, about, timeout or self.call_timeout)

    async def _change(self, work: Callable[[APIClient], T], about: str, timeout: float) -> T:
        return await self._with_client(self._changes, work, about, max(timeout, self.call_timeout))

    async def _with_client(
        self, pool: CallPool, work: Callable[[APIClient], T], about: str, timeout: float
    ) -> T:
        def with_client(left: float) -> T:
            client = self._client(left)
            client.timeout = left  # type: ignore[assignment]
            return work(client)

        return await self._guarded(pool, with_client, about, timeout)

    async def _guarded(
        self, pool: CallPool, work: Callable[[float], T], about: str, timeout: float
    ) -> T:
        def translated(left: float) -> T:
            try:
                return work(left)
            except Exception as exc:
                error = translate(exc, self.base_url, about)
                if not isinstance(error, EngineNotFound | EngineConflict):
                    self._forget_client()
                if is_timeout(exc):
                    raise TimeoutError from exc
                raise error from exc

        try:
            return await pool.run(translated, about=about, timeout=timeout)
        except TimeoutError as exc:
            raise hung(self.base_url, timeout, about) from exc

    def _client(self, left: float) -> APIClient:
        """Return this thread's client; a library session is not safe to share."""
        self._knock(left)
        client: APIClient | None = getattr(self._local, "client", None)
        if client is None:
            client = self._connect(left)
            self._local.client = client
            self._clients.append(client)
        return client

    def _forget_client(self) -> None:
        """Drop this thread's client.

        Its connection may hold a late answer, and an engine that was upgraded meanwhile may want
        another version of the API.
        """
        self._api_version = None
        client: APIClient | None = getattr(self._local, "client", None)
        if client is not None:
            self._local.client = None
            self._clients.remove(client)
            client.close()

    def _knock(self, left: float) -> None:
        """Raise the plain OSError of a socket that nobody serves.

        The library's own attempt would leave its socket open, and hide the error under others.
        """
        if self.base_url.startswith("unix://"):
            with socket.socket(socket.AF_UNIX) as trial:
                trial.settimeout(left)
                trial.connect("/" + self.base_url.removeprefix("unix://").lstrip("/"))

    def _connect(self, left: float) -> APIClient:
        import docker
        from docker.utils import kwargs_from_env

        environment = {**os.environ, "DOCKER_HOST": self.base_url}
        options = kwargs_from_env(environment=environment)
        make: Any = docker.APIClient  # its annotations want a whole number of seconds
        client: APIClient = make(
            **{"base_url": self.base_url, **options},
            version=self._api_version or "auto",
            timeout=left,
        )
        self._api_version = client.api_version
        return client


def _inspect_image(client: Any, image: str) -> None:
    client.inspect_image(image)
