"""Keep the end of a server's log in a folder that only the hub's account can read."""

from __future__ import annotations

import os
from pathlib import Path

MAX_BYTES = 256 * 1024
"""How much of a log is kept: its end."""


SHOWN = 4000
"""Characters of a log that are shown to people."""


def readable(text: str) -> str:
    """Return the end of a log, without what would garble a page or a terminal."""
    kept = (char for char in text[-SHOWN:] if char.isprintable() or char in "\n\t")
    return "".join(kept).strip("\n")


def save(folder: str, name: str, text: str) -> Path:
    """Write the end of `text` to `folder`/`name`.log, mode 0600, in place of an earlier one."""
    path = Path(folder) / f"{name}.log"
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(path, flags, 0o600), "wb") as file:
        file.write(text.encode("utf-8", errors="replace")[-MAX_BYTES:])
    return path


def tail(folder: str, name: str, lines: int) -> str:
    """Return the last lines of what was saved; empty where nothing was."""
    try:
        text = (Path(folder) / f"{name}.log").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    return "\n".join(text.splitlines()[-lines:])
