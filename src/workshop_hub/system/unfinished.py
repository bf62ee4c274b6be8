"""Names of accounts whose making has begun and has not ended, kept over a crash of the hub."""

from __future__ import annotations

import json
import os
from pathlib import Path

from workshop_hub.errors import AccountCreationFailed
from workshop_hub.system import accounts


class Unfinished:
    """A set of names, in a file.

    file: None keeps them in memory only. A file that cannot be read counts as empty: it was
    written by nobody but us, in one step.
    """

    def __init__(self, file: Path | None = None) -> None:
        self._file = file
        self._names: set[str] | None = set() if file is None else None

    def __contains__(self, name: str) -> bool:
        return name in self._known()

    async def add(self, name: str) -> None:
        """Note a name. Raises AccountCreationFailed where it cannot be kept."""
        await self._become(self._known() | {name})

    async def discard(self, name: str) -> None:
        """Forget a name; likewise."""
        await self._become(self._known() - {name})

    def _known(self) -> set[str]:
        if self._names is None:
            try:
                self._names = set(json.loads((self._file or Path()).read_text(encoding="utf-8")))
            except (OSError, ValueError, TypeError):
                self._names = set()
        return self._names

    async def _become(self, names: set[str]) -> None:
        file = self._file
        if file is not None and names != self._known():
            try:
                await accounts.off_loop(lambda: _write(file, names))
            except OSError as exc:
                raise AccountCreationFailed(
                    f"The hub cannot note in {file.absolute()} which accounts are half-made: "
                    f"{exc.strerror}.",
                    remedy="Make room, or let the hub write there (unfinished_accounts_file).",
                ) from exc
        self._names = names


def _write(file: Path, names: set[str]) -> None:
    if not names:
        file.unlink(missing_ok=True)
        return
    new = file.with_name(f"{file.name}.new")
    with new.open("w", encoding="utf-8") as stream:
        json.dump(sorted(names), stream)
        stream.flush()
        os.fsync(stream.fileno())
    new.replace(file)
