"""Disk quotas of the file system that homes are on (quotactl(2), setquota(8))."""

from __future__ import annotations

import ctypes
import errno
import os
from contextlib import suppress
from pathlib import Path

from workshop_hub.errors import UsersRefused
from workshop_hub.people import programs

Q_XGETQSTAT = 0x5805
"""What quotas a file system has. quotactl(2) has it for XFS alone; the kernel answers it for others
as well, and in no other way says whether limits hold."""

USRQUOTA = 0

COUNTED, ENFORCED = 1, 2
"""FS_QUOTA_UDQ_ACCT and FS_QUOTA_UDQ_ENFD of linux/dqblk_xfs.h. ext4 that was made with quotas, and
is mounted without usrquota, counts and enforces nothing."""


class _State(ctypes.Structure):
    """The beginning of struct fs_quota_stat (linux/dqblk_xfs.h), and room for the rest."""

    _fields_ = (
        ("version", ctypes.c_int8),
        ("flags", ctypes.c_uint16),
        ("rest", ctypes.c_uint8 * 252),
    )


def require(folder: Path) -> Path:
    """Return the mount point that `folder` is on. UsersRefused unless it keeps users' quotas."""
    device, mount = mounted_on(folder)
    reason = _why_none(device)
    if reason:
        raise UsersRefused(
            f"The file system of {folder} ({device} at {mount}) keeps no quotas: {reason}.",
            remedy="Mount it with the option usrquota and turn quotas on (quotaon), or leave "
            "--quota out.",
        )
    if programs.find("setquota") is None:
        raise UsersRefused("setquota is not installed.", remedy="apt-get install quota")
    return mount


def mounted_on(folder: Path) -> tuple[str, Path]:
    """Return the device and the mount point of what `folder` lies on (proc_pid_mountinfo(5))."""
    path = folder.resolve()
    best = ("none", Path("/"))
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        mount = Path(before.split()[4].encode().decode("unicode_escape"))
        if path.is_relative_to(mount) and len(mount.parts) >= len(best[1].parts):
            best = (after.split()[1], mount)
    return best


def _why_none(device: str) -> str:
    """Say why the kernel enforces no quotas of users on a device; "" where it does."""
    libc = ctypes.CDLL(None, use_errno=True)
    command = ctypes.c_uint(Q_XGETQSTAT << 8 | USRQUOTA)  # QCMD of sys/quota.h
    state = _State()
    if libc.quotactl(command, os.fsencode(device), 0, ctypes.byref(state)) == 0:
        return _why_free(state.flags)
    number = ctypes.get_errno()
    if number in (errno.ENOSYS, errno.ESRCH):
        return "they are not turned on, or it knows none"
    if number in (errno.ENOENT, errno.ENOTBLK):
        return "it is no disk of this machine"
    return os.strerror(number)


def _why_free(flags: int) -> str:
    if flags & ENFORCED:
        return ""
    if flags & COUNTED:
        return "space is counted, and no limit enforced"
    return "they are not turned on"


def set_limit(name: str, size: int, mount: Path) -> None:
    """Let the account fill `size` bytes of the file system at most; 0 for all. UsersFailed."""
    blocks = str(-(-size // 1024))
    programs.run(["setquota", "-u", name, blocks, blocks, "0", "0", str(mount)])


def forget(name: str, home: Path) -> None:
    """Lift the account's limit, if any, or the next one with its uid would have it. UsersFailed."""
    with suppress(UsersRefused):
        set_limit(name, 0, require(home))
