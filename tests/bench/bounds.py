"""What the project promises of itself beside its peers, and whether a run has held it. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from enum import Enum

from bench.figures import Summary, ratio


class Kind(Enum):
    """How a figure is made of a number, and of which side of the limit it must be."""

    SOONER = "times less than {peer}"
    WITHIN = "times that of {peer}"
    AT_MOST = ""


@dataclass(frozen=True)
class Bound:
    """One promise. number: see `report.NUMBERS`. peer: whom a ratio is to."""

    of: str
    users: int
    number: str
    kind: Kind
    limit: float
    peer: str = ""

    @property
    def text(self) -> str:
        """The promise in words."""
        side = "at least" if self.kind is Kind.SOONER else "at most"
        words = self.kind.value.format(peer=self.peer)
        return f"{self.of}, {self.users} users: {self.number} {side} {self.limit:g} {words}".strip()


@dataclass(frozen=True)
class Verdict:
    """What a run says of a bound. figure: None where it was not measured."""

    bound: Bound
    figure: float | None

    @property
    def held(self) -> bool:
        """Whether it was measured, and holds."""
        if self.figure is None:
            return False
        if self.bound.kind is Kind.SOONER:
            return self.figure >= self.bound.limit
        return self.figure <= self.bound.limit

    @property
    def line(self) -> str:
        """The verdict in words."""
        figure = "not measured" if self.figure is None else f"{self.figure:.3g}"
        return f"{'held    ' if self.held else 'NOT held'}  {self.bound.text}: {figure}"


BOUNDS = (
    Bound("warm", 12, "total_s", Kind.SOONER, 10, "local"),
    Bound("warm", 12, "total_s", Kind.SOONER, 10, "sudospawner"),
    Bound("warm", 12, "total_s", Kind.SOONER, 10, "systemuser"),
    Bound("warm", 12, "lost", Kind.AT_MOST, 0),
    Bound("warm", 12, "useless", Kind.AT_MOST, 0),
    Bound("warm", 12, "user_mb", Kind.AT_MOST, 30),
    Bound("warm", 12, "stop_s", Kind.AT_MOST, 1),
    Bound("warm", 12, "left", Kind.AT_MOST, 0),
    Bound("warm", 100, "total_s", Kind.WITHIN, 5, "floor"),
    Bound("warm", 100, "lost", Kind.AT_MOST, 0),
    Bound("warm", 100, "useless", Kind.AT_MOST, 0),
    Bound("warm", 100, "user_mb", Kind.AT_MOST, 26),
    Bound("warm", 100, "left", Kind.AT_MOST, 0),
    Bound("sudo", 12, "total_s", Kind.SOONER, 2, "sudospawner"),
    Bound("sudo", 12, "total_s", Kind.SOONER, 1.6, "local"),
    Bound("sudo", 12, "user_mb", Kind.AT_MOST, 92),
    Bound("docker", 12, "total_s", Kind.SOONER, 1.6, "systemuser"),
    Bound("docker", 12, "stop_s", Kind.SOONER, 3, "systemuser"),
)


OF_LOGINS = (
    Bound("workshop", 30, "lost", Kind.AT_MOST, 0),
    Bound("workshop", 30, "login_max_s", Kind.AT_MOST, 1),
)
"""Those of the logins, of which there is one number."""


def asked_for(contenders: Collection[str], users: Collection[int]) -> list[Bound]:
    """Return the bounds that a run with these contenders and numbers of users can judge."""
    return [
        bound
        for bound in BOUNDS
        if bound.users in users and {bound.of, bound.peer or bound.of} <= set(contenders)
    ]


def judge(bounds: Iterable[Bound], summary: Summary) -> list[Verdict]:
    """Compare what was measured with the limits."""
    return [Verdict(bound, figure_of(bound, summary)) for bound in bounds]


def figure_of(bound: Bound, summary: Summary) -> float | None:
    """Return what is compared with the limit; None where it was not measured."""
    own = summary.get((bound.of, bound.users), {}).get(bound.number)
    if bound.kind is Kind.AT_MOST:
        return own
    peer = summary.get((bound.peer, bound.users), {}).get(bound.number)
    return ratio(peer, own) if bound.kind is Kind.SOONER else ratio(own, peer)
