"""Create accounts of the machine with the distribution's or the site's own command."""

from __future__ import annotations

import asyncio
import os
import pwd
import re
import shlex
import shutil
import stat
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from workshop_hub.errors import AccountCreationFailed, ConfigError
from workshop_hub.system import accounts
from workshop_hub.system.account_hooks import Hooks, how_it_ended, last_lines
from workshop_hub.system.accounts import Account
from workshop_hub.system.commands import SBIN, Outcome, Raised, Runner
from workshop_hub.system.unfinished import Unfinished

Make: TypeAlias = "Callable[[str, int | None], Awaitable[str]]"
"""Makes the account of a name, with a uid where one is wanted; returns what was printed."""


def default_command(*, root: bool, path: str | None = None) -> list[str]:
    """Return the command that creates an account with a home of its own on this distribution.

    Debian's `adduser` is a program of its own, honours adduser.conf(5) and runs adduser.local(8).
    On Fedora, RHEL, SUSE and Arch the name is a link to `useradd`, or is not there.
    root: False goes through sudo, and never to `adduser`: with a second name it puts an account
    into a group, so that a sudoers rule with a wildcard would give root away.
    path: folders to look in, for tests.
    """
    path = f"{os.environ.get('PATH', '')}:{SBIN}" if path is None else path
    adduser = shutil.which("adduser", path=path)
    if root and adduser and Path(adduser).resolve().name == "adduser":
        return [adduser, "--quiet", "--disabled-password", "--gecos", "", "--"]
    command = [*useradd_command(path), "--"]
    return command if root else ["sudo", "-n", *command]


def useradd_command(path: str = SBIN) -> list[str]:
    """Return useradd(8) with the options of an account that has a home of its own."""
    useradd = shutil.which("useradd", path=path) or "/usr/sbin/useradd"
    shell = ["--shell", "/bin/bash"] if Path("/bin/bash").exists() else []
    return [useradd, "--create-home", "--key", "HOME_MODE=0700", *shell]


def sudoers_rule(user: str, words: Sequence[str]) -> str:
    """Return the line of sudoers(5) that lets `user` run `words` with any last argument."""
    escaped = [re.sub(r"([\\,:=])", r"\\\1", word) for word in words[:-1]]
    return f"{user} ALL=(root) NOPASSWD: {' '.join(escaped)} *"


def arguments(command: Sequence[str], name: str, uid: int | None) -> list[str]:
    """Return the arguments that create `name`: as JupyterHub does, the name comes last.

    USERNAME is replaced in every argument. A "--" that ends the command stays before the name.
    """
    filled = [argument.replace("USERNAME", name) for argument in command]
    wanted = [] if uid is None else ["--uid", str(uid)]
    if filled[-1:] == ["--"]:
        return [*filled[:-1], *wanted, "--", name]
    return [*filled, *wanted, name]


class AccountCreator:
    """Creates accounts, one at a time, and checks each of them.

    command: as `arguments` takes it, or a function that is given the name, and the uid or None.
    timeout: seconds for the command, and for each hook. refuse: says why an account that exists
    is no good, or "". hooks: what else is done, before and after. half_made: where the names are
    noted of accounts whose making has begun.
    """

    def __init__(
        self,
        command: Sequence[str] | Callable[..., Any],
        *,
        timeout: float,
        refuse: Callable[[Account], str],
        hooks: Hooks | None = None,
        half_made: Unfinished | None = None,
    ) -> None:
        self.command = command if callable(command) else list(command)
        self.timeout = timeout
        self.half_made = half_made or Unfinished()
        self.runner = Runner()
        self._refuse = refuse
        self._hooks = hooks or Hooks()
        self._lock = asyncio.Lock()

    async def create(
        self, name: str, uid: int | None = None, *, make: Make | None = None
    ) -> Account:
        """Return the account called `name`, which is made where the machine does not have it.

        An account that an earlier call left half-made is checked again, and the hooks that come
        after run again. uid: what it is to get. make: in the place of the command; it is told to
        finish what is half-made, too.
        Raises AccountCreationFailed with the command's last lines, ConfigError for a bad `uid`.
        """
        if uid is not None and (isinstance(uid, bool) or not isinstance(uid, int) or uid < 0):
            raise ConfigError(f"uids gives {name!r} the uid {uid!r}; it must be a number.")
        async with self._lock:
            found = await accounts.off_loop(lambda: accounts.find_or_none(name), name=name)
            if found is not None and name not in self.half_made:
                return found
            if self.runner.stuck:
                raise AccountCreationFailed(
                    f'The account "{name}" was not created: {self.runner.stuck} and cannot be '
                    "ended.",
                    remedy="End it by hand, or restart the hub, then add the user again.",
                )
            await self.half_made.add(name)
            try:
                account = await self._complete(name, uid, found, make)
            except AccountCreationFailed:
                if not await accounts.off_loop(lambda: accounts.find_or_none(name), name=name):
                    await self.half_made.discard(name)
                raise
            await self.half_made.discard(name)
            return account

    async def _complete(
        self, name: str, uid: int | None, found: Account | None, make: Make | None
    ) -> Account:
        output = ""
        if found is None:
            await self._hooks.before(self.runner, name, timeout=self.timeout)
        if found is None or make is not None:
            output = await (make or self._make)(name, uid)
        account = await accounts.off_loop(lambda: self._check(name, uid, output), name=name)
        await self._hooks.after(self.runner, account, timeout=self.timeout)
        return account

    async def _make(self, name: str, uid: int | None) -> str:
        if callable(self.command):
            return await self._call(self.command, name, uid)
        if not self.command:
            raise AccountCreationFailed("add_user_cmd is empty.", remedy="Set it to a command.")
        return await self._run(name, arguments(self.command, name, uid))

    async def _call(self, function: Callable[..., Any], name: str, uid: int | None) -> str:
        try:
            answer = await self.runner.function(function, name, uid, timeout=self.timeout)
        except TimeoutError as exc:
            raise AccountCreationFailed(
                f'The account "{name}" was not created: the function add_user_cmd did not end '
                f"within {self.timeout:g} seconds.",
                remedy="If the machine is only slow, raise add_user_timeout.",
            ) from exc
        if isinstance(answer, Raised):
            raise AccountCreationFailed(
                f'The account "{name}" was not created: the function add_user_cmd raised '
                f"{type(answer.error).__name__}: {answer.error}.",
                remedy="See the hub's log, and mend the function.",
            ) from answer.error
        return ""

    async def _run(self, name: str, words: Sequence[str]) -> str:
        try:
            outcome = await self.runner.command(words, timeout=self.timeout)
        except (OSError, ValueError) as exc:
            raise AccountCreationFailed(
                f"The command {words[0]} (add_user_cmd) cannot be started: {exc}.",
                remedy=f"Name a program that {_me()} may run; a relative path starts at the "
                f"hub's folder, {Path.cwd()}.",
            ) from exc
        if outcome.exit_code == 0:
            return outcome.output
        raise AccountCreationFailed(
            f'The account "{name}" was not created: the command {shlex.join(words)} '
            f"{how_it_ended(outcome, self.timeout)}.",
            remedy=_remedy(name, words, outcome),
            log=last_lines(outcome.output),
        )

    def _check(self, name: str, uid: int | None, output: str) -> Account:
        account = accounts.find_or_none(name)
        if account is None:
            made_by = (
                "function add_user_cmd"
                if callable(self.command)
                else f"command {shlex.join(arguments(self.command, name, uid))}"
            )
            raise AccountCreationFailed(
                f'The account "{name}" was not created: the {made_by} ended without an error, '
                "and the account is not there.",
                remedy="Run it by hand, and mend add_user_cmd.",
                log=last_lines(output),
            )
        problem = self._refuse(account) or wrong_uid(account, uid) or home_problem(account)
        if problem:
            raise AccountCreationFailed(
                f'The account "{name}" exists and is not fit for use: {problem}.',
                remedy=f'Mend it, or remove it ("userdel {name}"), then add the user again.',
                log=last_lines(output),
            )
        return account


def wrong_uid(account: Account, wanted: int | None) -> str:
    """Say that the account did not get the uid that `uids` gives it; or ""."""
    if wanted is None or account.uid == wanted:
        return ""
    return f"its uid is {account.uid}, and the option uids gives it {wanted}"


def home_problem(account: Account) -> str:
    """Say what is wrong with the account's home folder; or "", also where we may not look."""
    try:
        found = Path(account.home).stat()
    except PermissionError:
        return ""
    except (OSError, ValueError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else str(exc)
        return f"its home {account.home} cannot be used ({reason})"
    if not stat.S_ISDIR(found.st_mode):
        return f"its home {account.home} is no folder"
    if found.st_uid != account.uid:
        return f"its home {account.home} belongs to uid {found.st_uid} instead of {account.uid}"
    return ""


def _me() -> str:
    """Name the account that the hub runs as."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return f"uid {os.geteuid()}"


def _remedy(name: str, words: Sequence[str], outcome: Outcome) -> str:
    """Say what to do about a command that failed."""
    sudo = Path(words[0]).name == "sudo"
    if sudo and "sudo:" in outcome.output:
        rule = sudoers_rule(_me(), [word for word in words[1:] if word != "-n"])
        return f"Allow it in a file of /etc/sudoers.d: {rule}"
    if os.geteuid() != 0 and not sudo:
        return (
            f"The hub runs as {_me()}, who may not create accounts: begin add_user_cmd with "
            '"sudo", "-n", and allow the command in sudoers.'
        )
    if outcome.exit_code is None:
        return (
            f"If the machine is only slow, raise add_user_timeout. See what is there "
            f'("getent passwd {name}"), remove it, then add the user again.'
        )
    return "Mend what the lines below say, then add the user again."
