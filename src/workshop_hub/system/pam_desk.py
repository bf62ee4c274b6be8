"""Takes conversations from hubs, and makes a process for each: at once, or when its turn comes."""

from __future__ import annotations

import json
import os
import select
import selectors
import socket
import struct
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from workshop_hub.system import accounts
from workshop_hub.system.pam import DENIED, Verdict
from workshop_hub.system.pam_rules import Pace, Rules

TOLD_MAX = 4096
"""Bytes of what a hub says when it hands a conversation over; a name takes at most 1600."""

HUBS_MAX = 8
"""Connections of hubs at the same time: that of the running one, and those of doctors."""

TALKS_MAX = 256
"""Logins at the same time that a hub which is not root may have asked about; orders, as many."""

WAITING_MAX = 8
"""Logins with one name that may wait for their turn; more are sent away."""

_CREDENTIALS = struct.Struct("iII")
"""struct ucred of unix(7): pid, uid, gid."""


@dataclass
class Guard:
    """Stands by in a conversation's process.

    rules: None where everything may be asked. session: whether it is about a session, as was
    announced; those do not wait for the pace of logins.
    """

    rules: Rules | None
    name: str
    report: socket.socket
    session: bool = False

    def refusal(self, order: dict[str, Any]) -> Verdict | None:
        """Return the answer to what PAM is not asked about."""
        if self.session != bool(order.get("session")):
            reason = "something else than was announced"
        else:
            reason = self.rules.refusal(self.name, order) if self.rules else ""
        if not reason:
            return None
        complain(f"{self.name!a:.80} is refused: {reason}")
        return Verdict(DENIED, "authentication", f"the broker did not ask it: {reason}")

    def note(self, verdict: Verdict) -> None:
        """Tell the desk what came out, before the hub hears it."""
        with suppress(OSError):  # the broker has ended
            self.report.send(str(verdict.delay).encode())


@dataclass
class Talk:
    """A conversation that was handed over. asker: the child's end of it. session: see Guard."""

    name: str
    asker: socket.socket
    session: bool = False


Serve = Callable[[socket.socket, Guard], None]


@dataclass
class Desk:
    """Listens to hubs. serve: what a conversation's process does, which ends in it.

    rules: None for a hub that is root, whom nothing is refused and who keeps the pace himself.
    """

    serve: Serve
    rules: Rules | None
    pace: Pace = field(default_factory=Pace)
    waiting: list[Talk] = field(default_factory=list)
    files: selectors.BaseSelector = field(default_factory=selectors.DefaultSelector)
    hubs: int = 0
    children: Counter[bool] = field(default_factory=Counter)
    """Of logins (False), and of orders about sessions (True)."""

    def run(self, place: socket.socket) -> None:
        """Serve a hub's connection until it is closed, or a listening socket for ever."""
        place.setblocking(False)
        listens = bool(place.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
        if listens:
            self.files.register(place, selectors.EVENT_READ, self.admit)
        else:
            self.join(place)
        while listens or self.hubs:
            now = time.monotonic()
            for key, _ in self.files.select(self.pace.next(now) if self.waiting else None):
                key.data(key.fileobj)
            self.begin_due()

    def admit(self, listener: socket.socket) -> None:
        """Take a connection of somebody who may ask."""
        try:
            hub, _ = listener.accept()
        except OSError:  # gone already, or too many open files
            return
        uid = peer(hub)
        if uid not in (0, self.rules.hub_uid if self.rules else 0):
            complain(f"uid {uid} may not ask")
            hub.close()
        elif self.hubs >= HUBS_MAX:
            complain(f"{self.hubs} connections are open already")
            hub.close()
        else:
            self.join(hub)

    def join(self, hub: socket.socket) -> None:
        """Listen to a hub."""
        hub.setblocking(False)
        self.hubs += 1
        self.files.register(hub, selectors.EVENT_READ, self.hear)

    def hear(self, hub: socket.socket) -> None:
        """Take a conversation over, or note that the hub has gone."""
        said = b""
        files: list[int] = []
        try:
            said, files, _, _ = socket.recv_fds(hub, TOLD_MAX, 1)
        except BlockingIOError:
            return
        except OSError:
            pass
        for number in files:
            os.set_inheritable(number, False)  # what a module starts could answer for PAM
            self.take(said, number, peer(hub))
        if not said:
            self.leave(hub)
            self.hubs -= 1

    def take(self, said: bytes, number: int, uid: int) -> None:
        """Let a conversation begin in its turn; end one that cannot.

        uid: the hub's. It made both ends: one that leads to somebody else's program would have us
        speak to that as root.
        """
        try:
            asker = socket.socket(fileno=number)
        except OSError:  # no socket
            os.close(number)
            return
        try:
            told = json.loads(said)
            name = told["name"]
            session = bool(told.get("session"))
            sound = isinstance(name, str) and len(name) <= accounts.NAME_MAX
            sound = sound and (asker.family, asker.type) == (socket.AF_UNIX, socket.SOCK_STREAM)
            sound = sound and peer(asker) == uid
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
            sound = False
        if not sound:
            complain("a hub has said what makes no sense")
        elif self.rules and self.crowded(name, session):
            complain(f"{name!a:.80} is sent away: too many conversations")
        else:
            self.waiting.append(Talk(name, asker, session))
            return
        asker.close()

    def crowded(self, name: str, session: bool) -> bool:
        """Say whether one more about `name` is too much.

        Guesses at a name are not to keep its owner from starting a server, nor its session open.
        """
        self.drop_gone()
        like = [talk for talk in self.waiting if talk.session == session]
        if self.children[session] + len(like) >= TALKS_MAX:
            return True
        return not session and sum(talk.name == name for talk in like) >= WAITING_MAX

    def drop_gone(self) -> None:
        """Forget the conversations that wait and whose asker has given up: they cost no turn."""
        poll = select.poll()
        for talk in self.waiting:
            poll.register(talk.asker, 0)  # tells when the other end is closed
        gone = {number for number, _ in poll.poll(0)}
        for talk in self.waiting:
            if talk.asker.fileno() in gone:
                talk.asker.close()
        self.waiting = [talk for talk in self.waiting if talk.asker.fileno() != -1]

    def begin_due(self) -> None:
        """Begin every conversation whose time has come."""
        self.drop_gone()
        waiting, self.waiting = self.waiting, []
        for place, talk in enumerate(waiting):
            free = self.rules is None or talk.session
            if free or self.pace.begin(talk.name, time.monotonic()):
                self.begin(talk, [*self.waiting, *waiting[place + 1 :]])
            else:
                self.waiting.append(talk)

    def begin(self, talk: Talk, others: list[Talk]) -> None:
        """Make a process for a conversation. others: those that wait."""
        with ExitStack() as opened:
            opened.callback(talk.asker.close)
            try:
                ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
                opened.callback(theirs.close)
                self.files.register(ours, selectors.EVENT_READ, partial(self.note, talk))
                self.children[talk.session] += 1
                child = os.fork()
            except OSError as exc:  # whoever asks is told by the end of it, and so are we
                complain(f"no process for {talk.name!a:.80}: {exc.strerror}")
                return
            if child == 0:
                try:
                    self.forget(others)
                    self.serve(talk.asker, Guard(self.rules, talk.name, theirs, talk.session))
                finally:
                    os._exit(1)

    def forget(self, others: list[Talk]) -> None:
        """Close, in a conversation's process, what is not its own.

        Whoever talks to another one notices its end by its socket, of which there is to be no
        second copy.
        """
        for key in list(self.files.get_map().values()):
            key.fileobj.close()  # type: ignore[union-attr]
        self.files.close()
        for talk in others:
            talk.asker.close()

    def note(self, talk: Talk, report: socket.socket) -> None:
        """Take note of what a conversation has come to, or of its end."""
        said = b""
        with suppress(OSError):
            said = report.recv(64)
        if said:
            self.pace.end(talk.name, float(said), time.monotonic())
            return
        self.leave(report)
        self.children[talk.session] -= 1

    def leave(self, other: socket.socket) -> None:
        """Listen to this socket no more."""
        self.files.unregister(other)
        other.close()


def peer(connection: socket.socket) -> int:
    """Return the uid of who made the other end: connected, listened, or made both. OSError."""
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    _pid, uid, _gid = _CREDENTIALS.unpack(raw)
    return int(uid)


def complain(what: str) -> None:
    """Tell the administrator, in the log."""
    with suppress(OSError, ValueError):  # whoever reads it has gone
        print(f"PAM broker: {what}", file=sys.stderr, flush=True)  # noqa: T201
