"""Who is to have an account: names from the command line, or a CSV file."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from workshop_hub.errors import UsersRefused
from workshop_hub.people import names

COLUMNS = ("name", "password", "full name", "groups")

LARGEST = 1 << 20
"""Bytes of a CSV file at most: more is not a list of people."""


@dataclass(frozen=True)
class Wanted:
    """A person who is to have an account.

    password: "" to have one made up. where: what to call the entry in an error.
    """

    name: str
    password: str = field(default="", repr=False)
    full_name: str = ""
    groups: tuple[str, ...] = ()
    where: str = ""


def by_name(patterns: Iterable[str]) -> list[Wanted]:
    """Return the people whom names and patterns stand for. UsersRefused."""
    return [Wanted(name, where=repr(name)) for name in names.expand_all(patterns)]


def from_csv(file: Path) -> list[Wanted]:
    """Return the people of a CSV file, in its order. UsersRefused with all that is wrong.

    Its first line has the names of the columns: `name`, and any of `password`, `full name` and
    `groups`, whose groups stand apart by spaces. The comma or the semicolon divides.
    """
    rows = _rows(file)
    header = next(rows, (0, []))[1]
    columns = [each.strip().lower().replace("_", " ") for each in header]
    problems = list(_column_problems(columns))
    if problems:
        raise UsersRefused.listing([f"{file}: {each}" for each in problems])
    people: list[Wanted] = []
    seen: dict[str, int] = {}
    for line, row in rows:
        if len(row) != len(columns):
            problems.append(f"line {line} has {len(row)} fields; the first has {len(columns)}.")
            continue
        cells = dict(zip(columns, row, strict=True))
        name = cells["name"].strip()
        if name in seen:
            problems.append(f"line {line}: {name!r} is in line {seen[name]} already.")
        seen[name] = line
        groups = tuple(dict.fromkeys(cells.get("groups", "").split()))
        full_name = cells.get("full name", "").strip()
        where = f"line {line}: {name!r}"
        people.append(Wanted(name, cells.get("password", ""), full_name, groups, where))
    if not people and not problems:
        problems.append("it names nobody.")
    if len(people) > names.MOST:
        problems.append(f"it has {len(people)} people; at most {names.MOST} are possible.")
    if problems:
        raise UsersRefused.listing([f"{file}: {each}" for each in problems])
    return people


def _rows(file: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield the lines that are not empty, each with its number. UsersRefused."""
    try:
        with file.open("rb") as opened:
            data = opened.read(LARGEST + 1)
        if len(data) > LARGEST:
            raise UsersRefused(f"{file} is larger than {LARGEST} bytes.")
        text = data.decode("utf-8-sig")
    except OSError as exc:
        raise UsersRefused(f"{file} cannot be read: {exc.strerror}.") from exc
    except UnicodeDecodeError as exc:
        line = data[: exc.start].count(b"\n") + 1
        raise UsersRefused(
            f"{file}: line {line} is not UTF-8.", remedy="Save it as CSV in UTF-8."
        ) from exc
    first = text.partition("\n")[0]
    delimiter = ";" if ";" in first and "," not in first else ","
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        for row in reader:
            if any(cell.strip() for cell in row):
                yield reader.line_num, row
    except csv.Error as exc:
        raise UsersRefused(f"{file}: line {reader.line_num}: {exc}.") from exc


def _column_problems(columns: list[str]) -> Iterator[str]:
    if "name" not in columns:
        yield f"the first line names no column `name`; it may name {', '.join(COLUMNS)}."
    for column in sorted(set(columns)):
        if column not in COLUMNS:
            yield f"the column {column!r} is unknown; there are {', '.join(COLUMNS)}."
        if columns.count(column) > 1:
            yield f"the column {column!r} is there twice."
