"""What a program that is root does first, where an account that is not root has started it."""

from __future__ import annotations

import os
import resource
import signal
import sys
from contextlib import suppress
from pathlib import Path

from workshop_hub.system import safety

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

_HANDED_DOWN = (
    resource.RLIMIT_AS,
    resource.RLIMIT_CPU,
    resource.RLIMIT_DATA,
    resource.RLIMIT_FSIZE,
    resource.RLIMIT_NPROC,
)
"""Limits with which a starter could have files half written, or choose when a program ends."""

_FILES = 4096
"""Files that may be open."""


def forget_the_starter() -> None:
    """Undo what a process hands down to another: variables, limits, signals, umask and folder.

    sudo passes on all but the variables (sudo(8)).
    """
    os.environ.clear()
    os.environ["PATH"] = PATH
    for limit in _HANDED_DOWN:
        _lift(limit, resource.RLIM_INFINITY)
    _lift(resource.RLIMIT_NOFILE, _FILES)
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        if signal.getsignal(number) is signal.SIG_IGN:
            with suppress(OSError, ValueError):
                signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)  # as Python has it
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    os.umask(0o022)
    os.chdir("/")


def _lift(limit: int, most: int) -> None:
    try:
        resource.setrlimit(limit, (most, most))
    except (OSError, ValueError):  # a container without CAP_SYS_RESOURCE; nor has sudo it there
        _, hard = resource.getrlimit(limit)
        resource.setrlimit(limit, (hard, hard))


def unsafe() -> str:
    """Say who beside root could replace what this process runs, or ""."""
    if not sys.flags.isolated:
        return "its Python was started without -I."
    loaded = (getattr(module, "__file__", None) for module in [*sys.modules.values()])
    files = {sys.executable, str(Path(sys.executable).resolve()), *filter(None, loaded), *sys.path}
    return safety.first_trouble(map(Path, sorted(files)), 0)
