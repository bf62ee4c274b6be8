"""The packages of the user's own, in a process that has imported those of everybody before."""

from __future__ import annotations

import ctypes
import os
import re
import site
import sys


class NotWarm(Exception):
    """A server has to be started afresh; the text says why."""


def look_for(env: dict[str, str]) -> None:
    """Find the user's own packages as a new interpreter does; NotWarm where one is here already."""
    named = env.get("PYTHONPATH", "")
    for folder in reversed([os.path.abspath(each) for each in named.split(os.pathsep) if named]):
        _refuse_shadows(folder)
        if folder in sys.path:
            sys.path.remove(folder)  # the first of several counts
        sys.path.insert(0, folder)
    site.USER_BASE = site.USER_SITE = None
    folder = site.getusersitepackages()
    if env.get("PYTHONNOUSERSITE"):
        site.ENABLE_USER_SITE = False
        _set_flag("no_user_site", 1)
    elif site.ENABLE_USER_SITE and os.path.isdir(folder):
        _refuse_shadows(folder)
        before = sys.path[:]
        site.addusersitepackages(set(before))
        added = [path for path in sys.path if path not in before]
        at = next((i for i, path in enumerate(before) if path in _system_packages()), len(before))
        sys.path[:] = [*before[:at], *added, *before[at:]]


def _system_packages() -> list[str]:
    """Return the folders that come after the user's own: a venv's come before."""
    if sys.prefix == sys.base_prefix:
        return site.getsitepackages()
    own = site.getsitepackages([sys.prefix])
    base = site.getsitepackages([sys.base_prefix, sys.base_exec_prefix])
    return [folder for folder in base if folder not in own]


def _set_flag(name: str, value: int) -> None:
    """Change one of `sys.flags`, which Python gives no way to. NotWarm where it stays as it is."""
    shown = re.findall(r"(\w+)=", repr(sys.flags))
    number = ctypes.py_object(value)
    ctypes.pythonapi.Py_IncRef(number)  # the next takes it over
    ctypes.pythonapi.PyStructSequence_SetItem(
        ctypes.py_object(sys.flags), ctypes.c_ssize_t(shown.index(name)), number
    )
    if getattr(sys.flags, name) != value:
        raise NotWarm(f"sys.flags.{name} cannot be set")


def _refuse_shadows(folder: str) -> None:
    """Raise NotWarm where the folder has another version of what is loaded."""
    try:
        names = {name.partition(".")[0] for name in os.listdir(folder)}
    except OSError:
        return
    loaded = {name for name in sys.modules if "." not in name} | {"sitecustomize", "usercustomize"}
    if both := sorted(names & loaded - {"__pycache__"}):
        raise NotWarm(f"{folder} has its own {both[0]}")
