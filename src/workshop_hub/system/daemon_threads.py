"""Threads for calls that may never return: the process does not wait for them when it ends."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any, TypeVar

T = TypeVar("T")


class DaemonThreads:
    """At most `size` threads, made as they are needed, with names that begin with `name`.

    concurrent.futures has Python wait for its threads at the end: a hub whose directory service
    hangs could only be killed.
    """

    def __init__(self, size: int, name: str) -> None:
        self._size = size
        self._name = name
        self._lock = threading.Lock()
        self._made = self._busy = 0
        self._calls: SimpleQueue[tuple[Future[Any], Callable[[], Any]]] = SimpleQueue()

    def submit(self, call: Callable[[], T]) -> Future[T]:
        """Have a thread call it; one that is cancelled while it waits for a thread is not made."""
        future: Future[T] = Future()
        self._calls.put((future, call))
        with self._lock:
            self._busy += 1
            if self._made < min(self._busy, self._size):
                self._made += 1
                name = f"{self._name}_{self._made}"
                threading.Thread(target=self._work, name=name, daemon=True).start()
        return future

    def _work(self) -> None:
        while True:
            future, call = self._calls.get()
            if future.set_running_or_notify_cancel():
                try:
                    answer = call()
                except BaseException as exc:
                    future.set_exception(exc)
                else:
                    future.set_result(answer)
            with self._lock:
                self._busy -= 1
            del future, call  # not kept until the next call comes
