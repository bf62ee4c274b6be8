"""Notices that files change, and writes to little memory when it looks.

The launcher looks before each fork. Whatever page it writes to between two forks it has to copy,
and the older one is left to a child alone. Python writes to each object that it uses: a look
through 1,500 paths of their own would cost each child 2.6 MB.

Standard library only; it runs in the interpreter of the users' servers.
"""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterable


class Stamps:
    """Files, and folders, as they were when they were added; all in two objects."""

    def __init__(self, paths: Iterable[str] = ()) -> None:
        self._paths = b""
        self._known = array("q")
        self.add(paths)

    def add(self, paths: Iterable[str]) -> None:
        """Look at more of them."""
        for path in map(os.fsencode, paths):
            self._paths += path + b"\0"
            self._known.append(_stamp(path))

    def changed(self) -> str:
        """Return the path of one that is not what it was; or ""."""
        begin = number = 0
        while (end := self._paths.find(b"\0", begin)) >= 0:
            if _stamp(self._paths[begin:end]) != self._known[number]:
                return os.fsdecode(self._paths[begin:end])
            begin = end + 1
            number += 1
        return ""


def _stamp(path: bytes) -> int:
    """Return what changes with a file, or with what is in a folder; 0 where there is none."""
    try:
        status = os.stat(path)  # noqa: PTH116 - makes no object but the answer
    except OSError:
        return 0
    return hash((status.st_mtime_ns, status.st_size, status.st_ino))
