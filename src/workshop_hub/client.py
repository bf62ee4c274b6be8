"""Where a request comes from."""

from __future__ import annotations

from ipaddress import IPv6Address, ip_address
from typing import Any


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
