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


async def _run(
    runner: Runner,
    hook: Hook,
    subject: object,
    values: Mapping[str, object],
    timeout: float,
    what: str,
) -> None:
    log = ""
    cause: BaseException | None = None
    if callable(hook):
        shown = f"the function {name_of(hook)}"
        try:
            answer = await runner.function(hook, subject, timeout=timeout)
        except TimeoutError as exc:
            how, cause = f"did not end within {timeout:g} seconds", exc
        else:
            if not isinstance(answer, Raised):
                return
            how, cause = f"raised {type(answer.error).__name__}: {answer.error}", answer.error
    else:
        words = filled(hook, values)
        shown = f"the command {shlex.join(words)}"
        try:
            outcome = await runner.command(words, timeout=timeout)
        except (OSError, ValueError) as exc:
            how, cause = f"cannot be started: {exc}", exc
        else:
            if outcome.exit_code == 0:
                return
            how, log = how_it_ended(outcome, timeout), last_lines(outcome.output)
    raise AccountCreationFailed(
        f"{what}: {shown} (add_user_hooks) {how}.",
        remedy="Mend the hook, then add the user again, or let the user log in again: what is "
        "missing is done then.",
        log=log,
    ) from cause
