"""Limits as cgroup v2 settings, and back."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from workshop_hub.errors import LimitError
from workshop_hub.policy.limits import DEFAULT_PIDS_LIMIT, Limits
from workshop_hub.system.cgroup import Setting

PERIOD = 100_000
"""Microseconds over which cpu.max counts; the kernel's own default."""

LONGEST_PERIOD = 1_000_000
SHORTEST_QUOTA = 1_000
"""Microseconds: what the kernel accepts (kernel/sched/core.c, tg_set_cfs_bandwidth)."""

WEIGHT_PER_CORE = 100
NO_GUARANTEE = 1
"""cpu.weight of a server without a guarantee: the kernel's default of 100 would make "nothing
promised" worth as much as a whole core, and more than a promised half."""

LIMIT_FILES = ("cpu.max", "cpu.weight", "memory.max", "memory.low", "pids.max")


def settings_for(limits: Limits) -> list[Setting]:
    """Return what to write into a new group's files; LimitError for what no kernel can hold."""
    wanted = [Setting("cpu.weight", str(weight(limits.cpu_guarantee)), "cpu_guarantee")]
    if limits.cpu_limit:
        wanted.append(Setting("cpu.max", _quota(limits.cpu_limit), "cpu_limit"))
    if limits.mem_limit:
        wanted.append(Setting("memory.max", str(limits.mem_limit), "mem_limit"))
        wanted.append(Setting("memory.swap.max", "0", "mem_limit"))
    if limits.mem_guarantee:
        wanted.append(Setting("memory.low", str(limits.mem_guarantee), "mem_guarantee"))
    pids = DEFAULT_PIDS_LIMIT if limits.pids_limit is None else limits.pids_limit
    if pids:
        wanted.append(Setting("pids.max", str(int(pids)), "pids_limit"))
    return wanted


def split(limits: Limits, controllers: Collection[str]) -> tuple[list[Setting], list[str]]:
    """Return the settings that can be written, and the configured options that cannot be held."""
    wanted = settings_for(limits)
    possible = [setting for setting in wanted if setting.controller in controllers]
    held = {setting.option for setting in possible}
    return possible, [option for option in limits.configured if option not in held]


def limits_in(texts: Mapping[str, str]) -> Limits:
    """Return the limits that a group's files (LIMIT_FILES) are in force with."""
    quota, _, period = texts.get("cpu.max", "max").partition(" ")
    weight_in_force = _number(texts.get("cpu.weight"))
    return Limits(
        cpu_limit=int(quota) / int(period) if quota != "max" else None,
        mem_limit=_number(texts.get("memory.max")),
        cpu_guarantee=None if weight_in_force is None else guarantee(weight_in_force),
        mem_guarantee=_number(texts.get("memory.low")) or None,
        pids_limit=_number(texts.get("pids.max")),
    )


def weight(cpu_guarantee: float | None) -> int:
    """Return cpu.weight (1 to 10000) for a guarantee in cores: 100 per core."""
    if not cpu_guarantee:
        return NO_GUARANTEE
    return min(max(round(cpu_guarantee * WEIGHT_PER_CORE), NO_GUARANTEE + 1), 10_000)


def guarantee(cpu_weight: int) -> float | None:
    """Return the guarantee in cores that `weight` has made `cpu_weight` of."""
    return None if cpu_weight == NO_GUARANTEE else cpu_weight / WEIGHT_PER_CORE


def _quota(cores: float) -> str:
    for period in (PERIOD, LONGEST_PERIOD):
        if round(cores * period) >= SHORTEST_QUOTA:
            return f"{round(cores * period)} {period}"
    raise LimitError(
        f"cpu_limit is {cores:g}; the kernel cannot hold a process to less than 0.001 cores.",
        remedy="Give cores, for example 0.5 or 2.",
    )


def _number(text: str | None) -> int | None:
    return int(text) if text and text.isdecimal() else None
