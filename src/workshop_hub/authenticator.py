"""WorkshopAuthenticator: what JupyterHub's PAM login lacks, and nothing that it has."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

from jupyterhub.utils import maybe_future
from tornado.web import HTTPError
from traitlets import Bool, Float, Integer, Unicode, default

from workshop_hub import client, logins
from workshop_hub.errors import AccountRefused, WorkshopError
from workshop_hub.logins import Logins
from workshop_hub.pam_access import PamAccess
from workshop_hub.system import accounts, pam
from workshop_hub.system.accounts import Account, Membership
from workshop_hub.system.broker import Attempt
from workshop_hub.system.useradd import AccountCreator, default_command, home_problem

NAME_PATTERN = r"[a-z_][a-z0-9_-]{0,31}"
"""What useradd(8) calls a name that works everywhere."""

_STANDING = "workshop_standing"
"""Key of the hub's authentication model under which a login's look-ups travel."""


@dataclass(frozen=True)
class Standing:
    """What the machine says of `name`: looked up once per login, off the event loop.

    account: None where the machine has none of that name.
    membership: which of the groups that the options name it belongs to.
    """

    name: str
    account: Account | None
    membership: Membership


@dataclass(frozen=True)
class Named:
    """A name in the place of the hub's user, before there is one."""

    name: str


def _origin(handler: Any) -> str:
    """Return the address that a login comes from; "" where it comes from no page."""
    return "" if handler is None else client.address(handler.request)


class WorkshopAuthenticator(PamAccess):
    """Checks passwords with PAM; lets in people, and no system accounts; makes accounts.

    The name is brought into its one form (lower case, `username_map`) first. PAM checks that
    name, and the hub uses it.
    """

    username_pattern = Unicode(
        NAME_PATTERN,
        help="""
        Regular expression that the whole of a name must match, after it was lower-cased and mapped.
        PAM is not asked about other names. An empty text allows every name that is safe to pass to
        programs. Example, for names with dots and a domain: `[a-z][a-z0-9._@-]{0,63}`.
        """,
    ).tag(config=True)

    min_uid = Integer(
        accounts.DEFAULT_UID_MIN,
        min=1,
        help="""
        The first uid that belongs to a person; accounts below it are refused. The default is
        UID_MIN of /etc/login.defs, 1000 on most systems. root is refused whatever the value.
        Example: 500, on a site whose accounts are that old.
        """,
    ).tag(config=True)

    require_login_shell = Bool(
        True,
        help="""
        Refuse accounts whose shell is nologin or false, or is not listed in /etc/shells. False
        lets them in, for a site whose people may use the hub and not ssh.
        """,
    ).tag(config=True)

    add_user_timeout = Float(
        60.0,
        min=1.0,
        help="""
        Seconds that `add_user_cmd` may take for one account before it is stopped, for example
        120 where it copies a large home folder.
        """,
    ).tag(config=True)

    @default("service")
    def _default_service(self) -> str:
        return logins.service()

    @default("min_uid")
    def _default_min_uid(self) -> int:
        return max(1, accounts.uid_min())

    @default("add_user_cmd")
    def _default_add_user_cmd(self) -> list[str]:
        return default_command(root=os.geteuid() == 0)

    # --- names

    def normalize_username(self, username: object) -> str:
        """Return the one form of a name; a name that is in this form already stays as it is.

        The hub calls this again on what it returned, so what `username_map` maps to is not
        mapped a second time.
        """
        if not isinstance(username, str):
            raise HTTPError(400, "A username must be a text.")
        if username in self.username_map.values():
            return username
        if self.pam_normalize_username and not accounts.unsafe_name(username):
            try:
                return cast(str, super().normalize_username(username))
            except KeyError:  # no such account, or not yet
                pass
        name = username.lower()
        return cast(str, self.username_map.get(name, name))

    def validate_username(self, username: str) -> bool:
        """Say whether an account may have this name; it is in its one form."""
        if accounts.unsafe_name(username) or not super().validate_username(username):
            return False
        return not self.username_pattern or bool(re.fullmatch(self.username_pattern, username))

    # --- logging in

    async def authenticate(
        self, handler: Any, data: dict[str, str] | None
    ) -> dict[str, Any] | None:
        """Return the hub's authentication model; None where the name or password is not right.

        data: the login form's fields: username, password, and otp where the page asks for it.
        Nothing that is wrong with them raises. Why someone was refused is in the hub's log only.
        """
        if data is None:
            return None
        typed = data.setdefault("username", "")  # the hub's page of failed logins reads it
        try:
            name = await accounts.off_loop(lambda: self.normalize_username(typed))
            reason = await self._refusal_before_pam(name, data)
            if not reason:
                verdict = await self._ask_pam(name, data, handler)
                reason = "" if verdict.granted else f"PAM ({verdict.phase}): {verdict.message}"
                self._raise_if_unusable(verdict, handler, typed)
            if reason:
                self._log_refusal(handler, typed, reason)
                return None
            return {"name": name, _STANDING: await self._look_up(name)}
        except WorkshopError as exc:
            raise HTTPError(503, exc.sentence) from exc

    async def _refusal_before_pam(self, name: str, data: Mapping[str, str]) -> str:
        if not self.validate_username(name):
            return "the name is not valid (username_pattern)"
        if not super().check_blocked_users(name):
            return "the name is in blocked_users"
        unusable = pam.unusable_secrets(self._secrets(data), self.encoding)
        if unusable:
            return unusable
        return await accounts.off_loop(lambda: self._account_refusal_before_pam(name))

    def _account_refusal_before_pam(self, name: str) -> str:
        account = accounts.find_or_none(name)
        if account is None:
            return ""  # PAM may know it; and if not, it takes as long as with a wrong password
        if accounts.has_empty_password(name):
            return "the account has an empty password"
        return self._not_a_person(account)

    def _secrets(self, data: Mapping[str, str]) -> tuple[str, ...]:
        password = data.get("password", "")
        return (password, data["otp"]) if "otp" in data else (password,)

    async def _ask_pam(self, name: str, data: Mapping[str, str], handler: Any) -> pam.Verdict:
        attempt = Attempt(name, self.service, self.encoding, self.check_account, _origin(handler))
        return await self._logins.check(attempt, self._secrets(data))

    @cached_property
    def _logins(self) -> Logins:
        return Logins(self.broker)

    def _raise_if_unusable(self, verdict: pam.Verdict, handler: Any, typed: str) -> None:
        """Tell who gave the right password why the account may not be used."""
        if verdict.granted or verdict.phase != "account":
            return
        self._log_refusal(handler, typed, f"PAM (account): {verdict.message}")
        raise HTTPError(403, logins.sentence(verdict))

    def _log_refusal(self, handler: Any, typed: str, reason: str) -> None:
        shown = typed if len(typed) <= 32 else f"{typed[:16]}...({len(typed)} chars)"
        self.log.warning("Login of %r@%s refused: %s", shown, _origin(handler) or "?", reason)

    # --- who may enter, and as what

    def check_blocked_users(
        self, username: str, authentication: Mapping[str, Any] | None = None
    ) -> bool:
        """Say whether nothing speaks against the name: the hub asks this at every login.

        So an account that is no person's is refused here too, even where a site's own
        `authenticate` lets it through.
        """
        if not super().check_blocked_users(username, authentication):
            return False
        account = (self._known(username, authentication) or self._look_up_now(username)).account
        reason = self._not_a_person(account) if account else ""
        if reason:
            self.log.warning("%r may not enter: %s", username, reason)
        return not reason

    def check_allowed_groups(
        self, username: str, authentication: Mapping[str, Any] | None = None
    ) -> bool:
        """Say whether the account is in one of `allowed_groups`; without an account it is not."""
        if not self.allowed_groups:
            return False
        standing = self._known(username, authentication) or self._look_up_now(username)
        self._warn_of_missing("allowed_groups", standing.membership)
        return bool(standing.membership.groups & self.allowed_groups)

    async def is_admin(self, handler: Any, authentication: Mapping[str, Any]) -> bool | None:
        """Say whether this is an administrator; None leaves it as the hub has it.

        With `admin_groups` the groups decide: who is in none of them is no administrator, unless
        `admin_users` has the name. A group that is missing has no members.
        """
        name = authentication["name"]
        if name in self.admin_users:
            return True
        if not self.admin_groups:
            return None
        standing = self._known(name, authentication) or await self._look_up(name)
        self._warn_of_missing("admin_groups", standing.membership)
        return bool(standing.membership.groups & self.admin_groups)

    async def run_post_auth_hook(self, handler: Any, auth_model: dict[str, Any]) -> dict[str, Any]:
        """Make a missing account before the hub records the user, then run the site's hook.

        Here the login is allowed and nothing is stored yet: where it fails, no half-known user
        stays in the hub's database, and the next login tries again.
        """
        try:
            await self._ensure_account(Named(auth_model["name"]))
        except WorkshopError as exc:
            self.log.error("Login of %r refused: %s", auth_model["name"], exc)
            raise HTTPError(403 if exc.is_refusal else 500, exc.sentence) from exc
        return cast("dict[str, Any]", await super().run_post_auth_hook(handler, auth_model))

    def check_allow_config(self) -> None:
        """Warn, at the hub's start, of options that cannot do what they say."""
        super().check_allow_config()
        for option in ("allowed_groups", "admin_groups"):
            names = getattr(self, option)
            self._warn_of_missing(option, accounts.membership(None, names))

    # --- accounts

    async def add_user(self, user: Any) -> None:
        """Take a user in; where the machine has no such account, make it (`create_system_users`).

        Called for each new user, and for all users when the hub starts. Raises AccountRefused,
        or AccountCreationFailed; calling it again tries again.
        """
        name = user.name
        if not self.validate_username(name) or self.normalize_username(name) != name:
            raise AccountRefused(
                f"{name!r:.80} is no valid name for an account.",
                remedy=f"Names are in lower case and match {self.username_pattern!r} "
                "(username_pattern).",
            )
        await self._ensure_account(user)
        await super().add_user(user)

    async def _ensure_account(self, user: Any) -> None:
        account = await accounts.off_loop(lambda: accounts.find_or_none(user.name))
        if account is None and not self.create_system_users:
            raise AccountRefused(
                f'The machine has no account "{user.name}".',
                remedy="Create it, or set create_system_users = True.",
            )
        reason = self._not_a_person(account) if account else ""
        if reason:
            raise AccountRefused(
                f'The account "{user.name}" may not use the hub: {reason}.',
                remedy="Use an account that belongs to a person; see the options min_uid and "
                "require_login_shell.",
            )
        if account is None or user.name in self._creator.half_made:
            await maybe_future(self.add_system_user(user))
        elif self.create_system_users:
            problem = await accounts.off_loop(lambda: home_problem(account))
            if problem:
                self.log.warning("Is the account %r half-made? %s", user.name, problem)

    async def add_system_user(self, user: Any) -> None:
        """Make the account where it is missing; check again what an earlier call left half-made."""
        await self._creator.create(user.name, self.uids.get(user.name))

    @cached_property
    def _creator(self) -> AccountCreator:
        return AccountCreator(
            self.add_user_cmd, timeout=self.add_user_timeout, refuse=self._not_a_person
        )

    # --- look-ups

    def _not_a_person(self, account: Account) -> str:
        shells = accounts.login_shells() if self.require_login_shell else None
        return accounts.not_a_person(account, min_uid=self.min_uid, shells=shells)

    def _look_up_now(self, name: str) -> Standing:
        account = accounts.find_or_none(name)
        groups = self.allowed_groups | self.admin_groups
        return Standing(name, account, accounts.membership(account, groups))

    async def _look_up(self, name: str) -> Standing:
        return await accounts.off_loop(lambda: self._look_up_now(name))

    def _known(self, name: str, authentication: Mapping[str, Any] | None) -> Standing | None:
        """Return what this login looked up; None where a site's own `authenticate` did not.

        It travels along so that hooks which need it can stay plain functions: one that a subclass
        calls without `await` would say yes to everybody, because a coroutine is true.
        """
        known = (authentication or {}).get(_STANDING)
        return known if isinstance(known, Standing) and known.name == name else None

    def _warn_of_missing(self, option: str, membership: Membership) -> None:
        for group in sorted(membership.missing & getattr(self, option)):
            self.log.warning(
                'The option %s names the group "%s", which this machine does not have: it has no '
                "members. Create it (groupadd), or correct the name.",
                option,
                group,
            )
