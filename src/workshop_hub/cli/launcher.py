"""`workshop-hub launcher`: run the warm launcher, or ask the one that runs."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import click
from rich.markup import escape
from rich.table import Table

from workshop_hub.backends.process import ProcessBackend
from workshop_hub.cli.doctor import load
from workshop_hub.cli.output import fail, wide_console
from workshop_hub.errors import ConfigError, LauncherRefused, WorkshopError
from workshop_hub.launch import forkserver
from workshop_hub.launch.sudo import SudoLauncher
from workshop_hub.launch.talk import NotStarted
from workshop_hub.launch.warm import WarmLauncher

T = TypeVar("T")

NO_SOCKET = """\
Standard input is no listening socket: the warm launcher is started by what asks it for servers.

A hub that is root starts it with: c.ProcessBackend.launcher = "warm"
For a hub that is not root, systemd starts it; this writes the units:
    workshop-hub units --hub-user NAME --accounts %GROUP --launcher warm"""

WHERE = (
    click.option(
        "--socket",
        "place",
        type=click.Path(path_type=Path, readable=False),
        help="Where it listens; by default as the configuration file says.",
    ),
    click.option(
        "-f",
        "--config",
        type=click.Path(path_type=Path),
        default=Path("jupyterhub_config.py"),
        show_default=True,
        help="The hub's configuration file.",
    ),
)


def where(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options that say where the launcher listens."""
    for option in reversed(WHERE):
        command = option(command)
    return command


@click.group(invoke_without_command=True)
@click.option("--uids", metavar="FIRST-LAST", help="Start servers for these uids only.")
@click.option("--group", metavar="NAME", help="Start servers for members of this group only.")
@click.option("--program", metavar="PATH", help="The single-user server's script.")
@click.option("--whole", is_flag=True, help="Leave no optional import out (fast_start = False).")
@click.pass_context
def launcher(
    context: click.Context, uids: str | None, group: str | None, program: str | None, whole: bool
) -> None:
    """Import the single-user server once, and fork for each user.

    Standard input is the unix socket at which the launcher listens, as systemd hands it over. Who
    may ask it for servers is the account that it was started by; whose servers it may start is
    fixed by the options.
    """
    if context.invoked_subcommand is not None:
        return
    if not is_listening(0):
        click.echo(NO_SOCKET, err=True)
        sys.exit(2)
    program = program or str(Path(sys.executable).with_name("jupyterhub-singleuser"))
    options = [f"--program={program}", *(["--whole"] if whole else [])]
    options += [f"--{name}={value}" for name, value in (("uids", uids), ("group", group)) if value]
    python = str(Path(sys.executable).resolve())
    os.execv(python, [python, "-I", forkserver.__file__, *options])  # noqa: S606


@launcher.command()
@where
def status(place: Path | None, config: Path) -> None:
    """Say how the running launcher is. Exit code 1 if it starts no servers."""
    try:
        state = ask(lambda found: found.state(), place, config)
    except WorkshopError as exc:
        fail(exc)
    show(state)
    sys.exit(1 if state["trouble"] else 0)


@launcher.command()
@where
def reload(place: Path | None, config: Path) -> None:
    """Have the running launcher import everything anew; servers go on.

    It does so by itself when a file has changed that it has imported.
    """
    try:
        state = ask(reloaded, place, config)
    except WorkshopError as exc:
        fail(exc)
    show(state)
    sys.exit(1 if state["trouble"] else 0)


async def reloaded(found: WarmLauncher) -> dict[str, Any]:
    """Have it import everything anew; return how it is afterwards."""
    try:
        await found.reload()
    except (NotStarted, OSError, TimeoutError) as exc:
        raise LauncherRefused(f"The warm launcher does not answer: {exc}.") from exc
    return await found.state()


def ask(question: Callable[[WarmLauncher], Awaitable[T]], place: Path | None, config: Path) -> T:
    """Ask the launcher at `place`, or where the configuration says. Raises WorkshopError."""
    place = place or configured(config)
    try:
        be_its_account(place)
    except OSError as exc:
        raise LauncherRefused(
            f"No warm launcher listens at {place}: {exc.strerror}.",
            remedy="Run this as root or as the hub's account, with --socket or -f for the place.",
        ) from exc
    # it starts none: there is nothing that it could be started with
    found = WarmLauncher(
        place=place,
        argv=(),
        fallback=SudoLauncher((), ()),
        words=Path(os.devnull),
        log=logging.getLogger(__name__),
    )

    async def asked() -> T:
        return await question(found)

    return asyncio.run(asked())


def configured(config: Path) -> Path:
    """Return where the launcher of this configuration listens. Raises ConfigError."""
    backend = ProcessBackend(config=load(config).config, hub_id="0" * 12)
    if backend.launcher != "warm":
        raise ConfigError(
            f"{config} does not use the warm launcher.",
            remedy='Set c.ProcessBackend.launcher = "warm", or name a socket with --socket.',
        )
    return backend.launcher_socket


def be_its_account(place: Path) -> None:
    """Ask as the socket's owner, whom alone the launcher listens to, as root may. OSError."""
    owner = place.stat()
    if os.geteuid() == 0 and owner.st_uid:
        os.setegid(owner.st_gid)
        os.seteuid(owner.st_uid)


def is_listening(number: int) -> bool:
    """Say whether the open file is a unix socket at which somebody may ask."""
    try:
        with socket.socket(fileno=os.dup(number)) as listener:
            accepts = listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
            return listener.family == socket.AF_UNIX and bool(accepts)
    except OSError:
        return False


def show(state: dict[str, Any]) -> None:
    """Show what the launcher says of itself."""
    table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    rows = {
        "process": str(state["pid"]),
        "options": " ".join(state["options"]),
        "modules": str(state["modules"]),
        "servers": str(state["servers"]),
    }
    for name, value in rows.items():
        table.add_row(name, escape(value))
    for extension, reason in state["without"].items():
        table.add_row("left out", escape(f"{extension}: {reason}"))
    if state["trouble"]:
        table.add_row("[bold red]trouble[/]", escape(f"starts no servers: {state['trouble']}"))
    wide_console().print(table)
