"""The authenticator's options for accounts that people make themselves, with a code."""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jupyterhub.utils import url_path_join
from traitlets import HasTraits, Integer, Unicode, validate

from workshop_hub.errors import AccountCreationFailed, ConfigError, JoinRefused, WorkshopError
from workshop_hub.launch import as_root
from workshop_hub.options import InvalidOption
from workshop_hub.policy.joining import CODE_MIN, Window, moment
from workshop_hub.slowdown import Wrong
from workshop_hub.system import accounts, join_account, safety
from workshop_hub.system.accounts import Account
from workshop_hub.system.reserved_names import is_reserved
from workshop_hub.system.useradd import AccountCreator

if TYPE_CHECKING:
    from collections.abc import Callable

    from jupyterhub.app import JupyterHub

PAGE = "join"
"""The page's path, below the hub's."""

WAITING_MAX = 200
"""People at most whose accounts wait to be made; more are asked to come again."""


class Registration(HasTraits):
    """Lets people make accounts with a code; a part of WorkshopAuthenticator."""

    if TYPE_CHECKING:
        allowed_groups: set[str]
        allowed_users: set[str]
        admin_users: set[str]
        blocked_users: set[str]
        uids: dict[str, int]
        username_map: Any
        log: Any
        _creator: AccountCreator

        validate_username: Callable[[str], bool]
        _not_a_person: Callable[[Account], str]

    join_code = Unicode(
        "",
        help="""
        The code with which people make themselves an account of the machine, on the page
        `/hub/join`. Empty, the default: there is no such page. At least 8 characters. It is told
        to those who come, and counts as a secret: change it for each workshop.
        Example: `"seven-green-bottles"`.
        """,
    ).tag(config=True)

    join_group = Unicode(
        "workshop",
        help="""
        The group of the machine that accounts made with `join_code` are put into. It must exist
        and be none of the system's own: the hub makes no groups. Who is in it may log in, as if
        `allowed_groups` had it. Example: `"course"`.
        """,
    ).tag(config=True)

    join_max = Integer(
        100,
        min=1,
        help="""
        How many members `join_group` may have, however they came in; then nobody can register any
        more. Example: 30.
        """,
    ).tag(config=True)

    join_names = Unicode(
        "",
        help="""
        Regular expression that the whole of a name must match to be registered, beside
        `username_pattern`. An empty text, the default, adds nothing to that. Names of the system,
        of administrators and of users that the hub knows cannot be registered in any case.
        Example: `"py-[a-z0-9]+"`.
        """,
    ).tag(config=True)

    join_from = Unicode(
        "",
        help="""
        When registration opens: a date with time and zone, as ISO 8601 writes it. An empty text,
        the default, for at once. Example: `"2027-03-01T08:30+01:00"`.
        """,
    ).tag(config=True)

    join_until = Unicode(
        "",
        help="""
        When registration closes, written like `join_from`. An empty text, the default, for never.
        Example: `"2027-03-01T12:00+01:00"`.
        """,
    ).tag(config=True)

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._joining = 0
        self._added_groups: set[str] = set()
        if self.join_code:
            self._added_groups = {self.join_group} - self.allowed_groups
            self.allowed_groups |= self._added_groups

    @validate("join_code")
    def _valid_join_code(self, proposal: Any) -> str:
        code: str = proposal["value"]
        if code and (len(code) < CODE_MIN or code != code.strip() or not code.isprintable()):
            raise InvalidOption(
                f"join_code has {len(code)} characters, or begins or ends with a space.",
                remedy=f"Give at least {CODE_MIN} characters that can be typed, for example three "
                "words; or leave it empty for no registration.",
            )
        return code

    @validate("join_names")
    def _valid_join_names(self, proposal: Any) -> str:
        pattern: str = proposal["value"]
        try:
            re.compile(pattern)
        except re.error as exc:
            raise InvalidOption(
                f"join_names is {pattern!r}, which is no regular expression: {exc}.",
                remedy='Correct it, for example: "py-[a-z0-9]+".',
            ) from exc
        return pattern

    @validate("join_from", "join_until")
    def _valid_moment(self, proposal: Any) -> str:
        text: str = proposal["value"]
        try:
            moment(text)
        except ValueError as exc:
            raise InvalidOption(
                f"{proposal['trait'].name} is {text!r}, and no date with time and zone: {exc}.",
                remedy='Write it like "2027-03-01T08:30+01:00".',
            ) from exc
        return text

    @cached_property
    def join_window(self) -> Window:
        """When registration is open."""
        return Window(moment(self.join_from), moment(self.join_until))

    @cached_property
    def wrong_codes(self) -> Wrong:
        """How many wrong codes have come from where."""
        return Wrong()

    def option_naming(self, group: str, option: str) -> str:
        """Return the option by which an administrator has brought a group into `option`."""
        added = option == "allowed_groups" and group in self._added_groups
        return "join_group" if added else option

    def may_register(self, name: str) -> bool:
        """Say whether somebody may be called so."""
        return (
            not accounts.unsafe_name(name)
            and bool(join_account.NAME.fullmatch(name))
            and self.validate_username(name)
            and not is_reserved(name)
            and (not self.join_names or bool(re.fullmatch(self.join_names, name)))
        )

    def is_spoken_for(self, name: str) -> bool:
        """Say whether an option names it: who registered an administrator's would be one."""
        return name in {
            *self.admin_users,
            *self.allowed_users,
            *self.blocked_users,
            *self.uids,
            *self.username_map,
            *self.username_map.values(),
        }

    async def register(self, name: str, password: str) -> None:
        """Make an account in the workshop's group, with this password.

        Raises JoinRefused, and WorkshopError where it could not be made.
        """
        if self._joining >= WAITING_MAX:
            raise WorkshopError(f"{self._joining} accounts are being made already.")
        made = False

        async def make(name: str, _uid: int | None) -> str:
            nonlocal made
            output = await self._run_join(name, password)
            made = True
            return output

        self._joining += 1
        try:
            await self._creator.create(name, make=make)
        except AccountCreationFailed as exc:
            account = await accounts.off_loop(lambda: accounts.find_or_none(name), name=name)
            if not made or account is None or self._not_a_person(account):
                raise
            # there is an account that one can log in to; what is missing is done at the login
            self.log.error("The account %r was registered and is half-made: %s", name, exc)
        finally:
            self._joining -= 1
        if not made:
            raise JoinRefused(f'There is an account "{name}".', outcome="taken")

    async def _run_join(self, name: str, password: str) -> str:
        creator = self._creator
        order = json.dumps({"name": name, "password": password}).encode()
        command = self.join_command
        try:
            outcome = await creator.runner.command(command, timeout=creator.timeout, given=order)
        except (OSError, ValueError) as exc:
            raise AccountCreationFailed(f"{command[0]} cannot be started: {exc}.") from exc
        answer = _answer(outcome.output) if outcome.exit_code == 0 else {}
        found = answer.get("outcome", "")
        if found == "made":
            return ""
        if found:
            raise JoinRefused(answer.get("text", ""), outcome=found)
        raise AccountCreationFailed(
            f'The account "{name}" was not registered: {" ".join(command)} ended with '
            f"{outcome.exit_code}.",
            log=outcome.output,
        )

    @property
    def join_command(self) -> list[str]:
        """What makes the account and sets its password."""
        program = [sys.executable, "-I", "-m", join_account.__name__]
        words = [*program, "--group", self.join_group, "--most", str(self.join_max)]
        return words if os.geteuid() == 0 else ["sudo", "-n", *words]

    def join_handlers(self, app: JupyterHub) -> list[tuple[str, type]]:
        """Return the page's route, where registration is on. Ends the hub where it cannot work."""
        if not self.join_code:
            return []
        from workshop_hub.join_handler import JoinHandler

        try:
            self.check_join_options()
        except WorkshopError as exc:
            app.log.critical("Registration (join_code) cannot work: %s", exc)
            app.exit(1)
        app.template_vars["join_url"] = url_path_join(app.hub_prefix, PAGE)
        return [(f"/{PAGE}", JoinHandler)]

    def check_join_options(self) -> None:
        """Raise WorkshopError where people are to register and nobody could. Blocks."""
        if not self.join_code:
            return
        window = self.join_window
        if window.opens and window.closes and window.opens >= window.closes:
            raise ConfigError(
                f"join_from ({self.join_from}) is not before join_until ({self.join_until}).",
                remedy="Correct them.",
            )
        join_account.check_group(self.join_group)
        if os.geteuid() != 0:
            _check_sudo(self.join_command[2:])


def _answer(output: str) -> dict[str, str]:
    """Read the last line that the program wrote."""
    try:
        said = json.loads(output.strip().splitlines()[-1])
    except (ValueError, LookupError):
        said = None
    return {key: str(value) for key, value in said.items()} if isinstance(said, dict) else {}


def _check_sudo(command: list[str]) -> None:
    """Raise ConfigError where sudo does not allow the command, or must not. Blocks."""
    ours = Path(join_account.__file__).parents[1]
    files = [Path(sys.executable), Path(os.__file__), *ours.glob("*.py"), *ours.glob("system/*.py")]
    if reason := safety.first_trouble(files, 0):
        raise ConfigError(
            "The hub is not root, and the program that makes accounts is not safe to run as root: "
            f"{reason}",
            remedy="Install workshop-hub into a folder that belongs to root, such as "
            "/opt/workshop-hub, which nobody else may write.",
        )
    with ThreadPoolExecutor(1) as thread:  # here the hub's own loop waits for the page's route
        refusal = thread.submit(asyncio.run, as_root.refusal(command)).result()
    if refusal:
        raise ConfigError(
            f"sudo does not let the hub make accounts: {refusal.removesuffix('.')}.",
            remedy="Allow this command, and no more, in a file of /etc/sudoers.d: "
            f"{as_root.rule(command)}",
        )
