"""Disk quotas of the file system that homes are on (quotactl(2), setquota(8))."""

from __future__ import annotations

import ctypes
import errno
import os
from pathlib import Path

from workshop_hub.errors import UsersRefused
from workshop_hub.people import programs

Q_GETINFO = 0x800005
USRQUOTA = 0


class _Info(ctypes.Structure):
    _fields_ = (
        ("block_grace", ctypes.c_uint64),
        ("inode_grace", ctypes.c_uint64),
        ("flags", ctypes.c_uint32),
        ("valid", ctypes.c_uint32),
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
    """Say why the kernel keeps no quotas of users for a device; "" where it does."""
    libc = ctypes.CDLL(None, use_errno=True)
    command = ctypes.c_uint(Q_GETINFO << 8 | USRQUOTA)  # QCMD of sys/quota.h
    if libc.quotactl(command, os.fsencode(device), 0, ctypes.byref(_Info())) == 0:
        return ""
    number = ctypes.get_errno()
    # quotactl(2): ESRCH says so; its own words are "No such process"
    return "they are not turned on" if number == errno.ESRCH else os.strerror(number)


def set_limit(name: str, size: int, mount: Path) -> None:
    """Let the account fill `size` bytes of the file system at most, at once. UsersFailed."""
    blocks = str(-(-size // 1024))
    programs.run(["setquota", "-u", name, blocks, blocks, "0", "0", str(mount)])
