"""The hub's side of `become`: starts and signals servers through sudo, explains its refusals."""

from __future__ import annotations

import os
import pwd
import re
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from workshop_hub.errors import AccountRefused, LauncherRefused, WorkshopError
from workshop_hub.launch import message, running
from workshop_hub.launch.message import Order, Target
from workshop_hub.launch.running import Launched
from workshop_hub.system import processes

SIGNAL_TIMEOUT = 20.0
"""Seconds; includes the time in which a whole tree of processes is ended."""


NO_NEW_PRIVILEGES = (
    "Remove NoNewPrivileges= and what implies it from the hub's unit: ProtectKernelTunables, "
    "RestrictSUIDSGID, PrivateDevices, MemoryDenyWriteExecute."
)


@dataclass(frozen=True)
class SudoLauncher:
    """Starts servers as `command` run by sudo.

    sudo: the program and its first arguments; empty for a hub that starts servers as itself.
    command: the launcher, `python -I -S become.py`. fast: see `ProcessBackend.fast_start`.
    """

    sudo: tuple[str, ...]
    command: tuple[str, ...]
    fast: bool = False

    async def start(
        self,
        order: Order,
        account: str,
        *,
        group: Path | None,
        status: int,
        log: int,
        timeout: float,
    ) -> Launched:
        """Have the server started, inside the cgroup `group`; return how the launcher ended.

        status, log: open files for the report, and for what sudo and the server print.
        timeout: seconds. Raises WorkshopError.
        """
        argv = running.inside(group, self.argv(account))
        told = message.start_message(order, fast=self.fast)
        return Launched(await running.run(argv, told, out=status, err=log, timeout=timeout))

    async def signal(
        self, target: Target, account: str | None, signals: Iterable[int], *, tree: bool
    ) -> None:
        """Signal a server's session, or with `tree` everything that it started. WorkshopError.

        account: None where the uid has no name any more.
        """
        told = message.signal_message(target, signals, tree=tree)
        for argv in [self.argv(account)] if account else self._argvs_by_uid(target.uid):
            code, words = await running.run_for_words(argv, told, timeout=SIGNAL_TIMEOUT)
            refusal = message.read_report(words).refusal
            if refusal is not None:
                raise LauncherRefused(refusal.message)
            if code:
                raise self.explain(code, words, account or f"#{target.uid}")

    def explain(self, code: int, words: str, account: str) -> WorkshopError:
        """Say why the launcher ended without a report. words: what was printed."""
        if self.sudo:
            return explain_refusal(code, words, account, self.command)
        return LauncherRefused(f"The launcher ended with exit code {code}: {_said(words)}")

    def argv(self, account: str) -> list[str]:
        """Return the command that runs the launcher as `account`; LauncherRefused without sudo."""
        if not self.sudo:
            return list(self.command)
        return [*sudo_command(self.sudo), "-n", "-H", "-u", account, "--", *self.command]

    def _argvs_by_uid(self, uid: int) -> list[list[str]]:
        """Return the commands that run the launcher as an account that was deleted.

        sudo refuses such a uid (sudoers(5), runas_allow_unknown_id). One for each group that its
        processes have: the kernel shows their environment, with the server's mark, to no other
        (ptrace(2), access mode checking).
        """
        if os.geteuid() != 0:
            raise AccountRefused(
                f"The account with uid {uid} was deleted while its server was running, and sudo "
                "runs nothing as an account without a name.",
                remedy=f"Ask the administrator to end what is left: pkill -KILL -U {uid}",
            )
        return [
            ["setpriv", f"--reuid={uid}", f"--regid={gid}", "--clear-groups", *self.command]
            for gid in sorted(processes.gids_of(uid))
        ]


def sudo_command(sudo: Sequence[str]) -> list[str]:
    """Return `sudo` with its full path; LauncherRefused where it is not installed."""
    path = shutil.which(sudo[0], path=running.ENVIRONMENT["PATH"])
    if path is None:
        raise LauncherRefused(
            f"{sudo[0]} is not installed.",
            remedy="Ask the administrator to install sudo.",
        )
    return [path, *sudo[1:]]


def explain_refusal(code: int, words: str, account: str, command: Sequence[str]) -> WorkshopError:
    """Put a refusal of sudo into words: what it said, and how to mend it.

    words: what sudo printed. Its own exit code is 1 for every refusal (sudo(8)).
    """
    said = _said(words)
    quoted = f'sudo: "{said}"' if said else f"it ended with exit code {code}"
    refused = f"sudo did not run the launcher as {account}; {quoted}."
    if re.search(r"unknown user|no passwd entry", said):
        return AccountRefused(refused, remedy="Ask the administrator to create the account.")
    remedies = (remedy for pattern, remedy in _remedies(command) if re.search(pattern, said))
    return LauncherRefused(refused, remedy=next(remedies, "Ask the administrator."))


def sudoers_rule(command: Sequence[str], account: str = "") -> str:
    """Return the line of /etc/sudoers that lets the hub's account start servers.

    account: the hub's; empty for that of this process.
    """
    return f"{account or hub_user()} ALL=(%GROUP) NOPASSWD: {escaped(command)}"


def escaped(command: Sequence[str]) -> str:
    """Return a command as the sudoers file takes it (sudoers(5), "Other special characters")."""
    return " ".join(re.sub(r"([,:=\\\s])", r"\\\1", word) for word in command)


def add_rule(command: Sequence[str]) -> str:
    """Tell the administrator to let the hub's account start servers."""
    return (
        "Ask the administrator to add this to /etc/sudoers.d/workshop-hub, with the group of the "
        f"hub's users for GROUP: {sudoers_rule(command)}"
    )


def _said(words: str) -> str:
    """Return the first thing that sudo said, without its name."""
    lines = [line.strip() for line in words.splitlines() if line.strip()]
    own = [line.partition("sudo:")[2].strip() for line in lines if line.startswith("sudo:")]
    return (own or lines or [""])[0][:300]


def _remedies(command: Sequence[str]) -> list[tuple[str, str]]:
    return [
        (
            r"password is required|not allowed to|may not run|not in the sudoers",
            add_rule(command),
        ),
        (
            r"no new privileges",
            NO_NEW_PRIVILEGES,
        ),
        (
            r"must have a tty|no tty present",
            f"Add to /etc/sudoers.d/workshop-hub: Defaults:{hub_user()} !requiretty",
        ),
        (r"setuid|nosuid|effective uid", "Reinstall sudo, on a file system without nosuid."),
        (
            r"command not found|unable to execute|No such file|Permission denied",
            f"{command[0]} and every folder above it must be open to every user.",
        ),
    ]


def hub_user() -> str:
    """Return the name of the account that the hub runs as."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return f"#{os.geteuid()}"
