"""The environment of a server: only what a process can be given."""

from __future__ import annotations

import re
from collections.abc import Mapping

from workshop_hub.errors import ConfigError

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

KEPT = (
    "CONDA_DEFAULT_ENV",
    "CONDA_ROOT",
    "JUPYTERHUB_SINGLEUSER_APP",
    "LANG",
    "LC_ALL",
    "LD_LIBRARY_PATH",
    "PATH",
    "PYTHONPATH",
    "VIRTUAL_ENV",
)
"""What the hub's own LocalProcessSpawner hands on unless env_keep is set: with PATH, a `cmd` that
lies beside the hub is found by its bare name."""

MACHINE_VARIABLES = frozenset(
    {
        "CONDA_DEFAULT_ENV",
        "CONDA_PREFIX",
        "CONDA_ROOT",
        "HOME",
        "LANG",
        "LC_ALL",
        "LD_LIBRARY_PATH",
        "PATH",
        "PYTHONHOME",
        "PYTHONPATH",
        "SHELL",
        "VIRTUAL_ENV",
    }
)
"""What names places and locales of this machine: kept for local processes, meaningless in a
container."""


_NOT_FROM_SESSIONS = re.compile(
    r"(HOME|LOGNAME|PATH|SHELL|USER)|(JPY_|JUPYTERHUB_|LD_|PYTHON|WORKSHOP_HUB_).*"
)
"""What says where programs and modules are found, and what the hub and the launcher set."""


def of_session(variables: Mapping[str, str]) -> dict[str, str]:
    """Return what a server is given of the variables of its owner's PAM session.

    What no process can be given is left out: it is not the hub's to be wrong about.
    """
    return {
        name: value
        for name, value in variables.items()
        if NAME.fullmatch(name) and "\0" not in value and not _NOT_FROM_SESSIONS.fullmatch(name)
    }


def checked(env: Mapping[str, object]) -> dict[str, str]:
    """Return `env` as strings; ConfigError names the variable that no process can be given."""
    return {_name(key): _value(key, value) for key, value in env.items()}


def _name(key: object) -> str:
    if isinstance(key, str) and NAME.fullmatch(key):
        return key
    raise ConfigError(
        f"The environment has a variable called {key!r}; shells and kernels cannot take that name.",
        remedy="Use letters, digits and _, and no digit first.",
    )


def _value(key: str, value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise ConfigError(
            f"The environment variable {key} is {value!r}, which is no text.",
            remedy='Put it into quotes: "...".',
        )
    text = str(value)
    if "\0" in text:
        raise ConfigError(
            f"The environment variable {key} has a NUL character, which no process can be given.",
            remedy="Remove it.",
        )
    return text
