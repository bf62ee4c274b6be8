"""Which backend a server gets."""

from __future__ import annotations

from collections.abc import Iterable

from workshop_hub.errors import ConfigError, choices


def check_backend(name: object, known: Iterable[str]) -> str:
    """Return `name` if it is a backend; else raise ConfigError, which lists the choices."""
    names = list(known)
    if isinstance(name, str) and name in names:
        return name
    raise ConfigError(
        f"backend is {name!r}; there is no such backend.",
        remedy=f"Choose one of {choices(names)}, or a function of the spawner that returns one.",
    )
