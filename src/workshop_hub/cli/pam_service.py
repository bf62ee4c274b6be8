"""`workshop-hub pam-service`: the rules by which PAM lets people log in to the hub."""

from __future__ import annotations

from pathlib import Path

import click

from workshop_hub import pam_service as service
from workshop_hub.cli.output import fail
from workshop_hub.cli.units import write
from workshop_hub.errors import ConfigError, WorkshopError
from workshop_hub.systemd import SystemFile


@click.command()
@click.option(
    "--form",
    type=click.Choice(sorted(service.FORMS)),
    help="Whose form to use. [default: what this machine has]",
)
@click.option(
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    help="Write the file below this folder instead of showing it; / puts it in place.",
)
@click.option("--force", is_flag=True, help="Replace a file that is there and differs.")
def pam_service(form: str | None, output: Path | None, force: bool) -> None:
    """Show or write the PAM service of the hub, /etc/pam.d/workshop-hub.

    It refers to the machine's own rules. Where the file is there the hub's logins follow it, from
    the hub's next start on, and else they follow those of `login`.
    """
    try:
        file = SystemFile(service.PLACE, service.text(form or service.form()), 0o644)
        if output is None:
            click.echo(file.text, nl=False)
            return
        check_untouched(output / file.path.relative_to("/"), file.text, force=force)
        click.echo(write(file, output))
    except WorkshopError as exc:
        fail(exc)


def check_untouched(path: Path, text: str, *, force: bool) -> None:
    """Raise ConfigError where the file has rules of the administrator's own."""
    if force or not path.exists() or path.read_text(encoding="utf-8", errors="replace") == text:
        return
    raise ConfigError(
        f"{path} is there already, and differs from ours.",
        remedy="Compare them, and use --force to replace it.",
    )
