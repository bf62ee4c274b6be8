"""A class that logs in at once, through the hub's login page and the machine's own PAM rules."""

from __future__ import annotations

import asyncio
import re
import secrets
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlencode

from bench import machine
from bench.accounts import User
from bench.hub import BenchHub, HubFailed
from bench.stage import SETTLE
from bench.storm import Storm

GOOD, BAD = 30, 5
"""Logins at the same time with the right password, and with a wrong one."""

AUTHENTICATORS = {
    "workshop": "WorkshopAuthenticator",
    "pam": "PAMAuthenticator, of JupyterHub",
}
"""By the names that JupyterHub knows them by."""

TIMEOUT = 120.0
"""Seconds for all of them."""

CONFIG = """
c.JupyterHub.authenticator_class = "{name}"
c.JupyterHub.spawner_class = "simple"
c.JupyterHub.redirect_to_server = False
"""


@dataclass(frozen=True)
class Answer:
    """What came back of a login, and after how many seconds."""

    status: int
    after: float


def run(name: str, round_: int, users: Sequence[User]) -> Storm:
    """Have a class log in to a new hub with the authenticator called so.

    Each user has logged in once before: what the hub writes down of a new one is its own affair.
    """
    password = secrets.token_hex(8)
    lines = "".join(f"{user.name}:{password}\n" for user in users)
    subprocess.run(["chpasswd"], input=lines, text=True, check=True)
    found = Storm(name, GOOD, round_, {"lost": GOOD})
    try:
        with BenchHub(CONFIG, {"name": name}) as hub:
            asyncio.run(together(hub.hub_port, [(user.name, password) for user in users]))
            machine.wait_quiet(SETTLE)
            tries = [(user.name, "wrong") for user in users[GOOD:]]
            tries += [(user.name, password) for user in users[:GOOD]]
            answers = asyncio.run(together(hub.hub_port, tries))
    except (HubFailed, OSError, TimeoutError) as exc:
        found.error = str(exc)
        return found
    bad, good = answers[:BAD], answers[BAD:]
    waits = sorted(answer.after for answer in good)
    found.numbers |= {
        "lost": sum(answer.status != 302 for answer in good)
        + sum(answer.status != 403 for answer in bad),
        "login_p50_s": waits[len(waits) // 2],
        "login_max_s": waits[-1],
        "refused_max_s": max(answer.after for answer in bad),
    }
    return found


async def together(port: int, tries: Sequence[tuple[str, str]]) -> list[Answer]:
    """Send the forms of all, the first ones first; return the answers. TimeoutError."""
    pages = [await page(port) for _ in tries]
    began = time.monotonic()
    sent = [
        send(port, page, name, password, began)
        for page, (name, password) in zip(pages, tries, strict=True)
    ]
    return await asyncio.wait_for(asyncio.gather(*sent), TIMEOUT)


async def page(port: int) -> tuple[str, str]:
    """Open the login page; return its cookies, and what its form has to bring back."""
    text = await ask(port, "GET /hub/login HTTP/1.1\r\n", "")
    cookies = re.findall(r"^Set-Cookie: ([^;]+);", text, re.MULTILINE)
    form = next(each.partition("=")[2] for each in cookies if each.startswith("_xsrf="))
    return "; ".join(cookies), form


async def send(port: int, page: tuple[str, str], name: str, password: str, began: float) -> Answer:
    """Log in."""
    cookies, xsrf = page
    form = urlencode({"username": name, "password": password, "_xsrf": xsrf})
    head = (
        f"POST /hub/login HTTP/1.1\r\nCookie: {cookies}\r\nContent-Length: {len(form)}\r\n"
        "Content-Type: application/x-www-form-urlencoded\r\n"
    )
    text = await ask(port, head, form)
    return Answer(int(text.split(maxsplit=2)[1]), time.monotonic() - began)


async def ask(port: int, head: str, body: str) -> str:
    """Ask the hub itself, with as little of a browser as there can be; return the answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(f"{head}Host: 127.0.0.1\r\nConnection: close\r\n\r\n{body}".encode())
        await writer.drain()
        return (await reader.read()).decode(errors="replace")
    finally:
        writer.close()
