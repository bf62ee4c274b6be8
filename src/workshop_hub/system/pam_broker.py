"""Asks PAM for a hub, each time in a process of its own that ends afterwards.

    PYTHON -I -m workshop_hub.system.pam_broker
    PYTHON -I -m workshop_hub.system.pam_broker --service NAME [--min-uid N] [--any-shell]
                                                [--hub-user NAME]

PAM's modules are whatever the administrator has chosen. They change the groups, the umask and the
signal handlers of the process they run in, start others, and hang. So no hub runs them.

The first form is for a hub with the same rights. The second one is root's, for a hub that is not:
it asks PAM for those services only, about people only (see min_uid and require_login_shell of the
authenticator), and keeps PAM's pause after a wrong password itself.

Standard input is a socket (SOCK_SEQPACKET): a hub's connection, with which this program ends, or
one that listens for the connections of the account --hub-user. Each message on a connection is
JSON with the name to ask about, and brings one end of another socket; this program forks a child
for it. Over the other go lines of JSON, the child's and its asker's by turns:

    asker   {"name": ..., "service": ..., ...}         the fields of broker.Attempt
    child   {"prompts": [[style, text, phase], ...]}   as often as PAM asks
    asker   {"answers": [text or null, ...]}       null alone: it gives up
    child   {"verdict": {...}}                     the fields of pam.Verdict; the last word

Where the message says "session" beside the name, it is about a session and no login, and there is
one line from each: an order, and its answer (pam_sessions).
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import select
import signal
import socket
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from io import BufferedRWPair
from pathlib import Path
from typing import Any

from workshop_hub.system import pam, pam_sessions
from workshop_hub.system.pam_desk import Desk, Guard
from workshop_hub.system.pam_rules import parse
from workshop_hub.system.privileged import forget_the_starter, unsafe
from workshop_hub.system.processes import descendants

LIFETIME = 900
"""Seconds after which a child is ended whatever PAM does; its asker has given up before."""

LINE_MAX = 65536
"""Bytes: more than the longest answers that PAM takes."""


MCL_FUTURE = 2
"""mlockall(2)."""


class Gone(Exception):
    """Whoever asked does not listen any more."""


def main(words: Sequence[str]) -> None:
    """Serve the socket on standard input."""
    try:
        place = socket.socket(fileno=os.dup(0))
    except OSError:
        sys.exit("PAM broker: standard input is no socket. Does sudo log it (log_input)?")
    if words:
        forget_the_starter()
        if reason := unsafe():
            sys.exit(f"PAM broker: this program is not safe to run as root: {reason}")
    rules = parse(words)
    with Path(os.devnull).open("rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the children
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # the children have passwords
    Desk(serve, rules).run(place)


def serve(asker: socket.socket, guard: Guard) -> None:
    """Ask PAM, and end."""
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # pam_unix waits for its helper
        signal.alarm(LIFETIME)
        nothing = os.open(os.devnull, os.O_RDWR)
        os.dup2(nothing, 0)
        os.close(nothing)
        with asker, asker.makefile("rwb") as lines:
            if guard.session:
                say(lines, pam_sessions.carried_out(heard(lines), guard, asker))
            else:
                ask(asker, lines, guard)
    except (Gone, ConnectionError):  # closing tries once more to write what nobody reads
        pass
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(0)


def ask(asker: socket.socket, lines: BufferedRWPair, guard: Guard) -> None:
    """Ask PAM whether somebody may log in. Raises Gone."""
    keep_in_memory()
    threading.Thread(target=end_with, args=(asker,), daemon=True).start()
    order = heard(lines)
    known = pam.answers(order.pop("secrets", ()), partial(converse, lines))
    verdict = guard.refusal(order) or pam.transact(order.pop("name"), known, **order)
    guard.note(verdict)
    say(lines, {"verdict": asdict(verdict)})


def keep_in_memory() -> None:
    """Keep what comes to be in memory, passwords among it, out of swap, where root may.

    What the hash of a password takes, 16 MB, then comes at once and not page by page, which takes
    less time. Where there is a limit, it might not come at all.
    """
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (resource.RLIM_INFINITY,) * 2)
        ctypes.CDLL(None).mlockall(MCL_FUTURE)


def end_with(asker: socket.socket) -> None:
    """End this process, and what PAM's modules have started in it, when the asker has gone."""
    poll = select.poll()
    poll.register(asker, 0)  # tells when the other end is closed
    poll.poll()
    for pid in (*descendants(os.getpid()), os.getpid()):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def converse(lines: BufferedRWPair, prompts: list[pam.Prompt]) -> list[str | None] | None:
    """Have the asker answer."""
    say(lines, {"prompts": prompts})
    answers: list[str | None] | None = heard(lines)["answers"]
    return answers


def say(lines: BufferedRWPair, what: dict[str, Any]) -> None:
    """Write a line. Raises Gone."""
    try:
        lines.write(json.dumps(what).encode() + b"\n")
        lines.flush()
    except OSError as exc:
        raise Gone from exc


def heard(lines: BufferedRWPair) -> dict[str, Any]:
    """Read a line. Raises Gone."""
    try:
        what: dict[str, Any] = json.loads(lines.readline(LINE_MAX))
    except (OSError, ValueError) as exc:
        raise Gone from exc
    return what


if __name__ == "__main__":
    main(sys.argv[1:])
