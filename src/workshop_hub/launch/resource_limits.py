"""The resource limits of limits.conf(5) for one user, as PAM sets them when sudo starts a program.

PAM's own module reads the file and sets them; it is asked for nothing else. Where the file has no
entries it may set some all the same: on Debian those that the first process of the machine has.
They are the same for everybody, and learned once.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
from contextlib import suppress
from pathlib import Path

FILES = (Path("/etc/security/limits.conf"), Path("/etc/security/limits.d"))
STACK = Path(__file__).parent / "pam.d"
"""Folder with a PAM stack of that one module."""

SERVICE = "workshop-hub-limits"
_SILENT = 0x8000


_usual: dict[int, tuple[int, int]] = {}
"""Limits where there are no entries: soft and hard one by number."""


class CannotLimit(Exception):
    """The limits cannot be set; the text says why."""


class _Conversation(ctypes.Structure):
    _fields_ = (("converse", ctypes.c_void_p), ("data", ctypes.c_void_p))


def are_set() -> bool:
    """Say whether the machine has any."""
    file, folder = FILES
    return any(_has_entries(path) for path in (file, *folder.glob("*.conf")))


def _has_entries(path: Path) -> bool:
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return False
    return any(line.strip() and not line.lstrip().startswith("#") for line in lines)


def learn(name: str) -> None:
    """Try, in a process that ends, what PAM sets for an account of which there are no entries."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            set_for(name)
            os.write(writer, json.dumps(sorted(_in_force().items())).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as found:
        learned = json.loads(found.read() or b"[]")
    os.waitpid(pid, 0)
    _usual.clear()
    _usual.update({number: (soft, hard) for number, (soft, hard) in learned})


def set_usual() -> None:
    """Set for this process what was learned, as far as it may."""
    for number, (soft, hard) in _usual.items():
        with suppress(OSError, ValueError):
            resource.setrlimit(number, (soft, hard))


def _in_force() -> dict[int, tuple[int, int]]:
    names = [name for name in dir(resource) if name.startswith("RLIMIT_")]
    return {number: resource.getrlimit(number) for number in (getattr(resource, n) for n in names)}


def set_for(name: str) -> None:
    """Set the limits of the account `name` for this process. CannotLimit, also where it may not.

    Source: pam_start_confdir(3), in Linux-PAM since 1.4 (2020).
    """
    try:
        pam = ctypes.CDLL("libpam.so.0")
        begin = pam.pam_start_confdir
    except (OSError, AttributeError) as exc:
        raise CannotLimit("PAM on this machine is older than 1.4") from exc
    handle = ctypes.c_void_p()
    conversation = _Conversation()
    code = begin(
        SERVICE.encode(),
        name.encode(),
        ctypes.byref(conversation),
        str(STACK).encode(),
        ctypes.byref(handle),
    )
    if code == 0:
        code = pam.pam_open_session(handle, _SILENT)
    if code != 0:
        raise CannotLimit(f"PAM says {code} to the limits of {name} in limits.conf")
