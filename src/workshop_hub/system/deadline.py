"""Wait with a deadline, without losing a cancellation."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

T = TypeVar("T")


async def within(seconds: float, awaitable: Awaitable[T]) -> T:
    """Return the awaitable's result; raise TimeoutError, and cancel it, after `seconds`.

    Before Python 3.12 asyncio.wait_for returns normally, as if nothing had been asked, where a
    cancellation meets a result that has just come (https://github.com/python/cpython/issues/86296):
    a start that is given up would go on.
    """
    task = asyncio.ensure_future(awaitable)
    try:
        done, _ = await asyncio.wait({task}, timeout=seconds)
    except asyncio.CancelledError:
        task.cancel()
        raise
    if not done:
        task.cancel()
        raise TimeoutError(f"not within {seconds:g} seconds")
    return task.result()
