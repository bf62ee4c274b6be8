"""Put files from a tar archive into somebody's home, as that account. Runs alone, as a program.

    python -I -S as_user.py UID GID GROUP,GROUP HOME <ARCHIVE

It begins as root, so that the account need not be able to read Python or the archive, and is the
account before it looks at the home. Each entry at the top of the archive is put in place whole, or
not at all; one whose name is taken already is left out. Prints the names of those put in place.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import sys
import tarfile

DRAFTS = ".workshop-hub.new"
"""Folder in the home in which entries are unpacked; what a killed run left there is removed."""

PR_SET_PDEATHSIG = 1


def main(uid: int, gid: int, groups: list[int], home: str) -> None:
    """Become the account, and unpack what comes on standard input. OSError, tarfile.TarError."""
    parent = os.getppid()
    become(uid, gid, groups)
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # so that no killed run goes on here
    if os.getppid() != parent:
        raise SystemExit("what started this has ended")
    where = os.open(home, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    os.fchdir(where)
    remove_drafts()
    os.mkdir(DRAFTS, 0o700)
    with tarfile.open(fileobj=sys.stdin.buffer, mode="r|") as archive:
        archive.extraction_filter = lambda member, path: member  # root has made it from a folder
        unpack(archive)
    for name in sorted(os.listdir(DRAFTS)):
        if not os.path.lexists(name):
            os.rename(os.path.join(DRAFTS, name), name)
            print(name)
    remove_drafts()


def become(uid: int, gid: int, groups: list[int]) -> None:
    """Give all of root's rights away. What has not called exec since then cannot be traced."""
    os.setgroups(groups)
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    os.umask(0o077)


def unpack(archive: tarfile.TarFile) -> None:
    """Unpack the entries whose names at the top are free."""
    for member in archive:
        if not os.path.lexists(member.name.partition("/")[0]):
            archive.extract(member, DRAFTS)


def remove_drafts() -> None:
    """Remove the drafts, whatever they are."""
    if os.path.islink(DRAFTS) or not os.path.isdir(DRAFTS):
        if os.path.lexists(DRAFTS):
            os.unlink(DRAFTS)
        return
    shutil.rmtree(DRAFTS)


if __name__ == "__main__":
    try:
        ids = sys.argv[3].split(",")
        main(int(sys.argv[1]), int(sys.argv[2]), [int(each) for each in ids], sys.argv[4])
    except (OSError, tarfile.TarError) as exc:
        raise SystemExit(f"{type(exc).__name__}: {exc}") from None
