"""Whether the files of a program are safe to run as root, or as every user."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from pathlib import Path

BESIDE = {"become.py": "start.py", "forkserver.py": "*.py"}
"""What a launcher runs of the files beside it."""


def launcher_files(command: Iterable[str]) -> list[Path]:
    """Return the files that a launcher command consists of, its standard library included."""
    named = [Path(word) for word in command if word.startswith("/") and Path(word).is_file()]
    patterns = [(file.parent, BESIDE[file.name]) for file in named if file.name in BESIDE]
    named += [each for folder, pattern in patterns for each in sorted(folder.glob(pattern))]
    return [*named, *(file for file in [Path(os.__file__)] if named)]


def warm_files(command: Iterable[str], program: str) -> list[Path]:
    """Return what the warm launcher consists of, and the folders that it imports from.

    program: the single-user server's script. Its interpreter's environment is looked at as well.
    """
    script = Path(program)
    try:
        with script.open("rb") as file:
            interpreter = os.fsdecode(file.readline(1024)).removeprefix("#!").split()[0]
    except (OSError, IndexError):
        return launcher_files(command)
    found = [*launcher_files(command), script, Path(interpreter)]
    for python in (Path(interpreter), Path(interpreter).resolve()):
        folders = python.parents[1].glob("lib/python3*")
        found += [place for each in folders for place in (each, each / "site-packages")]
    return [path for path in found if path.exists()]


def trouble(file: Path, hub_uid: int) -> str:
    """Say in a sentence why the file cannot be run by every user, or safely; empty if it can.

    Whoever may replace the file, or a folder on the way to it, may run what he likes as any user
    of the hub. The links on the way are looked at as well as where they lead. hub_uid: who may,
    beside root; 0 for nobody.
    """
    for path in _way_to(file):
        try:
            status = path.lstat()
        except OSError as exc:
            return f"{path} cannot be looked at: {exc.strerror}."
        if status.st_uid not in (0, hub_uid):
            return f"{path} belongs to uid {status.st_uid}, who could replace it."
        groups = (0, os.getegid()) if hub_uid else (0,)
        if not path.is_symlink() and (reason := _mode_trouble(status, groups)):
            return f"{path} {reason}."
    return ""


def first_trouble(files: Iterable[Path], hub_uid: int) -> str:
    """Return the first `trouble` of those files that exist; "" where there is none."""
    found = (trouble(file, hub_uid) for file in files if file.exists())
    return next(filter(None, found), "")


def _way_to(file: Path) -> list[Path]:
    """Return every folder and link that is passed on the way to the file, and the file."""
    seen: list[Path] = []
    waiting = [Path(os.path.abspath(file))]  # noqa: PTH100 - resolve() would hide the links
    while waiting:
        path = waiting.pop()
        for part in [*reversed(path.parents), path]:
            if part in seen:
                continue
            seen.append(part)
            if part.is_symlink():
                target = os.path.join(part.parent, os.readlink(part))  # noqa: PTH115, PTH118
                waiting.append(Path(os.path.normpath(target)))
    return [path for path in seen if path.exists()]


def _mode_trouble(status: os.stat_result, groups: tuple[int, ...]) -> str:
    mode = status.st_mode
    folder = stat.S_ISDIR(mode)
    if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
        return "may be written by everybody"
    if mode & stat.S_IWGRP and status.st_gid not in groups:
        return f"may be written by the group {status.st_gid}"
    if folder and not mode & stat.S_IXOTH:
        return "may not be entered by every user"
    if not folder and not mode & stat.S_IROTH:
        return "may not be read by every user"
    return ""
