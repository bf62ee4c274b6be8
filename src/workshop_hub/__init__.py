"""JupyterHub for one machine: servers as local users or containers, with limits that hold."""

from __future__ import annotations

from typing import TYPE_CHECKING

__version__ = "0.1.0.dev0"
__all__ = ["WorkshopAuthenticator", "WorkshopError", "WorkshopSpawner", "__version__"]

if TYPE_CHECKING:
    from workshop_hub.authenticator import WorkshopAuthenticator
    from workshop_hub.errors import WorkshopError
    from workshop_hub.spawner import WorkshopSpawner

_HOMES = {
    "WorkshopAuthenticator": "workshop_hub.authenticator",
    "WorkshopError": "workshop_hub.errors",
    "WorkshopSpawner": "workshop_hub.spawner",
}


def __getattr__(name: str) -> object:
    """Import a public name when it is first used: the launcher must not pay for the hub."""
    from importlib import import_module

    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
