"""Whether a server is of use to the one who has it, beyond being there."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timezone
from functools import partial
from typing import Any

from tornado.httpclient import HTTPRequest
from tornado.websocket import WebSocketClientConnection, websocket_connect

from bench.accounts import User
from bench.client import HOST, Client, at_once

SETTING = "@jupyterlab/apputils-extension:themes"
"""A setting that takes any text, so that every user keeps another one."""

WORKSPACE = "bench"
KEPT = ("workspaces", "user-settings")
"""Folders below ~/.jupyter/lab where JupyterLab keeps the two."""

WIDTH = 6
"""Users who try something at the same time."""

CALL = 60.0
CELL = 180.0
"""Seconds for one request, and for a kernel to start and run a cell."""


class Useless(Exception):
    """Something that the user wants to do does not work; the message says what."""


def keep(client: Client, user: User) -> None:
    """Keep a workspace and a setting that no other user has. Raises Useless."""
    place = f"/user/{user.name}/lab/api"
    document = {"data": {"owner": user.name}, "metadata": {"id": WORKSPACE}}
    _ask(client, "PUT", f"{place}/workspaces/{WORKSPACE}", document)
    _ask(client, "PUT", f"{place}/settings/{SETTING}", {"raw": json.dumps({"theme": user.name})})


def read_back(client: Client, user: User) -> None:
    """Compare what was kept with what is there now, after all others have kept theirs.

    It must lie in the user's own home, as the user's own files. Raises Useless.
    """
    place = f"/user/{user.name}/lab/api"
    workspace = _ask(client, "GET", f"{place}/workspaces/{WORKSPACE}")
    setting = _ask(client, "GET", f"{place}/settings/{SETTING}")
    if workspace.get("data") != {"owner": user.name}:
        raise Useless(f"the workspace of {user.name} is {workspace}")
    if setting.get("settings", {}).get("theme") != user.name:
        raise Useless(f"the setting of {user.name} is {setting.get('settings')}")
    for folder in KEPT:
        kept = (user.home / ".jupyter/lab" / folder).rglob("*")
        owners = {each.stat().st_uid for each in kept if each.is_file()}
        if owners != {user.uid}:
            raise Useless(f"{user.home} does not have the {folder} of {user.name}")


def open_terminal(client: Client, user: User) -> None:
    """Open a terminal, find it, close it. Raises Useless."""
    place = f"/user/{user.name}/api/terminals"
    made = str(_ask(client, "POST", place, {})["name"])
    if made not in [each["name"] for each in _ask(client, "GET", place)]:
        raise Useless(f"the terminal of {user.name} is gone")
    _ask(client, "DELETE", f"{place}/{made}")


def run_cell(client: Client, user: User) -> None:
    """Start a kernel, have it print whose process it is, end it. Raises Useless."""
    with kernel(client, user.name) as place:
        try:
            printed = asyncio.run(_run(client, place, "import os; print(os.getuid())"))
        except (OSError, asyncio.TimeoutError) as exc:
            raise Useless(f"no cell runs for {user.name}: {exc!r}") from exc
    if printed.strip() != str(user.uid):
        raise Useless(f"the cell of {user.name} printed {printed!r}")


@contextmanager
def kernel(client: Client, name: str) -> Iterator[str]:
    """Start a kernel and end it again; gives its path at the server."""
    place = f"/user/{name}/api/kernels"
    made = _ask(client, "POST", place, {"name": "python3"})
    path = f"{place}/{made['id']}"
    try:
        yield path
    finally:
        _ask(client, "DELETE", path)


def _ask(client: Client, method: str, path: str, body: object = None) -> Any:
    answer = client.request(method, path, body, timeout=CALL)
    if not 200 <= answer.status < 300:
        raise Useless(f"{method} {path} was answered {answer.brief}")
    return json.loads(answer.body or b"null")


async def _run(client: Client, place: str, code: str) -> str:
    """Return what the cell prints."""
    request = HTTPRequest(
        f"ws://{HOST}:{client.port}{place}/channels",
        headers={"Authorization": f"token {client.token}"},
        request_timeout=CELL,
    )
    socket = await websocket_connect(request)
    try:
        message = execute_request(code)
        await socket.write_message(json.dumps(message))
        return await asyncio.wait_for(_printed(socket, message["header"]["msg_id"]), CELL)
    finally:
        socket.close()


async def _printed(socket: WebSocketClientConnection, question: str) -> str:
    printed = ""
    while (text := await socket.read_message()) is not None:
        message = json.loads(text)
        if message.get("parent_header", {}).get("msg_id") != question:
            continue
        content = message["content"]
        if message["msg_type"] == "stream":
            printed += content["text"]
        elif message["msg_type"] == "error":
            raise OSError(content["evalue"])
        elif message["msg_type"] == "status" and content["execution_state"] == "idle":
            return printed
    raise OSError("the kernel's connection was closed")


def execute_request(code: str) -> dict[str, Any]:
    """Return a message of Jupyter's protocol that asks for a cell to be run."""
    header = {
        "msg_id": uuid.uuid4().hex,
        "session": uuid.uuid4().hex,
        "username": "bench",
        "date": datetime.now(timezone.utc).isoformat(),
        "msg_type": "execute_request",
        "version": "5.3",
    }
    return {
        "channel": "shell",
        "header": header,
        "parent_header": {},
        "metadata": {},
        "content": {"code": code, "silent": False, "allow_stdin": False, "stop_on_error": True},
        "buffers": [],
    }


def failures(client: Client, users: Sequence[User], *, cells: int) -> dict[str, str]:
    """Try everybody's server; return what does not work, by user.

    cells: for how many of them a cell is run. Each step is done by all before the next one.
    """
    failed: dict[str, str] = {}

    def attempt(step: Callable[[Client, User], None], user: User) -> None:
        try:
            step(client, user)
        except (Useless, ValueError, KeyError) as exc:
            failed.setdefault(user.name, str(exc))

    for step in (keep, read_back, open_terminal):
        at_once(partial(attempt, step), users, width=WIDTH)
    at_once(partial(attempt, run_cell), sample(users, cells), width=WIDTH)
    return failed


def sample(users: Sequence[User], number: int) -> list[User]:
    """Return so many of the users, evenly over all of them."""
    number = min(number, len(users))
    return [users[each * len(users) // number] for each in range(number)]
