"""`workshop-hub users archive | remove`: what is left of accounts at the end."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import click

from workshop_hub.cli.users_options import DRY, FORCE, NAMES
from workshop_hub.cli.users_output import Tally, as_root, dry, go_through
from workshop_hub.errors import UsersRefused
from workshop_hub.people import ending, ours
from workshop_hub.people.names import expand_all
from workshop_hub.people.ours import Found
from workshop_hub.people.programs import one_at_a_time

END = click.option(
    "--end-processes", is_flag=True, help="End what still runs, instead of refusing."
)
REMOVED, ARCHIVED_AND_REMOVED = "removed", "archived and removed"

YES = click.option("--yes", is_flag=True, help="Do not ask before something is removed.")


@click.command()
@NAMES
@click.option(
    "--to",
    "folder",
    type=click.Path(path_type=Path),
    default=ending.FOLDER,
    show_default=True,
    help="Folder for the archives, of root's own.",
)
@click.option("--remove", is_flag=True, help="Remove each account once its archive is complete.")
@END
@YES
@FORCE
@DRY
@as_root
def archive(
    names: tuple[str, ...],
    folder: Path,
    remove: bool,
    end_processes: bool,
    yes: bool,
    force: bool,
    dry_run: bool,
) -> None:
    """Pack homes into archives that only root can read."""
    found = ours.named(expand_all(names), force=force)
    if dry_run:
        steps = [
            f"pack {{}} into {folder}",
            *(["remove the account and its home"] if remove else []),
        ]
        dry([(each.name, [step.format(each.home) for step in steps]) for each in found])
        return
    if remove:
        confirm(found, yes=yes, what="archived and removed")
    with one_at_a_time():
        found = ours.named([each.name for each in found], force=force)
        ending.prepare(folder)
        act = partial(archived, folder=folder, removing=remove, end_processes=end_processes)
        tally = go_through([(each.name, partial(act, each)) for each in found])
        say_what_remains(tally)
        tally.end()


def archived(found: Found, *, folder: Path, removing: bool, end_processes: bool) -> str:
    """Archive a home, and remove the account if that is wanted. UsersFailed."""
    if not removing:
        ending.settle(found, end_processes=end_processes)
        ending.archive(found, folder)
        return "archived"
    with ending.closed(found):
        ending.settle(found, end_processes=end_processes)
        ending.archive(found, folder)
    ending.remove(found, end_processes=end_processes)
    return ARCHIVED_AND_REMOVED


@click.command()
@NAMES
@END
@YES
@FORCE
@DRY
@as_root
def remove(
    names: tuple[str, ...], end_processes: bool, yes: bool, force: bool, dry_run: bool
) -> None:
    """Remove accounts with their homes and all that is in them.

    Names that the machine does not have are no error: they are removed already. What the people
    have outside of their homes stays. So does what the hub knows of them: delete the users on its
    admin page before the names are used again.
    """
    wanted = expand_all(names)
    found = ours.named(wanted, force=force, missing_ok=True)
    missing = sorted(set(wanted) - {each.name for each in found})
    if missing:
        click.echo(f"The machine does not have: {', '.join(missing)}")
    if dry_run:
        dry([(each.name, [f"remove the account and {each.home}"]) for each in found])
        return
    confirm(found, yes=yes, what="removed")
    with one_at_a_time():
        found = ours.named([each.name for each in found], force=force, missing_ok=True)
        act = partial(removed, end_processes=end_processes)
        tally = go_through([(each.name, partial(act, each)) for each in found])
        say_what_remains(tally)
        tally.end()


def removed(found: Found, *, end_processes: bool) -> str:
    """Remove an account. UsersFailed."""
    ending.remove(found, end_processes=end_processes)
    return REMOVED


def say_what_remains(tally: Tally) -> None:
    """Say what is to be done in the hub, where accounts were removed: it is not ours to do."""
    if tally.words[REMOVED] or tally.words[ARCHIVED_AND_REMOVED]:
        click.echo(
            "Who has logged in is a user of the hub still: delete them on its admin page before "
            "the names are used again. A new account has another uid, which the hub refuses until "
            "then."
        )


def confirm(found: list[Found], *, yes: bool, what: str) -> None:
    """Ask, unless that was answered on the command line. UsersRefused for a no."""
    if not found or yes:
        return
    click.echo(f"{len(found)} accounts are to be {what}, with all files in their homes:")
    click.echo("  " + " ".join(each.name for each in found))
    if not click.confirm("Go on?", default=False):
        raise UsersRefused("Nothing was done.")
