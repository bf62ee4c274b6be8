"""Be told at once when a container has ended: by the kernel, so that no thread waits for it."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable

from workshop_hub.errors import EngineError
from workshop_hub.system.deadline import within
from workshop_hub.system.engine_replies import Container
from workshop_hub.system.exits import on_exit

SETTLES_WITHIN = 10.0
"""Seconds that an engine may take to see what the kernel knows already."""

LOOK_SELDOM = 60.0
"""Seconds between two looks at a container that the kernel watches: it may have had no pidfd."""

LOOK_OFTEN = 0.05
LOOK_LESS = 1.0
"""Seconds between the first two and the last two looks at one that the kernel has lost."""


async def until_ended(
    inspect: Callable[[], Awaitable[Container | None]],
    is_on_this_machine: Callable[[Container], bool],
    ended: Callable[[], None],
) -> None:
    """Call `ended` once the container has ended and its engine knows it.

    is_on_this_machine: whether its first process can be seen. Where it cannot, it has ended just
    now, or is another machine's, which time tells.
    Returns without a call where that cannot be watched: the engine is down, or runs elsewhere.
    """
    deadline, pause = time.monotonic() + SETTLES_WITHIN, LOOK_OFTEN
    try:
        while (found := await inspect()) is not None and found.running:
            if is_on_this_machine(found):
                await _exit_of(found.pid)
                deadline, pause = time.monotonic() + SETTLES_WITHIN, LOOK_OFTEN
            elif time.monotonic() > deadline:
                return
            await asyncio.sleep(pause)
            pause = min(2 * pause, LOOK_LESS)
    except EngineError:
        return
    ended()


async def _exit_of(pid: int) -> None:
    gone = asyncio.Event()
    give_up = on_exit(pid, gone.set)
    try:
        with contextlib.suppress(TimeoutError):
            await within(LOOK_SELDOM, gone.wait())
    finally:
        give_up()
