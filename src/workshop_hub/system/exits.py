"""Be told at once when a process ends, whoever's it is: no thread, and no process of ours."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable


def on_exit(pid: int, call: Callable[[], None]) -> Callable[[], None]:
    """Have the event loop call `call` once when process `pid` has ended.

    Returns a function that gives up the watch; it may be called at any time. Where there is no
    pidfd to be had (no descriptor left, a Python built without it) nothing is watched: whoever
    asks must look now and then anyway.
    Source: pidfd_open(2), which needs no privilege over the process.
    """
    if not hasattr(os, "pidfd_open"):
        return _nothing
    loop = asyncio.get_running_loop()
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return loop.call_soon(call).cancel
    except OSError:
        return _nothing
    watching = True

    def give_up() -> None:
        nonlocal watching
        if watching:
            watching = False
            loop.remove_reader(fd)
            os.close(fd)

    def ended() -> None:
        give_up()
        call()

    loop.add_reader(fd, ended)
    return give_up


def _nothing() -> None:
    """There is no watch to give up."""
