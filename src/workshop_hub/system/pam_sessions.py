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
import resource
import select
import signal
import socket
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from workshop_hub.system import pam_keeper, processes, session_files
from workshop_hub.system.pam_desk import Guard, complain, peer
from workshop_hub.system.pam_keeper import SYSTEM_ERROR, Outcome
from workshop_hub.system.session_files import Kept, Session

KEPT_MAX = 4096
"""Sessions at the same time on this machine, of all hubs."""

CLOSE_TIMEOUT = 30.0
"""Seconds that PAM may take to close a session before its process is ended."""

END_TIMEOUT = 5.0
"""Seconds in which the kernel ends a process."""

LOOK_EVERY = 0.02
"""Seconds between two looks whether a keeper has ended."""

FILES_SPARE = 16
"""Files that Python, and a look into /proc, may have open beside those of sessions."""

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
        return asdict(_in_the_way(exc))
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
    """Close the sessions with these files, all at the same time; return what came of each.

    One whose file cannot be read keeps no other one open.
    """
    told = [_told(path) for path in paths]
    deadline = time.monotonic() + CLOSE_TIMEOUT
    return [each if isinstance(each, Outcome) else _outcome(each, deadline) for each in told]


def _told(path: Path) -> Kept | Outcome:
    """Tell a keeper to close its session; return what it keeps, or why it was not told."""
    kept = None
    try:
        kept = session_files.find(path)
        if kept is not None:
            _send(kept, signal.SIGTERM)
    except OSError as exc:
        if kept is not None:
            os.close(kept.file)
        return _in_the_way(exc)
    return kept or Outcome()


def _outcome(kept: Kept, deadline: float) -> Outcome:
    """Wait for a keeper's end, or bring it about, with what its modules have started."""
    try:
        if _has_ended(kept, deadline):
            died = {"code": SYSTEM_ERROR, "message": "its process ended before it was closed"}
            return Outcome(**(kept.outcome() or died))
        for pid in processes.descendants(kept.pid):
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        _send(kept, signal.SIGKILL)
        _has_ended(kept, time.monotonic() + END_TIMEOUT)
        session_files.find(kept.path)  # what is left of it
    except OSError as exc:
        return _in_the_way(exc)
    finally:
        os.close(kept.file)
    return Outcome(SYSTEM_ERROR, f"PAM did not close it in {CLOSE_TIMEOUT:g} s; it was ended")


def _send(kept: Kept, number: int) -> None:
    processes.send(kept.pid, [number], still=lambda: kept.is_kept)


def _has_ended(kept: Kept, deadline: float) -> bool:
    """Wait for a keeper's end. Not every Python has pidfd_open(2), so its number is looked at."""
    while kept.is_kept:
        if time.monotonic() >= deadline:
            return False
        time.sleep(LOOK_EVERY)
    return True


def _in_the_way(exc: OSError) -> Outcome:
    return Outcome(SYSTEM_ERROR, f"the machine is in the way: {exc.strerror or exc}")


def _word(value: object) -> str:
    if not isinstance(value, str) or len(value) > WORD_MAX:
        raise TypeError("an order has something else than a short text")
    return value


def main() -> None:
    """Close all sessions, at the same time as far as there are files to be opened: one for each."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    together = KEPT_MAX if most == resource.RLIM_INFINITY else max(1, most - FILES_SPARE)
    paths = session_files.paths()
    for place in range(0, len(paths), together):
        for outcome in close_all(paths[place : place + together]):
            if outcome.code:
                complain(
                    f"a session was not closed well: PAM error {outcome.code}: {outcome.message}"
                )


if __name__ == "__main__":
    main()
