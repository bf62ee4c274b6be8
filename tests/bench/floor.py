"""A spawner that starts nothing: what a hub and its proxy alone take for a class."""

from __future__ import annotations

import json
from typing import Any, ClassVar

from jupyterhub import __version__
from jupyterhub.spawner import Spawner
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application, RequestHandler


class Anything(RequestHandler):
    """Answers every path as a single-user server answers the hub's check."""

    def get(self) -> None:
        self.set_header("X-JupyterHub-Version", __version__)
        self.finish(json.dumps({"version": __version__}))


class FloorSpawner(Spawner):
    """Every user's "server" is one and the same, in the hub's own process."""

    _port: ClassVar[int] = 0
    _running = False

    @classmethod
    def shared_port(cls) -> int:
        """Return the port of the one server, started when first asked for."""
        if not cls._port:
            (listener,) = bind_sockets(0, "127.0.0.1")
            HTTPServer(Application([(r".*", Anything)])).add_socket(listener)
            FloorSpawner._port = listener.getsockname()[1]
        return cls._port

    async def start(self) -> tuple[str, int]:
        self._running = True
        return "127.0.0.1", self.shared_port()

    async def poll(self) -> int | None:
        return None if self._running else 0

    async def stop(self, now: bool = False) -> None:
        self._running = False

    def load_state(self, state: dict[str, Any]) -> None:
        """Know nothing of an earlier hub: what it had ended with it."""
