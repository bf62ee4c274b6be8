"""How a hub gets at PAM: which broker it asks, and whether logins can work that way."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from jupyterhub.auth import PAMAuthenticator
from traitlets import TraitError, Unicode, validate

from workshop_hub import logins
from workshop_hub.errors import LauncherRefused, WorkshopError
from workshop_hub.launch import as_root, sudo
from workshop_hub.system import accounts, pam_broker, pam_rules
from workshop_hub.system.background import in_background
from workshop_hub.system.broker import COMMAND, Attempt, Broker, Way
from workshop_hub.system.pam import Prompt

SOCKET = Path("/run/workshop-hub/pam.sock")
"""Where systemd listens for the broker (`workshop-hub units`)."""

SHADOW = Path("/etc/shadow")

CAN_READ_SHADOW = (
    f"The hub's account can read {SHADOW}: whoever breaks into the hub has the hashes of all "
    "passwords, and PAM modules that count wrong ones as root (pam_faillock) do not work"
)

BROKER_SAYS = (
    "See what it says: `systemctl status workshop-users-pam.socket` and `journalctl -u "
    "workshop-users-pam.service`; where sudo starts it, what comes before this in the hub's log."
)

PAM_UNIX_FAILS = (
    "Nobody whose password the machine itself keeps can log in: pam_unix lets an account that is "
    "not root check its own password only"
)


@dataclass(frozen=True)
class Access:
    """A way to a broker, and what an administrator should know of it.

    level: "ok", "warning" or "error". remedy: what to do, "" where all is well.
    """

    way: Way
    message: str
    level: Literal["ok", "warning", "error"] = "ok"
    remedy: str = ""


@dataclass(frozen=True)
class Wanted:
    """What the hub's options say of it.

    choice: the option `pam_broker`. arguments: those of a broker that has more rights than the hub.
    """

    choice: str
    arguments: Sequence[str]

    @property
    def command(self) -> list[str]:
        """What sudo is to run as root."""
        return broker_command(Path(sys.prefix) / "bin", self.arguments)

    async def access(self) -> Access:
        """Look at the machine, and return the way to a broker. Raises WorkshopError."""
        if self.choice.startswith("/"):
            return by_socket(Path(self.choice))
        if self.choice == "own" or (self.choice == "auto" and os.geteuid() == 0):
            return own()
        if self.choice == "auto" and SOCKET.exists():
            return by_socket(SOCKET)
        refusal = await as_root.refusal(self.command)
        if refusal and self.choice == "sudo":
            raise LauncherRefused(
                f"sudo does not let the hub check passwords: {refusal.removesuffix('.')}.",
                remedy=self.remedy(refusal),
            )
        return own(self.remedy(refusal)) if refusal else by_sudo(self.command)

    def remedy(self, refusal: str) -> str:
        """Say how an administrator gives the hub a broker that is root's. refusal: sudo's words."""
        if "no new privileges" in refusal:
            return sudo.NO_NEW_PRIVILEGES
        return (
            "With systemd, run `workshop-hub units` for this account, and start "
            "workshop-users-pam.socket. Without it, add this line to /etc/sudoers.d/workshop-hub: "
            f"{as_root.rule(self.command)}"
        )


def broker_command(bin_folder: Path, arguments: Sequence[str]) -> list[str]:
    """Return the command of a broker that is root. bin_folder: where the hub's Python is."""
    return [str(bin_folder / "python3"), "-I", "-m", pam_broker.__name__, *arguments]


def by_socket(place: Path) -> Access:
    """Return the way to a broker that systemd starts."""
    return Access(place, f"passwords are checked by the broker that listens at {place}")


def by_sudo(command: Sequence[str]) -> Access:
    """Return the way to a broker that sudo starts."""
    argv = [*sudo.sudo_command(("sudo",)), "-n", "--", *command]
    return Access(argv, "passwords are checked by a broker that sudo starts as root")


def own(remedy: str = "") -> Access:
    """Return the way to a broker with the hub's own rights. remedy: how to get a better one."""
    if os.geteuid() == 0:
        return Access(COMMAND, "passwords are checked in processes of the hub's own")
    if os.access(SHADOW, os.R_OK):
        return Access(COMMAND, CAN_READ_SHADOW, "warning", remedy)
    return Access(COMMAND, PAM_UNIX_FAILS, "error" if remedy else "warning", remedy)


class PamAccess(PAMAuthenticator):
    """The part of the authenticator that gets at PAM."""

    min_uid: int
    require_login_shell: bool

    pam_broker = Unicode(
        "auto",
        help="""
        Who asks PAM for the hub. "own": processes with the hub's own rights. "sudo": a broker that
        sudo starts as root. A path: the socket at which systemd listens for such a broker. "auto":
        own processes where the hub is root; else /run/workshop-hub/pam.sock where that exists,
        else sudo where it allows that, else own processes, and the hub's log says at its start
        what does not work then. An empty text is not allowed. Example: "sudo".
        """,
    ).tag(config=True)

    @validate("pam_broker")
    def _known_broker(self, proposal: Any) -> str:
        value: str = proposal["value"]
        if value not in ("auto", "own", "sudo") and not value.startswith("/"):
            raise TraitError(
                f'pam_broker is {value!r}; it must be "auto", "own", "sudo" or the full path of a '
                "socket."
            )
        return value

    @cached_property
    def broker(self) -> Broker:
        """What asks PAM; it looks for its way when it is first needed."""
        return Broker(self._way)

    async def _way(self) -> Way:
        return (await self._wanted().access()).way

    def _wanted(self) -> Wanted:
        usual = self.min_uid == max(1, accounts.uid_min())
        arguments = pam_rules.arguments(
            self.service,
            min_uid=None if usual else self.min_uid,
            any_shell=not self.require_login_shell,
        )
        return Wanted(self.pam_broker, arguments)

    def check_service(self) -> None:
        """Raise ConfigError where PAM has no rules of the service's own. Blocks."""
        logins.check_service(self.service)

    async def check_access(self) -> Access:
        """Say how PAM is asked, and whether that can work.

        A broker with more rights than the hub is asked about root: it refuses that itself.
        """
        try:
            access = await self._wanted().access()
        except WorkshopError as exc:
            return Access(COMMAND, exc.message.removesuffix("."), "error", exc.remedy)
        if access.way == COMMAND:
            return access
        try:
            verdict = await self.broker.ask(Attempt("root", self.service), _say_nothing)
        except WorkshopError as exc:
            said = f"{access.message}, but that fails: {exc.message}".removesuffix(".")
            return Access(access.way, said, "error", BROKER_SAYS)
        if "root's" in verdict.message:
            return access
        said = f"{access.message}, but that fails: {verdict.message}"
        remedy = "Run `workshop-hub units` again, and restart workshop-users-pam.service."
        return Access(access.way, said, "error", remedy)

    def check_allow_config(self) -> None:
        """Look, once the hub runs, whether passwords can be checked, and say so in its log."""
        super().check_allow_config()
        with suppress(RuntimeError):  # no event loop: no hub is about to run
            asyncio.get_running_loop()
            in_background(self._tell_of_access())

    async def _tell_of_access(self) -> None:
        try:
            self.check_service()
        except WorkshopError as exc:
            self.log.error("Logins: %s", exc)
        access = await self.check_access()
        level = {"ok": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
        said = f"{access.message}. {access.remedy}".strip()
        self.log.log(level[access.level], "Logins: %s", said)


async def _say_nothing(prompts: list[Prompt]) -> None:
    return None
