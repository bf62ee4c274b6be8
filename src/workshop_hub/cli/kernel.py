"""Run code in a kernel of a user's server, over the WebSocket that JupyterLab uses."""

from __future__ import annotations

import asyncio
import json
import uuid
from typing import Any

from tornado.websocket import WebSocketClientConnection

from workshop_hub.cli.browser import Browser
from workshop_hub.errors import WorkshopError

PROTOCOL_VERSION = "5.3"


async def run_cell(browser: Browser, server_url: str, code: str, *, timeout: float) -> str:
    """Start a kernel, run one cell, end the kernel; return what the cell printed.

    server_url: of the user's server, with a slash at its end. timeout: seconds for the cell.
    Raises WorkshopError with the traceback where the cell fails.
    """
    kernels = f"{server_url}api/kernels"
    kernel = (await browser.call("POST", kernels, {}))["id"]
    try:
        socket = await browser.web_socket(f"{kernels}/{kernel}/channels")
        try:
            return await asyncio.wait_for(_execute(socket, code), timeout)
        except asyncio.TimeoutError as exc:
            raise WorkshopError(f"The kernel did not answer within {timeout:g} seconds.") from exc
        finally:
            socket.close()
    finally:
        await browser.call("DELETE", f"{kernels}/{kernel}")


async def _execute(socket: WebSocketClientConnection, code: str) -> str:
    request = execute_request(code)
    await socket.write_message(json.dumps(request))
    printed = ""
    while True:
        text = await socket.read_message()
        if text is None:
            raise WorkshopError("The connection to the kernel was lost.")
        message = json.loads(text)
        if message.get("parent_header", {}).get("msg_id") != request["header"]["msg_id"]:
            continue
        content = message["content"]
        if message["msg_type"] == "stream" and content["name"] == "stdout":
            printed += content["text"]
        elif message["msg_type"] == "error":
            raise WorkshopError("The cell failed.", log="\n".join(content["traceback"]))
        elif message["msg_type"] == "status" and content["execution_state"] == "idle":
            return printed


def execute_request(code: str) -> dict[str, Any]:
    """Return the message that asks a kernel to run `code`.

    https://jupyter-client.readthedocs.io/en/stable/messaging.html#execute
    """
    header = {
        "msg_id": uuid.uuid4().hex,
        "session": uuid.uuid4().hex,
        "username": "",
        "msg_type": "execute_request",
        "version": PROTOCOL_VERSION,
    }
    content = {"code": code, "silent": False, "store_history": False, "allow_stdin": False}
    return {
        "channel": "shell",
        "header": header,
        "parent_header": {},
        "metadata": {},
        "content": content,
        "buffers": [],
    }
