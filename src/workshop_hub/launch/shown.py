"""What `ps` and /proc/PID show of a forked process: its own command and environment."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

_LIBC = ctypes.CDLL(None, use_errno=True)
_LIBC.malloc.restype = _LIBC.sbrk.restype = ctypes.c_void_p

_PR_SET_NAME = 15
_PR_SET_MM, _PR_SET_MM_MAP = 35, 14
_NO_FILE = 0xFFFFFFFF
"""For exe_fd: the program stays what it is."""


class _Map(ctypes.Structure):
    """struct prctl_mm_map of linux/prctl.h: where the parts of a process are in its memory."""

    _fields_ = (
        ("start_code", ctypes.c_uint64),
        ("end_code", ctypes.c_uint64),
        ("start_data", ctypes.c_uint64),
        ("end_data", ctypes.c_uint64),
        ("start_brk", ctypes.c_uint64),
        ("brk", ctypes.c_uint64),
        ("start_stack", ctypes.c_uint64),
        ("arg_start", ctypes.c_uint64),
        ("arg_end", ctypes.c_uint64),
        ("env_start", ctypes.c_uint64),
        ("env_end", ctypes.c_uint64),
        ("auxv", ctypes.c_void_p),
        ("auxv_size", ctypes.c_uint32),
        ("exe_fd", ctypes.c_uint32),
    )


_SIZE = ctypes.c_ulong(ctypes.sizeof(_Map))


def show_as(command: Sequence[str], env: Mapping[str, str]) -> None:
    """Have the kernel show `command`, a script and its interpreter before it, and `env`."""
    name = os.fsencode(os.path.basename(command[1]))[:15]  # noqa: PTH119 - pathlib is not needed
    _LIBC.prctl(_PR_SET_NAME, ctypes.c_char_p(name), 0, 0, 0)
    words = _joined(command)
    variables = _joined(f"{name}={value}" for name, value in env.items())
    stat = Path("/proc/self/stat").read_bytes().rpartition(b")")[2].split()
    fields = [0, 0, 0, 0, *map(int, stat[1:])]  # numbered as in proc(5)
    if not _move(fields, words, variables):
        _overwrite(fields[48], fields[49], words)
        _overwrite(fields[50], fields[51], variables)


def _joined(texts: Iterable[str]) -> bytes:
    return b"".join(os.fsencode(text) + b"\0" for text in texts)


def _move(fields: list[int], words: bytes, variables: bytes) -> bool:
    """Tell the kernel of another place for them; say whether it takes that.

    Source: prctl(2), PR_SET_MM_MAP, which needs no privilege and a kernel that was built with
    CONFIG_CHECKPOINT_RESTORE, as distributions' are.
    """
    size = len(words) + len(variables)
    place = _LIBC.malloc(ctypes.c_size_t(size))  # for as long as the process lives
    if not place:
        return False
    ctypes.memmove(place, words + variables, size)
    middle, end = place + len(words), place + size
    known = [*fields[26:28], *fields[45:47], fields[47], _LIBC.sbrk(0), fields[28]]
    places = _Map(*known, place, middle, middle, end, None, 0, _NO_FILE)
    done = _LIBC.prctl(_PR_SET_MM, _PR_SET_MM_MAP, ctypes.byref(places), _SIZE, ctypes.c_ulong(0))
    return bool(done == 0)


def _overwrite(start: int, end: int, data: bytes) -> None:
    """Write into the place that the kernel knows, whole entries only, as many as it has room for.

    The launcher makes itself room there, see `forkserver.ROOM`.
    """
    if not 0 < start < end:
        return
    room = end - start
    kept = data if len(data) <= room else data[: data.rfind(b"\0", 0, room) + 1]
    ctypes.memset(start, 0, room)
    ctypes.memmove(start, kept, len(kept))
