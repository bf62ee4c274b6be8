"""Asks PAM for a hub, each time in a process of its own that ends afterwards.

    PYTHON -m workshop_hub.system.pam_broker

PAM's modules are whatever the administrator has chosen. They change the groups, the umask and the
signal handlers of the process they run in, start others, and hang. So no hub runs them.

Standard input is a socket (SOCK_SEQPACKET). Each message on it brings one end of another socket;
this program forks a child for it, and ends when the first is closed. Over the other go lines of
JSON, the child's and its asker's by turns:

    asker   {"name": ..., "service": ...}          what else pam.transact takes
    child   {"prompts": [[style, text, phase], ...]}   as often as PAM asks
    asker   {"answers": [text or null, ...]}       null alone: it gives up
    child   {"verdict": {...}}                     the fields of pam.Verdict; the last word
"""

from __future__ import annotations

import json
import os
import resource
import select
import signal
import socket
import sys
import threading
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from io import BufferedRWPair
from pathlib import Path
from typing import Any

from workshop_hub.system import pam

LIFETIME = 900
"""Seconds after which a child is ended whatever PAM does; its asker has given up before."""

LINE_MAX = 65536
"""Bytes: more than the longest answers that PAM takes."""


class Gone(Exception):
    """Whoever asked does not listen any more."""


def main() -> None:
    """Serve the socket on standard input until it is closed."""
    control = socket.socket(fileno=0)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the children
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # the children have passwords
    while True:
        said, files, _, _ = socket.recv_fds(control, 1, 1)
        if not said:
            break
        for number in files:
            os.set_inheritable(number, False)  # what a module starts could answer for PAM
            with suppress(OSError):  # too many processes: this one's asker is told by its end
                if os.fork() == 0:
                    serve(socket.socket(fileno=number))
            os.close(number)
    control.detach()


def serve(asker: socket.socket) -> None:
    """Ask PAM, and end."""
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # pam_unix waits for its helper
        signal.alarm(LIFETIME)
        nothing = os.open(os.devnull, os.O_RDWR)
        os.dup2(nothing, 0)
        os.close(nothing)
        threading.Thread(target=end_with, args=(asker,), daemon=True).start()
        with asker, asker.makefile("rwb") as lines:
            order = heard(lines)
            verdict = pam.transact(order.pop("name"), partial(converse, lines), **order)
            say(lines, {"verdict": asdict(verdict)})
    except Gone:
        pass
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(0)


def end_with(asker: socket.socket) -> None:
    """End this process, and what PAM's modules have started in it, when the asker has gone."""
    poll = select.poll()
    poll.register(asker, 0)  # tells when the other end is closed
    poll.poll()
    for pid in (*descendants(os.getpid()), os.getpid()):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def descendants(pid: int) -> list[int]:
    """Return the processes that a process has started, and those that these have."""
    found = [
        int(child)
        for tasks in Path(f"/proc/{pid}/task").glob("*/children")
        for child in tasks.read_text().split()
    ]
    return [*(each for child in found for each in descendants(child)), *found]


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
    main()
