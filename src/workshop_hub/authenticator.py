"""WorkshopAuthenticator: what JupyterHub's PAM login lacks, and nothing that it has."""

from __future__ import annotations

import re
import time
from collections.abc import Awaitable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from math import inf
from typing import Any, cast

from jupyterhub.utils import maybe_future
from tornado.web import HTTPError
from traitlets import Bool, Unicode, default

from workshop_hub import client, logins
from workshop_hub.account_options import AccountOptions
from workshop_hub.conversation import Question
from workshop_hub.errors import AccountRefused, WorkshopError
from workshop_hub.guesses import Guesses
from workshop_hub.login_handler import Asked, WorkshopLoginHandler
from workshop_hub.logins import Logins
from workshop_hub.pages import add_templates
from workshop_hub.pam_session import PamSession
from workshop_hub.registration import Registration
from workshop_hub.system import accounts, pam, shadow
from workshop_hub.system.broker import Attempt
from workshop_hub.system.useradd import home_problem
from workshop_hub.who import STANDING, People

CANONICAL_FOR = 60.0
"""Seconds for which a name is not looked up again that the machine has just called right."""

CANONICAL_KEPT = 1000
"""Such names at most."""


@dataclass(frozen=True)
class Named:
    """A name in the place of the hub's user, before there is one."""

    name: str


def _origin(handler: Any) -> str:
    """Return the address that a login comes from; "" where it comes from no page."""
    return "" if handler is None else client.address(handler.request)


class WorkshopAuthenticator(Registration, AccountOptions, People, PamSession):
    """Checks passwords with PAM; lets in people, and no system accounts; makes accounts.

    The name is brought into its one form (lower case, `username_map`) first. PAM checks that
    name, and the hub uses it.
    """

    username_pattern = Unicode(
        accounts.NAME_PATTERN,
        help="""
        Regular expression that the whole of a name must match, after it was lower-cased and mapped.
        PAM is not asked about other names. An empty text allows every name that is safe to pass to
        programs. Example, for names with dots and a domain: `[a-z][a-z0-9._@-]{0,63}`.
        """,
    ).tag(config=True)

    slow_guessing = Bool(
        True,
        help="""
        Slow guessing at passwords down: after five wrong ones for a name from an address, the next
        try has to wait a second, then two, at most a minute; many wrong ones from an address, or
        for a name from many addresses, do the same. Who has logged in before in the same browser
        waits for nobody else's guesses. False leaves it to PAM, for
        example to pam_faillock.
        """,
    ).tag(config=True)

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if hasattr(self.parent, "template_paths"):  # a hub, which makes its pages soon
            add_templates(self.parent)

    @default("service")
    def _default_service(self) -> str:
        return logins.service()

    @cached_property
    def locks_accounts(self) -> bool:
        """Whether the machine refuses the right password after wrong ones."""
        return logins.locks(self.service)

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
            return self._canonical(username)
        return self._mapped(username.lower())

    def _mapped(self, name: str) -> str:
        return cast(str, self.username_map.get(name, name))

    def _canonical(self, username: str) -> str:
        """Return what the machine calls the account; a name that it called so itself stays.

        The hub asks again in its event loop, where a directory's answer would hold up everybody.
        """
        if time.monotonic() - self._canonical_at.get(username, -inf) < CANONICAL_FOR:
            return username
        try:
            name = cast(str, super().normalize_username(username))
        except KeyError:  # no such account, or not yet
            return self._mapped(username.lower())
        self._keep_canonical(name)
        return name

    def _keep_canonical(self, name: str) -> None:
        """Have a name not looked up again: at the end of a login too, which may have taken long."""
        if len(self._canonical_at) >= CANONICAL_KEPT:
            self._canonical_at.clear()
        self._canonical_at[name] = time.monotonic()

    async def _normalized(self, username: str) -> str:
        """Like `normalize_username`, off the event loop where the machine is to be asked."""
        if not self.pam_normalize_username:
            return self.normalize_username(username)
        return await accounts.off_loop(lambda: self.normalize_username(username), name=username)

    @cached_property
    def _canonical_at(self) -> dict[str, float]:
        return {}

    def validate_username(self, username: str) -> bool:
        """Say whether an account may have this name; it is in its one form."""
        if accounts.unsafe_name(username) or not super().validate_username(username):
            return False
        return not self.username_pattern or bool(re.fullmatch(self.username_pattern, username))

    # --- logging in

    def get_handlers(self, app: Any) -> list[tuple[str, type]]:
        """Return the login page, and with it the one for what PAM asks beside a password."""
        return [("/login", WorkshopLoginHandler), *self.join_handlers(app)]

    async def authenticate(
        self, handler: Any, data: dict[str, str] | None
    ) -> dict[str, Any] | None:
        """Return the hub's authentication model; None where the name or password is not right.

        data: the login form's fields: username, password, and otp where the page asks for it; or
        those of a page that asked for more. Nothing that is wrong with them raises. Raises Asked
        where PAM wants to know more. Why someone was refused is in the hub's log only.
        """
        if data is None:
            return None
        try:
            talk = (
                self._go_on(handler, data) if "conversation" in data else self._begin(handler, data)
            )
            name, heard = await talk
            if isinstance(heard, Question):
                raise Asked(heard)
            if not heard.granted:
                await self._log_refusal(handler, data["username"], name, heard)
                if heard.phase in (pam.ACCOUNT, pam.PASSWORD):  # the password is right
                    raise HTTPError(403, logins.sentence(heard))
                return None
            standing = await self._look_up(name)
            self._keep_canonical(name)
            return {"name": name, STANDING: standing}
        except WorkshopError as exc:
            raise HTTPError(503, exc.sentence) from exc

    async def _begin(
        self, handler: Any, data: dict[str, str]
    ) -> tuple[str, pam.Verdict | Question]:
        typed = data.setdefault("username", "")  # the hub's page of failed logins reads it
        name = await self._normalized(typed)
        if reason := self._refusal(name, data):
            return name, pam.Verdict(-1, "", reason)
        in_turn = False
        if self._slows(handler):  # before anything is looked up, which may take long
            in_turn = self._guesses.begin(handler, name)
        return name, await self._counted(handler, name, self._ask(handler, name, data, in_turn))

    async def _ask(
        self, handler: Any, name: str, data: dict[str, str], in_turn: bool
    ) -> pam.Verdict | Question:
        reason = await accounts.off_loop(lambda: self._account_refusal(name), name=name)
        if reason:
            return pam.Verdict(-1, "", reason)
        asks = isinstance(handler, WorkshopLoginHandler)
        attempt = Attempt(
            name,
            self.service,
            self.encoding,
            account=self.check_account,
            change=asks,
            rhost=_origin(handler),
            secrets=self._secrets(data),
        )
        return await self._logins.begin(attempt, asks=asks, in_turn=in_turn)

    async def _go_on(
        self, handler: Any, data: dict[str, str]
    ) -> tuple[str, pam.Verdict | Question]:
        token = data["conversation"]
        waiting = self._logins.waiting(token)
        data["username"] = waiting.attempt.name if waiting else ""
        if waiting is None:
            raise HTTPError(403, logins.TOO_LATE)
        name = waiting.attempt.name
        return name, await self._counted(handler, name, self._logins.go_on(token, data))

    async def _counted(
        self, handler: Any, name: str, talk: Awaitable[pam.Verdict | Question]
    ) -> pam.Verdict | Question:
        try:
            heard = await talk
        except WorkshopError:
            if self._slows(handler):
                self._guesses.end(handler, name, None)
            raise
        if self._slows(handler):
            self._guesses.end(handler, name, heard)
        return heard

    def _slows(self, handler: Any) -> bool:
        return self.slow_guessing and handler is not None

    def _refusal(self, name: str, data: Mapping[str, str]) -> str:
        if not self.validate_username(name):
            return "the name is not valid (username_pattern)"
        if name in self.blocked_users:
            return "the name is in blocked_users"
        return pam.unusable_secrets(self._secrets(data), self.encoding)

    def _account_refusal(self, name: str) -> str:
        account = accounts.find_or_none(name)
        if account is None:
            return ""  # PAM may know it; and if not, it takes as long as with a wrong password
        if accounts.has_empty_password(name):
            return "the account has an empty password"
        return self._not_a_person(account)

    def _secrets(self, data: Mapping[str, str]) -> tuple[str, ...]:
        password = data.get("password", "")
        return (password, data["otp"]) if "otp" in data else (password,)

    @cached_property
    def _guesses(self) -> Guesses:
        return Guesses()

    @cached_property
    def _logins(self) -> Logins:
        return Logins(self.broker)

    async def _log_refusal(self, handler: Any, typed: str, name: str, verdict: pam.Verdict) -> None:
        shown = typed if len(typed) <= 32 else f"{typed[:16]}...({len(typed)} chars)"
        asked = f"PAM ({verdict.phase}): " if verdict.phase else ""
        said = verdict.said
        if asked and not said:  # PAM calls a lock by no other name than a wrong password
            with suppress(WorkshopError):
                said = await accounts.off_loop(lambda: shadow.out_of_use(name))
        reason = f"{asked}{verdict.message}" + (f" ({said})" if said else "")
        self.log.warning("Login of %r@%s refused: %s", shown, _origin(handler) or "?", reason)

    # --- accounts

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
        return await super().run_post_auth_hook(handler, auth_model)

    async def add_user(self, user: Any) -> None:
        """Take a user in; where the machine has no such account, make it (`create_system_users`).

        Called for each new user, and for all users when the hub starts. Raises AccountRefused,
        or AccountCreationFailed; calling it again tries again.
        """
        name = user.name
        if not self.validate_username(name) or await self._normalized(name) != name:
            raise AccountRefused(
                f"{name!r:.80} is no valid name for an account.",
                remedy=f"Names are in lower case and match {self.username_pattern!r} "
                "(username_pattern).",
            )
        await self._ensure_account(user)
        await super().add_user(user)

    async def _ensure_account(self, user: Any) -> None:
        account = await accounts.off_loop(lambda: accounts.find_or_none(user.name), name=user.name)
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
            problem = await accounts.off_loop(lambda: home_problem(account), name=user.name)
            if problem:
                self.log.warning("Is the account %r half-made? %s", user.name, problem)
