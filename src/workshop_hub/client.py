"""Where a request comes from."""

from __future__ import annotations

from ipaddress import IPv6Address, ip_address, ip_network
from typing import Any

LOCAL = tuple(
    ip_network(each)
    for each in (
        *("10.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.168.0.0/16"),
        *("fc00::/7", "fe80::/10"),
    )
)
"""Networks whose addresses are each somebody's own, however near: those of a class in one room."""


def address(request: Any) -> str:
    """Return the address that a request to the hub comes from, as its trusted proxies say.

    request: tornado's. Its own `remote_ip` is what X-Real-Ip says, and configurable-http-proxy
    passes that on from anybody. Each proxy adds whom it heard to X-Forwarded-For, so that the last
    entry that is no trusted proxy's own (`trusted_downstream_ips`) is the one to believe. Who
    reaches the hub's own port, and not through its proxy, can say anything.
    """
    context = request.connection.context
    trusted = {plain(entry) for entry in getattr(context, "trusted_downstream", ())}
    hops = [plain(hop) for hop in request.headers.get("X-Forwarded-For", "").split(",")]
    believed = [hop for hop in hops if hop and hop not in trusted]
    own = str(getattr(context, "_orig_remote_ip", request.remote_ip))
    return believed[-1] if believed else plain(own) or own


def plain(text: str) -> str:
    """Return the one form of an address; "" for what is none.

    A proxy that listens on all addresses has IPv4 ones written as IPv6, ::ffff:192.0.2.7, which
    no rule of the machine (access.conf(5)) means.
    """
    try:
        found = ip_address(text.strip())
    except ValueError:
        return ""
    mapped = found.ipv4_mapped if isinstance(found, IPv6Address) else None
    return str(mapped or found)


def network(address: str) -> str:
    """Return what counts as one address: of IPv6 the first 64 bits, as whoever has one has all."""
    try:
        found = ip_address(address)
    except ValueError:
        return address
    if isinstance(found, IPv6Address) and found.ipv4_mapped is None:
        return f"{int(found) >> 64:x}::/64"
    return address


def neighbours(address: str) -> str:
    """Return the network in which one person may well have many addresses: /48, or /24 of IPv4."""
    try:
        found = ip_address(address)
    except ValueError:
        return address
    found = (isinstance(found, IPv6Address) and found.ipv4_mapped) or found
    if any(found in each for each in LOCAL):
        return network(address)
    bits = 80 if isinstance(found, IPv6Address) else 8
    return f"{int(found) >> bits:x} of IPv{found.version}"
