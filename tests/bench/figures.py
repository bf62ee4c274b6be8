"""Arithmetic of the results: percentiles, medians over rounds, ratios. Pure."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

WORST_COUNTS = ("lost", "useless", "left")
"""Counts of what must not happen, of which the worst round counts and not the median."""

Key = tuple[str, int]
"""A contender's name and a number of users."""

Summary = Mapping[Key, Mapping[str, float]]


class Result(Protocol):
    """One measurement of one contender."""

    contender: str
    users: int
    numbers: dict[str, float]


def percentile(ordered: Sequence[float], percent: float) -> float:
    """Return the value that `percent` of the values do not exceed (nearest rank)."""
    return ordered[max(0, math.ceil(percent / 100 * len(ordered)) - 1)]


def combine(name: str, values: Sequence[float]) -> float:
    """Return one value for all rounds: the median, or the worst of what must not happen."""
    if name in WORST_COUNTS:
        return max(values)
    return statistics.median(values)


def summarise(results: Iterable[Result]) -> dict[Key, dict[str, float]]:
    """Return the combined numbers of every contender at every number of users."""
    rounds: dict[Key, dict[str, list[float]]] = {}
    for each in results:
        kept = rounds.setdefault((each.contender, each.users), {})
        for name, value in each.numbers.items():
            kept.setdefault(name, []).append(value)
    return {
        key: {name: combine(name, values) for name, values in kept.items()}
        for key, kept in rounds.items()
    }


def ratio(over: float | None, under: float | None) -> float | None:
    """Return how many times the one is the other; None where one is not known."""
    if over is None or not under:
        return None
    return over / under
