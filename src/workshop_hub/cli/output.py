"""How the commands show errors and findings on a terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import NoReturn

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from workshop_hub.backends.base import Finding
from workshop_hub.errors import WorkshopError

STYLES = {"ok": "green", "warning": "yellow", "error": "bold red"}


def wide_console() -> Console:
    """Return a console for standard output that folds lines for a terminal, not for a file."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else 1000)


def fail(error: WorkshopError) -> NoReturn:
    """Show an error on standard error, and end the program with exit code 1."""
    console = Console(stderr=True, highlight=False)
    console.print(f"[bold red]Error:[/] {escape(error.message)}", soft_wrap=True)
    if error.remedy:
        console.print(escape(error.remedy), soft_wrap=True)
    if error.log:
        console.print(escape(error.log), soft_wrap=True, style="dim")
    sys.exit(1)


def show_findings(console: Console, findings: Iterable[Finding]) -> None:
    """Show findings as a table: what was looked at, how it is, and what to do about it."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for heading in ("", "what", "finding"):
        table.add_column(heading, overflow="fold")
    for finding in findings:
        text = escape(finding.message)
        if finding.remedy:
            text += f"\n[dim]->[/] {escape(finding.remedy)}"
        style = STYLES[finding.level]
        table.add_row(f"[{style}]{finding.level}[/]", escape(finding.subject), text)
    console.print(table)
