"""Run blocking calls in threads, so that one that hangs delays nobody else's."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from workshop_hub.system.deadline import within

T = TypeVar("T")

CALLS_AT_ONCE = 2
"""Calls about one thing that may run at once among everybody's; more wait in the slow lane."""


class CallPool:
    """Two bounded pools of threads: one for everybody, one for what has hung before.

    Every call says what it is about (a container, an image). A call that misses its deadline
    makes its subject suspect: the next calls about it go to the slow lane, where they can only
    delay each other, until one is answered. So with `threads` threads, and hundreds of hung
    containers polled again and again, the healthy ones find a free thread.

    A thread cannot be stopped from outside: `work` is given the seconds that are left and must
    return soon after them.
    """

    def __init__(self, name: str, *, threads: int = 24, slow_threads: int = 4) -> None:
        self._fast = ThreadPoolExecutor(threads, thread_name_prefix=name)
        self._slow = ThreadPoolExecutor(slow_threads, thread_name_prefix=f"{name}-slow")
        self._lock = threading.Lock()
        self._active: Counter[str] = Counter()
        self._suspects: set[str] = set()

    async def run(self, work: Callable[[float], T], *, about: str, timeout: float) -> T:
        """Return what `work(seconds left)` returns. Raises TimeoutError after `timeout` seconds."""
        deadline = time.monotonic() + timeout
        future = self._submit(work, about, deadline)
        try:
            answer = await within(timeout, asyncio.wrap_future(future))
        except TimeoutError as exc:
            if not future.cancel():  # it had a thread: it was not the queue that took so long
                self._suspects.add(about)
            raise TimeoutError(f"no answer about {about} within {timeout:g} seconds") from exc
        except Exception:
            self._suspects.discard(about)  # a refusal is an answer
            raise
        self._suspects.discard(about)
        return answer

    def close(self) -> None:
        """Let the threads end; calls that run are not waited for."""
        self._fast.shutdown(wait=False, cancel_futures=True)
        self._slow.shutdown(wait=False, cancel_futures=True)

    def _submit(self, work: Callable[[float], T], about: str, deadline: float) -> Future[T]:
        with self._lock:
            self._active[about] += 1
            crowded = self._active[about] > CALLS_AT_ONCE
        pool = self._slow if crowded or about in self._suspects else self._fast
        future = pool.submit(_in_time, work, deadline)
        # Also called for a future that is cancelled while it waits for a thread.
        future.add_done_callback(lambda _: self._release(about))
        return future

    def _release(self, about: str) -> None:
        with self._lock:
            self._active[about] -= 1
            if self._active[about] <= 0:
                del self._active[about]


def _in_time(work: Callable[[float], T], deadline: float) -> T:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError("the deadline passed before a thread was free")
    return work(left)
