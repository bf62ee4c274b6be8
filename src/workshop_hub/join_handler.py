"""The page where people make themselves an account, with the workshop's code."""

from __future__ import annotations

import math
from datetime import datetime, timezone
from typing import cast

from jupyterhub.handlers.base import BaseHandler
from tornado.httputil import url_concat
from tornado.web import HTTPError

from workshop_hub import client
from workshop_hub.errors import JoinRefused, WorkshopError
from workshop_hub.policy import joining
from workshop_hub.policy.joining import Problems
from workshop_hub.slowdown import Wrong

SHOWN_MAX = 64
"""Characters of a name that come back in the form."""

TRY_AGAIN = "The account could not be made. Please try again, or ask whoever leads the workshop."

TOLD: dict[str, tuple[int, Problems]] = {
    "name": (400, {"username": "This name cannot be used. Please choose another one."}),
    "taken": (409, {"username": "This name is taken. Please choose another one."}),
    "full": (403, {"": "All places of the workshop are taken. Please ask whoever leads it."}),
}
"""Status and sentences for what the machine refuses."""


class JoinHandler(BaseHandler):  # type: ignore[misc]
    """GET shows the form, POST makes an account."""

    _expired = False

    async def get(self) -> None:
        """Show the form, or why there is none now."""
        await self._page(closed=self._closed())

    async def post(self) -> None:
        """Make an account from the form, or show it again with what is wrong."""
        form = {name: self._field(name) for name in joining.FIELDS}
        form["username"] = form["username"].strip().lower()
        if closed := self._closed():
            await self._page(403, closed=closed)
        elif self._expired:
            told = "The page was open for too long. Please type the passwords once more, and send."
            await self._page(403, form, {"": told})
        elif wait := self._wrong.wait(self._origin):
            seconds = math.ceil(wait)
            self.set_header("Retry-After", str(seconds))
            told = f"Too many wrong codes came from your network. Please wait {seconds} seconds."
            await self._page(429, form, {"": told})
        else:
            await self._judged(form)

    async def _judged(self, form: dict[str, str]) -> None:
        problems = joining.problems(
            form, self.authenticator.join_code, self.authenticator.may_register
        )
        if "code" in problems:
            self._wrong.failed(self._origin)
            self.log.warning("A wrong join code from %s", self._origin or "?")
        if problems:
            await self._page(403 if "code" in problems else 400, form, problems)
        else:
            await self._register(form)

    async def _register(self, form: dict[str, str]) -> None:
        name = form["username"]
        try:
            # whose rights, groups and servers in the hub would be theirs
            if self.authenticator.is_spoken_for(name) or self.find_user(name):
                raise JoinRefused(f'The hub knows "{name}".', outcome="taken")
            await self.authenticator.register(name, form["password"])
        except JoinRefused as exc:
            said = f"The machine does not accept this password. {exc.message}".strip()
            status, problems = TOLD.get(exc.outcome, (400, {"password": said}))
            await self._page(status, form, problems)
        except WorkshopError as exc:
            self.log.error("Registration of %r failed: %s", name, exc)
            await self._page(503, form, {"": TRY_AGAIN})
        else:
            self.log.info("Registered %r from %s", name, self._origin or "?")
            await self._page(made=name)

    @property
    def _wrong(self) -> Wrong:
        return cast(Wrong, self.authenticator.wrong_codes)

    @property
    def _origin(self) -> str:
        return client.address(self.request)

    def _closed(self) -> str:
        window: joining.Window = self.authenticator.join_window
        return window.closed(datetime.now(timezone.utc))

    def _field(self, name: str) -> str:
        """Return a field as it was typed: tornado's own way replaces characters in it."""
        sent: bytes = self.request.body_arguments.get(name, [b""])[-1]
        return sent.decode("utf-8", "replace")

    def check_xsrf_cookie(self) -> None:
        """Note a form that has expired, which is told in the form."""
        try:
            super().check_xsrf_cookie()
        except HTTPError as exc:
            self.log.warning("Registration form: %s", exc)
            self._expired = True

    async def _page(
        self,
        status: int = 200,
        form: dict[str, str] | None = None,
        problems: Problems | None = None,
        *,
        closed: str = "",
        made: str = "",
    ) -> None:
        self.set_status(status)
        self.set_header("Cache-Control", "no-store")
        form = form or {}
        self.finish(
            await self.render_template(
                "join.html",
                username=form.get("username", "")[:SHOWN_MAX],
                code=form.get("code", "")[:SHOWN_MAX],
                problems=problems or {},
                closed=closed,
                made=made,
                password_min=joining.PASSWORD_MIN,
                log_in_url=url_concat(self.settings["login_url"], {"username": made}),
            )
        )
