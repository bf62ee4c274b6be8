"""A child of the warm launcher, on its way to be one user's server.

It reads the order, becomes the user, checks the order as `become` does, and then makes itself what
`PYTHON jupyterhub-singleuser ARGUMENTS...` would be: `docs/explanation/warm-start.md` lists what
differs after a fork and where each of it is put right. The launcher never reads an order, so that
no child has another user's secrets in its memory.
"""

from __future__ import annotations

import grp
import io
import locale
import os
import pwd
import resource
import select
import signal
import socket
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass

from workshop_hub.launch import (
    become,
    handover,
    mending,
    packages,
    resource_limits,
    rights,
    shown,
    start,
)
from workshop_hub.launch.become import Message, Refused
from workshop_hub.launch.packages import NotWarm
from workshop_hub.launch.preload import Preloaded

MESSAGE_TIMEOUT = 10
"""Seconds in which the hub has to write its order."""

READ_AT_START = ("GLIBC_", "LD_", "MALLOC_", "PYTHON")
"""How the names begin of variables that count only when a program starts."""

FOLLOWED_LATER = frozenset({"PYTHONNOUSERSITE", "PYTHONPATH", "PYTHONUNBUFFERED"})
"""Those of them that can be followed in a program that runs already."""


@dataclass(frozen=True)
class Who:
    """Whose servers the launcher may start: uids from first to last, members of group if named."""

    first_uid: int
    last_uid: int
    group: str = ""

    def check(self, uid: int, name: str = "") -> pwd.struct_passwd:
        """Return the account; Refused where it is none of these, or has another name."""
        try:
            account = pwd.getpwnam(name) if name else pwd.getpwuid(uid)
        except KeyError as exc:
            raise Refused("account", f"There is no account {name or uid}.") from exc
        if account.pw_uid != uid:
            found = f"The account's uid is {account.pw_uid}; the hub expected {uid}."
            raise Refused("uid", found)
        if uid == 0 or not self.first_uid <= uid <= self.last_uid:
            allowed = f"{self.first_uid} to {self.last_uid}"
            raise Refused("range", f"The launcher serves the uids {allowed}; {uid} is not in them.")
        if self.group:
            self._check_group(account)
        return account

    def _check_group(self, account: pwd.struct_passwd) -> None:
        serves = f"The launcher serves the group {self.group}"
        try:
            gid = grp.getgrnam(self.group).gr_gid
        except KeyError as exc:
            raise Refused("range", f"{serves}, which does not exist.") from exc
        if gid not in os.getgrouplist(account.pw_name, account.pw_gid):
            raise Refused("range", f"{serves}; {account.pw_name} is not in it.")


def obey(talk: socket.socket, files: list[int], who: Who, loaded: Preloaded) -> None:
    """Carry out the order that comes over `talk`, as the process of the user it names.

    files: open files for the report and for the server's log, and, if any, the cgroup.procs to
    enter. Returns never. Exit codes are those of `become`.
    """
    code = become.REFUSED
    try:
        _use_streams(talk, files)
        message = _read(talk)
        if message.one("verb") == "signal":
            os.dup2(talk.fileno(), 1)
            _become(message, who)
            become.signal(message)
            become.report("signalled")
            code = 0
        else:
            for entry in files[2:]:
                os.write(entry, b"0")
            _become(message, who)
            code = _serve(talk, message, files, loaded)
    except Refused as exc:
        become.report(f"error {exc.kind}\t{exc}")
    except NotWarm as exc:
        with suppress(OSError):  # the hub may have gone
            talk.send(f"no {exc}\n".encode())
    except Exception as exc:  # nothing of the launcher's may go on in a child
        become.report(f"error system\tThe launcher could not make the server: {exc!r}.")
    start.leave(code)


def _use_streams(talk: socket.socket, files: list[int]) -> None:
    """Have the streams that a launcher under sudo has, and nothing else of the launcher's."""
    report, log, *_ = files or [talk.fileno()] * 2
    for number, stream in enumerate((talk.fileno(), report, log)):
        os.dup2(stream, number)
    for name in os.listdir("/proc/self/fd"):
        if int(name) not in {0, 1, 2, talk.fileno(), *files}:
            with suppress(OSError):  # the listing's own
                os.close(int(name))


def _read(talk: socket.socket) -> Message:
    talk.settimeout(None)
    timeout = MESSAGE_TIMEOUT.to_bytes(8, sys.byteorder) + bytes(8)
    talk.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, timeout)
    return become.read_message()


def _become(message: Message, who: Who) -> None:
    """Check who is asked for, and become that account with a session of its own."""
    uid = message.one("uid")
    if not uid.isdecimal() or len(uid) > 10:
        raise Refused("protocol", "The order names no uid.")
    account = who.check(int(uid), message.one("account"))
    if message.one("verb") == "start" and os.geteuid() != account.pw_uid:
        _limit(account.pw_name)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # sudoers(5), rlimit_core
    os.setsid()
    os.umask(os.umask(0o077) | 0o022)  # as sudo does
    for number in set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(number, signal.SIG_DFL)
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_IGN)  # as Python itself
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    rights.become(account)
    if message.one("no_new_privileges"):
        rights.gain_no_more()
    become.check_identity(message)


def _limit(name: str) -> None:
    """Set the resource limits that sudo would set."""
    if not resource_limits.are_set():
        resource_limits.set_usual()
        return
    try:
        resource_limits.set_for(name)
    except resource_limits.CannotLimit as exc:
        raise NotWarm(f"the limits of limits.conf cannot be set: {exc}") from exc


def _serve(talk: socket.socket, message: Message, files: list[int], loaded: Preloaded) -> int:
    """Check the order, and be the server; return its exit code."""
    become.check_cgroup(message)
    become.check_output()
    account = pwd.getpwuid(os.getuid())
    become.enter_home(account.pw_dir)
    become.check_directory(message)
    env = {**become.environment(account, message), "PWD": os.getcwd()}  # as a shell adds it
    command, *arguments = message.all("arg")
    _check_size([*message.all("arg"), *(f"{name}={value}" for name, value in env.items())])
    script = become.find_program(command, env["PATH"])
    interpreter = _check_fit(script, env, loaded)
    os.environ.clear()
    os.environ.update(env)
    packages.look_for(env)
    reserved = handover.bind(message.one("ip"), int(message.one("port") or 0))
    become.write_certificates(message)
    become.report(f"pid {os.getpid()} {become.process('self')[2]}")
    os.dup2(2, 1)
    nothing = os.open("/dev/null", os.O_RDONLY)
    os.dup2(nothing, 0)
    for number in (nothing, *files):
        os.close(number)
    _be_fresh(env, [interpreter, script, *arguments], loaded)
    if _is_given_up(talk):  # whoever looks for what is left of a start can see it only from now on
        return become.REFUSED
    handover.hand_over(reserved, talk)
    start.postpone_collection()
    return start.run(script, arguments, python=[interpreter])


def _check_size(texts: list[str]) -> None:
    """Refuse what could not be handed on to any program that the server starts.

    Source: execve(2), MAX_ARG_STRLEN.
    """
    if any(len(os.fsencode(text)) >= 32 * resource.getpagesize() for text in texts):
        raise Refused("command", "The server cannot be started: Argument list too long.")


def _is_given_up(talk: socket.socket) -> bool:
    """Say whether the hub has closed the connection."""
    poll = select.poll()
    poll.register(talk, 0)
    return bool(poll.poll(0))


def _check_fit(script: str, env: dict[str, str], loaded: Preloaded) -> str:
    """Return the script's interpreter; NotWarm where a fork of this process cannot stand in."""
    with open(script, "rb") as file:
        words = file.readline(1024).decode(errors="replace").removeprefix("#!").split()
    if len(words) != 1 or not _is_this_python(words[0]):
        raise NotWarm(f"{script} is run by {' '.join(words) or 'something else'}")
    for name in env:
        if name.startswith(READ_AT_START) and name not in FOLLOWED_LATER:
            raise NotWarm(f"its environment sets {name}, which is read when a program starts")
    try:
        start.load_script(script)
    except start.NotAScript as exc:
        raise NotWarm(f"{script} is no Python script") from exc
    _set_locale(env)
    if name := loaded.differs(env):
        raise NotWarm(f"its environment sets {name} to another value than the launcher has")
    return words[0]


def _set_locale(env: dict[str, str]) -> None:
    """Follow `env` as far as what is imported allows: this process has read texts in UTF-8."""
    charset = next((env[n] for n in ("LC_ALL", "LC_CTYPE", "LANG") if env.get(n)), "C.UTF-8")
    if not charset.lower().replace("-", "").endswith("utf8"):
        raise NotWarm(f"its locale {charset} is none of UTF-8")
    try:
        locale.setlocale(locale.LC_CTYPE, charset)
    except locale.Error as exc:
        raise NotWarm(f"its locale {charset} is not installed") from exc


def _is_this_python(path: str) -> bool:
    """Say whether `path` starts what this process runs: the same program in the same venv."""
    try:
        return os.path.samefile(path, sys.executable) and os.path.samefile(
            os.path.dirname(path), os.path.dirname(sys.executable)
        )
    except OSError:
        return False


def _be_fresh(env: dict[str, str], command: list[str], loaded: Preloaded) -> None:
    """Replace what this process has of the launcher by what a new interpreter would have."""
    shown.show_as(command, env)
    sys.executable = command[0]
    time.tzset()
    threading.main_thread()._set_native_id()  # type: ignore[attr-defined]
    if env.get("PYTHONUNBUFFERED"):
        _unbuffer()
    mending.mend(loaded)
    for name in _OWN:
        sys.modules.pop(name, None)  # a server has not imported them


def _unbuffer() -> None:
    """Have the streams that Python makes where PYTHONUNBUFFERED is set."""
    sys.stdin.reconfigure(write_through=True)  # type: ignore[union-attr]
    for name in ("stdout", "stderr"):
        usual = getattr(sys, name)
        raw = io.FileIO(usual.fileno(), "w", closefd=False)
        raw.name = usual.name
        stream = io.TextIOWrapper(raw, usual.encoding, usual.errors, "\n", write_through=True)
        stream.mode = usual.mode  # type: ignore[misc]
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)


_OWN = [name for name in sys.modules if name.partition(".")[0] == __name__.partition(".")[0]]
"""Our own modules, found in the launcher: going through all names would copy their pages."""
