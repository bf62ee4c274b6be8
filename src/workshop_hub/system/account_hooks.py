"""What a site has done before and after an account is made."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from workshop_hub.errors import AccountCreationFailed
from workshop_hub.system.accounts import Account
from workshop_hub.system.commands import Outcome, Raised, Runner, name_of

LOG_LINES = 15
"""Lines of a command's output that an error shows."""

Hook: TypeAlias = "Callable[..., Any] | Sequence[str]"


def how_it_ended(outcome: Outcome, timeout: float) -> str:
    """Say how a command that failed has ended. timeout: the seconds that it had."""
    if outcome.exit_code is None:
        return f"did not end within {timeout:g} seconds and was stopped"
    if outcome.exit_code < 0:
        return f"was ended by signal {-outcome.exit_code}"
    return f"failed with exit code {outcome.exit_code}"


def last_lines(output: str) -> str:
    """Return the end of a command's output, for an error."""
    return "\n".join(output.strip().splitlines()[-LOG_LINES:])


def filled(command: Sequence[str], values: Mapping[str, object]) -> list[str]:
    """Return the command's words with each {field} replaced; other braces stay."""
    words = list(command)
    for field, value in values.items():
        words = [word.replace(f"{{{field}}}", str(value)) for word in words]
    return words


@dataclass(frozen=True)
class Hooks:
    """Runs the hooks of one account, each with a deadline of its own.

    first: a function is given the name, a command has {username} replaced. last: a function is
    given the Account, a command also has {uid}, {gid} and {home} replaced.
    """

    first: Sequence[Hook] = ()
    last: Sequence[Hook] = ()

    async def before(self, runner: Runner, name: str, *, timeout: float) -> None:
        """Run those that come before. timeout: seconds. Raises AccountCreationFailed."""
        for hook in self.first:
            await _run(runner, hook, name, {"username": name}, timeout, _NOT_MADE.format(name))

    async def after(self, runner: Runner, account: Account, *, timeout: float) -> None:
        """Run those that come after. timeout: seconds. Raises AccountCreationFailed."""
        values = {
            "username": account.name,
            "uid": account.uid,
            "gid": account.gid,
            "home": account.home,
        }
        for hook in self.last:
            await _run(runner, hook, account, values, timeout, _HALF_MADE.format(account.name))


_NOT_MADE = 'The account "{}" was not created'
_HALF_MADE = 'The account "{}" exists and is half-made'


class _Failed(Exception):
    """A hook has failed. how: what it did. log: the last lines of its output."""

    def __init__(self, how: str, log: str = "") -> None:
        super().__init__(how)
        self.log = log


async def _run(
    runner: Runner,
    hook: Hook,
    subject: object,
    values: Mapping[str, object],
    timeout: float,
    what: str,
) -> None:
    try:
        if callable(hook):
            shown = f"the function {name_of(hook)}"
            await _call(runner, hook, subject, timeout)
        else:
            words = filled(hook, values)
            shown = f"the command {shlex.join(words)}"
            await _execute(runner, words, timeout)
    except _Failed as exc:
        raise AccountCreationFailed(
            f"{what}: {shown} (add_user_hooks) {exc}.",
            remedy="Mend the hook, then add the user again, or let the user log in again: what is "
            "missing is done then.",
            log=exc.log,
        ) from exc.__cause__


async def _call(
    runner: Runner, function: Callable[..., Any], subject: object, timeout: float
) -> None:
    try:
        answer = await runner.function(function, subject, timeout=timeout)
    except TimeoutError as exc:
        raise _Failed(f"did not end within {timeout:g} seconds") from exc
    if isinstance(answer, Raised):
        error = answer.error
        raise _Failed(f"raised {type(error).__name__}: {error}") from error


async def _execute(runner: Runner, words: Sequence[str], timeout: float) -> None:
    try:
        outcome = await runner.command(words, timeout=timeout)
    except (OSError, ValueError) as exc:
        raise _Failed(f"cannot be started: {exc}") from exc
    if outcome.exit_code != 0:
        raise _Failed(how_it_ended(outcome, timeout), last_lines(outcome.output))
