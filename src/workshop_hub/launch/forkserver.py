"""The warm launcher: imports the single-user server once, and forks for each user.

    python -I forkserver.py [--uids FIRST-LAST] [--group NAME] [--program PATH] [--whole]
                            [--with-hub]

Its standard input is a listening unix socket. Whoever connects must be the account that it was
started for: the one that asked sudo for it, else its own. The first byte says what is wanted:

    S   a server; comes with open files for its report and its log, and maybe a cgroup.procs
    K   signals to a server
    L   nothing but that the launcher stays (--with-hub) while the connection is open
    R   import everything anew
    ?   a line that says how the launcher is

After S and K an order follows, see `become`; a forked child reads it, see `forked`. It answers
`ready`, or `no REASON` where the server has to be started some other way. The launcher reports
`ended PID CODE` when a child has ended, and closes the connection after that.

When a file that it has imported changes, and on R, it runs itself anew in the same process:
running servers stay its children, and requests wait in the socket's queue.
"""

from __future__ import annotations

import argparse
import json
import os
import select
import signal
import socket
import struct
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from workshop_hub.launch.forked import Who
    from workshop_hub.launch.preload import Preloaded

STATE = "WORKSHOP_LAUNCHER"
"""Variable in which a launcher hands over to itself."""

ROOM = 1 << 16
"""Bytes kept for what `ps` shows of a server: its arguments and its environment."""

FIRST_BYTE_TIMEOUT = 2.0
"""Seconds in which a connection must say what it wants."""

HUB_TIMEOUT = 30.0
"""Seconds that a launcher waits for the hub that has started it."""

MAX_FILES = 3
PASSED_ON = ("LANG", "LC_ALL", "PATH")
"""Variables that the launcher keeps of its own environment: those of the hub's that servers have by
default (Spawner.env_keep), and that decide how something is imported."""

Job = Callable[[], None]


@dataclass
class State:
    """What a launcher knows that one that takes its place must be told.

    report: open file by child. talk: connection by child. without: extensions that cannot be
    shared, and why. waiting: connections that were accepted and not yet heard.
    """

    owner: int
    report: dict[int, int] = field(default_factory=dict)
    talk: dict[int, int] = field(default_factory=dict)
    leases: list[int] = field(default_factory=list)
    waiting: list[int] = field(default_factory=list)
    without: dict[str, str] = field(default_factory=dict)

    def write(self) -> str:
        """Write it down, and have its files survive what follows."""
        kept = [*self.report.values(), *self.talk.values(), *self.leases, *self.waiting]
        for number in kept:
            os.set_inheritable(number, True)
        return json.dumps(vars(self))

    @classmethod
    def read(cls, text: str) -> State:
        """Read what `write` wrote."""
        values = json.loads(text)
        for name in ("report", "talk"):
            values[name] = {int(pid): number for pid, number in values[name].items()}
        state = cls(**values)
        for number in [*state.report.values(), *state.talk.values(), *state.leases, *state.waiting]:
            os.set_inheritable(number, False)
        return state


class Launcher:
    """Serves one socket. options: its command line; who: whose servers it may start."""

    def __init__(
        self, options: argparse.Namespace, state: State, who: Who, loaded: Preloaded
    ) -> None:
        self._options = options
        self._state = state
        self._who = who
        self._loaded = loaded
        self._listener = socket.socket(fileno=os.dup(0))
        self._listener.setblocking(False)
        self._wake, wake_up = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        os.set_blocking(wake_up, False)
        signal.set_wakeup_fd(wake_up, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTERM, lambda *_: self._wish_to_end())
        signal.signal(signal.SIGHUP, lambda *_: self._wish_to_reload())
        self._to_end = self._to_reload = False
        self._alone_since = time.monotonic()

    def run(self) -> Job:
        """Serve until there is nothing more to do; return what the process is to do then.

        In a child that is what the child is for: it returns through all of this, so that nothing
        of it is left on the child's stack.
        """
        while True:
            self._reap()
            if self._to_reload or (self._state.waiting and self._loaded.files.changed()):
                return self._renew
            while self._state.waiting:
                if job := self._hear(socket.socket(fileno=self._state.waiting.pop(0))):
                    return job
            if self._is_done():
                return lambda: os._exit(0)  # Python would take apart all that was imported
            self._wait()

    def _wait(self) -> None:
        """Wait for a connection, the end of a child, or that of a hub; accept what has come."""
        poll = select.poll()
        poll.register(self._listener, select.POLLIN)
        poll.register(self._wake, select.POLLIN)
        for number in (*self._state.leases, *self._state.talk.values()):
            poll.register(number, 0)  # tells when the other end is closed
        for number, _ in poll.poll(HUB_TIMEOUT * 1000 if self._options.with_hub else None):
            if number == self._wake:
                os.read(self._wake, 512)
            elif number == self._listener.fileno():
                self._accept()
            else:
                self._forget(number)

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except OSError:
            return  # whoever it was has gone
        peer = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        if struct.unpack("3i", peer)[1] != self._state.owner:
            connection.close()
            return
        self._state.waiting.append(connection.detach())

    def _hear(self, connection: socket.socket) -> Job | None:
        """Do what the connection wants; return a job in a child only."""
        try:
            connection.settimeout(FIRST_BYTE_TIMEOUT)
            wanted, files, _, _ = socket.recv_fds(connection, 1, MAX_FILES)
        except OSError:
            connection.close()
            return None
        if wanted == b"S" and len(files) >= 2 and not self._loaded.trouble:
            return self._fork(connection, files)
        if wanted == b"K" and not files:
            return self._fork(connection, files)
        for number in files:
            os.close(number)
        if wanted == b"L":
            self._state.leases.append(connection.detach())
            return None
        if wanted == b"R":
            self._to_reload = True
        self._answer(connection, wanted)
        return None

    def _answer(self, connection: socket.socket, wanted: bytes) -> None:
        why = "; ".join(
            f"{name}: {said}" if name else said for name, said in self._loaded.trouble.items()
        )
        told = {
            b"S": f"no the launcher cannot be shared: {why}",
            b"R": "reloading",
            b"?": json.dumps(
                {
                    "pid": os.getpid(),
                    "options": sys.argv[1:],
                    "modules": len(sys.modules),
                    "servers": len(self._state.report),
                    "without": self._state.without,
                    "trouble": why,
                }
            ),
        }.get(wanted, "no such request")
        with suppress(OSError):  # whoever it was has gone
            connection.sendall(told.encode() + b"\n")
        connection.close()

    def _fork(self, connection: socket.socket, files: list[int]) -> Job | None:
        """Fork for an order whose hub still waits; return the child's job in the child."""
        poll = select.poll()
        poll.register(connection, 0)
        gone = bool(poll.poll(0))
        try:
            pid = -1 if gone else os.fork()
        except OSError as exc:  # too many processes, or no memory
            pid = -1
            with suppress(OSError):
                connection.sendall(f"no the launcher cannot fork: {exc.strerror}\n".encode())
        if pid == 0:
            signal.set_wakeup_fd(-1)
            return lambda: _child(connection, files, self._who, self._loaded)
        if pid > 0 and files:
            self._state.report[pid] = files.pop(0)
            self._state.talk[pid] = connection.detach()
        elif pid > 0:
            self._state.talk[pid] = connection.detach()
        else:
            connection.close()
        for number in files:
            os.close(number)
        return None

    def _reap(self) -> None:
        """Report the children that have ended; each is a zombie until that is done."""
        while True:
            try:
                ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return
            if ended is None:
                return
            pid = ended.si_pid
            code = ended.si_status if ended.si_code == os.CLD_EXITED else 128 + ended.si_status
            report = self._state.report.pop(pid, None)
            if report is not None:
                with suppress(OSError):  # on a full disk the end of the server is seen all the same
                    os.write(report, f"ended {pid} {code}\n".encode())
                os.close(report)
            os.waitpid(pid, 0)
            talk = self._state.talk.pop(pid, None)
            if talk is not None:
                os.close(talk)

    def _forget(self, number: int) -> None:
        """Close a connection whose other end is closed."""
        os.close(number)
        if number in self._state.leases:
            self._state.leases.remove(number)
        self._state.talk = {pid: n for pid, n in self._state.talk.items() if n != number}

    def _is_done(self) -> bool:
        if self._state.report or self._state.talk:
            return False
        if self._state.leases:
            self._alone_since = -HUB_TIMEOUT  # a hub that has come and gone is not waited for
        alone = not self._state.leases and time.monotonic() - self._alone_since > HUB_TIMEOUT
        return self._to_end or (self._options.with_hub and alone)

    def _wish_to_end(self) -> None:
        self._to_end = True

    def _wish_to_reload(self) -> None:
        self._to_reload = True

    def _renew(self) -> None:
        """Run the launcher anew in this process."""
        self._state.without.clear()  # whatever is new may be better
        signal.set_wakeup_fd(-1)
        self._listener.close()
        _run_clean(self._state)


def _child(connection: socket.socket, files: list[int], who: Who, loaded: Preloaded) -> None:
    from workshop_hub.launch import forked

    forked.obey(connection, files, who, loaded)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="forkserver.py", description=__doc__.partition("\n")[0])
    parser.add_argument("--group", default="", help="start servers for members of this group only")
    parser.add_argument("--uids", default="1000-59999", help="start servers for these uids only")
    parser.add_argument("--program", default="", help="the single-user server's script")
    parser.add_argument("--whole", action="store_true", help="leave no optional import out")
    parser.add_argument("--with-hub", action="store_true", help="end when the hub has ended")
    return parser.parse_args()


def _owner() -> int:
    """Return whom to listen to: who asked sudo for this process, else its own account."""
    asked = os.environ.get("SUDO_UID", "") if os.getuid() == 0 else ""
    return int(asked) if asked.isdecimal() else os.getuid()


def _run_clean(state: State) -> None:
    """Run this file by the interpreter of the users' servers, as that runs a server's script.

    Not isolated (-I), since servers are not, but with nothing in the environment.
    """
    env = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    env.setdefault("LANG", "C.UTF-8")  # as `become` gives it to servers
    env[STATE] = state.write()
    env["HOME"] = "/nonexistent"  # else Python runs what is in root's, or in the hub's account's
    env["_"] = " " * ROOM
    options = _options()
    interpreter = _interpreter(options.program) or sys.executable
    file = os.path.abspath(__file__)
    os.chdir("/")
    os.execve(  # noqa: S606 - no shell is wanted
        interpreter, [interpreter, file, *sys.argv[1:]], env
    )


def _interpreter(program: str) -> str:
    """Return what runs the script `program`; "" where that is no interpreter alone."""
    words = []
    with suppress(OSError), open(program, "rb") as file:
        words = os.fsdecode(file.readline(1024)).removeprefix("#!").split()
    return words[0] if len(words) == 1 and os.access(words[0], os.X_OK) else ""


def _find_package() -> None:
    """Make `workshop_hub` importable, which the users' environment need not have."""
    del sys.path[0]  # this file's folder
    package = Path(__file__).resolve().parents[1]
    spec = spec_from_file_location(
        package.name, package / "__init__.py", submodule_search_locations=[str(package)]
    )
    if spec is None or spec.loader is None:
        raise ImportError(f"{package} is no package")
    sys.modules[package.name] = module = module_from_spec(spec)
    spec.loader.exec_module(module)


def _load(options: argparse.Namespace, state: State) -> Preloaded:
    """Import; whatever keeps a launcher from that is trouble to tell of, and no end to it."""
    from workshop_hub.launch import preload

    try:
        loaded = preload.preload(state.without)
    except Exception as exc:
        traceback.print_exc()
        loaded = preload.Preloaded(trouble={"": repr(exc)})
        loaded.files.add(preload.files_of_modules())
    if options.program and not _interpreter(options.program):
        loaded.trouble[""] = f"{options.program} is no script that names its Python"
    loaded.files.add([options.program])
    return loaded


def main() -> None:
    """Import, and serve; or make the process clean for that first."""
    if STATE not in os.environ:
        state = State(_owner())
        if _options().with_hub and os.fork():
            return  # so that nobody has to wait for it, nor does sudo
        _run_clean(state)
    state = State.read(os.environ[STATE])
    options = _options()
    _find_package()
    from workshop_hub.launch import forked, preload, resource_limits, rights, start

    first, _, last = options.uids.partition("-")
    who = forked.Who(int(first), int(last), options.group)
    env = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    os.environ.clear()
    os.environ.update(env, HOME=preload.HOME, USER=preload.USER)
    if os.getuid() == 0:
        kept = (rights.CAP_KILL, rights.CAP_SETGID, rights.CAP_SETUID, rights.CAP_SYS_RESOURCE)
        rights.keep_only(*kept)
    resource_limits.learn("nobody")
    sys.dont_write_bytecode, written = True, sys.dont_write_bytecode
    if not options.whole:
        start.leave_out()
        start.leave_hub_out()
    loaded = _load(options, state)
    sys.dont_write_bytecode = written
    if extension := next((name for name in loaded.trouble if name), ""):
        print(f"not shared: {extension}: {loaded.trouble[extension]}", file=sys.stderr)
        state.without[extension] = loaded.trouble[extension]
        _run_clean(state)
    job = Launcher(options, state, who, loaded).run()
    job()


if __name__ == "__main__":
    main()
