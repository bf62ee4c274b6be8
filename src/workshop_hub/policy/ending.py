"""Why a server ended, in words for its user."""

from __future__ import annotations

import signal
from dataclasses import asdict, dataclass

from workshop_hub.policy.limits import Limits, format_bytes

MAX_LOG = 4000
"""Characters of the log that are kept with the reason, in the hub's database."""


@dataclass(frozen=True)
class Ending:
    """Why a server ended.

    at: ISO 8601 time in UTC. log: last lines of its log. expected: that somebody asked for it.
    """

    message: str
    at: str
    log: str = ""
    expected: bool = False

    def to_state(self) -> dict[str, str | bool]:
        """Return it as JSON for the hub's database."""
        return asdict(self)

    @classmethod
    def from_state(cls, state: object) -> Ending | None:
        """Read what `to_state` wrote; None where there is nothing to read."""
        if not isinstance(state, dict) or not isinstance(state.get("message"), str):
            return None
        return cls(
            state["message"],
            str(state.get("at", "")),
            str(state.get("log", "")),
            bool(state.get("expected", False)),
        )


def died(
    exit_code: int | None, oom_kills: int, limits: Limits, *, at: str, log: str = ""
) -> Ending:
    """Explain a server that ended without being asked to.

    exit_code: 128 + N after signal N; None where it is not known.
    """
    return Ending(_cause(exit_code, oom_kills, limits), at, log[-MAX_LOG:])


def stopped(*, at: str) -> Ending:
    """Explain a server that was stopped through the hub."""
    return Ending(
        "It was stopped through the hub: by you, by an administrator, "
        "or because it was idle for long.",
        at,
        expected=True,
    )


def memory_notice(oom_kills: int, limits: Limits) -> str:
    """Tell the user of a running server that the kernel ended some of its processes."""
    often = "once" if oom_kills == 1 else f"{oom_kills} times"
    return (
        f"Your server reached its memory limit{_of(limits)} {often}. Each time the process that "
        "used the most, usually a notebook's kernel, was ended; the server itself runs on. "
        "Restart the kernel, and work with less data at once."
    )


def _cause(exit_code: int | None, oom_kills: int, limits: Limits) -> str:
    if oom_kills and exit_code in (None, 128 + signal.SIGKILL):
        return (
            f"It reached its memory limit{_of(limits)} and was ended by the kernel. "
            "Start it again and work with less data at once, or ask for more memory."
        )
    if exit_code is None:
        return (
            "Either all of it was killed from outside of the hub, or the machine was restarted: "
            "nothing is left that tells why."
        )
    if exit_code == 0:
        return "It shut itself down (exit code 0)."
    if exit_code > 128:
        return (
            f"It was ended by {_signal_name(exit_code - 128)}, which was sent from outside of the "
            "hub: by an administrator, or by one of your own programs."
        )
    return f"It ended by itself with exit code {exit_code}."


def _of(limits: Limits) -> str:
    return f" of {format_bytes(limits.mem_limit)}" if limits.mem_limit else ""


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
