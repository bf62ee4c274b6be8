"""What the engine is asked to make: names, labels, limits, mounts. Pure: no I/O, no engine."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace

from workshop_hub import __version__
from workshop_hub.backends.base import Address, CertificatePaths, LaunchSpec, Owner
from workshop_hub.backends.docker.prelude import CERTIFICATE_DIR, NAMES, command, environment
from workshop_hub.policy.limits import CPU_SHARES_PER_CORE, DEFAULT_PIDS_LIMIT, Limits

LABEL = "workshop-hub"
NAME_MAX = 200
"""Characters of a name at most: it also names a log file, and file names end at 255."""

MIN_CPU_SHARES = 2
"""The least the kernel takes (https://docs.kernel.org/scheduler/sched-design-CFS.html)."""

UNLIMITED = -1
"""What the engine calls no limit of processes."""

CPU_PERIOD = 100_000
MIN_CPU_QUOTA = 1000
"""Microseconds: the kernel's default period, and the least it grants of it, 0.01 cores."""

HOST_NETWORK = "host"
LOOPBACK = "127.0.0.1"


@dataclass(frozen=True)
class Mount:
    """A folder of the host, or a named volume, at a place in the container.

    source: an absolute folder of the host; anything else names a volume of the engine.
    """

    source: str
    target: str
    read_only: bool = False

    @property
    def is_bind(self) -> bool:
        """Whether it is a folder of the host."""
        return self.source.startswith("/")

    def request(self) -> dict[str, object]:
        """Return it as the API takes it. Unlike a `-v`, it never creates a missing folder."""
        return {
            "Type": "bind" if self.is_bind else "volume",
            "Source": self.source,
            "Target": self.target,
            "ReadOnly": self.read_only,
        }


@dataclass(frozen=True)
class Machine:
    """What the administrator chose for all containers of the backend.

    network: the network's name. publish: reach the servers at a port of the host's loopback.
    """

    prefix: str
    network: str
    publish: bool = False
    read_only: bool = False
    cgroup_parent: str = ""
    log_max_size: str = "10m"
    log_max_files: int = 1
    fast_start: bool = False


@dataclass(frozen=True)
class Request:
    """Arguments of the Docker library for one container: create_container, create_host_config."""

    name: str
    create: dict[str, object]
    host: dict[str, object]


def name_of(owner: Owner, prefix: str) -> str:
    """Return the container's name: prefix-hub-user, and --server for a named one.

    Two owners never share one: what is no letter or digit is escaped, so that the first `--`
    ends the user's name. Labels tell the owner; the name is for people.
    """
    name = f"{prefix}-{owner.hub}-{_escape(owner.user)}"
    if owner.server:
        name += f"--{_escape(owner.server)}"
    if len(name) <= NAME_MAX:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:16]
    return f"{name[: NAME_MAX - 18]}_.{digest}"  # no escape yields "_."


def labels_of(spec: LaunchSpec, address: Address) -> dict[str, str]:
    """Return the labels by which the container is found and read after a hub restart."""
    return {
        **owner_labels(spec.owner),
        f"{LABEL}.uid": str(spec.account.uid),
        f"{LABEL}.port": str(address.port),
        f"{LABEL}.version": __version__,
        f"{LABEL}.limits": json.dumps(asdict(spec.limits), sort_keys=True),
    }


def owner_labels(owner: Owner) -> dict[str, str]:
    """Return the labels that make a container ours."""
    return {**hub_label(owner.hub), f"{LABEL}.user": owner.user, f"{LABEL}.server": owner.server}


def hub_label(hub: str) -> dict[str, str]:
    """Return the label that all containers of a hub carry."""
    return {f"{LABEL}.hub": hub}


def owner_from(labels: Mapping[str, str]) -> Owner | None:
    """Read the owner back; None where a label is missing."""
    try:
        return Owner(*(labels[f"{LABEL}.{key}"] for key in ("hub", "user", "server")))
    except KeyError:
        return None


def port_from(labels: Mapping[str, str]) -> int:
    """Read the port back; 0 where it is not there."""
    port = labels.get(f"{LABEL}.port", "")
    return int(port) if port.isdecimal() else 0


def mounts_of(spec: LaunchSpec) -> tuple[Mount, ...]:
    """Return what is mounted: the home at its own path, then the volumes.

    A volume whose target is the home takes its place.
    """
    options = spec.container
    volumes = [Mount(source, target) for source, target in options.volumes.items()]
    volumes += [Mount(source, target, True) for source, target in options.read_only_volumes.items()]
    home = spec.account.home
    if any(mount.target.rstrip("/") == home.rstrip("/") for mount in volumes):
        return tuple(volumes)
    return (Mount(home, home), *volumes)


def certificate_paths(spec: LaunchSpec) -> CertificatePaths | None:
    """Return where the server will find its certificates; None where it has none."""
    if spec.certificates is None:
        return None
    key, certificate, authority = (f"{CERTIFICATE_DIR}/{name}" for name in NAMES)
    return CertificatePaths(keyfile=key, certfile=certificate, cafile=authority)


def limits_config(limits: Limits) -> dict[str, object]:
    """Return the limits as the engine's resources.

    A server without a CPU guarantee gets the least shares there are: the engine's default of 1024
    would make "nothing promised" worth as much as a whole core, and more than a promised half.
    """
    config: dict[str, object] = {}
    if limits.mem_limit is not None:
        config["mem_limit"] = limits.mem_limit
        config["memswap_limit"] = limits.mem_limit  # memory and swap together: so no swap
    if limits.mem_guarantee:
        config["mem_reservation"] = limits.mem_guarantee
    if limits.cpu_limit is not None:
        # Not nano_cpus, which is the same to the kernel, but refused above the machine's cores.
        config["cpu_period"] = CPU_PERIOD
        config["cpu_quota"] = max(MIN_CPU_QUOTA, round(CPU_PERIOD * limits.cpu_limit))
    shares = round(CPU_SHARES_PER_CORE * (limits.cpu_guarantee or 0))
    config["cpu_shares"] = max(MIN_CPU_SHARES, shares)
    pids = DEFAULT_PIDS_LIMIT if limits.pids_limit is None else int(limits.pids_limit)
    config["pids_limit"] = pids or UNLIMITED
    return config


def request(
    spec: LaunchSpec, address: Address, machine: Machine, mounts: tuple[Mount, ...]
) -> Request:
    """Return the request for a server's container, without the administrator's extras.

    mounts: of `mounts_of`, with sources that were found to be safe.
    """
    account = spec.account
    create: dict[str, object] = {
        "image": spec.container.image,
        "command": list(command(spec, fast=machine.fast_start)),
        "user": f"{account.uid}:{account.gid}",
        "working_dir": account.home,
        "environment": {
            **spec.env,
            **_identity(spec),
            **environment(spec, fast=machine.fast_start),
        },
        "labels": labels_of(spec, address),
        # The hub asks the servers itself; an image's own check would run in the user's limits.
        "healthcheck": {"test": ["NONE"]},
    }
    host: dict[str, object] = {
        **limits_config(spec.limits),
        "network_mode": machine.network,
        "mounts": [mount.request() for mount in mounts],
        "group_add": [str(gid) for gid in account.groups if gid != account.gid],
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges"],
        "init": True,
        "tmpfs": _tmpfs(spec, machine),
        "log_config": {
            "type": "json-file",
            "config": {"max-size": machine.log_max_size, "max-file": str(machine.log_max_files)},
        },
    }
    if machine.read_only:
        host["read_only"] = True
    if machine.cgroup_parent:
        host["cgroup_parent"] = machine.cgroup_parent
    if machine.publish:
        create["ports"] = [address.port]
        host["port_bindings"] = {address.port: (LOOPBACK,)}
    return Request(name_of(spec.owner, machine.prefix), create, host)


def with_sources(mounts: tuple[Mount, ...], sources: Mapping[str, str]) -> tuple[Mount, ...]:
    """Return the mounts with the sources that were found to be safe in place of those given."""
    return tuple(replace(mount, source=sources.get(mount.source, mount.source)) for mount in mounts)


def _identity(spec: LaunchSpec) -> dict[str, str]:
    """Return who the user is. The names with NB_ are those of jupyter/docker-stacks."""
    account = spec.account
    return {
        "HOME": account.home,
        "USER": account.name,
        "LOGNAME": account.name,
        "NB_USER": account.name,
        "NB_UID": str(account.uid),
        "NB_GID": str(account.gid),
    }


def _tmpfs(spec: LaunchSpec, machine: Machine) -> dict[str, str]:
    # The engine's default is noexec, which breaks what compiles in /tmp (pip, R, numba).
    places = ["/tmp", "/var/tmp", "/run"] if machine.read_only else ["/tmp"]  # noqa: S108
    tmpfs = dict.fromkeys(places, "rw,exec,nosuid,nodev,mode=1777")
    if spec.certificates is not None:
        account = spec.account
        tmpfs[CERTIFICATE_DIR] = (
            f"rw,noexec,nosuid,nodev,size=1m,mode=0700,uid={account.uid},gid={account.gid}"
        )
    return tmpfs


def _escape(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9.]", lambda match: _hex(match.group()), text)


def _hex(character: str) -> str:
    return "".join(f"_{byte:02x}" for byte in character.encode("utf-8", errors="surrogatepass"))
