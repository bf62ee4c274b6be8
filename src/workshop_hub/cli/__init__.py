"""The command `workshop-hub`: one module for each subcommand."""

from __future__ import annotations

from importlib import import_module

import click

from workshop_hub import __version__

COMMANDS = {
    "demo": "Start a hub on this machine only, to look at.",
    "doctor": "Look for what would keep servers from starting.",
    "launcher": "Import the single-user server once, and fork for each user.",
    "pam-service": "Show or write the PAM service of the hub.",
    "units": "Show or write systemd's units and sudo's rule.",
    "users": "Make accounts for a class, and look after them.",
}
"""The subcommands, and what each is for. Its module has its name."""


class Commands(click.Group):
    """Imports a subcommand when it is asked for: those that know the hub take seconds."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of the subcommands."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a subcommand; None for what is none."""
        if cmd_name not in COMMANDS:
            return None
        name = cmd_name.replace("-", "_")
        command: click.Command = getattr(import_module(f"{__name__}.{name}"), name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write what the subcommands are for, without them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="workshop-hub")
def main() -> None:
    """Set up, look at and try out a JupyterHub with workshop-hub."""
