"""A process that opens a PAM session, keeps it, and closes it: what its modules count on.

They keep what they need for the close in PAM's handle, in the process's memory (pam_set_data(3)).
The process belongs to nobody: it outlives who asked for it, the broker and the hub, as servers
do. SIGTERM has it close the session in order, whoever sends it: a broker that was asked to, or the
machine when it stops.

Nobody is there to answer a module: one that wants the password (pam_mount) gets none, for the hub
does not keep it.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import socket
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field

import pamela

from workshop_hub.system import pam, session_files
from workshop_hub.system.session_files import Session

OPENING_MAX = 900
"""Seconds after which a keeper whose modules hang is ended; who waits for it gives up before."""

SAID_MAX = 20
"""Lines of what PAM's modules say that are passed on."""

SYSTEM_ERROR = 4
"""PAM_SYSTEM_ERR: what went wrong was not PAM's."""


@dataclass(frozen=True)
class Outcome:
    """What came of opening or closing a session.

    code: PAM's number, 0 where all is well. message: PAM's words for it. said: what its modules
    had to say. variables: what they want in the environment of those in the session.
    """

    code: int = 0
    message: str = ""
    said: list[str] = field(default_factory=list)
    variables: dict[str, str] = field(default_factory=dict)


class Transaction:
    """One transaction with PAM, with a session in it. Blocks. Raises pamela.PAMError.

    service, encoding, rhost: as in pam.transact.
    """

    def __init__(self, name: str, *, service: str, encoding: str, rhost: str) -> None:
        self._encoding = encoding
        self._said: list[str] = []
        self._told = pam.conversation(self._hear, encoding, [pam.SESSION])  # outlives the handle
        self._handle = pamela.pam_start(service, name, conv_func=self._told, encoding=encoding)
        if rhost:
            pamela.PAM_SET_ITEM(self._handle, pamela.PAM_RHOST, rhost.encode("ascii", "replace"))

    def open(self) -> Outcome:
        """Establish credentials, then open the session; end the transaction where that fails.

        Nobody was authenticated in this transaction: a module that has no credentials to establish
        without that is no reason to refuse.
        """
        pamela.PAM_SETCRED(self._handle, pamela.PAM_ESTABLISH_CRED)
        code = pamela.PAM_OPEN_SESSION(self._handle, 0)
        if code == 0:
            return Outcome(0, "", self._said, self._variables())
        return self._end(code)

    def close(self) -> Outcome:
        """Close the session, delete the credentials, and end the transaction."""
        self._said.clear()
        return self._end(pamela.PAM_CLOSE_SESSION(self._handle, 0))

    def _end(self, code: int) -> Outcome:
        message = pamela.pam_strerror(self._handle, code) if code else ""
        pamela.PAM_SETCRED(self._handle, pamela.PAM_DELETE_CRED)
        pamela.PAM_END(self._handle, code)
        return Outcome(code, message, self._said)

    def _hear(self, prompts: list[pam.Prompt]) -> list[None] | None:
        for prompt in prompts[: SAID_MAX - len(self._said)]:
            text = pam.one_line(prompt.text)
            self._said.append(f"{text} (nobody is there to answer)" if prompt.asks else text)
        return None if any(prompt.asks for prompt in prompts) else [None] * len(prompts)

    def _variables(self) -> dict[str, str]:
        """Return PAM's environment, as far as it is text. The memory is libpam's, and stays so."""
        found = pamela.PAM_GETENVLIST(self._handle)
        variables = {}
        for place in range(sys.maxsize if found else 0):
            entry = ctypes.cast(found, ctypes.POINTER(ctypes.c_char_p))[place]
            if entry is None:
                break
            name, _, value = entry.partition(b"=")
            with suppress(UnicodeDecodeError):
                variables[name.decode(self._encoding)] = value.decode(self._encoding)
        return variables


def begin(session: Session, order: Mapping[str, str]) -> socket.socket:
    """Have a process of its own open and keep a session; return where it says what came of it.

    order: the arguments of Transaction beside the name. What is said is the fields of Outcome, as
    JSON, and then the end. Raises OSError.
    """
    ours, theirs = socket.socketpair()
    try:
        child = os.fork()
        if child == 0:
            _leave_home(session, order, theirs)
    except OSError:
        ours.close()
        raise
    finally:
        theirs.close()
    os.waitpid(child, 0)
    return ours


def _leave_home(session: Session, order: Mapping[str, str], report: socket.socket) -> None:
    """Become a keeper that is nobody's child, in a process that the asker has just made."""
    try:
        os.setsid()
        if os.fork() == 0:
            _have_nothing_but(report.fileno())
            _keep(session, order, report)
    finally:
        os._exit(0)


def _have_nothing_but(report: int) -> None:
    """Close what is the asker's: what of it stayed open would never end for its other side."""
    nothing = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(nothing, number)
    os.closerange(3, report)
    os.closerange(report + 1, os.sysconf("SC_OPEN_MAX"))


def _keep(session: Session, order: Mapping[str, str], report: socket.socket) -> None:
    """Open the session, say so, keep it until SIGTERM, and close it."""
    ended: list[int] = []
    # handlers, and not a mask or SIG_IGN: those what a module starts would inherit
    signal.signal(signal.SIGTERM, lambda number, _frame: ended.append(number))
    signal.signal(signal.SIGHUP, lambda _number, _frame: None)  # logind sends it after SIGTERM
    signal.alarm(OPENING_MAX)
    try:
        file = session_files.claim(session)
    except OSError as exc:
        _say(report, Outcome(SYSTEM_ERROR, f"it cannot be kept: {exc.strerror or exc}"))
        return
    transaction, outcome = _opened(session, order)
    signal.alarm(0)
    if transaction is not None and outcome.code == 0:
        _say(report, outcome)
        _await_the_end(ended)
        signal.alarm(OPENING_MAX)
        outcome = transaction.close()
        session_files.give_up(file, session, asdict(outcome))
    else:
        session_files.give_up(file, session, asdict(outcome))
        _say(report, outcome)


def _opened(session: Session, order: Mapping[str, str]) -> tuple[Transaction | None, Outcome]:
    try:
        transaction = Transaction(session.user, **order)
    except pamela.PAMError as exc:
        return None, Outcome(exc.errno or SYSTEM_ERROR, exc.message)
    except (UnicodeError, LookupError) as exc:
        return None, Outcome(SYSTEM_ERROR, f"the name cannot be given to PAM: {exc}")
    return transaction, transaction.open()


def _say(report: socket.socket, outcome: Outcome) -> None:
    with suppress(OSError):  # who asked has given up, and will have the session closed
        report.sendall(json.dumps(asdict(outcome)).encode())
    report.close()


def _await_the_end(ended: list[int]) -> None:
    """Wait for SIGTERM; modules may have set a handler of their own for it."""
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    signal.signal(signal.SIGTERM, lambda number, _frame: ended.append(number))
    if not ended:
        signal.sigwait([signal.SIGTERM])
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
