"""Run what a site has given, commands and functions, with a deadline and off the event loop."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import os
import signal
import threading
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from workshop_hub.system.deadline import within

OUTPUT_KEPT = 8192
"""Bytes of a command's output that are kept, the last ones; the rest is read and dropped."""

GRACE = 5.0
"""Seconds that a command gets to end after a signal."""

SBIN = "/usr/local/sbin:/usr/sbin:/sbin"

_HUB_SECRETS = ("CONFIGPROXY_AUTH_TOKEN", "JUPYTERHUB_CRYPT_KEY", "JPY_COOKIE_SECRET")


def environment(current: Mapping[str, str]) -> dict[str, str]:
    """Return the hub's environment for a command: without its secrets, with the sbin folders."""
    kept = {key: value for key, value in current.items() if key not in _HUB_SECRETS}
    kept["PATH"] = f"{current.get('PATH', '/usr/bin:/bin')}:{SBIN}"
    return kept


@dataclass(frozen=True)
class Outcome:
    """How a command ended.

    exit_code: negative for a signal, as in subprocess; None where it did not end in time.
    output: the last of what it wrote, on both streams.
    """

    exit_code: int | None
    output: str


@dataclass(frozen=True)
class Raised:
    """What a function raised, in the place of what it would have returned."""

    error: BaseException


class Runner:
    """Runs one thing at a time, and remembers what could not be ended."""

    def __init__(self) -> None:
        self._process: asyncio.subprocess.Process | None = None
        self._thread: threading.Thread | None = None

    @property
    def stuck(self) -> str:
        """What still runs after its deadline, for a message; "" where nothing does."""
        if self._process is not None and self._process.returncode is None:
            return f"an earlier command (process {self._process.pid}) still runs"
        if self._thread is not None and self._thread.is_alive():
            return f"an earlier function ({self._thread.name}) still runs"
        return ""

    async def command(
        self, words: Sequence[str], *, timeout: float, given: bytes | None = None
    ) -> Outcome:
        """Run a command in the hub's folder, in a session of its own. timeout: seconds.

        given: what it reads on its standard input, at most a pipe's worth (64 kB). What outlives
        the command and still holds its output is not waited for.
        Raises OSError or ValueError where it cannot be started.
        """
        read_end, write_end = os.pipe()
        kept = bytearray()
        os.set_blocking(read_end, False)
        loop = asyncio.get_running_loop()
        loop.add_reader(read_end, _collect, read_end, kept, loop)
        try:
            try:
                process = await _started(words, given, write_end)
            finally:
                os.close(write_end)
            try:
                await within(timeout, process.wait())
            except TimeoutError:
                return Outcome(None, _text(kept))
            finally:
                await self._end(process)
            _collect(read_end, kept, loop)
            return Outcome(process.returncode, _text(kept))
        finally:
            loop.remove_reader(read_end)
            os.close(read_end)

    async def _end(self, process: asyncio.subprocess.Process) -> None:
        """End a command that still runs; sudo passes TERM on, and cannot be sent KILL by us."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            if process.returncode is not None:
                return
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, number)
            with contextlib.suppress(TimeoutError):
                await within(GRACE, process.wait())
        if process.returncode is None:
            self._process = process

    async def function(
        self, function: Callable[..., Any], *arguments: object, timeout: float
    ) -> object:
        """Return what a function, plain or async, returns, or Raised. timeout: seconds.

        A plain one runs in a thread of its own, which nothing can end: raises TimeoutError.
        """
        if _is_async(function):
            return await within(timeout, _settled(function(*arguments)))
        answer = await self._in_thread(function, arguments, timeout)
        if inspect.isawaitable(answer):
            return await within(timeout, _settled(answer))
        return answer

    async def _in_thread(
        self, function: Callable[..., Any], arguments: tuple[object, ...], timeout: float
    ) -> object:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[object] = loop.create_future()

        def settle(answer: object) -> None:
            if not future.done():
                future.set_result(answer)

        def work() -> None:
            answer: object
            try:
                answer = function(*arguments)
            except BaseException as exc:
                answer = Raised(exc)
            with contextlib.suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(settle, answer)

        # a daemon, unlike those of a pool: one that hangs does not keep the hub from ending
        thread = threading.Thread(target=work, name=name_of(function), daemon=True)
        thread.start()
        try:
            return await within(timeout, future)
        except (TimeoutError, asyncio.CancelledError):
            self._thread = thread
            raise


async def _started(
    words: Sequence[str], given: bytes | None, output: int
) -> asyncio.subprocess.Process:
    source = None
    try:
        if given is not None:
            source, sink = os.pipe()
            with os.fdopen(sink, "wb") as file:
                file.write(given)
        return await asyncio.create_subprocess_exec(
            *words,
            stdin=asyncio.subprocess.DEVNULL if source is None else source,
            stdout=output,
            stderr=output,
            start_new_session=True,
            env=environment(os.environ),
        )
    finally:
        if source is not None:
            os.close(source)


async def _settled(awaitable: Awaitable[object]) -> object:
    """Return what it returns, or Raised: a TimeoutError of its own is no missed deadline."""
    try:
        return await awaitable
    except Exception as exc:
        return Raised(exc)


def _is_async(function: Callable[..., Any]) -> bool:
    called = getattr(function, "__call__", None)  # noqa: B004 -- an object's, for its kind
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(called)


def name_of(function: Callable[..., Any]) -> str:
    """Return the function's name, for a message."""
    return str(getattr(function, "__qualname__", type(function).__qualname__))


def _collect(read_end: int, kept: bytearray, loop: asyncio.AbstractEventLoop) -> None:
    """Read what there is, at most a pipe's worth so that a flood does not hold the loop."""
    for _ in range(16):
        try:
            chunk = os.read(read_end, 4096)
        except BlockingIOError:
            return
        if not chunk:
            loop.remove_reader(read_end)
            return
        kept += chunk
        del kept[:-OUTPUT_KEPT]


def _text(kept: bytearray) -> str:
    return kept.decode("utf-8", "replace")
