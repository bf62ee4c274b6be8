"""The steps of a start, kept for everyone who looks on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from workshop_hub.backends.base import Progress


class Steps:
    """What has been done so far; any number of pages may follow it, from any moment on."""

    def __init__(self) -> None:
        self._done: list[Progress] = []
        self._news = asyncio.Event()

    @property
    def last(self) -> str:
        """The message of the last step; "none" before the first."""
        return self._done[-1].message if self._done else "none"

    def clear(self) -> None:
        """Begin anew."""
        self._done.clear()

    def add(self, percent: int, message: str) -> None:
        """Tell of one more step. percent: 0 to 100."""
        self._done.append(Progress(percent, message))
        self._news.set()
        self._news = asyncio.Event()

    async def follow(self) -> AsyncIterator[Progress]:
        """Yield the steps, those already done first, without end."""
        shown = 0
        while True:
            news = self._news
            for step in self._done[shown:]:
                yield step
            shown = len(self._done)
            await news.wait()
