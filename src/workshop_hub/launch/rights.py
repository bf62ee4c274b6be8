"""How the warm launcher gives up its rights: calls of the kernel's that Python has no name for."""

from __future__ import annotations

import ctypes
import os
import pwd

_LIBC = ctypes.CDLL(None, use_errno=True)

_PR_SET_DUMPABLE = 4
_PR_SET_NO_NEW_PRIVS = 38
_CAPABILITY_VERSION_3 = 0x20080522

CAP_KILL, CAP_SETGID, CAP_SETUID, CAP_SYS_RESOURCE = 5, 6, 7, 24
"""Numbers of capabilities, see capabilities(7)."""


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Sets(ctypes.Structure):
    _fields_ = (
        ("effective", ctypes.c_uint32),
        ("permitted", ctypes.c_uint32),
        ("inheritable", ctypes.c_uint32),
    )


def keep_only(*capabilities: int) -> None:
    """Give up every other capability that this process has, for good. Raises OSError.

    Ambient capabilities go with the permitted ones (capabilities(7)). What a set-uid program may
    have (the bounding set) stays, so that `sudo` in a user's terminal works as it does elsewhere.
    """
    kept = sum(1 << number for number in capabilities)
    sets = (_Sets * 2)()
    _checked(_LIBC.capget(ctypes.byref(_Header(_CAPABILITY_VERSION_3, 0)), sets))
    for index, each in enumerate(sets):
        part = kept >> (32 * index) & 0xFFFFFFFF
        each.permitted &= part
        each.effective &= part
        each.inheritable = 0
    _checked(_LIBC.capset(ctypes.byref(_Header(_CAPABILITY_VERSION_3, 0)), sets))


def become(account: pwd.struct_passwd) -> None:
    """Make this process the account's, with no way back. Raises OSError."""
    if os.getuid() != account.pw_uid or os.geteuid() != account.pw_uid:
        os.initgroups(account.pw_name, account.pw_gid)
        os.setresgid(account.pw_gid, account.pw_gid, account.pw_gid)
        os.setresuid(account.pw_uid, account.pw_uid, account.pw_uid)
    keep_only()  # where the launcher has them by other means than being root, no change ends them
    # after a change of uid the kernel lets nobody but root look at the process, its owner neither
    _checked(_LIBC.prctl(_PR_SET_DUMPABLE, 1, 0, 0, 0))
    if os.getresuid() != (account.pw_uid,) * 3 or os.getresgid() != (account.pw_gid,) * 3:
        raise OSError(f"the process did not become {account.pw_name}'s")


def gain_no_more() -> None:
    """Have neither this process nor what it starts gain rights, by sudo for instance."""
    _checked(_LIBC.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))


def _checked(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
