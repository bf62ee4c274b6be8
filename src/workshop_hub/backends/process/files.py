"""What the process backend keeps of a server: its log, its report and what finds it again."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from logging import Logger, LoggerAdapter
from pathlib import Path

from workshop_hub.backends.base import Handle, Owner
from workshop_hub.backends.process.names import key_of
from workshop_hub.errors import ConfigError, WorkshopError
from workshop_hub.launch.message import Report, read_report
from workshop_hub.system import log_files

MAX_STATUS = 65536
LAUNCHER_STATUS = 4096
"""Bytes of a report that hold what the launcher itself wrote. Nobody writes much there but a user
who means to fill the disk."""

LOOK_EVERY = 5.0
"""Seconds between two looks at the sizes of the logs."""

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True)
class Streams:
    """Open files for a launcher: its report, and the server's log."""

    status: int
    log: int


@dataclass(frozen=True)
class ServerFiles:
    """The files of the server `key` in the hub's folder of logs.

    KEY.log: what the server prints, and sudo before it; KEY.log.old: that of its last life.
    KEY.status: the report. KEY.json: whose server it is, and its handle.
    All belong to the hub; the server has the first two open, and cannot open them again.
    """

    folder: Path
    key: str

    @property
    def log(self) -> Path:
        """What the server prints."""
        return self.folder / f"{self.key}.log"

    @property
    def status(self) -> Path:
        """What the launcher and the supervisor report."""
        return self.folder / f"{self.key}.status"

    @property
    def record(self) -> Path:
        """Whose server it is, and its handle."""
        return self.folder / f"{self.key}.json"

    @contextmanager
    def fresh(self) -> Iterator[Streams]:
        """Open a new log and a new report; keep the log of the last life. WorkshopError."""
        make_private(self.folder)
        with ExitStack() as opened:
            with _told(self.folder):
                with suppress(FileNotFoundError):
                    self.log.replace(self.folder / f"{self.key}.log.old")
                self.status.unlink(missing_ok=True)
                streams = []
                for path in (self.status, self.log):
                    streams.append(os.open(path, _NEW, 0o600))
                    opened.callback(os.close, streams[-1])
            yield Streams(*streams)

    def report(self) -> Report:
        """Return what is reported; whoever runs as the user may have written to it."""
        return read_report(_ends(self.status, MAX_STATUS // 2))

    def note(self, line: str) -> None:
        """Add a line to the report, where there is one."""
        with (
            suppress(FileNotFoundError),
            os.fdopen(os.open(self.status, os.O_WRONLY | os.O_APPEND), "w") as file,
        ):
            file.write(line + "\n")

    def save(self, owner: Owner, handle: Handle) -> None:
        """Write down whose server it is, for a hub that knows nothing. Whole or not at all.

        Raises WorkshopError.
        """
        make_private(self.folder)
        draft = self.record.with_suffix(".new")
        with _told(self.folder):
            with open(draft, "w", opener=_private, encoding="utf-8") as file:
                json.dump({"user": owner.user, "server": owner.server, "handle": handle}, file)
            draft.replace(self.record)

    def recorded(self) -> Handle | None:
        """Return the handle that is written down; None where there is none."""
        return _read_record(self.record)[1]

    def forget(self) -> None:
        """Remove what says that there is a server; its log and its report stay."""
        self.record.unlink(missing_ok=True)

    def log_tail(self) -> str:
        """Return the last lines of the log, without what would garble a page or a terminal."""
        return log_files.readable(_end(self.log, log_files.SHOWN).decode(errors="replace"))

    def trim(self, max_bytes: int) -> None:
        """Cut the log to its last half where it has outgrown `max_bytes`; the report to its start.

        The server goes on writing to the same file; it was opened for appending, so that nothing
        but what comes between reading and cutting can be lost. Raises OSError.
        """
        with suppress(FileNotFoundError):
            if _room(self.log) > max_bytes:
                kept = _end(self.log, max_bytes // 2)
                with self.log.open("ab") as cut:
                    cut.truncate(0)
                    cut.write(kept)
            if _room(self.status) > MAX_STATUS:
                os.truncate(self.status, LAUNCHER_STATUS)


def records(folder: Path, hub: str) -> Iterator[tuple[Owner, Handle]]:
    """Return every server that is written down in the folder for this hub."""
    for path in sorted(folder.glob("*.json")):
        names, handle = _read_record(path)
        owner = Owner(hub, *names)
        if handle is not None and f"{key_of(owner)}.json" == path.name:
            yield owner, handle


class LogWatch:
    """Keeps the logs of running servers bounded: one task for all, while there are any."""

    def __init__(self, max_bytes: int, log: Logger | LoggerAdapter[Logger]) -> None:
        self._max_bytes = max_bytes
        self._log = log
        self._files: dict[str, ServerFiles] = {}
        self._task: asyncio.Task[None] | None = None

    def add(self, files: ServerFiles) -> None:
        """Look after the log of a server."""
        self._files[files.key] = files
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._look_after())

    def remove(self, files: ServerFiles) -> None:
        """Look after the log of a server no longer."""
        self._files.pop(files.key, None)

    async def _look_after(self) -> None:
        while self._files:
            for files in list(self._files.values()):
                try:
                    files.trim(self._max_bytes)
                except OSError as exc:
                    self._log.warning("The log %s cannot be cut: %s", files.log, exc)
            await asyncio.sleep(LOOK_EVERY)


def make_private(folder: Path) -> None:
    """Make the hub's folder of logs; ConfigError where others may write to it."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = folder.stat()
    except OSError as exc:
        raise ConfigError(
            f"The folder of logs {folder} cannot be made: {exc.strerror}.",
            remedy="Set c.ProcessBackend.log_dir to a folder that the hub's account may write.",
        ) from exc
    if status.st_uid != os.geteuid() or status.st_mode & 0o022:
        raise ConfigError(
            f"The folder of logs {folder} may be written by others than the hub's account.",
            remedy="Give it to the hub's account and take the others' right away "
            f"(chmod 700 {folder}), or set c.ProcessBackend.log_dir to another one.",
        )


@contextmanager
def _told(folder: Path) -> Iterator[None]:
    """Put what the hub's own disk refuses into words."""
    try:
        yield
    except OSError as exc:
        raise WorkshopError(
            f"The hub cannot write to its folder of logs {folder}: {exc.strerror}.",
            remedy="Ask the administrator to make room there, or to mend it.",
        ) from exc


def _read_record(path: Path) -> tuple[tuple[str, str], Handle | None]:
    """Return user and server, and the handle; None for a handle that cannot be read."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        handle = record["handle"]
        names = str(record["user"]), str(record["server"])
        return names, handle if isinstance(handle, dict) else None
    except (OSError, ValueError, KeyError, TypeError):
        return ("", ""), None


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW, 0o600)


def _room(file: Path) -> int:
    """Return the bytes of a file, or half of what it takes on the disk where that is more.

    Its writer may reserve any space behind its end (fallocate(2)); a file system that reserves
    some by itself takes no more than the size again.
    """
    status = file.stat()
    return max(status.st_size, status.st_blocks * 512 // 2)


def _end(file: Path, size: int) -> bytes:
    """Return the last `size` bytes, from the beginning of a line; empty where there is no file."""
    try:
        with file.open("rb") as opened:
            length = opened.seek(0, os.SEEK_END)
            opened.seek(max(length - size, 0))
            data = opened.read(size)
    except FileNotFoundError:
        return b""
    return data if length <= size else data.partition(b"\n")[2] or data


def _ends(file: Path, size: int) -> str:
    """Return the first and the last `size` bytes as text."""
    try:
        with file.open("rb") as opened:
            first = opened.read(size)
    except FileNotFoundError:
        return ""
    rest = _end(file, size) if len(first) == size else b""
    return (first + b"\n" + rest).decode(errors="replace")
