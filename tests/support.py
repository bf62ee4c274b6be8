"""What several tiers of tests share."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
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


def launcher_under_coverage(become: str) -> dict[str, list[str]]:
    """Return the option that has sudo run the launcher under coverage, if that is collected.

    sudo passes no environment on, so the command line names the configuration and the file.
    """
    config, data = (os.environ.get(name) for name in ("COVERAGE_RCFILE", "COVERAGE_FILE"))
    if not config or not data:
        return {}
    # by folder: coverage does not know that the program it runs belongs to the package
    places = [f"--rcfile={config}", f"--data-file={data}", f"--source={Path(become).parents[1]}"]
    return {"launcher_command": [sys.executable, "-I", "-m", "coverage", "run", *places, become]}


async def eventually(
    look: Callable[[], Awaitable[T]], what: str, *, deadline: float = 120.0, every: float = 0.05
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
    look: Callable[[], T], what: str, *, deadline: float = 120.0, every: float = 0.05
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
