"""What several tiers of tests share."""

from __future__ import annotations

import os
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

import pytest

T = TypeVar("T")


def require(condition: object, reason: str) -> None:
    """Skip where this machine cannot run a test; fail where everything is required (CI)."""
    if condition:
        return
    if os.environ.get("WORKSHOP_REQUIRE_ALL"):
        pytest.fail(f"required here, but: {reason}")
    pytest.skip(reason)


async def eventually(
    look: Callable[[], Awaitable[T]], what: str, *, deadline: float = 30.0, every: float = 0.05
) -> T:
    """Call `look` until its answer is true and return it; fail after `deadline` seconds."""
    import asyncio

    end = time.monotonic() + deadline
    while True:
        answer = await look()
        if answer:
            return answer
        if time.monotonic() >= end:
            pytest.fail(f"not within {deadline:g} s: {what}; last answer: {answer!r}")
        await asyncio.sleep(every)


def eventually_sync(
    look: Callable[[], T], what: str, *, deadline: float = 30.0, every: float = 0.05
) -> T:
    """Like `eventually`, for plain functions."""
    end = time.monotonic() + deadline
    while True:
        answer = look()
        if answer:
            return answer
        if time.monotonic() >= end:
            pytest.fail(f"not within {deadline:g} s: {what}; last answer: {answer!r}")
        time.sleep(every)
