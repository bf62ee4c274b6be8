"""A hub that runs: when it listens, and which servers it has."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jupyterhub.app import JupyterHub

START_DEADLINE = 600.0
"""Seconds after which we no longer wait for the hub to listen."""


async def listens(app: JupyterHub) -> bool:
    """Wait until the hub listens, and so knows its servers; say whether it came to that."""
    deadline = time.monotonic() + START_DEADLINE
    while getattr(app, "http_server", None) is None:
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(0.2)
    return True


def has_server(app: JupyterHub, user: str, server: str) -> bool:
    """Say whether the hub runs, starts, ends or looks for this server now."""
    found = app.users.get(user) if user in app.users else None
    return bool(found and server in found.spawners and found.spawners[server].active)
