"""`workshop-hub users`: accounts for a class, one module for what is made, changed and ended."""

from __future__ import annotations

import click

from workshop_hub.cli.users_add import add
from workshop_hub.cli.users_change import expire, lock, passwd, show, unlock
from workshop_hub.cli.users_end import archive, remove


@click.group()
def users() -> None:
    """Make accounts for a class, and look after them. For root.

    All of them are in the group "workshop-hub", and only accounts in it are changed or removed.
    Names can be patterns, in quotes: 'training{01..30}', 'team-{a,b}'.
    """


for _command in (add, archive, expire, lock, passwd, remove, show, unlock):
    users.add_command(_command)
