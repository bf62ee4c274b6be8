"""The hub's side of the PAM broker: starts it, and holds the conversations with its children."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from workshop_hub.errors import WorkshopError
from workshop_hub.system import pam_broker
from workshop_hub.system.deadline import within
from workshop_hub.system.pam import Prompt, Verdict
from workshop_hub.system.pam_desk import peer
from workshop_hub.system.sockets import closing
from workshop_hub.system.turns import Turns

COMMAND = (sys.executable, "-m", pam_broker.__name__)

PASSED_ON = (
    *("HOME", "KRB5_CONFIG", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "PATH"),
    *("PYTHONHOME", "PYTHONNOUSERSITE", "PYTHONPATH", "TZ"),
)
"""Variables of the hub's that the broker has too: none of its secrets."""

TURN_TIMEOUT = 60.0
"""Seconds that PAM may take between two words of it. A directory service may be slow."""

PATIENCE = 1.0
"""Seconds after which a child of the broker's is taken to wait for something, and not to work."""

SESSIONS_AT_ONCE = 16
"""Orders about sessions at the same time, beside logins: PAM waits more than it works for them."""

SESSION_PATIENCE = 5.0
"""Seconds after which such an order does not count: others do not wait for a session that hangs."""

CLOSE_WAIT = 600.0
"""Seconds that an order to close a session waits for its turn: what is not sent is not closed."""

END_TIMEOUT = 10.0
"""Seconds in which a broker ends that is not wanted any more."""

MOST = 200
"""Logins at the same time, of a hub that has a thousand files to open; more are sent away."""

HEARD_MAX = 4 * 2**20
"""Bytes at most of what is said at once: a list of sessions, with names of any length."""

Converse: TypeAlias = "Callable[[list[Prompt]], Awaitable[Sequence[str | None] | None]]"
"""Answers to as many prompts, None for those that want none; or None to give up."""


@dataclass(frozen=True)
class Attempt:
    """A login, as PAM is to be asked about it: see pam.transact for the fields.

    secrets: answers to the first hidden prompts: the password, and what the login page asks for
    beside it.
    """

    name: str
    service: str
    encoding: str = "utf8"
    account: bool = True
    change: bool = False
    rhost: str = ""
    secrets: tuple[str, ...] = field(default=(), repr=False)


Way: TypeAlias = "Sequence[str] | Path"
"""To a broker: the command that starts it, or the socket at which one listens that is root."""


class Broker:
    """Asks PAM in processes that are none of the hub's.

    way: to the broker, which is not started before it is needed; or what finds one then. at_once:
    how many of its children work at the same time; those that wait for something do not count.
    """

    def __init__(
        self,
        way: Way | Callable[[], Awaitable[Way]] = COMMAND,
        *,
        at_once: int = os.cpu_count() or 1,
    ) -> None:
        self._way = way
        self._turns = Turns(at_once, PATIENCE)
        self._session_turns = Turns(SESSIONS_AT_ONCE, SESSION_PATIENCE)
        self._asking = 0
        self._beginning = asyncio.Lock()
        self._control: socket.socket | None = None
        self._process: asyncio.subprocess.Process | None = None

    async def ask(
        self, attempt: Attempt, converse: Converse, *, timeout: float = TURN_TIMEOUT
    ) -> Verdict:
        """Ask PAM about a login. timeout: seconds for each turn, and to wait for it.

        Raises WorkshopError where there is no answer in time, or no broker.
        """
        if self._asking >= MOST:
            raise WorkshopError(
                f"{self._asking} logins are being checked already.", remedy="Try again in a moment."
            )
        self._asking += 1
        try:
            with _in_words("check the password", timeout):
                return await self._ask(asdict(attempt), converse, timeout)
        finally:
            self._asking -= 1

    async def carry_out(self, order: dict[str, Any], *, timeout: float) -> dict[str, Any]:
        """Have an order about a session carried out; return the answer, as pam_sessions has both.

        timeout: seconds, from when its turn has come. Raises WorkshopError where there is no
        answer in time, or no broker.
        """
        does = {"open": "open a session", "close": "close a session", "list": "list sessions"}
        what = does[order["session"]]
        wait = CLOSE_WAIT if order["session"] == "close" else timeout
        async with AsyncExitStack() as turn:
            with _in_words(what, wait):
                await within(wait, turn.enter_async_context(self._session_turns.taken()))
            with _in_words(what, timeout), ExitStack() as opened:
                _, heard = await within(timeout, self._begin_talk(opened, order))
                return heard

    async def close(self) -> None:
        """End the broker; conversations that go on are not waited for."""
        async with self._beginning:
            await self._end()

    async def _ask(self, said: dict[str, Any], converse: Converse, timeout: float) -> Verdict:
        with ExitStack() as opened:
            talk, heard = await within(timeout, self._begin_login(opened, said))
            while "verdict" not in heard:
                prompts = [Prompt(*each) for each in heard["prompts"]]
                answers = {"answers": await converse(prompts)}
                heard = await within(timeout, self._go_on(talk, answers))
            return Verdict(**heard["verdict"])

    async def _begin_login(
        self, opened: ExitStack, said: dict[str, Any]
    ) -> tuple[socket.socket, dict[str, Any]]:
        async with self._turns.taken():
            return await self._begin_talk(opened, said)

    async def _begin_talk(
        self, opened: ExitStack, said: dict[str, Any]
    ) -> tuple[socket.socket, dict[str, Any]]:
        """Begin a conversation, which ends with `opened`; return it, and its first answer."""
        ours, theirs = socket.socketpair()
        talk = opened.enter_context(closing(ours))
        with theirs:
            talk.setblocking(False)
            await self._hand_over(theirs, said)
        return talk, await _answer(talk, said)

    async def _go_on(self, talk: socket.socket, said: dict[str, Any]) -> dict[str, Any]:
        async with self._turns.taken():
            return await _answer(talk, said)

    async def _hand_over(self, theirs: socket.socket, said: dict[str, Any]) -> None:
        """Give the broker a child's end of a conversation that begins with what is said.

        Raises OSError and WorkshopError.
        """
        told = json.dumps({"name": said["name"], "session": "session" in said}).encode()
        async with self._beginning:
            if self._control is not None:
                with suppress(ConnectionError):  # it has ended
                    socket.send_fds(self._control, [told], [theirs.fileno()])
                    return
            await self._end()
            self._control = await self._begin()
            socket.send_fds(self._control, [told], [theirs.fileno()])

    async def _begin(self) -> socket.socket:
        """Return a connection to a broker, which is started if need be. OSError, WorkshopError."""
        way = await self._way() if callable(self._way) else self._way
        return connected(way) if isinstance(way, Path) else await self._start(way)

    async def _start(self, command: Sequence[str]) -> socket.socket:
        control, stdin = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        control.setblocking(False)
        with stdin:
            try:
                self._process = await asyncio.create_subprocess_exec(
                    *command,
                    stdin=stdin.fileno(),
                    stdout=asyncio.subprocess.DEVNULL,
                    env={name: os.environ[name] for name in PASSED_ON if name in os.environ},
                    cwd="/",
                    start_new_session=True,
                )
            except BaseException:
                control.close()
                raise
        return control

    async def _end(self) -> None:
        if self._control is not None:
            self._control.close()
            self._control = None
        if self._process is not None:
            # sudo cannot be killed: what it runs ends with the connection
            with suppress(ProcessLookupError, PermissionError):
                self._process.kill()
            process, self._process = self._process, None
            with suppress(TimeoutError):  # another one can be started all the same
                await within(END_TIMEOUT, process.wait())


@contextmanager
def _in_words(what: str, timeout: float) -> Iterator[None]:
    """Say what the machine did not do, where it did not within `timeout` seconds, or failed."""
    try:
        yield
    except TimeoutError as exc:
        raise WorkshopError(
            f"The machine did not {what} within {timeout:g} seconds.",
            remedy="Try again later, and tell the administrator.",
        ) from exc
    except (OSError, ValueError) as exc:
        raise WorkshopError(
            f"The machine could not {what}: {exc}.",
            remedy="Ask the administrator to look at the hub's log.",
        ) from exc


def connected(place: Path) -> socket.socket:
    """Return a connection to the broker that listens at `place`. Raises WorkshopError."""
    control = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        control.setblocking(False)
        control.connect(str(place))
        if peer(control) != 0:
            raise PermissionError(1, "what listens there is not root's")
    except OSError as exc:
        control.close()
        raise WorkshopError(
            f"No PAM broker can be reached at {place}: {exc.strerror or exc}.",
            remedy="Ask the administrator to look: systemctl status workshop-users-pam.socket",
        ) from exc
    return control


async def _answer(talk: socket.socket, said: dict[str, Any]) -> dict[str, Any]:
    """Say something, and return what is said to it. OSError, ValueError."""
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(talk, json.dumps(said).encode() + b"\n")
    heard = b""
    while not heard.endswith(b"\n"):
        piece = await loop.sock_recv(talk, pam_broker.LINE_MAX)
        if not piece or len(heard) > HEARD_MAX:
            raise ConnectionError("PAM has ended the process that asked it")
        heard += piece
    answer: dict[str, Any] = json.loads(heard)
    return answer
