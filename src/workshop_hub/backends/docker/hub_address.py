"""Where a container and the hub meet: the most reported trouble of all."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

from workshop_hub.backends.base import LaunchSpec, accepts_connections
from workshop_hub.errors import ConfigError, HubUnreachable
from workshop_hub.system.engine_replies import Network

NO_HUB = "Failed to connect to my Hub"
"""What the single-user server writes when it cannot reach the hub."""

WRONG_NAME = "CERTIFICATE_VERIFY_FAILED"
"""What it writes below that where the hub's certificate does not have the hub's address."""

EVERYWHERE = ("", "0.0.0.0", "::", "*")  # noqa: S104 - compared with, not bound


def gateway(network: Network) -> str:
    """Return the host's address in the network; empty where the host has none in it.

    Old engines do not tell the default bridge's; it is the first address of the subnet.
    """
    if network.driver != "bridge":
        return ""
    if network.gateway:
        return network.gateway
    if not network.subnet:
        return ""
    return str(next(ipaddress.ip_network(network.subnet, strict=False).hosts()))


def choose(spec: LaunchSpec, network: Network | None, override: str) -> str:
    """Return the address at which the server will look for the hub.

    network: None for the host's own. override: hub_connect_ip of the backend.
    Raises HubUnreachable, naming the setting, where the hub listens on its loopback only.
    """
    if override:
        return override
    if network is None:
        return "127.0.0.1" if spec.hub_ip in EVERYWHERE else spec.hub_ip
    ours = gateway(network)
    if not ours:
        raise ConfigError(
            f'This machine has no address in the network "{network.name}" (driver '
            f"{network.driver}), so containers in it cannot find the hub.",
            remedy="Use a bridge network, or set c.DockerBackend.hub_connect_ip.",
        )
    if spec.hub_ip in EVERYWHERE:
        return ours
    if is_loopback(spec.hub_ip):
        raise HubUnreachable(
            f"The hub listens at {spec.hub_ip} only, where no container can reach it.",
            remedy=f'Ask the administrator to set c.JupyterHub.hub_ip = "{ours}", the address '
            f'of this machine in the network "{network.name}".',
        )
    return spec.hub_ip


async def check(ip: str, port: int) -> None:
    """Raise HubUnreachable unless something listens at the address."""
    if await accepts_connections(ip, port, timeout=3.0):
        return
    raise HubUnreachable(
        f"Servers in containers would look for the hub at {ip}:{port}, and nothing listens there.",
        remedy="Ask the administrator to check c.JupyterHub.hub_ip and hub_port, or to set "
        "c.DockerBackend.hub_connect_ip.",
    )


def unreachable_from_inside(hub_url: str, log: str) -> HubUnreachable:
    """Explain a server whose log says that it could not reach the hub, though we could."""
    if WRONG_NAME in log:
        return HubUnreachable(
            f"The server reaches the hub at {hub_url}, and the hub's certificate is for other "
            "addresses.",
            remedy=f"Ask the administrator to set {alt_names_line(hub_url)}, to "
            "remove the folder internal-ssl beside the hub's database, and to restart the hub.",
        )
    return HubUnreachable(
        f"The server runs in its container but cannot reach the hub at {hub_url}, which this "
        "machine itself can.",
        remedy="Surely a firewall: ask the administrator to let the containers' network in "
        "(with ufw, for example: ufw allow in on docker0 to any port 8081 proto tcp).",
        log="\n".join(line for line in log.splitlines() if NO_HUB in line),
    )


def alt_names_line(hub_url: str) -> str:
    """Return the line of configuration with which internal_ssl's certificates name the host."""
    host = urlsplit(hub_url).hostname or ""
    try:
        ipaddress.ip_address(host)
        kind = "IP"
    except ValueError:
        kind = "DNS"
    return f'c.JupyterHub.trusted_alt_names = ["{kind}:{host}"]'


def is_loopback(host: str) -> bool:
    """Say whether only this machine itself reaches `host`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
