"""`workshop-hub units`: the systemd units and the sudo rule of an unprivileged hub."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from workshop_hub.cli.output import fail
from workshop_hub.errors import ConfigError, WorkshopError
from workshop_hub.system.accounts import find
from workshop_hub.systemd import UNITS, Site, SystemFile, system_files


@click.command()
@click.option("--hub-user", required=True, metavar="NAME", help="Account that the hub runs as.")
@click.option(
    "--accounts",
    "names",
    multiple=True,
    default=("%users",),
    show_default=True,
    metavar="NAME",
    help="Account that servers may run as, or a group of them as %group. May be repeated.",
)
@click.option(
    "--config",
    type=click.Path(path_type=Path),
    default=Path("/etc/jupyterhub/jupyterhub_config.py"),
    show_default=True,
    help="The hub's configuration file.",
)
@click.option(
    "--memory-low",
    default="50%",
    show_default=True,
    metavar="SIZE",
    help="At least the sum of all memory guarantees, as 8G or 50%.",
)
@click.option(
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    help="Write the files below this folder instead of showing them; / puts them in place.",
)
def units(
    hub_user: str, names: tuple[str, ...], config: Path, memory_low: str, output: Path | None
) -> None:
    """Show or write systemd's units and sudo's rule for a hub that is not root.

    They name this installation's own programs, so it must be one that every user can read.
    """
    try:
        check_hub_user(hub_user)
        files = system_files(
            Site(
                hub_user=hub_user,
                accounts=names,
                bin=Path(sys.executable).parent,
                python=Path(sys.executable).resolve(),
                config=config.absolute(),
                memory_low=memory_low,
            )
        )
        for file in files:
            if output is None:
                click.echo(f"# ---- {file.path} (mode {file.mode:o})\n{file.text}")
            else:
                click.echo(write(file, output))
    except WorkshopError as exc:
        fail(exc)
    if output is not None:
        click.echo(next_steps(output))


def check_hub_user(name: str) -> None:
    """Raise WorkshopError unless the account exists and is not root."""
    if find(name).uid == 0:
        raise ConfigError(
            "These files are for a hub that does not run as root.",
            remedy="Make an account for it: useradd --system --user-group jupyterhub",
        )


def write(file: SystemFile, root: Path) -> Path:
    """Write one file below `root`; return where it went. Raises WorkshopError."""
    path = root / file.path.relative_to("/")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # sudo reads every file of its folder: there must be none of ours half written
        draft = path.with_name(f".{path.name}.new")
        draft.write_text(file.text, encoding="utf-8")
        draft.chmod(file.mode)
        draft.replace(path)
    except OSError as exc:
        raise WorkshopError(
            f"{path} cannot be written: {exc.strerror}.",
            remedy="Run this as root." if os.geteuid() else "",
        ) from exc
    return path


def next_steps(output: Path) -> str:
    """Say what to type next."""
    steps = ["visudo -c", "systemctl daemon-reload", f"systemctl enable --now {UNITS[-1]}"]
    start = "Then" if output == Path("/") else "Put these files in place below /, then"
    return "\n".join([f"{start} run:", *(f"    {step}" for step in steps)])
