"""How a container is ended and removed. Both do nothing where that has happened already."""

from __future__ import annotations

import asyncio
import contextlib
import time

from workshop_hub.system.deadline import within
from workshop_hub.system.engine import Engine
from workshop_hub.system.engine_errors import EngineConflict, EngineNotFound
from workshop_hub.system.engine_replies import Container
from workshop_hub.system.exits import on_exit

KILL_DEADLINE = 10.0
"""Seconds that the kernel gets to end killed processes."""

LOOK_EVERY = 0.1
"""Seconds between two looks. The engine's own "stop" would hold a thread for all that time."""

LOOK_SELDOM = 0.5
"""Seconds between two looks where the kernel tells of the end; looks cost the engine something."""


async def end(engine: Engine, found: Container, *, grace: float, is_here: bool) -> None:
    """End a container's processes. grace: seconds they get to do so themselves; 0 kills at once.

    is_here: whether its processes are this machine's.
    """
    if not found.running:
        return
    gone = asyncio.Event()
    give_up = on_exit(found.pid, gone.set) if is_here else None
    try:
        if grace > 0:
            await _signal(engine, found.id, found.stop_signal)
            if await _ended(engine, found.id, grace, gone if is_here else None):
                return
        await _signal(engine, found.id, "SIGKILL")
        await _ended(engine, found.id, KILL_DEADLINE, gone if is_here else None)
    finally:
        if give_up:
            give_up()


async def remove(engine: Engine, container: str) -> None:
    """Remove a container; EngineError where it cannot be removed."""
    try:
        await engine.remove(container)
    except EngineNotFound:
        return
    except EngineConflict:  # somebody else removes it at this moment
        if not await _gone(engine, container, KILL_DEADLINE):
            raise


async def _signal(engine: Engine, container: str, signal: str) -> None:
    with contextlib.suppress(EngineConflict, EngineNotFound):  # it has ended meanwhile
        await engine.kill(container, signal)


async def _ended(
    engine: Engine, container: str, seconds: float, gone: asyncio.Event | None
) -> bool:
    """Say whether it ends in that time. gone: set as soon as its first process has ended."""
    deadline = time.monotonic() + seconds
    while True:
        if gone is not None and not gone.is_set():
            with contextlib.suppress(TimeoutError):
                await within(min(seconds, LOOK_SELDOM), gone.wait())
        found = await engine.inspect(container)
        if found is None or not found.running:
            return True
        if time.monotonic() >= deadline:
            return False
        await asyncio.sleep(LOOK_EVERY)


async def _gone(engine: Engine, container: str, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while await engine.inspect(container) is not None:
        if time.monotonic() >= deadline:
            return False
        await asyncio.sleep(LOOK_EVERY)
    return True
