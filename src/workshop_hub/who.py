"""Who may enter, and as what: what the machine says of an account, at each login and afterwards."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from typing import Any, cast

from jupyterhub.auth import Authenticator, PAMAuthenticator
from jupyterhub.utils import maybe_future
from sqlalchemy.orm import object_session
from tornado.web import HTTPError
from traitlets import Bool, Integer, List, Unicode, default

from workshop_hub.errors import AccountRefused, WorkshopError
from workshop_hub.hub_errors import hub_error
from workshop_hub.kept_uids import KeptUids
from workshop_hub.system import accounts, shadow
from workshop_hub.system.accounts import Account, Membership

STANDING = "workshop_standing"
"""Key of the hub's authentication model under which a login's look-ups travel."""


@dataclass(frozen=True)
class Standing:
    """What the machine says of `name`: looked up once per login, off the event loop.

    account: None where the machine has none of that name.
    membership: which of the groups that the options name it belongs to.
    groups: which of its groups are to be groups of the hub.
    """

    name: str
    account: Account | None
    membership: Membership
    groups: frozenset[str] = frozenset()


def synced(
    groups: Iterable[tuple[str, int]], patterns: Iterable[str], *, account: Account, min_gid: int
) -> frozenset[str]:
    """Return the groups of an account that are to be groups of the hub.

    groups: names and ids. patterns: as `synced_groups` has them. min_gid: the first id of people's.
    """
    wanted = set(patterns)
    return frozenset(
        name
        for name, gid in groups
        if name in wanted
        or (
            gid >= min_gid
            and (name, gid) != (account.name, account.gid)
            and any(fnmatchcase(name, pattern) for pattern in wanted)
        )
    )


class People(PAMAuthenticator):
    """The part of WorkshopAuthenticator that says who may enter, and as what."""

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

    synced_groups = List(
        Unicode(),
        ["*"],
        help="""
        Which of the machine's groups become groups of the hub, where `manage_groups` is True: names
        and patterns, as in a shell. Whoever logs in is put into those of them that the account
        belongs to, and out of all others; so too when the hub looks at a session again
        (`auth_refresh_age`).

        A pattern means the groups of people: those of the system (below GID_MIN of
        /etc/login.defs: sudo, docker) and the account's own group of the same name must be named
        in full. The default is all groups of people; an empty list means none.
        Example: `["course-*", "teachers", "docker"]`.
        """,
    ).tag(config=True)

    @default("min_uid")
    def _default_min_uid(self) -> int:
        return max(1, accounts.uid_min())

    @default("auth_refresh_strict")
    def _default_auth_refresh_strict(self) -> bool:
        """Have tokens end with sessions, as before JupyterHub 6.1.

        Its reason to let them go on is that a refresh may fail for want of a login; ours fails for
        those alone who could not log in.
        """
        return True

    # --- at a login

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
        reason = (_is_alias(username, account) or self._not_a_person(account)) if account else ""
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
        """Refuse a name that is used again, set the hub's groups, then run the site's hook.

        The account is there: it was before, or was just made.
        """
        name = auth_model["name"]
        known = self._known(name, auth_model)
        standing = known if known and known.account else await self._look_up(name)
        if handler is not None and standing.account is not None:
            try:
                self._refuse_other(name, standing.account, self._uids.of(handler.db, name))
            except WorkshopError as exc:
                self.log.error("Login of %r refused: %s", name, exc)
                raise HTTPError(403, exc.sentence) from exc
        if self.manage_groups:
            auth_model["groups"] = sorted(standing.groups)
        return cast("dict[str, Any]", await super().run_post_auth_hook(handler, auth_model))

    def check_allow_config(self) -> None:
        """Warn, at the hub's start, of options that cannot do what they say."""
        super().check_allow_config()
        for option in ("allowed_groups", "admin_groups"):
            names = getattr(self, option)
            self._warn_of_missing(option, accounts.membership(None, names))

    # --- afterwards

    async def refresh_user(self, user: Any, handler: Any = None) -> bool | dict[str, Any]:
        """Look at a logged-in person again: False ends the session, a model says what has changed.

        The hub asks before it answers a page where `auth_refresh_age` seconds have passed, and
        before a server's start with `refresh_pre_spawn`. The session ends for who could not log in
        again: the account is gone, locked, expired, another one of the same name or no person's;
        the name is blocked, or is in none of the groups that are allowed. Where the machine does
        not answer, all stays as it is until it does.
        """
        name = user.name
        try:
            standing, reason = await accounts.off_loop(
                lambda: self._look_again_now(name), name=name
            )
        except WorkshopError as exc:
            self.log.warning("%r stays logged in without being looked up: %s", name, exc)
            return True
        model = {"name": name, STANDING: standing}
        reason = reason or await self._refusal_now(user, standing.account, model)
        if reason:
            self.log.warning("The session of %r ends: %s", name, reason)
            return False
        admin = await maybe_future(self.is_admin(handler, model))
        fresh: dict[str, Any] = {"name": name, "admin": admin}
        has_changed = admin not in (None, user.admin)
        if self.manage_groups:
            fresh["groups"] = sorted(standing.groups)
            has_changed |= {group.name for group in user.groups} != standing.groups
        return fresh if has_changed else True

    def _look_again_now(self, name: str) -> tuple[Standing, str]:
        standing = self._look_up_now(name)
        if standing.account is None:
            return standing, "the machine has no such account any more"
        return standing, shadow.out_of_use(standing.account.name)

    async def _refusal_now(self, user: Any, account: Account | None, model: dict[str, Any]) -> str:
        """Say why who has logged in could not do so now; "" where it would be possible."""
        name = user.name
        kept = self._uids.of(_session(user), name)
        if account and kept not in (None, account.uid):
            return f"its uid is {account.uid} and was {kept}: it is another account"
        if not await maybe_future(self.check_blocked_users(name, model)):
            return "it is blocked, or is no person's account"
        try:
            if self.allow_all or await maybe_future(self.check_allowed(name, model)):
                return ""
        except HTTPError as exc:  # how a site's own check words its refusal
            return str(exc.log_message or exc)
        return "it is not allowed to enter any more"

    async def pre_spawn_start(self, user: Any, spawner: Any) -> None:
        """Refuse to start a server as another account of the same name."""
        try:
            account = await accounts.off_loop(
                lambda: accounts.find_or_none(user.name), name=user.name
            )
            if account is not None:
                self._refuse_other(user.name, account, self._uids.of(_session(user), user.name))
        except WorkshopError as exc:
            raise hub_error(exc) from exc
        await maybe_future(super().pre_spawn_start(user, spawner))

    # --- uids

    async def add_user(self, user: Any) -> None:
        """Take a user in whose account is there, and keep its uid."""
        account = await accounts.off_loop(lambda: accounts.find_or_none(user.name), name=user.name)
        db = _session(user)
        if account is not None and db is not None:
            kept = self._uids.keep(db, user.name, account.uid)
            if kept != account.uid:
                self.log.warning("%s", _other(user.name, account, kept).sentence)
        # past LocalAuthenticator's, which looks the account up again, in the event loop
        Authenticator.add_user(self, user)

    def _refuse_other(self, name: str, account: Account, kept: int | None) -> None:
        if kept not in (None, account.uid):
            raise _other(name, account, kept)

    @cached_property
    def _uids(self) -> KeptUids:
        return KeptUids()

    # --- look-ups

    def _not_a_person(self, account: Account) -> str:
        shells = accounts.login_shells() if self.require_login_shell else None
        return accounts.not_a_person(account, min_uid=self.min_uid, shells=shells)

    def _look_up_now(self, name: str) -> Standing:
        account = accounts.find_or_none(name)
        named = accounts.membership(account, self.allowed_groups | self.admin_groups)
        if account is None or not self.manage_groups:
            return Standing(name, account, named)
        groups = synced(
            accounts.named_groups(account),
            self.synced_groups,
            account=account,
            min_gid=accounts.gid_min(),
        )
        return Standing(name, account, named, groups)

    async def _look_up(self, name: str) -> Standing:
        return await accounts.off_loop(lambda: self._look_up_now(name), name=name)

    def _known(self, name: str, authentication: Mapping[str, Any] | None) -> Standing | None:
        """Return what this login looked up; None where a site's own `authenticate` did not.

        It travels along so that hooks which need it can stay plain functions: one that a subclass
        calls without `await` would say yes to everybody, because a coroutine is true.
        """
        known = (authentication or {}).get(STANDING)
        return known if isinstance(known, Standing) and known.name == name else None

    def option_naming(self, group: str, option: str) -> str:
        """Return the option that an administrator has named the group in; `option` has it now."""
        return option

    def _warn_of_missing(self, option: str, membership: Membership) -> None:
        for group in sorted(membership.missing & getattr(self, option)):
            self.log.warning(
                'The option %s names the group "%s", which this machine does not have: it has no '
                "members. Create it (groupadd), or correct the name.",
                self.option_naming(group, option),
                group,
            )


def _is_alias(name: str, account: Account) -> str:
    """Say why a name is only another form of an account's; "" where it is the account's own.

    A directory answers to several. Options that have one of them would not mean the others, and
    one person would be several of the hub's users. Names in the hub are in lower case, though.
    """
    if name.lower() == account.name.lower():
        return ""
    return f"the machine calls this account {account.name!r}; set pam_normalize_username = True"


def _session(user: Any) -> Any:
    """Return the session of the hub's database that a user comes from; None where from none."""
    record = getattr(user, "orm_user", user)
    return object_session(record) if hasattr(record, "_sa_instance_state") else None


def _other(name: str, account: Account, kept: int | None) -> AccountRefused:
    return AccountRefused(
        f'The name "{name}" has another account of the machine than before: its uid is '
        f"{account.uid}, and was {kept}.",
        remedy="Ask the administrator. If the name was given to somebody else, or the uid was "
        "changed, the user is to be deleted in the hub (its admin page); the next login adds it "
        "anew. Files are not touched.",
    )
