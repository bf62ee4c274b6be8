"""The PAM service of the hub's own: who may log in, written in the form of the machine."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from workshop_hub.errors import ConfigError, choices

FORMS = {"debian": "common-session-noninteractive", "suse": "common-auth", "fedora": "system-auth"}
"""Forms of the file, and the file of the machine by which each is known. Debian's has what SUSE's
has, and is looked for first; Arch has Fedora's."""

PLACE = Path("/etc/pam.d/workshop-hub")

_FOLDERS = (Path("/etc/pam.d"), Path("/usr/lib/pam.d"))


def form(folders: tuple[Path, ...] = _FOLDERS) -> str:
    """Return the form that this machine wants. Raises ConfigError where none fits."""
    for name, known_by in FORMS.items():
        if any((folder / known_by).exists() for folder in folders):
            return name
    raise ConfigError(
        f"{folders[0]} has none of {choices(FORMS.values())}, to which a service could refer.",
        remedy=f"Copy /etc/pam.d/sshd or /etc/pam.d/login to {PLACE} and adapt it.",
    )


def text(name: str) -> str:
    """Return the file in the form called `name`."""
    return (files(__package__) / name).read_text(encoding="utf-8")
