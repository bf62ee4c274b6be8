"""Options that several commands of `workshop-hub users` have."""

from __future__ import annotations

from pathlib import Path

import click

NAMES = click.argument("names", nargs=-1, required=True)
FORCE = click.option(
    "--force", is_flag=True, help="Accounts that `workshop-hub users` has not made, too."
)

SHEET = click.option(
    "--sheet",
    "sheet_place",
    type=click.Path(path_type=Path),
    default=Path("workshop-accounts"),
    show_default=True,
    metavar="PATH",
    help="The sheet with the passwords: PATH.csv, which later runs read, and PATH.html to print.",
)
URL = click.option("--url", default="", help="Address of the hub, for the sheet.")
DRY = click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")
