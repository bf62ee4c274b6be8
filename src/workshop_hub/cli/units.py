"""`workshop-hub units`: the systemd units and the sudo rule of an unprivileged hub."""

from __future__ import annotations

import grp
import os
import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from workshop_hub import logins
from workshop_hub.cli.output import fail
from workshop_hub.errors import ConfigError, WorkshopError
from workshop_hub.system.accounts import find, find_or_none, group_name, uid_min
from workshop_hub.systemd import (
    UNITS,
    WARM_SOCKET,
    Pam,
    Site,
    SystemFile,
    Warm,
    outdated_files,
    system_files,
)

LAST_UID = 59999
SUDO_WORD = re.compile("[A-Z][A-Z0-9_]*")
"""What sudoers(5) takes for an alias, not for an account: ALL is everybody, and root."""

CONFIG_LINES = ('launcher = "warm"', f'warm_socket = "{WARM_SOCKET}"')


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
    "--missing-ok",
    is_flag=True,
    help="Accept --accounts that the machine does not have yet: something makes them later.",
)
@click.option(
    "--launcher",
    type=click.Choice(["sudo", "warm"]),
    default="sudo",
    show_default=True,
    help="What starts servers. The warm launcher serves the members of one group (--accounts) or "
    "a range of uids (--uids).",
)
@click.option(
    "--uids",
    metavar="FIRST-LAST",
    help="With --launcher warm: start servers for these uids only. [default: from UID_MIN of "
    f"/etc/login.defs to {LAST_UID}, where --accounts is one %group]",
)
@click.option(
    "--pam/--no-pam",
    default=True,
    show_default=True,
    help="Whether people log in with the machine's passwords, which the hub cannot check itself.",
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
    hub_user: str,
    names: tuple[str, ...],
    missing_ok: bool,
    launcher: str,
    uids: str | None,
    pam: bool,
    config: Path,
    memory_low: str,
    output: Path | None,
) -> None:
    """Show or write systemd's units and sudo's rule for a hub that is not root.

    They name this installation's own programs, so it must be one that every user can read.
    """
    try:
        check_hub_user(hub_user)
        site = Site(
            hub_user=hub_user,
            accounts=names,
            bin=Path(sys.executable).parent,
            python=Path(sys.executable).resolve(),
            config=config.absolute(),
            memory_low=memory_low,
            warm=served_warm(names, uids) if launcher == "warm" else None,
            pam=Pam(logins.service(), group_name(find(hub_user).gid)) if pam else None,
        )
        for name in names:
            check_served(name, missing_ok=missing_ok)
        if output is None:
            show(site)
        else:
            install(site, output)
    except WorkshopError as exc:
        fail(exc)
    if output is not None:
        click.echo(next_steps(output, site))


def served_warm(names: Sequence[str], uids: str | None) -> Warm:
    """Return whose servers the warm launcher may start. Raises ConfigError where that is unclear.

    It knows one group and one range of uids; sudo's rule may name any accounts.
    """
    groups = [name.removeprefix("%") for name in names if name.startswith("%")]
    only_group = groups[0] if len(names) == len(groups) == 1 else ""
    if uids is None and not only_group:
        raise ConfigError(
            f"The warm launcher cannot be told to serve {', '.join(names)}: it takes one group, "
            "or a range of uids.",
            remedy="Name one group (--accounts %group), or add --uids FIRST-LAST with the uids of "
            "these accounts.",
        )
    first, _, last = (uids or f"{uid_min()}-{LAST_UID}").partition("-")
    if not (first.isdecimal() and last.isdecimal() and 0 < int(first) <= int(last)):
        raise ConfigError(f"--uids is {uids!r}.", remedy="Write it as 2000-2999.")
    return Warm((int(first), int(last)), only_group)


def show(site: Site) -> None:
    """Print the files."""
    for file in system_files(site):
        click.echo(f"# ---- {file.path} (mode {file.mode:o})\n{file.text}")


def install(site: Site, output: Path) -> None:
    """Write the files below `output`, and say which. Raises WorkshopError."""
    for file in system_files(site):
        click.echo(write(file, output))
    for path in outdated_files(site):
        remove(path, output)


def check_hub_user(name: str) -> None:
    """Raise WorkshopError unless the account exists and is not root."""
    account = find_or_none(name)
    if account is None:
        raise ConfigError(
            f'The machine has no account "{name}" for the hub.',
            remedy="Make it: useradd --system --user-group --shell /usr/sbin/nologin "
            f"{shlex.quote(name)}",
        )
    if account.uid == 0:
        raise ConfigError(
            "These files are for a hub that does not run as root.",
            remedy="Make an account for it: useradd --system --user-group jupyterhub",
        )


def check_served(name: str, *, missing_ok: bool) -> None:
    """Raise ConfigError where servers are not to run as `name`, an account or a %group."""
    is_group = name.startswith("%")
    found = roots_group(name[1:]) if is_group else roots_account(name)
    if found is None and not missing_ok:
        kind, command = ("group", "groupadd") if is_group else ("account", "useradd --create-home")
        name = name.removeprefix("%")
        raise ConfigError(
            f'The machine has no {kind} "{name}" (--accounts).',
            remedy=f"Correct the name, or make it first ({command} {name}); --missing-ok accepts "
            "what something else makes later.",
        )
    if found:
        raise ConfigError(
            f"--accounts {name}: the hub, and whoever breaks into it, could run servers as root.",
            remedy="Name accounts of people, or a group of them that root is not in.",
        )


def roots_account(name: str) -> bool | None:
    """Say whether sudo would run servers as root for that name; None where there is no account."""
    if SUDO_WORD.fullmatch(name):
        return True
    account = find_or_none(name)
    return None if account is None else account.uid == 0


def roots_group(name: str) -> bool | None:
    """Say whether root is in the group; None where there is no such group."""
    try:
        group = grp.getgrnam(name)
    except KeyError:
        return None
    accounts = [find_or_none(each) for each in {"root", *group.gr_mem}]
    roots = [account for account in accounts if account and account.uid == 0]
    return group.gr_gid == 0 or any(group.gr_gid in account.groups for account in roots)


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


def remove(path: Path, root: Path) -> None:
    """Remove one file below `root`, if it is there. Raises WorkshopError."""
    path = root / path.relative_to("/")
    try:
        path.unlink()
        click.echo(f"{path} is not wanted any more: removed")
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as exc:
        raise WorkshopError(f"{path} cannot be removed: {exc.strerror}.") from exc


def next_steps(output: Path, site: Site) -> str:
    """Say what to type next."""
    lines = []
    if site.warm:
        lines += [f"Put this into {site.config}:"]
        lines += [f"    c.ProcessBackend.{line}" for line in CONFIG_LINES]
    steps = ["visudo -c", "systemctl daemon-reload", f"systemctl enable --now {UNITS[-1]}"]
    start = "Then" if output == Path("/") else "Put these files in place below /, then"
    return "\n".join([*lines, f"{start} run:", *(f"    {step}" for step in steps)])
