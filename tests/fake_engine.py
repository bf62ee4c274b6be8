"""A container engine's HTTP interface on a unix socket, for what a real one does not do on demand.

It answers questions about containers, hangs where it is told to, and "pulls" images line by line.
"""

from __future__ import annotations

import contextlib
import json
import socket
import socketserver
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

VERSION = {"Version": "20.10.0", "ApiVersion": "1.41", "MinAPIVersion": "1.12"}


def container(name: str, **state: object) -> dict[str, Any]:
    return {
        "Id": name * 8,
        "Name": f"/{name}",
        "State": {"Status": "running", "Running": True, "Pid": 0, "ExitCode": 0, **state},
        "Config": {"Image": "image", "Labels": {}},
        "NetworkSettings": {"Networks": {"bridge": {"IPAddress": "172.17.0.9"}}, "Ports": {}},
        "HostConfig": {},
    }


class FakeEngine:
    """hung: names of containers about which it never answers; "*" for all requests.

    asked: how often each path was asked for. errors: status and message by container.
    pull_lines: what a pull says; `pull_gate` holds it back until it is set.
    """

    def __init__(self, folder: Path) -> None:
        self.socket = folder / "engine.sock"
        self.url = f"unix://{self.socket}"
        self.hung: set[str] = set()
        self.errors: dict[str, tuple[int, str]] = {}
        self.asked: Counter[str] = Counter()
        self.pull_lines: list[dict[str, object]] = []
        self.pull_gate = threading.Event()
        self.pull_gate.set()
        self._release = threading.Event()
        self._server = _Server(str(self.socket), _handler(self))
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()

    def close(self) -> None:
        self._release.set()
        self.pull_gate.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        for connection in list(self._server.connections):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self.socket.unlink(missing_ok=True)

    def reply(self, path: str) -> tuple[int, object]:
        self.asked[path] += 1
        name = unquote(path.split("/")[1]) if "/" in path else ""
        if name in self.hung or "*" in self.hung:
            self._release.wait()
        if name in self.errors:
            status, message = self.errors[name]
            return status, {"message": message}
        if path == "version":
            return 200, VERSION
        if path == "containers/json":
            return 200, []
        if path.startswith("containers/"):
            return 200, container(name)
        return 404, {"message": f"no such thing: {path}"}


class _Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    request_queue_size = 256

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.connections: set[socket.socket] = set()

    def process_request(self, request: Any, client_address: Any) -> None:
        self.connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self.connections.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: who asked has given up meanwhile."""


def _handler(engine: FakeEngine) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            parts = urlparse(self.path).path.split("/")[1:]
            path = "/".join(part for part in parts if not part.startswith("v1."))
            self.answer(*engine.reply(path))

        def do_POST(self) -> None:
            engine.asked["pull"] += 1
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            engine.pull_gate.wait()
            for line in engine.pull_lines:
                text = json.dumps(line).encode() + b"\r\n"
                self.wfile.write(b"%x\r\n%s\r\n" % (len(text), text))
            self.wfile.write(b"0\r\n\r\n")

        def answer(self, status: int, reply: object) -> None:
            body = json.dumps(reply).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def address_string(self) -> str:
            return "unix"

        def log_message(self, *args: object) -> None:
            pass

    return Handler
