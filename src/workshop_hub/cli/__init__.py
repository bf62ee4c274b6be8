"""The command `workshop-hub`: one module for each subcommand."""

from __future__ import annotations

import click

from workshop_hub import __version__
from workshop_hub.cli.demo import demo
from workshop_hub.cli.doctor import doctor
from workshop_hub.cli.launcher import launcher
from workshop_hub.cli.pam_service import pam_service
from workshop_hub.cli.units import units
from workshop_hub.cli.users import users


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="workshop-hub")
def main() -> None:
    """Set up, look at and try out a JupyterHub with workshop-hub."""


main.add_command(demo)
main.add_command(doctor)
main.add_command(launcher)
main.add_command(pam_service)
main.add_command(units)
main.add_command(users)
