"""Real single-user servers without a hub's process: something that answers for it, and a client."""

from __future__ import annotations

import contextlib
import json
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from harness import ProcessHarness

from workshop_hub.backends.base import Backend, Listening
from workshop_hub.cli.browser import Browser
from workshop_hub.cli.kernel import run_cell

SINGLEUSER = Path(sys.executable).with_name("jupyterhub-singleuser")


class HubHandler(BaseHTTPRequestHandler):
    """Knows every user by a token that is her name, and lets her do everything with her server."""

    def do_GET(self) -> None:
        name = self.headers.get("Authorization", "").partition(" ")[2]
        scopes = [f"access:servers!user={name}", f"read:users!user={name}"]
        user = {"kind": "user", "name": name, "admin": False, "groups": [], "scopes": scopes}
        body = json.dumps({"version": "6.0.0"} if self.path.endswith("/api/") else user).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-JupyterHub-Version", "6.0.0")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *words: object) -> None:
        pass


@contextlib.contextmanager
def hub_api() -> Iterator[int]:
    """Answer for a hub; gives the port."""
    with ThreadingHTTPServer(("127.0.0.1", 0), HubHandler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


class TokenBrowser(Browser):
    """A browser that shows a token, where others log in."""

    def __init__(self, token: str) -> None:
        super().__init__()
        self.token = token

    def _headers(self, url: str) -> dict[str, str]:
        return {**super()._headers(url), "Authorization": f"token {self.token}"}


@dataclass
class Lab:
    """One user's server. at: where it listens."""

    backend: Backend
    user: str
    at: Listening

    @property
    def url(self) -> str:
        return f"http://{self.at.ip}:{self.at.port}/user/{self.user}/"

    @property
    def pid(self) -> int:
        """The server's process, where the launcher's supervisor is another."""
        pid = self.at.handle["pid"]
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        supervised = Path(f"/proc/{pid}/comm").read_text() == "sh\n"
        return int(children[0] if supervised else pid)

    @property
    def browser(self) -> TokenBrowser:
        return TokenBrowser(self.user)

    async def call(self, method: str, path: str, body: object = None) -> Any:
        return await self.browser.call(method, self.url + path, body)

    async def cell(self, code: str) -> str:
        return await run_cell(self.browser, self.url, code, timeout=60)

    async def terminal(self, line: str) -> None:
        """Open a terminal, type a line, and wait until the shell has ended after it."""
        name = (await self.call("POST", "api/terminals"))["name"]
        talk = await self.browser.web_socket(f"{self.url}terminals/websocket/{name}")
        await talk.write_message(json.dumps(["stdin", f"{line}; exit\r"]))
        while await talk.read_message() is not None:
            pass
        talk.close()

    async def stop(self) -> None:
        await self.backend.stop(self.at.handle)


def environment(hub: int, user: str, port: int) -> dict[str, str]:
    """Return what a hub whose API is at the port `hub` gives to a server."""
    return {
        "LANG": "C.UTF-8",
        "PATH": f"{SINGLEUSER.parent}:/usr/local/bin:/usr/bin:/bin",
        "JUPYTERHUB_API_TOKEN": user,
        "JUPYTERHUB_API_URL": f"http://127.0.0.1:{hub}/hub/api",
        "JUPYTERHUB_BASE_URL": "/",
        "JUPYTERHUB_CLIENT_ID": f"jupyterhub-user-{user}",
        "JUPYTERHUB_OAUTH_CALLBACK_URL": f"/user/{user}/oauth_callback",
        "JUPYTERHUB_OAUTH_SCOPES": json.dumps([f"access:servers!user={user}"]),
        "JUPYTERHUB_SERVICE_PREFIX": f"/user/{user}/",
        "JUPYTERHUB_SERVICE_URL": f"http://127.0.0.1:{port}/user/{user}/",
        "JUPYTERHUB_USER": user,
    }


async def open_lab(
    harness: ProcessHarness,
    backend: Backend,
    hub: int,
    *arguments: str,
    cmd: Path = SINGLEUSER,
    port: int = 0,
    env: dict[str, str] | None = None,
) -> Lab:
    """Start a single-user server that finds its hub's API at the port `hub`."""
    spec = harness.spec(cmd=(str(cmd), *arguments), port=port)
    address = await backend.prepare(spec)
    user = harness.account.name
    spec = replace(spec, env={**environment(hub, user, address.port), **(env or {})})
    steps = [step async for step in backend.start(spec, address)]
    assert isinstance(steps[-1], Listening)
    return Lab(backend, user, steps[-1])
