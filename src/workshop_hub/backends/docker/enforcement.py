"""Can the engine hold a container to its limits, and did it? Pure decisions."""

from __future__ import annotations

from collections.abc import Mapping

from workshop_hub.backends.docker.container import CPU_PERIOD, MIN_CPU_QUOTA, MIN_CPU_SHARES
from workshop_hub.errors import LimitsNotEnforceable
from workshop_hub.policy.limits import CPU_SHARES_PER_CORE, Limits
from workshop_hub.system.container_cgroup import ContainerCgroup
from workshop_hub.system.engine_replies import EngineInfo

PAGE = 4096
"""Bytes to which the kernel rounds memory limits down."""


def gaps(limits: Limits, info: EngineInfo, *, swap_in_use: bool) -> list[str]:
    """Return, one sentence each, what is configured and cannot be enforced.

    swap_in_use: whether the machine has swap: without it, swap need not be limited.
    """
    found = []
    if limits.mem_limit is not None and not info.memory:
        found.append("mem_limit: the kernel has no memory controller (cgroup_enable=memory).")
    elif limits.mem_limit is not None and swap_in_use and not info.swap:
        found.append(
            "mem_limit: the kernel does not count swap, so a server could use all of it; boot "
            "with swapaccount=1, or turn swap off (swapoff -a)."
        )
    if limits.mem_guarantee and not info.memory:
        found.append("mem_guarantee: the kernel has no memory controller (cgroup_enable=memory).")
    if limits.cpu_limit is not None and not info.cpu_quota:
        found.append("cpu_limit: the kernel has no CPU bandwidth control (CONFIG_CFS_BANDWIDTH).")
    if limits.cpu_guarantee and not info.cpu_shares and info.cgroup_version == "1":
        found.append("cpu_guarantee: the kernel has no CPU shares (CONFIG_FAIR_GROUP_SCHED).")
    if limits.pids_limit and not info.pids:
        found.append("pids_limit: the kernel has no pids controller (CONFIG_CGROUP_PIDS).")
    return found


def refusal(problems: list[str]) -> LimitsNotEnforceable:
    """Return the error for limits that cannot be enforced."""
    return LimitsNotEnforceable(
        "The container engine cannot enforce the configured limits. " + " ".join(problems),
        remedy="Ask the administrator to mend it, or to set c.WorkshopSpawner.limits_policy = "
        '"warn" to run servers without these limits.',
    )


def in_force(cgroup: ContainerCgroup, host_config: Mapping[str, object]) -> Limits:
    """Return the limits as the kernel's files say them.

    The weight is read back as the guarantee that was asked for only if it is the one that the
    runtime makes of it: the scale of version 2 is too coarse to compute it.
    """
    asked = host_config.get("CpuShares") or 0
    if asked == MIN_CPU_SHARES:
        asked = 0  # what a server without a guarantee gets
    shares = cgroup.cpu_shares()
    guarantee = None
    if isinstance(asked, int) and asked and cgroup.cpu_weight_is(asked):
        guarantee = round(asked / CPU_SHARES_PER_CORE, 3)
    elif asked and shares:
        guarantee = round(shares / CPU_SHARES_PER_CORE, 3)
    return Limits(
        cpu_limit=cgroup.cpu_limit(),
        mem_limit=cgroup.memory_limit(),
        cpu_guarantee=guarantee,
        mem_guarantee=cgroup.memory_guarantee(),
        pids_limit=cgroup.pids_limit(),
    )


def asked_for(host_config: Mapping[str, object]) -> Limits:
    """Return the limits as the engine keeps them, for engines whose kernel files are not ours."""

    def number(key: str) -> int:
        value = host_config.get(key)
        return value if isinstance(value, int) and value > 0 else 0

    shares = number("CpuShares")
    return Limits(
        cpu_limit=number("CpuQuota") / (number("CpuPeriod") or CPU_PERIOD) or None,
        mem_limit=number("Memory") or None,
        cpu_guarantee=round(shares / CPU_SHARES_PER_CORE, 3) if shares > MIN_CPU_SHARES else None,
        mem_guarantee=number("MemoryReservation") or None,
        pids_limit=number("PidsLimit") or None,
    )


def differences(wanted: Limits, kernel: Limits) -> list[str]:
    """Return, one sentence each, which limits the kernel does not have as they were wanted.

    Guarantees are left out: a weight has no exact value.
    """
    found = []
    if wanted.mem_limit is not None:
        got = kernel.mem_limit
        if got is None or abs(got - wanted.mem_limit) > PAGE:
            found.append(f"mem_limit is {wanted.mem_limit}, the kernel says {got}.")
    if wanted.cpu_limit is not None:
        cores = max(wanted.cpu_limit, MIN_CPU_QUOTA / CPU_PERIOD)
        # The quota is in whole microseconds of the period.
        if kernel.cpu_limit is None or abs(kernel.cpu_limit - cores) > 2 / CPU_PERIOD:
            found.append(f"cpu_limit is {wanted.cpu_limit:g}, the kernel says {kernel.cpu_limit}.")
    if wanted.pids_limit is not None and kernel.pids_limit != (wanted.pids_limit or None):
        found.append(f"pids_limit is {wanted.pids_limit}, the kernel says {kernel.pids_limit}.")
    return found
