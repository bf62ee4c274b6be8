"""The entry points of the installed packages, read once for all servers.

A server asks for them five times before it shows JupyterLab, and each time Python reads a file of
every package: 0.02 CPU seconds.

Standard library only; it runs in the interpreter of the users' servers.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from types import ModuleType

from workshop_hub.launch.stamps import Stamps

METADATA = (".dist-info", ".egg-info")
"""How the names end that tell of a package."""

FILES = "*-info/entry_points.txt"
"""Where packages have their entry points, below a folder of packages."""


def know() -> list[str]:
    """Read them all, and have the loaded modules, and those to come, be told from memory.

    Returns the files that were read.

    That holds for what is found on the present `sys.path`, for as long as nothing is installed.
    Where a package's cannot be read, nothing changes.
    """
    ask = metadata.entry_points
    path = tuple(sys.path)
    folders = Stamps(path)
    try:
        groups = {each.group for found in metadata.distributions() for each in found.entry_points}
        known = {group: tuple(ask(group=group)) for group in groups}
    except Exception as exc:  # of anything that a file may have in it
        sys.stderr.write(f"Entry points are left to each server: {exc!r}\n")
        return []
    kind = metadata.EntryPoints

    def entry_points(**params: object) -> object:
        if params.keys() == {"group"} and _is_searched(path) and not folders.changed():
            return kind(known.get(str(params["group"]), ()))
        return ask(**params)

    for module in list(sys.modules.values()):
        if isinstance(module, ModuleType) and vars(module).get("entry_points") is ask:
            vars(module)["entry_points"] = entry_points
    return [str(file) for folder in path for file in Path(folder).glob(FILES)]


def _is_searched(path: Iterable[str]) -> bool:
    """Say whether packages are looked for in `path`, but for the folder of the script."""
    if not sys.path or sys.path[1:] != list(path):
        return False
    try:
        names = os.listdir(sys.path[0] or ".")  # noqa: PTH208 - names are enough
    except FileNotFoundError:
        return True
    except OSError:  # an archive
        return False
    return not any(name.endswith(METADATA) for name in names)
