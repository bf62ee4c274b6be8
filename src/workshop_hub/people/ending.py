"""Pack an account's home into an archive, and remove the account."""

from __future__ import annotations

import os
import stat
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from workshop_hub.errors import UsersFailed, UsersRefused
from workshop_hub.people import making, ours, programs, quota, running, sheet
from workshop_hub.people.ours import Found

FOLDER = Path("/var/lib/workshop-hub/archive")

TIMEOUT = 3600.0
"""Seconds for one home to be packed, read back, or removed."""


def prepare(folder: Path) -> None:
    """Make the archives' folder where it is missing. UsersRefused where others may write there."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.stat()
    except OSError as exc:
        raise UsersRefused(f"{folder} cannot be used: {exc.strerror}.") from exc
    if found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o022:
        raise UsersRefused(
            f"{folder} can be changed by others (owner uid {found.st_uid}, mode "
            f"{stat.S_IMODE(found.st_mode):o}).",
            remedy="Name a folder of root's own with --to.",
        )


def settle(found: Found, *, end_processes: bool) -> None:
    """See that nothing of the account's runs. UsersFailed where something does."""
    if end_processes:
        running.end_all(found.uid)
    elif pids := running.processes_of(found.uid):
        raise UsersFailed(
            f"It has {len(pids)} running processes ({running.listed(pids)}).",
            remedy="Stop its server, or add --end-processes.",
        )


@contextmanager
def closed(found: Found) -> Iterator[None]:
    """Let nobody come back to the account, as it has expired; where this fails, they may again.

    UsersFailed. Work that is done while a home is packed would be in no archive.
    """
    if found.secret is None:
        yield
        return
    making.set_expiry(found.name, "1970-01-02")
    try:
        yield
    except BaseException:
        day = found.secret.expires
        making.set_expiry(found.name, day.isoformat() if day else "")
        raise


def archive(found: Found, folder: Path) -> Path:
    """Pack the home into a new file of root's; return the file once it is on the disk. UsersFailed.

    Symbolic links are packed as such, and other file systems in the home are left out. tar never
    follows a link that it meets, also not one put in the place of a file meanwhile.
    """
    home = Path(found.home)
    _check_home(found, home)
    packer, ending = ("--zstd", "zst") if programs.find("zstd") else ("--gzip", "gz")
    stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
    file = folder / f"{found.name}-{stamp}.tar.{ending}"
    draft = folder / f".{found.name}.tar.new"
    draft.unlink(missing_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    words = ["tar", "--create", packer, "--file=-", "--numeric-owner", "--one-file-system"]
    words += ["--sparse", f"--directory={home.parent}", "--", home.name]
    try:
        opened = os.open(draft, flags, 0o600)
        try:
            programs.run(words, stdout=opened, timeout=TIMEOUT)
            os.fsync(opened)
        finally:
            os.close(opened)
        with draft.open("rb") as written:
            words = ["tar", "--list", packer, "--file=-"]
            programs.run(words, stdin=written, stdout=subprocess.DEVNULL, timeout=TIMEOUT)
        draft.rename(file)
        sheet.sync_folder(folder)
    except OSError as exc:
        raise UsersFailed(f"{file} cannot be written: {exc.strerror}.") from exc
    finally:
        draft.unlink(missing_ok=True)
    return file


def _check_home(found: Found, home: Path) -> None:
    try:
        state = home.lstat()
    except OSError as exc:
        raise UsersFailed(f"Its home {home} cannot be read: {exc.strerror}.") from exc
    if not stat.S_ISDIR(state.st_mode) or state.st_uid != found.uid:
        raise UsersFailed(f"Its home {home} is no folder of its own (owner uid {state.st_uid}).")


def remove(found: Found, *, end_processes: bool) -> None:
    """Remove an account with its home and its mail. UsersFailed.

    It is locked before its processes are ended, so that nobody comes back meanwhile.
    """
    if not end_processes:
        settle(found, end_processes=False)
    if found.secret is not None:
        programs.run(["usermod", "--lock", "--expiredate", "1", "--", found.name])
    settle(found, end_processes=end_processes)
    quota.forget(found.name, Path(found.home))
    programs.run(["userdel", "--remove", "--", found.name], timeout=TIMEOUT)
    if ours.find(found.name) is not None:
        raise UsersFailed("userdel ended without an error, and the account is there still.")
    if os.path.lexists(found.home):
        raise UsersFailed(f"The account is removed, and its home {found.home} is there still.")
