"""Create accounts of the machine with the distribution's or the site's own command."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pwd
import re
import shlex
import shutil
import signal
import stat
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from workshop_hub.errors import AccountCreationFailed, ConfigError
from workshop_hub.system import accounts
from workshop_hub.system.accounts import Account
from workshop_hub.system.deadline import within

OUTPUT_KEPT = 8192
"""Bytes of the command's output that are kept, the last ones; the rest is read and dropped."""

LOG_LINES = 15
"""Lines of it that an error shows."""

GRACE = 5.0
"""Seconds that the command gets to end after a signal."""

SBIN = "/usr/local/sbin:/usr/sbin:/sbin"

_HUB_SECRETS = ("CONFIGPROXY_AUTH_TOKEN", "JUPYTERHUB_CRYPT_KEY", "JPY_COOKIE_SECRET")


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
    useradd = shutil.which("useradd", path=path) or "/usr/sbin/useradd"
    shell = ["--shell", "/bin/bash"] if Path("/bin/bash").exists() else []
    command = [useradd, "--create-home", "--key", "HOME_MODE=0700", *shell, "--"]
    return command if root else ["sudo", "-n", *command]


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


def environment(current: Mapping[str, str]) -> dict[str, str]:
    """Return the hub's environment for the command: without its secrets, with the sbin folders."""
    kept = {key: value for key, value in current.items() if key not in _HUB_SECRETS}
    kept["PATH"] = f"{current.get('PATH', '/usr/bin:/bin')}:{SBIN}"
    return kept


@dataclass(frozen=True)
class Outcome:
    """How a command ended.

    exit_code: negative for a signal, as in subprocess; None where it did not end in time.
    output: the last of what it wrote, on both streams.
    """

    exit_code: int | None
    output: str


class AccountCreator:
    """Creates accounts, one at a time, and checks each of them.

    command: as `arguments` takes it. timeout: seconds for one account.
    refuse: says why an account that exists is no good, or "".
    """

    def __init__(
        self, command: Sequence[str], *, timeout: float, refuse: Callable[[Account], str]
    ) -> None:
        self.command = list(command)
        self.timeout = timeout
        self._refuse = refuse
        self.half_made: set[str] = set()
        """Accounts that exist although making them failed; `create` checks them again."""
        self._lock = asyncio.Lock()
        self._stuck: asyncio.subprocess.Process | None = None

    async def create(self, name: str, uid: int | None = None) -> Account:
        """Return the account called `name`, which is made where the machine does not have it.

        An account that an earlier call left half-made is checked again. uid: what it is to get.
        Raises AccountCreationFailed with the command's last lines, ConfigError for a bad `uid`.
        """
        if uid is not None and (isinstance(uid, bool) or not isinstance(uid, int) or uid < 0):
            raise ConfigError(f"uids gives {name!r} the uid {uid!r}; it must be a number.")
        async with self._lock:
            found = await accounts.off_loop(lambda: accounts.find_or_none(name))
            if found is not None and name not in self.half_made:
                return found
            try:
                output = "" if found else await self._run(name, uid)
                account = await accounts.off_loop(lambda: self._check(name, uid, output))
            except AccountCreationFailed:
                if await accounts.off_loop(lambda: accounts.find_or_none(name)):
                    self.half_made.add(name)
                raise
            self.half_made.discard(name)
            return account

    async def _run(self, name: str, uid: int | None) -> str:
        if self._stuck is not None and self._stuck.returncode is None:
            raise AccountCreationFailed(
                f'The account "{name}" was not created: an earlier command (process '
                f"{self._stuck.pid}) still runs and cannot be ended.",
                remedy="End it by hand, then add the user again.",
            )
        if not self.command:
            raise AccountCreationFailed("add_user_cmd is empty.", remedy="Set it to a command.")
        words = arguments(self.command, name, uid)
        outcome = await self._execute(words)
        if outcome.exit_code == 0:
            return outcome.output
        if outcome.exit_code is None:
            how = f"did not end within {self.timeout:g} seconds and was stopped"
        elif outcome.exit_code < 0:
            how = f"was ended by signal {-outcome.exit_code}"
        else:
            how = f"failed with exit code {outcome.exit_code}"
        raise AccountCreationFailed(
            f'The account "{name}" was not created: the command {shlex.join(words)} {how}.',
            remedy=_remedy(name, words, outcome),
            log=last_lines(outcome.output),
        )

    async def _execute(self, words: Sequence[str]) -> Outcome:
        """Run a command in the hub's folder, in a session of its own, with a deadline.

        What outlives the command and still holds its output is not waited for.
        Raises AccountCreationFailed where it cannot be started.
        """
        read_end, write_end = os.pipe()
        kept = bytearray()
        os.set_blocking(read_end, False)
        loop = asyncio.get_running_loop()
        loop.add_reader(read_end, _collect, read_end, kept, loop)
        try:
            try:
                process = await asyncio.create_subprocess_exec(
                    *words,
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=write_end,
                    stderr=write_end,
                    start_new_session=True,
                    env=environment(os.environ),
                )
            except (OSError, ValueError) as exc:
                raise AccountCreationFailed(
                    f"The command {words[0]} (add_user_cmd) cannot be started: {exc}.",
                    remedy=f"Name a program that {_me()} may run; a relative path starts at the "
                    f"hub's folder, {Path.cwd()}.",
                ) from exc
            finally:
                os.close(write_end)
            try:
                await within(self.timeout, process.wait())
            except TimeoutError:
                return Outcome(None, _text(kept))
            finally:
                await self._end(process)
            _collect(read_end, kept, loop)
            return Outcome(process.returncode, _text(kept))
        finally:
            loop.remove_reader(read_end)
            os.close(read_end)

    async def _end(self, process: asyncio.subprocess.Process) -> None:
        """End a command that still runs; sudo passes TERM on, and cannot be sent KILL by us."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            if process.returncode is not None:
                return
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, number)
            with contextlib.suppress(TimeoutError):
                await within(GRACE, process.wait())
        if process.returncode is None:
            self._stuck = process

    def _check(self, name: str, uid: int | None, output: str) -> Account:
        account = accounts.find_or_none(name)
        if account is None:
            raise AccountCreationFailed(
                f'The account "{name}" was not created: the command '
                f"{shlex.join(arguments(self.command, name, uid))} ended without an error, and "
                "the account is not there.",
                remedy="Run the command by hand, and mend add_user_cmd.",
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


def last_lines(output: str) -> str:
    """Return the end of a command's output, for an error."""
    return "\n".join(output.strip().splitlines()[-LOG_LINES:])


def _collect(read_end: int, kept: bytearray, loop: asyncio.AbstractEventLoop) -> None:
    """Read what there is, at most a pipe's worth so that a flood does not hold the loop."""
    for _ in range(16):
        try:
            chunk = os.read(read_end, 4096)
        except BlockingIOError:
            return
        if not chunk:
            loop.remove_reader(read_end)
            return
        kept += chunk
        del kept[:-OUTPUT_KEPT]


def _text(kept: bytearray) -> str:
    return kept.decode("utf-8", "replace")


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
