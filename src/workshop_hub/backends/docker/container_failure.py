"""Why a container did not become a server: the engine's and the log's words, in ours. Pure."""

from __future__ import annotations

import re

from workshop_hub.backends.base import Address, LaunchSpec
from workshop_hub.backends.docker import hub_address, prelude
from workshop_hub.errors import (
    DirectoryRefused,
    EngineError,
    EngineUnavailable,
    ImageError,
    PortTaken,
    ServerExited,
    StartTimeout,
    WorkshopError,
)

NOT_FOUND = 127
NOT_EXECUTABLE = 126
"""Exit codes of shells (sh(1)) for a command that is missing, or is no program."""

PORT_IN_USE = re.compile(r"already in use|no available port|Address in use|EADDRINUSE", re.I)
NO_PROGRAM = re.compile(r"executable file not found|no such file or directory|not found", re.I)


def explain(
    error: WorkshopError, spec: LaunchSpec, address: Address, log: str = ""
) -> WorkshopError:
    """Return a better error than `error` where the log or the engine's words allow one.

    log: all of the server's log; the few lines of `error` may be but the end of a traceback.
    """
    if isinstance(error, ServerExited | StartTimeout) and hub_address.NO_HUB in log:
        return hub_address.unreachable_from_inside(address.hub_url or "", log)
    if isinstance(error, ServerExited):
        return _exited(error, spec, address)
    if isinstance(error, EngineError) and not isinstance(error, EngineUnavailable):
        return _refused(error, spec)
    return error


def _exited(error: ServerExited, spec: LaunchSpec, address: Address) -> WorkshopError:
    refusal = prelude.refusal(error.exit_code, error.log)
    if refusal:
        return DirectoryRefused(refusal, remedy="Choose another one, or ask the administrator.")
    if error.exit_code in (NOT_FOUND, NOT_EXECUTABLE) and NO_PROGRAM.search(error.log):
        return _no_server(spec, error.log)
    if PORT_IN_USE.search(error.log):
        return PortTaken(
            f"The server could not listen at port {address.port}: it is in use.",
            exit_code=error.exit_code,
            log=error.log,
        )
    return error


def _refused(error: EngineError, spec: LaunchSpec) -> WorkshopError:
    words = error.message
    if re.search(r"\bexec\b", words) and NO_PROGRAM.search(words):
        return _no_server(spec, "")
    if "bind source path does not exist" in words:
        return DirectoryRefused(
            f"A folder that is to be mounted does not exist: {words.rpartition(': ')[2]}.",
            remedy="Ask the administrator to create it.",
        )
    if "No such image" in words:
        return absent(spec.container.image)
    return error


def absent(image: str) -> ImageError:
    """Describe an image that the engine does not have and may not pull."""
    return ImageError(
        f'The image {image} is not on this machine, and pull_policy is "never".',
        remedy=f"Ask the administrator to get it: docker pull {image}, or, for one's own: "
        f"docker build -t {image} image.",
    )


def _no_server(spec: LaunchSpec, log: str) -> ImageError:
    program = spec.cmd[0]
    return ImageError(
        f'The image {spec.container.image} has no program "{program}"'
        + (' or no "/bin/sh"' if spec.notebook_dir else "")
        + ".",
        remedy="Ask the administrator for an image with JupyterHub in it (pip install jupyterhub "
        "jupyterlab), or to correct c.WorkshopSpawner.cmd.",
        log=log,
    )
