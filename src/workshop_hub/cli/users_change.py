"""`workshop-hub users list | passwd | lock | unlock | expire`: see them, change them."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import click
from rich.markup import escape
from rich.table import Table

from workshop_hub.cli.output import wide_console
from workshop_hub.cli.users_options import DRY, FORCE, NAMES, SHEET, URL
from workshop_hub.cli.users_output import (
    as_root,
    dry,
    go_through,
    print_sheet,
    warn_of_other_sheet,
)
from workshop_hub.errors import UsersRefused
from workshop_hub.people import checks, making, ours, passwords, preparing, programs
from workshop_hub.people.making import Tools
from workshop_hub.people.names import expand_all
from workshop_hub.people.ours import GROUP, Found
from workshop_hub.people.programs import one_at_a_time
from workshop_hub.people.sheet import Sheet

Act = Callable[[Found], str]


def change(names: tuple[str, ...], act: Act, words: str, *, force: bool, dry_run: bool) -> None:
    """Do one thing to each of the named accounts. words: what it is, for --dry-run."""
    if dry_run:
        dry([(each.name, [words]) for each in ours.named(expand_all(names), force=force)])
        return
    with one_at_a_time():
        found = ours.named(expand_all(names), force=force)
        go_through([(each.name, partial(act, each)) for each in found]).end()


@click.command("list")
@click.option("--json", "as_json", is_flag=True, help="For programs: a list of objects.")
@as_root
def show(as_json: bool) -> None:
    """List the accounts that were made here."""
    found = ours.all_of_them()
    if as_json:
        click.echo(json.dumps([described(each) for each in found], indent=1))
        return
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for heading in ("name", "uid", "full name", "groups", "state", "expires"):
        table.add_column(heading, overflow="fold")
    for each in found:
        said = described(each)
        cells = [said["name"], said["uid"], said["full_name"], " ".join(own_groups(each))]
        cells += [said["state"], said["expires"] or "never"]
        table.add_row(*(escape(str(cell)) for cell in cells))
    wide_console().print(table)


def described(found: Found) -> dict[str, object]:
    """Return what there is to say of an account, for JSON. expires: as 2026-12-31, or None."""
    return {
        "name": found.name,
        "uid": found.uid,
        "full_name": found.full_name,
        "home": found.home,
        "groups": own_groups(found),
        "state": state_of(found),
        "expires": str(found.expires) if found.expires else None,
    }


def state_of(found: Found) -> str:
    """Say in a word whether the account's password can be used; of two reasons the wider one."""
    if found.secret is None or not found.secret.hash:
        return "half made"
    if found.expired:
        return "expired"
    return "locked" if found.locked else "ready"


def own_groups(found: Found) -> list[str]:
    """Return the groups of an account that not all accounts of ours have."""
    return sorted(found.groups - {GROUP})


@click.command()
@NAMES
@SHEET
@URL
@FORCE
@DRY
@as_root
def passwd(names: tuple[str, ...], sheet_place: Path, url: str, force: bool, dry_run: bool) -> None:
    """Give accounts new passwords, which are on the sheet."""
    if url and (reason := checks.address_problem(url)):
        raise UsersRefused(reason)
    sheet = Sheet(sheet_place)
    with contextlib.ExitStack() as held:
        if not dry_run:
            held.enter_context(one_at_a_time())
        sheet.read()
        found = ours.named(expand_all(names), force=force)
        sheet.rows = making.current(sheet.rows)
        made_here = [each.name for each in found if each.ours]
        warn_of_other_sheet(sheet, made_here, "New passwords are put on this one alone.")
        if dry_run:
            dry([(each.name, ["give it a new password"]) for each in found])
            return
        preparing.forget_changed(sheet, {each.name for each in found})
        tools = Tools(sheet, url)
        tally = go_through([(each.name, partial(renew, each, tools)) for each in found])
        print_sheet(sheet, tally)
        tally.end()


def renew(found: Found, tools: Tools) -> str:
    """Give an account a new password; one that is locked stays so. UsersFailed."""
    making.give_password(found, passwords.generate(), tools)
    return f"got a new password{closed_still(found, locked=found.locked)}"


def closed_still(found: Found, *, locked: bool) -> str:
    """Say what keeps people out of an account after something was done to it; "" for nothing."""
    reasons = ["it is locked"] if locked else []
    reasons += [f"it has expired on {found.expires}"] if found.expired else []
    return f"; {' and '.join(reasons)}, and stays so" if reasons else ""


@click.command()
@NAMES
@FORCE
@DRY
@as_root
def lock(names: tuple[str, ...], force: bool, dry_run: bool) -> None:
    """Let nobody log in with the accounts' passwords.

    Other ways in (ssh keys) stay open, and so does what is logged in already; `expire` closes
    them.
    """
    change(names, locked, "lock its password", force=force, dry_run=dry_run)


def locked(found: Found) -> str:
    """Lock an account's password. UsersFailed."""
    programs.run(["usermod", "--lock", "--", found.name])
    return "locked"


@click.command()
@NAMES
@FORCE
@DRY
@as_root
def unlock(names: tuple[str, ...], force: bool, dry_run: bool) -> None:
    """Let the accounts' passwords be used again."""
    change(names, unlocked, "unlock its password", force=force, dry_run=dry_run)


def unlocked(found: Found) -> str:
    """Unlock an account's password. UsersFailed."""
    programs.run(["usermod", "--unlock", "--", found.name])
    return f"unlocked{closed_still(found, locked=False)}"


@click.command()
@NAMES
@click.option(
    "--on", "date", required=True, metavar="DATE", help="First day of no use, as 2026-12-31; never."
)
@FORCE
@DRY
@as_root
def expire(names: tuple[str, ...], date: str, force: bool, dry_run: bool) -> None:
    """Say from which day on nobody can log in with the accounts, in whatever way."""
    day = "" if date == "never" else str(checks.day(date))
    act = partial(expiring, day=day)
    change(names, act, f"let it expire: {date}", force=force, dry_run=dry_run)


def expiring(found: Found, *, day: str) -> str:
    """Let an account expire. UsersFailed."""
    making.set_expiry(found.name, day)
    return f"expires on {day}" if day else "does not expire"
