"""Let a few work at the same time, and nobody wait for those who wait for something else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager


class Turns:
    """Turns that are taken one after the other.

    at_once: how many have one at the same time. patience: seconds after which whoever still has
    one does not count any more: he does not work, he waits.
    """

    def __init__(self, at_once: int, patience: float) -> None:
        self._free = asyncio.Semaphore(at_once)
        self._patience = patience

    @asynccontextmanager
    async def taken(self) -> AsyncIterator[None]:
        """Wait for a turn, and have it."""
        await self._free.acquire()
        release = ExitStack()
        release.callback(self._free.release)
        timer = asyncio.get_running_loop().call_later(self._patience, release.close)
        try:
            yield
        finally:
            timer.cancel()
            release.close()
