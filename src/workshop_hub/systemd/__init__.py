"""Units and a sudo rule with which an unprivileged hub holds servers to their limits."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from workshop_hub.errors import ConfigError

UNITS = ("workshop.slice", "workshop-users.service", "workshop-hub.service")
"""In the order in which they are started."""

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
class Site:
    """What the files depend on.

    hub_user: account that the hub runs as. accounts: those that servers may run as: names, and
    groups as `%name`. bin: folder of jupyterhub's environment. python: the hub's own interpreter,
    which runs the launcher. config: the hub's configuration file. memory_low: sum of the
    memory guarantees, as systemd.resource-control(5) takes it ("8G", "50%").

    Raises ConfigError for a value that could mean more than one word in these files.
    """

    hub_user: str
    accounts: Sequence[str]
    bin: Path
    python: Path
    config: Path
    memory_low: str

    def __post_init__(self) -> None:
        values = [
            (_WORD, "hub_user", self.hub_user),
            *((_WORD, "accounts", name.removeprefix("%")) for name in self.accounts),
            *((_PATH, name, str(getattr(self, name))) for name in ("bin", "python", "config")),
            (_MEMORY, "memory_low", self.memory_low),
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
    values = {
        "hub_user": site.hub_user,
        "accounts": ", ".join(site.accounts),
        "bin": str(site.bin),
        "python": str(site.python),
        "config": str(site.config),
        "memory_low": site.memory_low,
        "package": str(Path(__file__).parents[1]),
    }
    units = [SystemFile(_UNIT_FOLDER / name, _filled(name, values), 0o644) for name in UNITS]
    return [*units, SystemFile(_SUDOERS, _filled("sudoers", values), 0o440)]


def _filled(name: str, values: dict[str, str]) -> str:
    template = (files(__package__) / name).read_text(encoding="utf-8")
    return _FIELD.sub(lambda match: values[match[1]], template)
