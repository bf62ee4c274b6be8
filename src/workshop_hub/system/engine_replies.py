"""The parts of the Docker API's replies that we read, as values.

Fields are those of https://docs.docker.com/reference/api/engine/version/v1.41/.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

Reply: TypeAlias = Mapping[str, Any]
"""JSON from outside, before it is read."""


@dataclass(frozen=True)
class Container:
    """One container.

    status: created, running, paused, restarting, removing, exited or dead.
    pid: of its first process, in the engine's pid namespace; 0 where none runs.
    addresses: IP address by network. published: host port by container port, for TCP.
    host_config: the limits and all else, as the engine keeps them.
    """

    id: str
    name: str
    image: str
    image_id: str
    labels: Mapping[str, str]
    status: str
    running: bool
    pid: int
    exit_code: int
    oom_killed: bool
    error: str
    stop_signal: str
    addresses: Mapping[str, str]
    published: Mapping[int, int]
    host_config: Reply = field(repr=False)

    @classmethod
    def read(cls, reply: Reply) -> Container:
        """Read the reply to GET /containers/{id}/json."""
        state, config = reply["State"], reply["Config"]
        settings = reply.get("NetworkSettings") or {}
        return cls(
            id=reply["Id"],
            name=reply["Name"].lstrip("/"),
            image=config.get("Image", ""),
            image_id=reply.get("Image", ""),
            labels=config.get("Labels") or {},
            status=state.get("Status", ""),
            running=bool(state.get("Running")),
            pid=int(state.get("Pid") or 0),
            exit_code=int(state.get("ExitCode") or 0),
            oom_killed=bool(state.get("OOMKilled")),
            error=state.get("Error", ""),
            stop_signal=config.get("StopSignal") or "SIGTERM",
            addresses={
                name: network["IPAddress"]
                for name, network in (settings.get("Networks") or {}).items()
                if network.get("IPAddress")
            },
            published=_published(settings.get("Ports") or {}),
            host_config=reply.get("HostConfig") or {},
        )


@dataclass(frozen=True)
class Listed:
    """One container in a list."""

    id: str
    name: str
    labels: Mapping[str, str]

    @classmethod
    def read(cls, reply: Reply) -> Listed:
        """Read one item of the reply to GET /containers/json."""
        names = reply.get("Names") or [""]
        return cls(reply["Id"], names[0].lstrip("/"), reply.get("Labels") or {})


@dataclass(frozen=True)
class Network:
    """One network. gateway: the host's address in it; empty where it has none."""

    name: str
    driver: str
    subnet: str
    gateway: str

    @classmethod
    def read(cls, reply: Reply) -> Network:
        """Read the reply to GET /networks/{id}."""
        configs = (reply.get("IPAM") or {}).get("Config") or []
        ipv4: Reply = next((c for c in configs if ":" not in c.get("Subnet", ":")), {})
        return cls(
            name=reply["Name"],
            driver=reply.get("Driver", ""),
            subnet=ipv4.get("Subnet", ""),
            gateway=ipv4.get("Gateway", "").split("/")[0],
        )


@dataclass(frozen=True)
class EngineInfo:
    """What the engine is, and which limits its kernel can enforce.

    api: version of the API, as in (1, 41). cgroup_version: "1" or "2".
    """

    version: str
    api: tuple[int, ...]
    cgroup_version: str
    cgroup_driver: str
    memory: bool
    swap: bool
    cpu_quota: bool
    cpu_shares: bool
    pids: bool
    rootless: bool
    remapped: bool

    @classmethod
    def read(cls, info: Reply, version: Reply) -> EngineInfo:
        """Read the replies to GET /info and GET /version."""
        security = [str(option) for option in info.get("SecurityOptions") or []]
        return cls(
            version=version.get("Version", ""),
            api=tuple(int(part) for part in version.get("ApiVersion", "0").split(".")),
            cgroup_version=str(info.get("CgroupVersion", "1")),
            cgroup_driver=info.get("CgroupDriver", ""),
            memory=bool(info.get("MemoryLimit")),
            swap=bool(info.get("SwapLimit")),
            cpu_quota=bool(info.get("CpuCfsQuota")),
            cpu_shares=bool(info.get("CPUShares")),
            pids=bool(info.get("PidsLimit")),
            rootless=any(option.startswith("name=rootless") for option in security),
            remapped=any(option.startswith("name=userns") for option in security),
        )


@dataclass(frozen=True)
class Counters:
    """What a container uses, as the engine says it. memory: bytes; cpu: seconds."""

    memory: int | None
    cpu: float | None
    pids: int | None

    @classmethod
    def read(cls, reply: Reply) -> Counters:
        """Read the reply to GET /containers/{id}/stats."""
        memory = (reply.get("memory_stats") or {}).get("usage")
        cpu = ((reply.get("cpu_stats") or {}).get("cpu_usage") or {}).get("total_usage")
        pids = (reply.get("pids_stats") or {}).get("current")
        return cls(memory, None if cpu is None else cpu / 1e9, pids)


def _published(ports: Reply) -> dict[int, int]:
    found: dict[int, int] = {}
    for key, bindings in ports.items():
        number, _, protocol = key.partition("/")
        if protocol == "tcp" and bindings:
            found[int(number)] = int(bindings[0]["HostPort"])
    return found
