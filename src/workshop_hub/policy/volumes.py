"""Folders of the machine, and named volumes, that a container gets."""

from __future__ import annotations

from collections.abc import Mapping

from workshop_hub.errors import ConfigError
from workshop_hub.policy.templates import render


def rendered_volumes(
    volumes: Mapping[str, object], namespace: Mapping[str, str], *, read_only: bool = False
) -> tuple[dict[str, str], dict[str, str]]:
    """Return the writable and the read-only volumes, as source -> folder in the container.

    volumes: as dockerspawner takes them: source -> target, or source -> {"bind": target,
    "mode": "rw" or "ro"}; `{username}` and its like are filled in on both sides.
    read_only: that they are read-only unless they say otherwise. Raises ConfigError.
    """
    writable: dict[str, str] = {}
    locked: dict[str, str] = {}
    for source, value in volumes.items():
        target, mode = _target(source, value)
        place = locked if read_only or mode == "ro" else writable
        filled = render("volumes", source, namespace)
        if filled == "~" or filled.startswith("~/"):
            filled = namespace["home"] + filled[1:]
        place[filled] = render("volumes", target, namespace)
        if not place[filled].startswith("/"):
            raise ConfigError(
                f'volumes mounts "{source}" at "{target}", which is no absolute folder.',
                remedy='Give a target in the container that begins with "/".',
            )
    return writable, locked


def _target(source: str, value: object) -> tuple[str, str]:
    if isinstance(value, str):
        return value, "rw"
    if isinstance(value, Mapping) and isinstance(value.get("bind"), str):
        mode = value.get("mode", "rw")
        if mode in ("rw", "ro"):
            return value["bind"], str(mode)
        if isinstance(mode, str) and set(mode.split(",")) <= {"rw", "ro", "z", "Z"}:
            return value["bind"], "ro" if "ro" in mode.split(",") else "rw"
    raise ConfigError(
        f'volumes says {value!r} for "{source}", which is not understood.',
        remedy='Write {"/data": "/data"} or {"/data": {"bind": "/data", "mode": "ro"}}.',
    )
