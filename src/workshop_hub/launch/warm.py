"""The hub's side of the warm launcher: starts it, asks it for servers, does without it.

See `forkserver` for the protocol. Whatever keeps a server from being started warm leaves it to the
launcher that runs sudo, and is told in the log.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from logging import Logger, LoggerAdapter
from pathlib import Path, PurePath
from typing import Any, BinaryIO

from workshop_hub.errors import LauncherRefused, StartTimeout, WorkshopError
from workshop_hub.launch import message, running, sudo
from workshop_hub.launch.message import Order, Target
from workshop_hub.launch.running import Launched
from workshop_hub.launch.sudo import SIGNAL_TIMEOUT, SudoLauncher
from workshop_hub.launch.talk import NotStarted, connected, listening, said_by
from workshop_hub.system import safety
from workshop_hub.system.deadline import within
from workshop_hub.system.sockets import closing
from workshop_hub.system.turns import Turns

SINGLEUSER = "jupyterhub-singleuser"
"""Name of the only program that is started warm."""

IMPORT_TIMEOUT = 60.0
"""Seconds that a launcher may take to begin; 2 on a usual machine."""

RETRY = 10.0
"""Seconds after a launcher that could not be started until that is tried again."""


def command(
    launcher: Sequence[str],
    sudo: Sequence[str],
    *,
    uids: tuple[int, int],
    group: str,
    program: str,
    fast: bool,
) -> list[str]:
    """Return what starts a launcher that ends with the hub. sudo: empty for one that needs none."""
    as_root = [*sudo, "-n", "--"] if sudo else []
    options = ["--with-hub", f"--uids={uids[0]}-{uids[1]}", f"--program={program}"]
    options += [f"--group={group}"] if group else []
    options += [] if fast else ["--whole"]
    return [*as_root, *launcher, *options]


ABREAST = 4 * (os.cpu_count() or 1)
"""Servers that begin at the same time. More would only push each other out of the processors'
caches: a class of 100 at once needs twice the processor time."""

PATIENCE = 2.0
"""Seconds after which the others do not wait any more for a server that still begins."""


@dataclass
class WarmLauncher:
    """Starts servers by a launcher that has imported the single-user server.

    place: the launcher's socket. argv: what starts a launcher; empty where systemd does.
    fallback: starts what cannot be started warm. words: file for what the launcher prints.
    files: what nobody may be able to change but root and the account `owner`.
    """

    place: Path
    argv: Sequence[str]
    fallback: SudoLauncher
    words: Path
    log: Logger | LoggerAdapter[Logger]
    files: Sequence[Path] = ()
    owner: int = 0
    _words_before: int = 0
    _lease: socket.socket | None = None
    _loop: asyncio.AbstractEventLoop | None = None
    _not_before: float = 0.0
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    _turns: Turns = field(default_factory=lambda: Turns(ABREAST, PATIENCE))

    async def start(
        self,
        order: Order,
        account: str,
        *,
        group: Path | None,
        status: int,
        log: int,
        timeout: float,
    ) -> Launched:
        """Have the server started; returns when it serves, or has ended. See `SudoLauncher`."""
        try:
            if PurePath(order.cmd[0]).name != SINGLEUSER:
                raise NotStarted(f"its cmd is {order.cmd[0]}")
            serves = await within(timeout, self._start(order, group, status, log))
        except TimeoutError as exc:
            raise self._too_late(timeout, begun=bool(os.fstat(status).st_size)) from exc
        except (NotStarted, OSError) as exc:
            self.log.warning("Server %s is started by sudo, not warm: %s", order.key, exc)
        else:
            return Launched(0, serves)
        return await self.fallback.start(
            order, account, group=group, status=status, log=log, timeout=timeout
        )

    async def signal(
        self, target: Target, account: str | None, signals: Iterable[int], *, tree: bool
    ) -> None:
        """Signal a server's session, or with `tree` everything it started. WorkshopError."""
        signals = tuple(signals)
        told = message.signal_message(target, signals, tree=tree)
        if account is None:
            said = None
        else:
            try:
                said = await within(SIGNAL_TIMEOUT, self._signal(told))
            except (NotStarted, OSError, TimeoutError) as exc:
                self.log.warning("The warm launcher signals nothing: %s", exc)
                said = None
        if said is None:
            await self.fallback.signal(target, account, signals, tree=tree)
        elif refusal := message.read_report(said).refusal:
            raise LauncherRefused(refusal.message)

    def explain(self, code: int, words: str, account: str) -> WorkshopError:
        """Say why there is no report."""
        return self.fallback.explain(code, words, account)

    async def state(self) -> dict[str, Any]:
        """Return what the launcher says of itself, which is started where there is none.

        pid: its process. options: its command line. modules, servers: how many it has. trouble:
        why it starts no server, or "". without: server extensions that it does not share, and
        why. Raises LauncherRefused where none answers.
        """
        try:
            return await within(IMPORT_TIMEOUT, self._state())
        except (NotStarted, OSError, TimeoutError, ValueError) as exc:
            raise LauncherRefused(
                f"The warm launcher does not answer: {exc}.",
                remedy=f"Servers are started by sudo meanwhile. {self.where_it_tells}",
            ) from exc

    def _too_late(self, timeout: float, *, begun: bool) -> StartTimeout:
        if begun:
            what = f"The server did not listen within {timeout:g} seconds."
            return StartTimeout(what, remedy=StartTimeout.advice)
        return StartTimeout(
            f"The warm launcher did not start the server within {timeout:g} seconds.",
            remedy=f"Try again, or ask the administrator. {self.where_it_tells}",
        )

    @property
    def where_it_tells(self) -> str:
        """Where to look for what the launcher has printed, as a sentence."""
        if self.argv:
            return f"{self.words} may tell why."
        return "The log of the unit that runs it may tell why: journalctl -u workshop-users.service"

    def _rule(self) -> str:
        """Tell what has to be allowed where sudo is to start the launcher; "" where it is not."""
        if "--" not in self.argv:
            return ""
        allowed = sudo.escaped(self.argv[self.argv.index("--") + 1 :])
        line = f"{sudo.hub_user()} ALL=(root) NOPASSWD: {allowed}"
        return f". /etc/sudoers.d/workshop-hub must have the line: {line}"

    def _last_word(self) -> str:
        """Return the last line that a launcher has printed that was started here, after ": "."""
        with suppress(OSError), self.words.open("rb") as words:
            words.seek(self._words_before)
            lines = words.read(1 << 16).decode(errors="replace").strip().splitlines()
            return f": {lines[-1][:300]}" if lines else ""
        return ""

    async def _state(self) -> dict[str, Any]:
        state = await self._ask_state()
        own = tuple(self.argv[-len(state["options"]) :])
        if self.argv and own != tuple(state["options"]):
            self.log.info("The warm launcher of an earlier hub has other options; another begins")
            self.release()
            self.place.unlink(missing_ok=True)
            state = await self._ask_state()
        if self.argv and self._lease is None:
            self._hold(connected(self.place))
        return state

    async def _ask_state(self) -> dict[str, Any]:
        said = await self._ask(b"?")
        if not said:
            raise NotStarted(f"it listens to another account, or has ended{self._last_word()}")
        self._not_before = 0.0
        return dict(json.loads(said))

    async def reload(self) -> None:
        """Have it import everything anew. Raises NotStarted, OSError, TimeoutError."""
        await within(IMPORT_TIMEOUT, self._ask(b"R"))

    async def _start(self, order: Order, group: Path | None, status: int, log: int) -> bool:
        """Say that the server serves, or has ended, or the launcher has; NotStarted.

        The port was bound for it, as its user, before it ran: whoever says that she serves it and
        does not harms nobody but herself.
        """
        async with self._turns.taken():
            said = await self._say_start(order, group, status, log)
        if said:
            self._not_before = 0.0  # should it end, another may work as well
        if said.startswith("no "):
            raise NotStarted(said[3:].strip())
        if not said and not os.fstat(status).st_size:
            raise NotStarted("the launcher has ended")
        return said == "ready\n" and order.port > 0

    async def _say_start(self, order: Order, group: Path | None, status: int, log: int) -> str:
        """Return what is answered to an order; NotStarted."""
        with closing(await self._connect()) as talk:
            with self._entry(group) as entry:
                socket.send_fds(talk, [b"S"], [status, log, *entry])
            talked = asyncio.ensure_future(said_by(talk, message.start_message(order), "ready"))
            try:
                return await asyncio.shield(talked)
            except asyncio.CancelledError:
                # what was started can be ended only when it is known
                await asyncio.wait({talked}, timeout=running.GRACE)
                talked.cancel()
                raise

    async def _signal(self, told: bytes) -> str:
        """Return the report on signals. No launcher is started for them: sudo is sooner there."""
        with closing(connected(self.place)) as talk:
            said = await said_by(talk, b"K" + told)
        if not said:
            raise NotStarted("it has ended")
        return said

    async def _ask(self, wanted: bytes) -> str:
        """Return all that the launcher answers."""
        with closing(await self._connect()) as talk:
            return await said_by(talk, wanted)

    @contextmanager
    def _entry(self, group: Path | None) -> Iterator[list[int]]:
        """Open what lets a process into the cgroup: with the hub's rights, not the launcher's."""
        if group is None:
            yield []
            return
        entry = os.open(group / "cgroup.procs", os.O_WRONLY | os.O_CLOEXEC)
        try:
            yield [entry]
        finally:
            os.close(entry)

    async def _connect(self) -> socket.socket:
        """Return a connection to the launcher, which is started where there is none."""
        try:
            return connected(self.place)
        except OSError as exc:
            if not self.argv:
                raise NotStarted(f"{self.place}: {exc.strerror}") from exc
        async with self._lock:
            try:
                return connected(self.place)
            except OSError:
                await self._begin()
        return connected(self.place)

    async def _begin(self) -> None:
        """Start a launcher, and hold on to it. Raises NotStarted."""
        if time.monotonic() < self._not_before:
            raise NotStarted(f"the launcher could not be started. {self.where_it_tells}")
        self._not_before = time.monotonic() + RETRY
        for file in self.files:
            if reason := safety.trouble(file, self.owner):
                raise NotStarted(f"it is not safe to run: {reason.removesuffix('.')}")
        self.place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with listening(self.place) as listener, _appending(self.words) as words:
            self._words_before = words.tell()
            process = await asyncio.create_subprocess_exec(
                *self.argv,
                stdin=listener.fileno(),
                stdout=words,
                stderr=words,
                env=_environment(),
                cwd="/",
                start_new_session=True,
            )
        if code := await process.wait():
            self.place.unlink(missing_ok=True)
            raise NotStarted(f"it ended with exit code {code}{self._last_word()}{self._rule()}")
        self._hold(connected(self.place))
        self.log.info("The warm launcher was started")

    def _hold(self, lease: socket.socket) -> None:
        """Keep the launcher for as long as this hub runs, and notice its end."""
        self.release()
        lease.send(b"L")
        self._loop = loop = asyncio.get_running_loop()

        def gone() -> None:
            loop.remove_reader(lease)
            lease.close()
            if self._lease is lease:
                self._lease = None
                self.log.warning("The warm launcher has ended; the next start begins another")

        self._lease = lease
        loop.add_reader(lease, gone)

    def release(self) -> None:
        """Let the launcher end when its last server has."""
        if self._lease is not None and self._loop is not None:
            with suppress(RuntimeError):  # the loop is closed
                self._loop.remove_reader(self._lease)
            self._lease.close()
            self._lease = None


def _appending(file: Path) -> BinaryIO:
    """Open a log that is the hub's alone."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
    return os.fdopen(os.open(file, flags, 0o600), "ab")


def _environment() -> dict[str, str]:
    """Return what the launcher keeps of the hub's own environment, see forkserver.PASSED_ON."""
    names = ("LANG", "LC_ALL", "PATH")
    own = {name: os.environ[name] for name in names if name in os.environ}
    return {"LANG": "C.UTF-8", "PATH": running.ENVIRONMENT["PATH"], **own}
