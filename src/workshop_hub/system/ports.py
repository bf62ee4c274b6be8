"""Ports for servers: held while in use, tried before they are given out, and who listens on one."""

from __future__ import annotations

import random
import socket
import struct
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

from workshop_hub.errors import ConfigError, NoFreePort

EPHEMERAL = Path("/proc/sys/net/ipv4/ip_local_port_range")
NET = Path("/proc/self/net")

LISTEN = "0A"
"""State of a listening socket in /proc/net/tcp (include/net/tcp_states.h)."""


class PortTable:
    """The ports of one range, and who holds which.

    "Pick one that is free now" loses ports in a class's start: two servers are given the same
    one before either has bound it. first, last: the range, both included.
    """

    def __init__(self, first: int, last: int) -> None:
        self._first = first
        self._count = last - first + 1
        # two hubs with the same range would otherwise walk it in step
        self._next = random.randrange(self._count)  # noqa: S311 - spreads, protects nothing
        self._held: dict[int, str] = {}

    def take(self, holder: str, ip: str, pinned: int = 0) -> int:
        """Return a port that `holder` may bind at `ip`, instead of what it held; NoFreePort.

        pinned: the only port that will do; 0 for any of the range.
        """
        self.release(holder)
        for port in [pinned] if pinned else self._candidates():
            if port not in self._held and is_free(ip, port):
                self._held[port] = holder
                # never the same again at once: it may have been lost to somebody
                self._next = (port - self._first + 1) % self._count
                return port
        if pinned:
            raise NoFreePort(
                f"The port {pinned} is in use.",
                remedy="Set port to 0 to let every server have one.",
            )
        raise NoFreePort(
            f"All {self._count} ports from {self._first} on are in use.",
            remedy="Stop servers that are not needed, or ask the administrator for a larger "
            "ProcessBackend.port_range.",
        )

    def hold(self, holder: str, port: int) -> None:
        """Note that `holder` uses `port`, as it did before the hub was restarted."""
        self._held.setdefault(port, holder)

    def release(self, holder: str) -> None:
        """Give back what `holder` held."""
        self._held = {port: who for port, who in self._held.items() if who != holder}

    def _candidates(self) -> Iterator[int]:
        first = self._next
        return (self._first + (first + step) % self._count for step in range(self._count))


def is_free(ip: str, port: int) -> bool:
    """Say whether a server could bind `port` at `ip` now.

    SO_REUSEADDR as servers set it, or a port would count as taken for a minute after each use.
    """
    family = socket.AF_INET6 if ":" in ip else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind((ip, port))
        except OSError:
            return False
    return True


def check_range(first: int, last: int, ephemeral: Path = EPHEMERAL) -> None:
    """Raise ConfigError for a range that no server should be given ports of."""
    if first > last:
        raise ConfigError(
            f"port_range is ({first}, {last}): the first port is above the last.",
            remedy=f"Write ({last}, {first}).",
        )
    if first < 1024 or last > 65535:
        raise ConfigError(
            f"port_range is ({first}, {last}); it must lie between 1024 and 65535.",
            remedy="For example (20000, 29999).",
        )
    try:
        low, high = (int(word) for word in ephemeral.read_text().split())
    except (OSError, ValueError):
        return  # without the kernel's word there is nothing to compare with
    if first <= high and low <= last:
        raise ConfigError(
            f"port_range is ({first}, {last}); the kernel gives the ports {low} to {high} to "
            "outgoing connections, and would take servers' ports away.",
            remedy=f"Choose a range below {low}, for example (20000, 29999), "
            "or change net.ipv4.ip_local_port_range.",
        )


def listener_uids(ip: str, port: int, net: Path = NET) -> set[int]:
    """Return the accounts whose sockets get the connections to `port` at `ip`; empty for none.

    The kernel prefers a socket bound to the very address over one bound to all addresses.
    """
    wanted = _unmapped(ip_address(ip))
    if wanted.is_unspecified:
        wanted = ip_address("127.0.0.1" if wanted.version == 4 else "::1")
    wildcards = (IPv4Address(0), IPv6Address(0)) if wanted.version == 4 else (IPv6Address(0),)
    listeners = _listeners(port, net)
    for address in (wanted, *wildcards):
        uids = {uid for bound, uid in listeners if bound == address}
        if uids:
            return uids
    return set()


def _listeners(port: int, net: Path) -> list[tuple[IPv4Address | IPv6Address, int]]:
    found = []
    for name in ("tcp", "tcp6"):
        try:
            lines = (net / name).read_text().splitlines()[1:]
        except OSError:
            continue  # a machine without IPv6
        for line in lines:
            fields = line.split()
            local, _, number = fields[1].partition(":")
            if fields[3] == LISTEN and int(number, 16) == port:
                found.append((_kernel_address(local), int(fields[7])))
    return found


def _kernel_address(text: str) -> IPv4Address | IPv6Address:
    """Read an address of /proc/net/tcp: words in network order, printed as native numbers."""
    words = [int(text[at : at + 8], 16) for at in range(0, len(text), 8)]
    packed = struct.pack(f"={len(words)}I", *words)
    return _unmapped(ip_address(packed))


def _unmapped(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address
