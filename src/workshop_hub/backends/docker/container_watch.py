"""Be told at once when a container has ended: by the kernel, so that no thread waits for it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from workshop_hub.errors import EngineError
from workshop_hub.system.engine_replies import Container
from workshop_hub.system.exits import on_exit

SETTLES_WITHIN = 10.0
"""Seconds that an engine may take to see what the kernel has told us already."""


async def until_ended(
    inspect: Callable[[], Awaitable[Container | None]],
    is_on_this_machine: Callable[[Container], bool],
    ended: Callable[[], None],
) -> None:
    """Call `ended` once the container has ended and its engine knows it.

    Returns at once, without a call, where that cannot be watched: the engine is down, or runs on
    another machine.
    """
    try:
        found = await inspect()
        if found is not None and found.running:
            if not is_on_this_machine(found):
                return
            await _exit_of(found.pid)
        deadline = time.monotonic() + SETTLES_WITHIN
        while (now := await inspect()) is not None and now.running:
            if time.monotonic() > deadline:
                return
            await asyncio.sleep(0.1)
    except EngineError:
        return
    ended()


async def _exit_of(pid: int) -> None:
    gone = asyncio.Event()
    give_up = on_exit(pid, gone.set)
    try:
        await gone.wait()
    finally:
        give_up()
