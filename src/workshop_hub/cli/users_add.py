"""`workshop-hub users add`: accounts for a class, all at once."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import click
from jupyterhub.traitlets import ByteSpecification
from traitlets import TraitError

from workshop_hub.cli.users_options import DRY, SHEET, URL
from workshop_hub.cli.users_output import (
    as_root,
    dry,
    go_through,
    print_sheet,
    warn_of_other_sheet,
)
from workshop_hub.errors import UsersRefused, WorkshopError
from workshop_hub.people import checks, making, preparing, quota, starter, wanted
from workshop_hub.people.making import Tools
from workshop_hub.people.plan import Plan, Settings
from workshop_hub.people.programs import one_at_a_time
from workshop_hub.people.sheet import Sheet
from workshop_hub.people.wanted import Wanted
from workshop_hub.system.accounts import NAME_PATTERN


@click.command()
@click.argument("names", nargs=-1)
@click.option(
    "--csv",
    "csv_file",
    type=click.Path(path_type=Path),
    help="A list of people instead of NAMES, with the columns name, and any of password, "
    "full name, groups.",
)
@click.option("--groups", default="", help="Groups that all of them belong to, as course,lab.")
@click.option(
    "--expires", default="", metavar="DATE", help="First day on which the accounts are of no use."
)
@click.option("--quota", "size", default="", metavar="SIZE", help="Disk space of each, as 5G.")
@click.option(
    "--files",
    "source",
    default="",
    metavar="FOLDER|URL",
    help="Folder, or git repository, that everybody gets a copy of in the home, under its name.",
)
@SHEET
@URL
@DRY
@as_root
def add(
    names: tuple[str, ...],
    csv_file: Path | None,
    groups: str,
    expires: str,
    size: str,
    source: str,
    sheet_place: Path,
    url: str,
    dry_run: bool,
) -> None:
    """Make accounts with passwords, and a sheet to hand out.

    Nothing is done before everything was found to be right. Run again, it does what is missing:
    for people who are new, and for accounts that a crash left half made. Passwords, locks and days
    of expiry that were set are not changed, nor is anything in a home that is there.
    """
    problems: list[str] = []
    people: list[Wanted] = []
    with collecting(problems):
        people = people_of(names, csv_file)
    settings, mount = settings_of(groups, expires, size, source, url, problems)
    files = None
    sheet = Sheet(sheet_place)
    with contextlib.ExitStack() as held:
        if not dry_run:
            held.enter_context(one_at_a_time())
        with collecting(problems):
            sheet.read()
        with collecting(problems):
            files = held.enter_context(starter.packed(source)) if settings.files else None
        plans = preparing.plans(people, settings, sheet, pattern=NAME_PATTERN, problems=problems)
        unknown = [plan.wanted.name for plan in plans if not plan.has_slip]
        warn_of_other_sheet(
            sheet, unknown, "Passwords that are not on it are not known here, and get no slip."
        )
        if dry_run:
            say_notes(plans)
            dry([(plan.wanted.name, plan.steps) for plan in plans])
        else:
            carry_out(plans, Tools(sheet, settings.address, mount, files))


def carry_out(plans: list[Plan], tools: Tools) -> None:
    """Do what is planned, write the slips, and say how it went."""
    has_sheet = tools.sheet.csv.exists() or any(plan.has_slip for plan in plans)
    if has_sheet:
        tools.sheet.save()  # without accounts that are gone: their passwords are not reused
    making.ensure_group()
    tally = go_through(
        [(plan.wanted.name, partial(making.carry_out, plan, tools)) for plan in plans]
    )
    say_notes(plans)
    if has_sheet:
        print_sheet(tools.sheet, tally)
    tally.end()


def say_notes(plans: list[Plan]) -> None:
    """Say what is left as it is although something else was asked for."""
    for plan in plans:
        for note in plan.notes:
            click.echo(f"{plan.wanted.name} {note}.")


def people_of(names: tuple[str, ...], csv_file: Path | None) -> list[Wanted]:
    """Return who is to have an account. UsersRefused."""
    if bool(names) == bool(csv_file):
        raise UsersRefused("Give either NAMES or --csv FILE.")
    return wanted.from_csv(csv_file) if csv_file else wanted.by_name(names)


def settings_of(
    groups: str, expires: str, size: str, source: str, url: str, problems: list[str]
) -> tuple[Settings, Path | None]:
    """Return what holds for everybody, and where quotas are set. problems: gets what is wrong."""
    every = tuple(dict.fromkeys(group for group in groups.split(",") if group))
    files: tuple[str, ...] = ()
    if url and (reason := checks.address_problem(url)):
        problems.append(reason)
    day = limit = mount = None
    with collecting(problems):
        day = checks.expiry(expires) if expires else None
    with collecting(problems):
        limit = bytes_of(size) if size else None
        mount = quota.require(checks.homes_folder()) if size else None
    with collecting(problems):
        if source:
            starter.check_source(source)
            files = (starter.name_of(source),)
    return Settings(every, day, limit, files, url), mount


@contextlib.contextmanager
def collecting(problems: list[str]) -> Iterator[None]:
    """Note an error among the problems, and go on."""
    try:
        yield
    except UsersRefused as exc:
        problems += exc.problems
    except WorkshopError as exc:
        problems.append(exc.sentence)


def bytes_of(size: str) -> int:
    """Return a size as the spawner's options take it, `5G`, in bytes. UsersRefused."""
    try:
        number = int(ByteSpecification().validate(None, size))
    except (TraitError, ValueError) as exc:
        raise UsersRefused(f"{size!r} is no size.", remedy="Write it as 5G or 500M.") from exc
    if number <= 0:
        raise UsersRefused(f"A quota of {size} leaves no space.", remedy="Write it as 5G.")
    return number
