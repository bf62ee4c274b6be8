"""Who is to have an account: names from the command line, or a CSV file."""

from __future__ import annotations

import csv
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

    password: "" to have one made up. where: what to call the entry in an error. problem: what is
    wrong with the entry itself, in words; one that could not be read has no name.
    """

    name: str
    password: str = field(default="", repr=False)
    full_name: str = ""
    groups: tuple[str, ...] = ()
    where: str = ""
    problem: str = ""


def by_name(patterns: Iterable[str]) -> list[Wanted]:
    """Return the people whom names and patterns stand for, each with what is wrong with it.

    UsersRefused for too many.
    """
    people: list[Wanted] = []
    seen: set[str] = set()
    for pattern in patterns:
        try:
            found = names.expand(pattern)
        except UsersRefused as exc:
            people.append(Wanted("", where=repr(pattern), problem=exc.message))
            continue
        for name in found:
            problem = f"{name!r} is named twice." if name in seen else ""
            people.append(Wanted(name, where=repr(name), problem=problem))
            seen.add(name)
    if len(people) > names.MOST:
        raise UsersRefused(names.too_many(len(people)))
    return people


def from_csv(file: Path) -> list[Wanted]:
    """Return the people of a CSV file, in its order, each with what is wrong with its line.

    Its first line has the names of the columns: `name`, and any of `password`, `full name` and
    `groups`, whose groups stand apart by spaces. The comma or the semicolon divides. UsersRefused
    where the file as a whole cannot be understood.
    """
    lines = [(number, line) for number, line in enumerate(_lines(file), 1) if line.strip()]
    number, first = lines[0] if lines else (1, "")
    delimiter = ";" if ";" in first and "," not in first else ","
    header, problem = _cells(first, delimiter)
    columns = [each.strip().lower().replace("_", " ") for each in header]
    problems = [f"line {number}: {problem}."] if problem else list(_column_problems(columns))
    if problems:
        raise UsersRefused.listing([f"{file}: {each}" for each in problems])
    people: list[Wanted] = []
    seen: dict[str, int] = {}
    for number, line in lines[1:]:
        cells, problem = _cells(line, delimiter)
        problem = f"line {number}: {problem}." if problem else ""
        if not problem and not any(cell.strip() for cell in cells):
            continue
        if not problem and len(cells) != len(columns):
            fields = "1 field" if len(cells) == 1 else f"{len(cells)} fields"
            problem = f"line {number} has {fields}; the first has {len(columns)}."
        if problem:
            people.append(Wanted("", where=f"line {number}", problem=problem))
        else:
            people.append(_person(dict(zip(columns, cells, strict=True)), number, seen))
    if not people:
        raise UsersRefused(f"{file}: it names nobody.")
    if len(people) > names.MOST:
        raise UsersRefused(
            f"{file}: it has {len(people)} people; at most {names.MOST} are possible."
        )
    return people


def _person(cells: dict[str, str], number: int, seen: dict[str, int]) -> Wanted:
    """Return whom a line is about. seen: the lines of the names before it, and then of its own."""
    name = cells["name"].strip()
    where = f"line {number}: {name!r}" if name else f"line {number}"
    problem = f"{where} is in line {seen[name]} already." if name in seen else ""
    if name:
        seen.setdefault(name, number)
    groups = tuple(dict.fromkeys(cells.get("groups", "").split()))
    full_name = cells.get("full name", "").strip()
    return Wanted(name, cells.get("password", ""), full_name, groups, where, problem)


def _cells(line: str, delimiter: str) -> tuple[list[str], str]:
    """Return the cells of a line, and why it has none that can be read; "" where it has.

    Each line is read by itself, so that a quote that is left open hides nothing of the next ones:
    nothing that we take has a line break in it.
    """
    try:
        return next(csv.reader([line], delimiter=delimiter, strict=True), []), ""
    except csv.Error as exc:
        if line.count('"') % 2:
            return [], "a quote is opened in it, and not closed"
        return [], str(exc)


def _lines(file: Path) -> list[str]:
    """Return the lines of a file, without their ends. UsersRefused."""
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
    return text.replace("\r\n", "\n").replace("\r", "\n").split("\n")


def _column_problems(columns: list[str]) -> Iterator[str]:
    if "name" not in columns:
        yield f"the first line names no column `name`; it may name {', '.join(COLUMNS)}."
    for column in sorted(set(columns)):
        if column not in COLUMNS:
            yield f"the column {column!r} is unknown; there are {', '.join(COLUMNS)}."
        if columns.count(column) > 1:
            yield f"the column {column!r} is there twice."
