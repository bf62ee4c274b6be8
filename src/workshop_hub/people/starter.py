"""Starter files: a folder, or a git repository, as an archive that is unpacked in each home."""

from __future__ import annotations

import contextlib
import os
import re
import stat
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from workshop_hub.errors import UsersFailed, UsersRefused
from workshop_hub.people import as_user, programs
from workshop_hub.people.ours import Found

CLONE_TIMEOUT = 600.0
COPY_TIMEOUT = 600.0
"""Seconds for one repository, and for one person's files."""

SKELETON = Path("/etc/skel")

GIT = {
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_ALLOW_PROTOCOL": "file:git:http:https:ssh",
    "GIT_SSH_COMMAND": "ssh -o BatchMode=yes",
}
"""It asks nobody, and runs no program that the address names (git-remote-ext)."""


PASSED_ON = ("ALL_PROXY", "HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY", "SSH_AUTH_SOCK")
"""Variables of ours that say how git gets to the repository; those of proxies in small, too."""


@dataclass(frozen=True)
class Archive:
    """What is put into homes. names: of its entries at the top."""

    file: Path
    names: tuple[str, ...]


def is_repository(source: str) -> bool:
    """Say whether the source is an address for git, and not a folder of this machine."""
    return "://" in source or bool(re.match(r"[\w.-]+@[\w.-]+:", source))


def name_of(source: str) -> str:
    """Return what the files are called in a home, as `cp -r` and `git clone` do. UsersRefused."""
    path = urlsplit(source).path if "://" in source else source
    name = re.split("[/:]", path.rstrip("/"))[-1]
    name = name.removesuffix(".git") if is_repository(source) else Path(source).resolve().name
    if name in ("", ".", "..") or name == as_user.DRAFTS or not name.isprintable():
        raise UsersRefused(f"{source!r} has no name that its files could have in a home.")
    return name


def check_source(source: str) -> None:
    """Raise UsersRefused unless this can be what files come from."""
    name_of(source)
    if is_repository(source):
        if "://" in source and urlsplit(source).password:
            raise UsersRefused(
                "The address of the repository has a password in it, which everybody would get.",
                remedy="Clone it yourself, and name the folder.",
            )
        if programs.find("git") is None:
            raise UsersRefused("git is not installed.", remedy="apt-get install git")
    elif not Path(source).is_dir():
        raise UsersRefused(f"{source} is no folder.")


@contextlib.contextmanager
def packed(source: str) -> Iterator[Archive]:
    """Give an archive of the files, for as long as it is needed. UsersRefused."""
    name = name_of(source)
    with tempfile.TemporaryDirectory(prefix="workshop-hub-files-") as place:
        folder = Path(source)
        if is_repository(source):
            folder = Path(place) / "clone"
            clone(source, folder)
        yield pack(Path(place), {name: folder})


@contextlib.contextmanager
def skeleton(folder: Path = SKELETON) -> Iterator[Archive]:
    """Give an archive of the files that every new home has."""
    entries = {each.name: each for each in folder.iterdir()} if folder.is_dir() else {}
    with tempfile.TemporaryDirectory(prefix="workshop-hub-files-") as place:
        yield pack(Path(place), entries)


def clone(source: str, folder: Path) -> None:
    """Fetch the newest state of a repository, once for all. UsersRefused."""
    words = ["git", "clone", "--quiet", "--depth=1", "--no-recurse-submodules", "--", source]
    names = {*PASSED_ON, *(name.lower() for name in PASSED_ON)}
    more = {**GIT, **{name: os.environ[name] for name in names if name in os.environ}}
    try:
        programs.run([*words, str(folder)], timeout=CLONE_TIMEOUT, more=more, locked=False)
    except UsersFailed as exc:
        raise UsersRefused(f"{source} cannot be fetched: {exc.message}") from exc


def pack(place: Path, entries: dict[str, Path]) -> Archive:
    """Pack files and folders under new names, without owners. UsersRefused for what is neither."""
    file = place / "files.tar"
    try:
        with tarfile.open(file, "w", format=tarfile.PAX_FORMAT) as archive:
            for name, path in sorted(entries.items()):
                _add(archive, path, name, top=True)
    except OSError as exc:
        raise UsersRefused(f"{exc.filename or place} cannot be read: {exc.strerror}.") from exc
    return Archive(file, tuple(sorted(entries)))


def _add(archive: tarfile.TarFile, path: Path, name: str, *, top: bool = False) -> None:
    found = path.stat() if top and path.is_dir() else path.lstat()
    member = tarfile.TarInfo(name)
    member.mtime = int(found.st_mtime)
    member.mode = stat.S_IMODE(found.st_mode) & 0o755 | 0o600
    if stat.S_ISDIR(found.st_mode):
        member.type, member.mode = tarfile.DIRTYPE, member.mode | 0o700
        archive.addfile(member)
        for each in sorted(path.iterdir()):
            _add(archive, each, f"{name}/{each.name}")
    elif stat.S_ISLNK(found.st_mode):
        member.type, member.linkname = tarfile.SYMTYPE, str(path.readlink())
        archive.addfile(member)
    elif stat.S_ISREG(found.st_mode):
        member.size = found.st_size
        with path.open("rb") as opened:
            archive.addfile(member, opened)
    else:
        raise UsersRefused(f"{path} is neither a file, nor a folder, nor a symbolic link.")


def put(archive: Archive, account: Found) -> list[str]:
    """Put what is not there yet into a home, as the account; return its names. UsersFailed."""
    gids = os.getgrouplist(account.name, account.gid)
    words = [sys.executable, "-I", "-S", as_user.__file__, str(account.uid), str(account.gid)]
    words += [",".join(map(str, gids)), account.home]
    with archive.file.open("rb") as opened:
        try:
            said = programs.run(words, stdin=opened, timeout=COPY_TIMEOUT, locked=False)
        except UsersFailed as exc:
            raise UsersFailed(f"the files could not be copied: {exc.message}") from exc
    return said.splitlines()


def missing(names: tuple[str, ...], home: str) -> list[str]:
    """Return those of the names that the home does not have."""
    return [name for name in names if not os.path.lexists(Path(home, name))]
