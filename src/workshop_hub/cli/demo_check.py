"""Use a demo's hub as a person with a browser would, and look at the result from outside."""

from __future__ import annotations

import asyncio
import html
import json
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urljoin

from tornado.httpclient import AsyncHTTPClient, HTTPRequest

from workshop_hub.backends.base import Backend, Handle, Usage
from workshop_hub.cli.browser import Browser
from workshop_hub.cli.demo_account import DemoAccount
from workshop_hub.cli.demo_hub import DemoHub
from workshop_hub.cli.kernel import run_cell
from workshop_hub.errors import WorkshopError
from workshop_hub.policy.limits import Limits, format_value

START_DEADLINE = 180.0
CELL_DEADLINE = 60.0
STOP_DEADLINE = 60.0
"""Seconds."""

CELL = """\
import json, os, pwd
print(json.dumps({"answer": 6 * 7, "uid": os.getuid(), "pid": os.getpid(), "folder": os.getcwd()}))
"""

Say = Callable[[str], None]


@dataclass(frozen=True)
class Expected:
    """The limits that were configured, and whether this machine can enforce them."""

    limits: Limits
    enforced: bool


async def check(
    hub: DemoHub, account: DemoAccount, backend: Backend, expected: Expected, say: Say
) -> None:
    """Log in, start a server, run a cell, read the limits, stop the server.

    say: shows one line. Raises WorkshopError.
    """
    browser = Browser(timeout=START_DEADLINE)
    page = await log_in(browser, hub.url, account)
    say(f"logged in as {account.name}")
    server_url = f"{hub.url}/user/{account.name}/"
    await start_server(browser, page, server_url, say)
    answer = json.loads(await run_cell(browser, server_url, CELL, timeout=CELL_DEADLINE))
    if answer["answer"] != 42:
        raise WorkshopError(f"The kernel computed {answer['answer']!r} for 6 * 7.")
    if answer["uid"] == 0:
        raise WorkshopError("The kernel runs as root.")
    say(f"a cell in a kernel of uid {answer['uid']}, in {answer['folder']}: 6 * 7 = 42")
    handle = await server_handle(hub, account.name)
    show_usage(await backend.usage(handle), expected, say)
    await browser.call("DELETE", f"{hub.url}/hub/api/users/{account.name}/server")
    await await_end(backend)
    say("stopped the server; nothing of it is left")


async def log_in(browser: Browser, hub_url: str, account: DemoAccount) -> str:
    """Fill in the login form; return the page that follows."""
    await browser.get(f"{hub_url}/hub/login")
    page = await browser.submit(
        browser.url, {"username": account.name, "password": account.password}
    )
    if "/hub/login" in browser.url:
        raise WorkshopError("The hub did not accept the name and the password.")
    return page


async def start_server(browser: Browser, page: str, server_url: str, say: Say) -> None:
    """Wait on the page that shows a start's progress, if any is shown, then open JupyterLab."""
    if browser.url.startswith(server_url):
        say("100 %  The server was there before its progress could be shown.")
    else:
        await follow_progress(browser, page, say)
    page = await browser.get(f"{server_url}lab")
    if "jupyter-config-data" not in page:
        raise WorkshopError(f"{browser.url} is not JupyterLab.")
    say(f"JupyterLab answers at {browser.url}")


async def follow_progress(browser: Browser, page: str, say: Say) -> None:
    """Show the steps of a start until the server is ready."""
    found = re.search(r'EventSource\("([^"]+)"\)', page)
    if found is None:
        raise WorkshopError(f"{browser.url} is not the page that waits for a server.")
    url = urljoin(browser.url, html.unescape(found[1]))
    async for event in browser.events(url):
        text = event.get("message", "")
        if event.get("failed"):
            raise WorkshopError("The server did not start.", log=text)
        say(f"{event.get('progress', 0):3d} %  {text}")
        if event.get("ready"):
            break


async def server_handle(hub: DemoHub, user: str) -> Handle:
    """Ask the hub's API for what its database keeps of the running server."""
    response = await AsyncHTTPClient().fetch(
        HTTPRequest(
            f"{hub.url}/hub/api/users/{user}", headers={"Authorization": f"token {hub.api_token}"}
        )
    )
    handle: Handle = json.loads(response.body)["servers"][""]["state"]["handle"]
    return handle


def show_usage(usage: Usage, expected: Expected, say: Say) -> None:
    """Say which limits the kernel holds the server to.

    Raises WorkshopError for one that should be in force and is not.
    """
    if usage.memory is not None:
        say(f"the kernel counts {format_value('mem', usage.memory)} of memory for the server")
    for name in ("cpu_limit", "mem_limit", "cpu_guarantee", "mem_guarantee", "pids_limit"):
        asked, found = getattr(expected.limits, name), getattr(usage.limits, name)
        if found:
            say(f"in force, as the kernel's files say: {name} {format_value(name, found)}")
        elif asked and not expected.enforced:
            say(f"not in force on this machine: {name} {format_value(name, asked)}")
        if asked and expected.enforced and found != asked:
            raise WorkshopError(f"{name} should be {format_value(name, asked)} and is {found}.")


async def await_end(backend: Backend, *, timeout: float = STOP_DEADLINE) -> None:
    """Return when no server of this hub is left on the machine. timeout: seconds."""
    deadline = time.monotonic() + timeout
    while left := await backend.list_owned():
        if time.monotonic() > deadline:
            names = ", ".join(str(item.owner) for item in left)
            raise WorkshopError(f"After {timeout:g} seconds servers are left: {names}.")
        await asyncio.sleep(0.1)
