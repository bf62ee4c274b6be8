"""One server's limits and guarantees, as checked values."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from workshop_hub.errors import LimitError

MIN_MEMORY = 16 * 1024**2
"""Bytes. Below this not even the launcher's shell and interpreter start; surely a typing error."""

USUAL_SERVER_MEMORY = 130 * 1024**2
"""Bytes that a fresh JupyterLab server needs before anyone runs a cell (measured; see docs)."""

DEFAULT_PIDS_LIMIT = 4096
"""Processes and threads: far above any notebook's need, far below what stops a machine."""

CPU_SHARES_PER_CORE = 1024
"""Docker's and cgroup v1's scale of CPU shares."""


@dataclass(frozen=True)
class Limits:
    """What a server may use at most, and what it is promised.

    cpu_limit: cores, as in 0.5 or 2; None for no limit.
    mem_limit: bytes; None for no limit.
    cpu_guarantee: cores that count when the machine is busy (a weight); None or 0 for none.
    mem_guarantee: bytes that are reclaimed last; None or 0 for none.
    pids_limit: processes and threads at most; 0 for no limit; None for DEFAULT_PIDS_LIMIT where
    the machine can hold a server to it.

    Raises LimitError, naming the option, for a value that means nothing.
    """

    cpu_limit: float | None = None
    mem_limit: int | None = None
    cpu_guarantee: float | None = None
    mem_guarantee: int | None = None
    pids_limit: int | None = None

    def __post_init__(self) -> None:
        for name in ("cpu_limit", "mem_limit"):
            _check_number(name, getattr(self, name), zero_means_none=False)
        for name in ("cpu_guarantee", "mem_guarantee", "pids_limit"):
            _check_number(name, getattr(self, name), zero_means_none=True)
        if self.mem_limit is not None and self.mem_limit < MIN_MEMORY:
            raise LimitError(
                f"mem_limit is {self.mem_limit} bytes; no server fits into less than 16M.",
                remedy='Give the unit: "512M", "2G".',
            )
        _check_order("cpu", self.cpu_guarantee, self.cpu_limit)
        _check_order("mem", self.mem_guarantee, self.mem_limit)

    @property
    def configured(self) -> tuple[str, ...]:
        """Names of the limits and guarantees that are set."""
        return tuple(field.name for field in fields(self) if getattr(self, field.name))

    def __str__(self) -> str:
        if not self.configured:
            return "no limits"
        return ", ".join(
            f"{name} {format_value(name, getattr(self, name))}" for name in self.configured
        )


def format_value(name: str, value: float) -> str:
    """Write a limit's value with its unit, as the configuration takes it."""
    if name.startswith("mem"):
        return format_bytes(int(value))
    return f"{value:g}"


def format_bytes(size: int) -> str:
    """Write a number of bytes in the largest unit that keeps three digits: 512M, 1.5G."""
    amount = float(size)
    for unit in ("", "K", "M", "G"):
        if amount < 1024:
            return f"{amount:.3g}{unit}"
        amount /= 1024
    return f"{amount:.3g}T"


def small_memory_warning(limits: Limits) -> str:
    """Say that the memory limit is too small for a usual server; empty where it is not."""
    if limits.mem_limit is None or limits.mem_limit >= USUAL_SERVER_MEMORY:
        return ""
    return (
        f"mem_limit is {format_bytes(limits.mem_limit)}; a fresh JupyterLab server alone needs "
        f"about {format_bytes(USUAL_SERVER_MEMORY)} and may be ended at its start."
    )


def _check_number(name: str, value: object, *, zero_means_none: bool) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise LimitError(f"{name} is {value!r}; it must be a number.", remedy=_EXAMPLE[name])
    if value < 0:
        raise LimitError(f"{name} is {value:g}; it cannot be negative.", remedy=_EXAMPLE[name])
    if value == 0 and not zero_means_none:
        raise LimitError(
            f"{name} is 0; with nothing to use, no server can run.",
            remedy="For no limit, set it to None.",
        )


def _check_order(kind: str, guarantee: float | None, limit: float | None) -> None:
    if guarantee is not None and limit is not None and guarantee > limit:
        raise LimitError(
            f"{kind}_guarantee ({format_value(kind, guarantee)}) is above "
            f"{kind}_limit ({format_value(kind, limit)}).",
            remedy=f"Lower {kind}_guarantee, or raise {kind}_limit.",
        )


_EXAMPLE = {
    "cpu_limit": "Give cores, for example 0.5 or 2.",
    "cpu_guarantee": "Give cores, for example 0.5 or 2.",
    "mem_limit": 'Give bytes with a unit, for example "512M" or "2G".',
    "mem_guarantee": 'Give bytes with a unit, for example "512M" or "2G".',
    "pids_limit": "Give a number of processes and threads, for example 1000.",
}
