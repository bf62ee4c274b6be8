"""Carries out a hub's orders about PAM sessions: open one, close one, list those that are kept.

An order is JSON with "session" ("open", "close" or "list"), "service", "encoding", and "hub", the
hub's id; "name" and "server" say whose session it is, and "rhost" from where a server is started.
A hub finds its own sessions only: the kernel says as which account it runs, and its id is told.

    PYTHON -I -m workshop_hub.system.pam_sessions

closes all sessions of all hubs, for a machine that stops.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from workshop_hub.system import pam_keeper, session_files
from workshop_hub.system.pam_desk import Guard, complain, peer
from workshop_hub.system.pam_keeper import SYSTEM_ERROR, Outcome
from workshop_hub.system.processes import descendants
from workshop_hub.system.session_files import Kept, Session

KEPT_MAX = 4096
"""Sessions at the same time on this machine, of all hubs."""

CLOSE_TIMEOUT = 30.0
"""Seconds that PAM may take to close a session before its process is ended."""

END_TIMEOUT = 5.0
"""Seconds in which the kernel ends a process."""

WORD_MAX = 255
"""Characters of a hub's id, and of a server's name."""


def carried_out(order: dict[str, Any], guard: Guard, asker: socket.socket) -> dict[str, Any]:
    """Carry an order out; return the answer. Blocks. asker: who gave it.

    The answer to "list" has "sessions", pairs of user and server; all others are the fields of
    Outcome. Raises KeyError and TypeError for an order that makes no sense.
    """
    if refused := guard.refusal(order):
        return asdict(Outcome(refused.code, refused.message))
    words = [_word(order[name]) for name in ("hub", "name", "server")]
    session = Session(peer(asker), *words)
    try:
        if order["session"] == "list":
            return {"sessions": [[each.user, each.server] for each in own(session)]}
        if order["session"] == "close":
            return asdict(close(session))
        if order["session"] == "open":
            asked = {name: _word(order[name]) for name in ("service", "encoding", "rhost")}
            return asdict(open_one(session, asked, asker))
    except OSError as exc:
        return asdict(Outcome(SYSTEM_ERROR, f"the machine is in the way: {exc.strerror or exc}"))
    raise KeyError(order["session"])


def own(hub: Session) -> list[Session]:
    """Return the sessions of a hub. hub: any of them."""
    found = []
    for path in session_files.paths():
        if kept := session_files.find(path):
            os.close(kept.file)
            found.append(kept.session)
    return [each for each in found if (each.uid, each.hub) == (hub.uid, hub.hub)]


def open_one(session: Session, asked: Mapping[str, str], asker: socket.socket) -> Outcome:
    """Open a session that is kept when this process has ended; first close the one that is open.

    asked: see pam_keeper.begin.
    """
    close(session)
    count = len(session_files.paths())
    if count >= KEPT_MAX:
        complain(f"{count} sessions are open already")
        return Outcome(SYSTEM_ERROR, f"{count} sessions are open already")
    with pam_keeper.begin(session, asked) as keeper:
        said = _all_of(keeper, asker)
    if not said:
        return Outcome(SYSTEM_ERROR, "the process that was to open it has ended")
    return Outcome(**json.loads(said))


def _all_of(keeper: socket.socket, asker: socket.socket) -> bytes:
    """Return what the keeper says; nothing where the asker goes before. The keeper stays."""
    poll = select.poll()
    poll.register(keeper, select.POLLIN)
    poll.register(asker, 0)  # tells when the other end is closed
    said = b""
    while True:
        if any(number == asker.fileno() for number, _ in poll.poll()):
            return b""
        piece = keeper.recv(65536)
        if not piece:
            return said
        said += piece


def close(session: Session) -> Outcome:
    """Close a session, by force where that takes too long; do nothing where none is kept."""
    return close_all([session.path])[0]


def close_all(paths: Iterable[Path]) -> list[Outcome]:
    """Close the sessions with these files, all at the same time; return what came of each."""
    told = [_told(path) for path in paths]
    deadline = time.monotonic() + CLOSE_TIMEOUT
    return [Outcome() if each is None else _outcome(*each, deadline) for each in told]


def _told(path: Path) -> tuple[Kept, int] | None:
    """Tell a keeper to close its session; return both, with the process as pidfd_open(2) has it.

    None where there is none any more.
    """
    kept = session_files.find(path)
    if kept is None:
        return None
    with suppress(ProcessLookupError):
        process = os.pidfd_open(kept.pid)
        if kept.is_kept:  # else the number is another process's by now
            signal.pidfd_send_signal(process, signal.SIGTERM)
            return kept, process
        os.close(process)
    os.close(kept.file)
    return None


def _outcome(kept: Kept, process: int, deadline: float) -> Outcome:
    """Wait for a keeper's end, or bring it about, with what its modules have started."""
    try:
        if _has_ended(process, deadline - time.monotonic()):
            return Outcome(**kept.outcome())
        for pid in descendants(kept.pid):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(process, signal.SIGKILL)
        _has_ended(process, END_TIMEOUT)
    finally:
        os.close(process)
        os.close(kept.file)
    session_files.find(kept.path)  # what is left of it
    return Outcome(SYSTEM_ERROR, f"PAM did not close it in {CLOSE_TIMEOUT:g} s; it was ended")


def _has_ended(process: int, timeout: float) -> bool:
    poll = select.poll()
    poll.register(process, select.POLLIN)
    return bool(poll.poll(max(0, timeout) * 1000))


def _word(value: object) -> str:
    if not isinstance(value, str) or len(value) > WORD_MAX:
        raise TypeError("an order has something else than a short text")
    return value


if __name__ == "__main__":
    for failed in filter(None, (outcome.code for outcome in close_all(session_files.paths()))):
        complain(f"a session was not closed well: PAM error {failed}")
