"""The case that users meet: a notebook takes too much, in a real JupyterLab."""

from __future__ import annotations

import asyncio
import json
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import guest
import pytest
from tornado.httpclient import HTTPRequest
from tornado.websocket import websocket_connect
from unit_hub import WITH_BOTH, UnitHub, group_of

from hubs import words
from support import eventually_sync

pytestmark = WITH_BOTH

SINGLEUSER = Path(sys.executable).parent / "jupyterhub-singleuser"
HOG = "hog = b'x' * (1 << 30)"


async def run_cell(hub: UnitHub, kernel: str, code: str) -> list[dict]:
    """Run code in a kernel over its WebSocket; return the answers until it is idle, or dies."""
    url = f"{hub.root.replace('http', 'ws', 1)}/user/ana/api/kernels/{kernel}/channels"
    headers = {"Authorization": f"token {hub.token}"}
    socket = await websocket_connect(HTTPRequest(url, headers=headers, request_timeout=60))
    header = {
        "msg_id": uuid.uuid4().hex,
        "msg_type": "execute_request",
        "session": uuid.uuid4().hex,
        "username": "ana",
        "version": "5.3",
    }
    content = {"code": code, "silent": False, "store_history": False}
    message = {"header": header, "parent_header": {}, "metadata": {}, "content": content}
    await socket.write_message(json.dumps({**message, "channel": "shell", "buffers": []}))
    seen = []
    while True:
        answer = json.loads(await asyncio.wait_for(socket.read_message(), 90))
        state = answer["content"].get("execution_state")
        is_ours = answer["parent_header"].get("msg_id") == header["msg_id"]
        died = state in ("restarting", "dead")
        if is_ours or died:
            seen.append(answer)
        if died or (is_ours and state == "idle"):
            socket.close()
            return seen


async def new_kernel(hub: UnitHub) -> tuple[str, int]:
    """Start a kernel that runs as ana; return its id, and its pid as it tells itself."""
    kernel = hub.request("POST", "/user/ana/api/kernels", {"name": "python3"}).json["id"]
    said = await run_cell(hub, kernel, "import os; print(os.getpid(), os.getuid())")
    text = "".join(each["content"]["text"] for each in said if each["msg_type"] == "stream")
    pid, uid = text.split()
    assert int(uid) == Path("/home/ana").stat().st_uid
    return kernel, int(pid)


@pytest.fixture
def lab(hub: UnitHub) -> Iterator[UnitHub]:
    """A hub at which ana has a JupyterLab with a memory limit."""
    options = {"cmd": [str(SINGLEUSER)], "mem_limit": "400M", "default_url": "/lab"}
    events = hub.start_server("ana", options=options)
    assert events[-1].get("ready"), (events, hub.log[-6000:])
    yield hub
    hub.stop_server("ana")


async def test_a_notebook_that_takes_too_much_ends_and_its_lab_does_not(lab: UnitHub) -> None:
    assert lab.request("GET", "/user/ana/lab").status == 200
    kernel, pid = await new_kernel(lab)
    group = group_of(pid)
    assert guest.value(group, "memory.max") == str(400 * 1024 * 1024)
    others = set(guest.processes(group)) - {pid}

    said = await run_cell(lab, kernel, HOG)
    assert said[-1]["content"]["execution_state"] in ("restarting", "dead")
    assert guest.table(group, "memory.events")["oom_kill"] == 1
    assert others <= set(guest.processes(group))
    assert lab.request("GET", "/user/ana/api/status").status == 200
    eventually_sync(
        lambda: "memory limit of 400M" in words(lab.browser("ana").open("/hub/home").text),
        "the hub's page tells of the memory limit",
    )
    await new_kernel(lab)
