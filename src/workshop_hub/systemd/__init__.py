"""Units and sudo rules of an unprivileged hub: it holds servers to their limits, and asks PAM."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from workshop_hub.errors import ConfigError
from workshop_hub.launch import forkserver, sudo, warm
from workshop_hub.pam_access import SOCKET, broker_command
from workshop_hub.system import pam_rules, pam_sessions

UNITS = ("workshop.slice", "workshop-users.service", "workshop-hub.service")
"""In the order in which they are started."""

WARM_UNITS = {
    "workshop-users.socket": "workshop-users.socket",
    "workshop-users.service.d/warm.conf": "warm.conf",
}
"""What the warm launcher needs beside them, and our template of it."""

PAM_UNITS = {
    "workshop-users-pam.socket": "workshop-users-pam.socket",
    "workshop-users-pam.service": "workshop-users-pam.service",
    "workshop-hub.service.d/pam.conf": "pam.conf",
}
"""What checks passwords."""

WARM_SOCKET = "/run/workshop-hub/launcher.sock"


_UNIT_FOLDER = Path("/etc/systemd/system")
_SUDOERS = Path("/etc/sudoers.d/workshop-hub")
_FIELD = re.compile(r"@([a-z_]+)@")
_WORD = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_PATH = re.compile(r"/[A-Za-z0-9_./+-]+")
_MEMORY = re.compile(r"[0-9]+[KMGT%]?|infinity")


@dataclass(frozen=True)
class SystemFile:
    """One file to be installed. mode: as for chmod."""

    path: Path
    text: str
    mode: int


@dataclass(frozen=True)
class Warm:
    """Whose servers the warm launcher may start: uids from first to last, members of `group`.

    group: empty for everybody in `uids`.
    """

    uids: tuple[int, int]
    group: str = ""


@dataclass(frozen=True)
class Pam:
    """How passwords are checked. service: of PAM. hub_group: may connect, as far as the hub's."""

    service: str
    hub_group: str


@dataclass(frozen=True)
class Site:
    """What the files depend on.

    hub_user: account that the hub runs as. accounts: those that servers may run as: names, and
    groups as `%name`. bin: folder of jupyterhub's environment. python: the hub's own interpreter,
    which runs the launcher. config: the hub's configuration file. memory_low: sum of the
    memory guarantees, as systemd.resource-control(5) takes it ("8G", "50%"). warm: for a hub that
    uses the warm launcher. pam: for one whose users log in with passwords of the machine.

    Raises ConfigError for a value that could mean more than one word in these files.
    """

    hub_user: str
    accounts: Sequence[str]
    bin: Path
    python: Path
    config: Path
    memory_low: str
    warm: Warm | None = None
    pam: Pam | None = None

    def __post_init__(self) -> None:
        values = [
            (_WORD, "hub_user", self.hub_user),
            *((_WORD, "accounts", name.removeprefix("%")) for name in self.accounts),
            *((_PATH, name, str(getattr(self, name))) for name in ("bin", "python", "config")),
            (_MEMORY, "memory_low", self.memory_low),
            *([(_WORD, "group", self.warm.group)] if self.warm and self.warm.group else []),
            *([(_WORD, "the hub's group", self.pam.hub_group)] if self.pam else []),
        ]
        for pattern, name, value in values:
            if not pattern.fullmatch(value):
                raise ConfigError(
                    f"{name} is {value!r}, which cannot be written into a unit and a sudo rule.",
                    remedy="Use letters, digits and . _ - only, and full paths without spaces.",
                )
        if not self.accounts:
            raise ConfigError(
                "There is no account that servers may run as.",
                remedy="Name accounts, or a group of them as %group.",
            )


def system_files(site: Site) -> list[SystemFile]:
    """Return the files to be installed for `site`; nothing is written."""
    package = Path(__file__).parents[1]
    values = {
        "hub_user": site.hub_user,
        "accounts": ", ".join(site.accounts),
        "bin": str(site.bin),
        "python": str(site.python),
        "config": str(site.config),
        "memory_low": site.memory_low,
        "package": str(package),
    }
    templates = {name: name for name in UNITS}
    rule = _filled("sudoers", values)
    if site.warm:
        argv = warm_argv(site, site.warm)
        stays = [word for word in argv if word != "--with-hub"]
        values |= {
            "socket": WARM_SOCKET,
            "launcher": " ".join(stays),
            "warm_command": sudo.escaped(argv),
        }
        templates |= WARM_UNITS
        rule += _filled("sudoers-warm", values)
    if site.pam:
        argv = broker_command(site.bin, pam_rules.arguments(site.pam.service))
        values |= {
            "pam_socket": str(SOCKET),
            "pam_command": " ".join(argv),
            "pam_rule": sudo.escaped(argv),
            "close_command": f"{site.bin}/python3 -I -m {pam_sessions.__name__}",
            "hub_group": site.pam.hub_group,
        }
        templates |= PAM_UNITS
        rule += _filled("sudoers-pam", values)
    units = [
        SystemFile(_UNIT_FOLDER / name, _filled(template, values), 0o644)
        for name, template in templates.items()
    ]
    return [*units, SystemFile(_SUDOERS, rule, 0o440)]


def outdated_files(site: Site) -> list[Path]:
    """Return what an earlier call for another site may have left that does not fit this one."""
    unwanted = [*([] if site.warm else WARM_UNITS), *([] if site.pam else PAM_UNITS)]
    return [_UNIT_FOLDER / name for name in unwanted]


def warm_argv(site: Site, who: Warm) -> list[str]:
    """Return the command with which this site's hub would start the warm launcher as root."""
    launcher = (str(site.python), "-I", str(Path(forkserver.__file__).resolve()))
    program = str(site.bin / warm.SINGLEUSER)
    return warm.command(launcher, (), uids=who.uids, group=who.group, program=program, fast=True)


def _filled(name: str, values: dict[str, str]) -> str:
    template = (files(__package__) / name).read_text(encoding="utf-8")
    return _FIELD.sub(lambda match: values[match[1]], template)
