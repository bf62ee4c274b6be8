"""What a class does over HTTP: ask for servers, follow their starts, open the lab, stop."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")
U = TypeVar("U")

HOST = "127.0.0.1"
LAB_MARK = b"jupyter-config-data"
"""Only the page of JupyterLab itself has it: neither a login page nor an error has."""

STOP_POOL = 32
"""Stops that are asked for at once."""


@dataclass(frozen=True)
class Answer:
    """What came back. status: 0 where nothing did; then `body` says why."""

    status: int
    body: bytes

    @property
    def brief(self) -> str:
        """A line of it for people."""
        return f"{self.status} {self.body[:160]!r}"


@dataclass(frozen=True)
class Visit:
    """How one user's start went; seconds since it was asked for. error: empty where it is well."""

    name: str
    ready: float | None = None
    lab: float | None = None
    error: str = ""


class Client:
    """Asks the hub, and servers through its proxy, with one token."""

    def __init__(self, port: int, token: str) -> None:
        self.port = port
        self.token = token

    def request(
        self, method: str, path: str, body: object = None, *, timeout: float = 60.0
    ) -> Answer:
        """Ask once. timeout: seconds without a word. Never raises."""
        connection = http.client.HTTPConnection(HOST, self.port, timeout=timeout)
        try:
            connection.request(method, path, self._data(body), self._headers)
            response = connection.getresponse()
            return Answer(response.status, response.read())
        except (OSError, http.client.HTTPException) as exc:
            return Answer(0, repr(exc).encode())
        finally:
            connection.close()

    def events(self, path: str, *, timeout: float) -> Iterator[dict[str, object]]:
        """Follow a stream of events to its end. Raises OSError, HTTPException."""
        connection = http.client.HTTPConnection(HOST, self.port, timeout=timeout)
        try:
            connection.request("GET", path, headers=self._headers)
            response = connection.getresponse()
            while line := response.readline():
                if line.startswith(b"data:"):
                    yield json.loads(line[5:])
        finally:
            connection.close()

    def api(self, method: str, path: str, body: object = None, *, timeout: float = 60.0) -> Answer:
        """Ask the hub's REST API."""
        return self.request(method, f"/hub/api{path}", body, timeout=timeout)

    def visit(self, name: str, *, lab: bool, timeout: float) -> Visit:
        """Ask for a user's server, wait until the hub calls it ready, open JupyterLab.

        lab: False where there is none to open.
        """
        began = time.monotonic()
        error = self._until_ready(name, timeout)
        ready = time.monotonic() - began
        if error:
            return Visit(name, error=error)
        if not lab:
            return Visit(name, ready)
        page = self.request("GET", f"/user/{name}/lab", timeout=max(1.0, timeout - ready))
        if page.status != 200 or LAB_MARK not in page.body:
            return Visit(name, ready, error=f"/lab answered {page.brief}")
        return Visit(name, ready, time.monotonic() - began)

    def stop(self, name: str, *, end: float) -> str:
        """Stop a user's server and wait until the hub has none; return what went wrong.

        end: monotonic time at which to give up.
        """
        asked = self.api("DELETE", f"/users/{name}/server", timeout=_left(end))
        if asked.status == 204:
            return ""
        while time.monotonic() < end:
            found = self.api("GET", f"/users/{name}", timeout=_left(end))
            if found.status == 200 and not json.loads(found.body).get("servers"):
                return ""
            time.sleep(0.05)
        return f"{name} was not stopped: {asked.brief}"

    def _until_ready(self, name: str, timeout: float) -> str:
        end = time.monotonic() + timeout
        asked = self.api("POST", f"/users/{name}/server", {}, timeout=timeout)
        if asked.status == 201:
            return ""
        if asked.status != 202:
            return f"the hub answered {asked.brief}"
        try:
            path = f"/hub/api/users/{name}/server/progress"
            for event in self.events(path, timeout=timeout):
                if event.get("ready"):
                    return ""
                if event.get("failed"):
                    return str(event.get("message"))
                if time.monotonic() > end:
                    return f"not ready within {timeout:g} s"
        except (OSError, http.client.HTTPException) as exc:
            return repr(exc)
        return "the progress ended without a server"

    @property
    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"token {self.token}", "Content-Type": "application/json"}

    @staticmethod
    def _data(body: object) -> bytes | None:
        return None if body is None else json.dumps(body).encode()


def at_once(do: Callable[[T], U], each: Sequence[T], *, width: int = 0) -> list[U]:
    """Call `do` for each at the same time, or `width` at a time; return the results in order."""
    pool = ThreadPoolExecutor(max(1, width or len(each)))
    try:
        return list(pool.map(do, each))
    finally:  # who gives up ends the hub next, and with it what the threads wait for
        pool.shutdown(wait=False, cancel_futures=True)


def start_all(client: Client, names: Sequence[str], *, lab: bool, timeout: float) -> list[Visit]:
    """Have everybody ask for a server at the same moment."""
    return at_once(lambda name: client.visit(name, lab=lab, timeout=timeout), names)


def stop_all(client: Client, names: Sequence[str], *, timeout: float) -> list[str]:
    """Stop everybody's server; return what went wrong."""
    end = time.monotonic() + timeout
    told = at_once(lambda name: client.stop(name, end=end), names, width=STOP_POOL)
    return [each for each in told if each]


def _left(end: float) -> float:
    return max(1.0, end - time.monotonic())
