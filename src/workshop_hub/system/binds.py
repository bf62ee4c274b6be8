"""Which folders of the host may be mounted for a user.

The engine looks the source of a bind mount up as root and follows symbolic links. A user who can
write to a folder on the way can put a link there, to /root or to another user's home, before or
after we look. So links are followed only where the user could not have made them, and a source
that lies inside a folder which the user can write to is refused.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from workshop_hub.errors import DirectoryRefused
from workshop_hub.system.accounts import Account

MAX_LINKS = 40
"""As the kernel's own limit (path_resolution(7))."""


def resolve(source: str, account: Account, what: str) -> str:
    """Return the folder's real path, safe to be mounted for `account`. Blocks.

    what: what the folder is, for messages, as in "The home". Raises DirectoryRefused.
    """
    real, todo, links = Path("/"), _parts(source), 0
    while todo:
        part = todo.pop(0)
        if part == "..":
            real = real.parent
            continue
        entry = real / part
        try:
            status = entry.lstat()
        except OSError as exc:
            raise _unusable(what, source, exc) from exc
        if _can_replace(account, real, status):
            raise DirectoryRefused(
                f"{what} {source} cannot be mounted: {account.name} can replace {entry} by a "
                "link to another place.",
                remedy=f"Ask the administrator to choose a folder outside of those that "
                f"{account.name} can write to. What lies in the home is there already.",
            )
        if not stat.S_ISLNK(status.st_mode):
            real = entry
            continue
        links += 1
        if links > MAX_LINKS:
            raise _unusable(what, source, OSError(errno.ELOOP, os.strerror(errno.ELOOP)))
        target = str(entry.readlink())
        todo = _parts(target) + todo
        if target.startswith("/"):
            real = Path("/")
    return str(real)


def _parts(path: str) -> list[str]:
    return [part for part in path.split("/") if part not in ("", ".")]


def _unusable(what: str, source: str, exc: OSError) -> DirectoryRefused:
    if isinstance(exc, FileNotFoundError | NotADirectoryError):
        return DirectoryRefused(
            f"{what} {source} does not exist.",
            remedy="Ask the administrator to create it. The container engine would make it, but "
            "owned by root.",
        )
    return DirectoryRefused(
        f"{what} {source} cannot be used: {exc.strerror}.",
        remedy="Ask the administrator to look at it.",
    )


def _can_replace(account: Account, folder: Path, entry: os.stat_result) -> bool:
    """Say whether the account can put something else in the entry's place."""
    status = folder.stat()
    if not _can_write(account, folder, status):
        return False
    if status.st_mode & stat.S_ISVTX:  # sticky: only the owners of the two may rename
        return account.uid in (status.st_uid, entry.st_uid)
    return True


def _can_write(account: Account, folder: Path, status: os.stat_result) -> bool:
    if status.st_uid == account.uid:
        return True  # the owner may change the mode
    if status.st_mode & stat.S_IWOTH:
        return True
    if not status.st_mode & stat.S_IWGRP:
        return False
    # With an access control list the group's bits are the most that any named user may have.
    return status.st_gid in account.groups or _has_acl(folder)


def _has_acl(folder: Path) -> bool:
    try:
        return "system.posix_acl_access" in os.listxattr(folder)
    except OSError:
        return False
