"""What would keep containers from starting, as lines for `doctor`. Pure: the facts are given."""

from __future__ import annotations

from workshop_hub.backends.base import Finding
from workshop_hub.backends.docker import enforcement, hub_address
from workshop_hub.policy.limits import Limits
from workshop_hub.system.engine_replies import EngineInfo, Network

OLDEST_API = (1, 41)
"""Docker Engine 20.10, the oldest that is tested."""

EVERY_LIMIT = Limits(
    cpu_limit=1.0, mem_limit=1 << 30, cpu_guarantee=0.1, mem_guarantee=1 << 28, pids_limit=100
)


def engine_findings(info: EngineInfo, *, swap_in_use: bool) -> list[Finding]:
    """Judge the engine: its version, what it can enforce, whose uids it uses."""
    findings = [_version(info)]
    for problem in enforcement.gaps(EVERY_LIMIT, info, swap_in_use=swap_in_use):
        option, _, why = problem.partition(": ")
        findings.append(
            Finding(
                "error",
                f"limit {option}",
                f"cannot be enforced: {why}",
                f"Servers with {option} will not start until this is mended.",
            )
        )
    if len(findings) == 1:
        text = f"all can be enforced (cgroup v{info.cgroup_version}, {info.cgroup_driver})"
        findings.append(Finding("ok", "limits", text))
    if info.cgroup_version == "1":
        findings.append(
            Finding(
                "warning",
                "mem_guarantee",
                "with cgroup v1 it is a hint, no guarantee",
                "Boot with systemd.unified_cgroup_hierarchy=1, or use a newer system.",
            )
        )
    if info.rootless or info.remapped:
        mode = "rootless" if info.rootless else "userns-remap"
        findings.append(
            Finding(
                "error",
                "user ids",
                f"the engine runs in {mode} mode, so a container's uid "
                "is not the account's, and homes cannot be used",
                "Use an engine without it, or for userns-remap set "
                'c.WorkshopSpawner.extra_host_config = {"userns_mode": "host"}.',
            )
        )
    return findings


def memory_low_finding(parent: str, protected: bool | None) -> Finding | None:
    """Judge whether mem_guarantee has an effect: below a parent without one it has none.

    protected: whether the containers' parent has memory.low set; None where that is not known.
    """
    if protected is not False:
        return None
    return Finding(
        "warning",
        "mem_guarantee",
        f"has no effect: the containers' control group {parent} has no memory.low of its own",
        f"Set one (systemctl set-property {parent} MemoryLow=...), or name a slice that has it in "
        "c.DockerBackend.cgroup_parent.",
    )


def network_finding(name: str, network: Network | None, names: list[str]) -> Finding:
    """Judge the network of the containers."""
    if name == "host":
        return Finding(
            "warning",
            "network",
            "containers share the machine's network",
            "A bridge network keeps servers of users apart.",
        )
    if network is None:
        return Finding(
            "error",
            "network",
            f'"{name}" does not exist; there are: {", ".join(names)}',
            f"docker network create {name}",
        )
    gateway = hub_address.gateway(network)
    if not gateway:
        return Finding(
            "warning",
            "network",
            f'this machine has no address in "{name}" (driver {network.driver})',
            "Set c.DockerBackend.hub_connect_ip.",
        )
    return Finding(
        "ok",
        "network",
        f'"{name}"; the hub is reached at {gateway}, so '
        f'c.JupyterHub.hub_ip must be "{gateway}" or ""',
    )


def image_finding(image: str, present: bool, pull_policy: str) -> Finding:
    """Judge whether the image is there."""
    if present:
        return Finding("ok", "image", f"{image} is there")
    if pull_policy == "never":
        return Finding("error", "image", f"{image} is absent", f"docker pull {image}")
    return Finding(
        "warning",
        "image",
        f"{image} is absent; the first start will pull it",
        f"docker pull {image}",
    )


def _version(info: EngineInfo) -> Finding:
    api = ".".join(map(str, info.api))
    text = f"Docker Engine {info.version}, API {api}"
    if info.api < OLDEST_API:
        oldest = ".".join(map(str, OLDEST_API))
        return Finding(
            "error",
            "engine",
            f"{text}; API {oldest} is needed",
            "Install Docker Engine 20.10 or newer.",
        )
    return Finding("ok", "engine", text)
