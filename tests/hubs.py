"""A real JupyterHub with its proxy, for tests: started, asked over HTTP, killed, started again."""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.cookiejar import CookieJar
from pathlib import Path
from typing import Any

import pytest

TESTS = Path(__file__).parent
TINY_SERVER = TESTS / "tiny_server.py"

BASE_CONFIG = """
import sys
sys.path.insert(0, {tests!r})
c = get_config()
c.JupyterHub.bind_url = "http://127.0.0.1:{port}"
c.JupyterHub.hub_port = {hub_port}
c.ConfigurableHTTPProxy.api_url = "http://127.0.0.1:{proxy_port}"
c.ConfigurableHTTPProxy.should_start = True
c.JupyterHub.authenticator_class = "dummy"
c.DummyAuthenticator.password = {password!r}
c.Authenticator.allow_all = True
c.Authenticator.admin_users = {{"admin"}}
c.JupyterHub.cleanup_servers = False
c.JupyterHub.default_url = "/hub/home"  # a login does not start a server
c.JupyterHub.tornado_settings = {{"slow_spawn_timeout": 0}}  # every start is told step by step
c.JupyterHub.allow_named_servers = True
c.Spawner.start_timeout = 60
c.Spawner.http_timeout = 60
c.Spawner.poll_interval = 1
c.JupyterHub.services = [dict(name="tests", api_token={token!r})]
c.JupyterHub.load_roles = [dict(name="tests", services=["tests"], scopes=[
    "admin:users", "admin:servers", "admin:groups", "list:users", "access:servers", "read:hub"])]
"""

FAKE_CONFIG = """
from fake_backend import FakeSpawner
c.JupyterHub.spawner_class = FakeSpawner
c.WorkshopSpawner.backend = "fake"
c.Spawner.cmd = [sys.executable, "-S", {tiny!r}]
"""


@dataclass
class Answer:
    """What came back over HTTP."""

    status: int
    body: bytes
    headers: Mapping[str, str]
    url: str

    @property
    def text(self) -> str:
        return self.body.decode(errors="replace")

    @property
    def json(self) -> Any:
        return json.loads(self.body or b"null")


@dataclass
class Browser:
    """One person's session with the hub: cookies, redirects, forms with their `_xsrf`.

    headers: sent with every request.
    """

    root: str
    jar: CookieJar = field(default_factory=CookieJar)
    headers: Mapping[str, str] = field(default_factory=dict)

    def open(self, path: str, form: Mapping[str, str] | None = None, timeout: float = 60) -> Answer:
        opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(self.jar))
        data = None
        if form is not None:
            xsrf = next((c.value for c in self.jar if c.name == "_xsrf"), "")
            data = urllib.parse.urlencode({**form, "_xsrf": xsrf}).encode()
        request = urllib.request.Request(
            urllib.parse.urljoin(self.root, path),
            data=data,
            headers={"Accept": "text/html", **self.headers},
        )
        return _send(opener.open, request, timeout)

    def login(self, name: str, password: str) -> Answer:
        self.open("/hub/login")
        return self.open("/hub/login", {"username": name, "password": password})


class Hub:
    """One hub in a folder of its own.

    config: Python text that is added to the base configuration. as_user: account to run it as.
    """

    def __init__(
        self,
        folder: Path,
        config: str = "",
        *,
        env: Mapping[str, str] | None = None,
        as_user: str = "",
        base: str = BASE_CONFIG,
        bin_dir: Path = Path(sys.executable).parent,
    ) -> None:
        self.folder = folder
        self.port, self.hub_port, self.proxy_port = free_ports(3)
        self.token = secrets.token_hex(16)
        self.password = secrets.token_hex(8)
        self.log_file = folder / "hub.log"
        self.bin_dir = bin_dir
        self.env = dict(env or {})
        self.as_user = as_user
        self.process: subprocess.Popen[bytes] | None = None
        self.config_file = folder / "jupyterhub_config.py"
        self.config_file.write_text(
            base.format(
                tests=str(TESTS),
                port=self.port,
                hub_port=self.hub_port,
                proxy_port=self.proxy_port,
                password=self.password,
                token=self.token,
            )
            + config
        )
        if as_user:
            shutil.chown(folder, as_user)
            shutil.chown(self.config_file, as_user)

    @property
    def root(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        return self.log_file.read_text(errors="replace") if self.log_file.exists() else ""

    def launch(self) -> subprocess.Popen[bytes]:
        """Start the hub's process, without waiting."""
        env = {
            "PATH": f"{self.bin_dir}:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": str(self.folder),
            "LANG": "C.UTF-8",
            **{k: v for k, v in os.environ.items() if k.startswith(("COVERAGE", "PYTHONPATH"))},
            **self.env,
        }
        command = [str(self.bin_dir / "jupyterhub"), "-f", str(self.config_file)]
        if self.as_user:
            who = ["--reuid", self.as_user, "--regid", self.as_user, "--init-groups"]
            command = ["setpriv", *who, *command]
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(
                command,
                cwd=self.folder,
                env=env,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        return self.process

    def start(self, deadline: float = 180) -> Hub:
        """Start the hub and wait until it answers through its proxy."""
        process = self.launch()
        end = time.monotonic() + deadline
        while True:
            if process.poll() is not None:
                pytest.fail(f"the hub ended with {process.returncode}:\n{self.log[-4000:]}")
            try:
                if self.api("GET", "/info").status == 200:
                    return self
            except OSError:
                pass
            if time.monotonic() > end:
                pytest.fail(f"the hub did not answer:\n{self.log[-4000:]}")
            time.sleep(0.1)

    def kill(self, number: int = signal.SIGTERM, deadline: float = 90) -> None:
        """Send the hub alone a signal and wait for its end; its proxy ends with it or after it."""
        if self.process is None:
            return
        self.process.send_signal(number)
        self.process.wait(deadline)
        self._end_proxy()
        self.process = None

    def _end_proxy(self) -> None:
        pid_file = self.folder / "jupyterhub-proxy.pid"
        try:
            pid = int(pid_file.read_text())
        except (OSError, ValueError):
            return
        end = time.monotonic() + 10
        while time.monotonic() < end:
            try:
                os.kill(pid, signal.SIGTERM)
            except ProcessLookupError:
                break
            time.sleep(0.05)
        pid_file.unlink(missing_ok=True)

    def api(self, method: str, path: str, body: object = None, timeout: float = 60) -> Answer:
        """Ask the hub's REST API with the token of the tests."""
        return self.request(method, f"/hub/api{path}", body, timeout)

    def request(self, method: str, path: str, body: object = None, timeout: float = 60) -> Answer:
        request = urllib.request.Request(
            self.root + path,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"token {self.token}"},
        )
        return _send(urllib.request.urlopen, request, timeout)

    def browser(self, name: str, password: str = "") -> Browser:
        """Return a logged-in browser session."""
        browser = Browser(self.root)
        answer = browser.login(name, password or self.password)
        assert answer.status < 500, answer.text
        return browser

    def start_server(self, user: str, server: str = "", options: object = None) -> list[dict]:
        """Start a server and follow its progress to the end; return the events."""
        self.api("POST", f"/users/{user}")
        place = f"/users/{user}/servers/{server}" if server else f"/users/{user}/server"
        answer = self.api("POST", place, {} if options is None else options)
        if answer.status not in (201, 202):
            return [{"failed": True, "message": answer.text, "status": answer.status}]
        return list(self.progress(user, server))

    def progress(self, user: str, server: str = "") -> Iterator[dict]:
        place = f"/users/{user}/servers/{server}" if server else f"/users/{user}/server"
        request = urllib.request.Request(
            f"{self.root}/hub/api{place}/progress",
            headers={"Authorization": f"token {self.token}"},
        )
        with urllib.request.urlopen(request, timeout=120) as stream:
            for line in stream:
                if line.startswith(b"data:"):
                    yield json.loads(line[5:])

    def stop_server(self, user: str, server: str = "", deadline: float = 120) -> None:
        """Stop a server and wait until the hub says that it is gone."""
        place = f"/users/{user}/servers/{server}" if server else f"/users/{user}/server"
        self.api("DELETE", place)
        self.wait_stopped(user, server, deadline)

    def wait_stopped(self, user: str, server: str = "", deadline: float = 120) -> None:
        end = time.monotonic() + deadline
        while server in self.servers(user):
            if time.monotonic() > end:
                pytest.fail(f"{user}:{server} still runs:\n{self.log[-3000:]}")
            time.sleep(0.1)

    def servers(self, user: str) -> dict[str, Any]:
        return self.api("GET", f"/users/{user}").json.get("servers", {})

    def server_json(self, user: str, server: str = "", path: str = "") -> Any:
        """Ask the tiny server about itself, through the proxy."""
        place = f"/user/{user}/{server}/" if server else f"/user/{user}/"
        answer = self.request("GET", place + path)
        assert answer.status == 200, answer.text
        return answer.json


def fake_config(more: str = "") -> str:
    return FAKE_CONFIG.format(tiny=str(TINY_SERVER)) + more


def free_ports(count: int) -> list[int]:
    """Return ports that are free now."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


def words(html: str) -> str:
    """Return a page's text as one line."""
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", html))


def _send(opener: Any, request: urllib.request.Request, timeout: float) -> Answer:
    try:
        with opener(request, timeout=timeout) as response:
            return Answer(response.status, response.read(), response.headers, response.url)
    except urllib.error.HTTPError as error:
        with error:
            return Answer(error.code, error.read(), error.headers, error.url)
