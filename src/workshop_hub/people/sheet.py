"""The record of passwords given: a CSV file, and beside it the same as slips to cut out.

The CSV file is what a later run knows passwords from. A row is there before its password is set,
and has the uid of the account that it is for: a row whose account is gone, or is another one of
that name, counts no more.
"""

from __future__ import annotations

import csv
import io
import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from workshop_hub.errors import UsersFailed, UsersRefused
from workshop_hub.people import slips

HEADER = ["name", "password", "full name", "address", "uid of the account"]


@dataclass(frozen=True)
class Row:
    """One person's. password: "" where it is not known any more. address: "" for none."""

    name: str
    password: str = field(repr=False)
    full_name: str
    address: str
    uid: int


class Sheet:
    """The two files, and the rows in them, by name.

    place: their path without `.csv` and `.html`.
    """

    def __init__(self, place: Path) -> None:
        if place.suffix in (".csv", ".html"):
            place = place.with_suffix("")
        self.csv = place.with_name(f"{place.name}.csv")
        self.html = place.with_name(f"{place.name}.html")
        self.rows: dict[str, Row] = {}

    def read(self) -> None:
        """Read the rows of earlier runs. UsersRefused where a file is there that is not ours."""
        record = _read_own(self.csv)
        page = _read_own(self.html)
        if page and slips.MARK not in page[:1000]:
            raise UsersRefused(f"{self.html} is there, and is no sheet of accounts.", remedy=OTHER)
        if record:
            self.rows = {row.name: row for row in _rows(self.csv, record)}

    def lacking(self, names: Iterable[str]) -> list[str]:
        """Return those of the names that are not on it."""
        return [name for name in names if name not in self.rows]

    def put(self, row: Row) -> None:
        """Add a person's row, or replace it, and have it on the disk. UsersFailed."""
        self.rows[row.name] = row
        self.save()

    def save(self) -> None:
        """Write the record, so that it is there after a crash. UsersFailed."""
        text = io.StringIO(newline="")
        writer = csv.writer(text)
        writer.writerow(HEADER)
        for row in self.rows.values():
            writer.writerow([row.name, row.password, row.full_name, row.address, row.uid])
        write(self.csv, text.getvalue())

    def print(self) -> None:
        """Write the slips, of all rows. UsersFailed."""
        write(self.html, slips.page(self.rows.values()))


OTHER = "Name another place with --sheet."


def _rows(file: Path, record: str) -> Iterable[Row]:
    reader = csv.reader(io.StringIO(record, newline=""), strict=True)
    try:
        if next(reader, None) != HEADER:
            raise UsersRefused(f"{file} is there, and is no sheet of accounts.", remedy=OTHER)
        for name, password, full_name, address, uid in reader:
            yield Row(name, password, full_name, address, int(uid))
    except (csv.Error, ValueError) as exc:
        raise UsersRefused(
            f"{file} cannot be understood: line {reader.line_num}: {exc}.", remedy=OTHER
        ) from exc


def _read_own(file: Path) -> str:
    """Return the text of a file of ours; "" where there is none. UsersRefused.

    Nobody else may have written it: what it says becomes people's passwords.
    """
    try:
        opened = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return ""
    except OSError as exc:
        raise UsersRefused(f"{file} cannot be read: {exc.strerror}.", remedy=OTHER) from exc
    with os.fdopen(opened, encoding="utf-8-sig", newline="") as text:
        found = os.fstat(opened)
        if not stat.S_ISREG(found.st_mode):
            raise UsersRefused(f"{file} is no file.", remedy=OTHER)
        if found.st_uid != os.geteuid() or found.st_mode & 0o022:
            raise UsersRefused(
                f"{file} can be changed by others (owner uid {found.st_uid}, mode "
                f"{stat.S_IMODE(found.st_mode):o}).",
                remedy="Look at it, then: chown root FILE; chmod 600 FILE.",
            )
        try:
            return text.read()
        except UnicodeDecodeError as exc:
            raise UsersRefused(f"{file} is no text in UTF-8.", remedy=OTHER) from exc


def write(file: Path, text: str) -> None:
    """Put a file in place whole, durably, for our eyes only. UsersFailed."""
    draft = file.with_name(f".{file.name}.new")
    try:
        draft.unlink(missing_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(draft, flags, 0o600), "w", encoding="utf-8", newline="") as opened:
            opened.write(text)
            opened.flush()
            os.fsync(opened.fileno())
        draft.replace(file)
        sync_folder(file.parent)
    except OSError as exc:
        raise UsersFailed(f"{file} cannot be written: {exc.strerror}.") from exc


def sync_folder(folder: Path) -> None:
    """Have a folder's names on the disk. OSError."""
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
