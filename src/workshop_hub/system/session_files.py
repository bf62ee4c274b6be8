"""The files by which PAM sessions that are kept are found again: one each, locked by its keeper.

The kernel takes the lock back when the keeper ends, however it ends, so a lock never says that a
process is there which is not. Only who has the lock of a file removes it: of two who find that a
keeper has died, neither takes away the file of the next one.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import stat
from contextlib import suppress
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

from workshop_hub.system import processes

FOLDER = Path("/run/workshop-hub/sessions")
"""Of keepers that are root, for root alone."""

_RECORD_MAX = 65536


@dataclass(frozen=True)
class Session:
    """Whose session it is.

    uid: of the hub that asked for it, as the kernel knows it. hub: that hub's id; user and server:
    as the hub calls them.
    """

    uid: int
    hub: str
    user: str
    server: str

    @property
    def path(self) -> Path:
        """The session's file; names may have any characters, and any length."""
        key = json.dumps(astuple(self)).encode()
        return folder() / hashlib.sha256(key).hexdigest()[:32]


@dataclass(frozen=True)
class Kept:
    """A session that is kept.

    file: open; whoever was given this closes it. pid, start_time: its keeper's (processes.stat).
    """

    path: Path
    file: int
    pid: int
    start_time: int
    session: Session

    @property
    def is_kept(self) -> bool:
        """Whether its keeper runs, and not another process under its number."""
        found = processes.stat(self.pid)
        return found is not None and not found.ended and found.start_time == self.start_time

    def outcome(self) -> dict[str, Any]:
        """Return what the keeper has written down at its end; empty where it could not."""
        with suppress(OSError, ValueError, IndexError):
            last: dict[str, Any] = json.loads(_lines(self.file)[1])
            return last
        return {}


def folder(uid: int | None = None) -> Path:
    """Return where an account has its files. uid: None for this process's own."""
    uid = os.geteuid() if uid is None else uid
    # /run is root's, and others may have no folder of their own there; `prepared` looks at it
    return FOLDER if uid == 0 else Path(f"/tmp/workshop-hub-sessions-{uid}")  # noqa: S108


def are_used() -> bool:
    """Say whether sessions may have been kept since the machine started, by root or by us."""
    # unlike Path.exists, it raises nothing where we may not look
    return any(os.path.exists(place) for place in (folder(0), folder()))  # noqa: PTH110


def prepared() -> Path:
    """Make the folder where it is missing. Raises OSError where it is not safe."""
    place = folder()
    with suppress(FileExistsError):
        place.parent.mkdir()
        place.parent.chmod(0o755)  # whatever our umask is: it has sockets for others, too
    with suppress(FileExistsError):
        place.mkdir(mode=0o700)
    _check(place)
    return place


def _check(place: Path) -> None:
    """Raise FileNotFoundError, or PermissionError where others may have put files there.

    A file says which process is to be ended, and in /tmp anybody can make such a folder first.
    """
    status = place.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o077:
        raise PermissionError(1, f"{place} is not this account's alone")


def paths() -> list[Path]:
    """Return the files of all sessions, and of keepers that were killed. Raises OSError."""
    with suppress(FileNotFoundError):
        _check(folder())
    return [path for path in folder().glob("*") if not path.name.startswith(".")]


def claim(session: Session) -> int:
    """Make the session's file, locked by this process; return it, open.

    Raises FileExistsError where another process keeps such a session.
    """
    draft = prepared() / f".{os.getpid()}"
    file = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    try:
        if not _take(file):
            raise FileExistsError(draft)
        own = processes.stat(os.getpid())
        record = [os.getpid(), own.start_time if own else 0, astuple(session)]
        os.write(file, json.dumps(record).encode() + b"\n")
        os.link(draft, session.path)
    except BaseException:
        os.close(file)
        raise
    finally:
        draft.unlink()
    return file


def give_up(file: int, session: Session, outcome: dict[str, Any]) -> None:
    """Remove the file of a session that this process has kept, and leave word for who waits."""
    os.lseek(file, 0, os.SEEK_END)
    os.write(file, json.dumps(outcome).encode())
    session.path.unlink()


def find(path: Path) -> Kept | None:
    """Return the session with that file; None where none is kept. What a dead keeper left goes.

    Raises OSError.
    """
    try:
        _check(path.parent)
        file = os.open(path, os.O_RDWR | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None
    if not _take(file):
        with suppress(OSError, ValueError, IndexError, TypeError):
            pid, start_time, session = json.loads(_lines(file)[0])
            return Kept(path, file, pid, start_time, Session(*session))
    else:
        with suppress(FileNotFoundError):
            if path.stat().st_ino == os.fstat(file).st_ino:
                path.unlink()
    os.close(file)
    return None


def _take(file: int) -> bool:
    """Lock the file, if nobody has; of what a process starts, none inherits its lock."""
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _lines(file: int) -> list[bytes]:
    return os.pread(file, _RECORD_MAX, 0).splitlines()
