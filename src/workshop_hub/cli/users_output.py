"""How `workshop-hub users` goes through people, and says how it went."""

from __future__ import annotations

import contextlib
import functools
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from types import FrameType
from typing import ParamSpec

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from workshop_hub.cli.output import fail
from workshop_hub.errors import WorkshopError
from workshop_hub.people.checks import require_root
from workshop_hub.people.sheet import Sheet

P = ParamSpec("P")

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def as_root(command: Callable[P, None]) -> Callable[P, None]:
    """Make a command one for root, whose errors are shown in words."""

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            require_root()
            command(*args, **kwargs)
        except WorkshopError as exc:
            fail(exc)

    return run


@dataclass
class Tally:
    """How it went: for how many people which word, and for whom it failed."""

    words: Counter[str] = field(default_factory=Counter)
    failed: dict[str, str] = field(default_factory=dict)
    left: int = 0

    def end(self) -> None:
        """Show it. Ends the program with exit code 1 where something failed or was left."""
        said = [f"{count} {word}" for word, count in self.words.items()]
        said += [f"{len(self.failed)} failed"] if self.failed else []
        said += [f"{self.left} left, because a signal ended this"] if self.left else []
        click.echo(", ".join(said) or "nothing to do")
        for name, reason in self.failed.items():
            click.echo(f"{name}: {reason}", err=True)
        if self.failed:
            click.echo("Mend that, and run the same command again.", err=True)
        elif self.left:
            click.echo("Run the same command again to go on.", err=True)
        if self.failed or self.left:
            sys.exit(1)


class _Stop:
    """Whether a signal has asked to end."""

    asked = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self.asked = True


@contextlib.contextmanager
def _stopping() -> Iterator[_Stop]:
    """End at a signal only between two people, and not in the middle of one's account."""
    stop = _Stop()
    before = {number: signal.signal(number, stop) for number in SIGNALS}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def go_through(people: Sequence[tuple[str, Callable[[], str]]]) -> Tally:
    """Do something for each person; one for whom it fails does not keep it from the others.

    people: names, and what is done, which returns a word for how it went; after "; " what is to
    be known of that person alone, which is not counted.
    """
    tally = Tally(left=len(people))
    with _stopping() as stop, _shown(len(people)) as show:
        for name, act in people:
            if stop.asked:
                break
            try:
                word = act()
                tally.words[word.partition("; ")[0]] += 1
            except (WorkshopError, OSError) as exc:
                word = "failed"
                tally.failed[name] = str(exc)
            tally.left -= 1
            show(name, word)
    return tally


@contextlib.contextmanager
def _shown(total: int) -> Iterator[Callable[[str, str], None]]:
    """Show how far it is: a bar on a terminal, else a line for each person."""
    if not sys.stdout.isatty():
        yield lambda name, word: click.echo(f"{name}: {word}")
        return
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}", markup=False))
    with Progress(*columns, console=Console(), transient=True) as progress:
        task = progress.add_task("", total=total)

        def show(name: str, word: str) -> None:
            progress.update(task, advance=1, description=f"{name}: {word}")
            if "; " in word:  # stays when the bar goes
                progress.print(f"{name}: {word}", markup=False, highlight=False, soft_wrap=True)

        yield show


def dry(people: Sequence[tuple[str, Sequence[str]]]) -> None:
    """Say what would be done for each person."""
    for name, steps in people:
        click.echo(f"{name}: would {', '.join(steps)}" if steps else f"{name}: nothing to do")
    click.echo("Nothing was done (--dry-run).")


def warn_of_other_sheet(sheet: Sheet, names: Iterable[str], then: str) -> None:
    """Say which accounts of ours are not on the sheet. then: what that means."""
    lacking = sheet.lacking(names)
    if not lacking:
        return
    of_them = f"{len(lacking)} of them {'is' if len(lacking) == 1 else 'are'}"
    listed = ", ".join(lacking[:5]) + (" ..." if len(lacking) > 5 else "")
    click.echo(
        f"{of_them} not on this sheet, {sheet.csv}: {listed}. {then} "
        "Was a sheet made in another folder? --sheet names it.",
        err=True,
    )


def print_sheet(sheet: Sheet, tally: Tally) -> None:
    """Write the slips, and say where they are."""
    try:
        sheet.print()
    except WorkshopError as exc:
        tally.failed["the sheet"] = str(exc)
    else:
        click.echo(f"The sheet is {sheet.html}; later runs read {sheet.csv}. Both are secret.")
