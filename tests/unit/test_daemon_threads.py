"""Threads for calls that may never return."""

from __future__ import annotations

import subprocess
import sys
import threading
from concurrent.futures import Future

import pytest

from workshop_hub.system.daemon_threads import DaemonThreads

DEADLINE = 60.0


def test_each_call_has_its_answer_and_threads_are_used_again() -> None:
    pool = DaemonThreads(4, "test")
    assert pool.submit(threading.current_thread).result(DEADLINE).daemon
    answers = [pool.submit(lambda number=number: number * 2) for number in range(1000)]
    assert [answer.result(DEADLINE) for answer in answers] == [*range(0, 2000, 2)]
    names = [pool.submit(lambda: threading.current_thread().name) for _ in range(100)]
    assert {name.result(DEADLINE) for name in names} <= {f"test_{n}" for n in range(1, 5)}


def test_no_more_than_so_many_at_once_and_who_gives_up_is_skipped() -> None:
    pool = DaemonThreads(2, "test")
    go_on, begun = threading.Event(), threading.Semaphore(0)

    def wait() -> bool:
        begun.release()
        return go_on.wait(DEADLINE)

    held = [pool.submit(wait) for _ in range(2)]
    for _ in held:
        assert begun.acquire(timeout=DEADLINE)
    called: list[int] = []
    given_up: Future[None] = pool.submit(lambda: called.append(1))
    last: Future[None] = pool.submit(lambda: called.append(2))
    assert given_up.cancel()
    assert not last.done()
    go_on.set()
    last.result(DEADLINE)
    assert called == [2]
    assert all(each.result(DEADLINE) for each in held)


def test_an_error_is_the_callers_and_ends_no_thread() -> None:
    pool = DaemonThreads(1, "test")
    for error in (KeyError("x"), SystemExit(3)):

        def fail(error: BaseException = error) -> None:
            raise error

        with pytest.raises(type(error)):
            pool.submit(fail).result(DEADLINE)
    assert pool.submit(lambda: 7).result(DEADLINE) == 7


HANGS = """
import threading
from workshop_hub.system.daemon_threads import DaemonThreads
begun = threading.Event()
DaemonThreads(1, "test").submit(lambda: (begun.set(), threading.Event().wait()))
begun.wait()
print("done")
"""


def test_the_process_ends_although_a_call_does_not() -> None:
    done = subprocess.run(
        [sys.executable, "-c", HANGS], capture_output=True, text=True, timeout=DEADLINE, check=True
    )
    assert done.stdout == "done\n"
