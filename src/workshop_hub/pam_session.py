"""PAM sessions for servers: opened before a server is there, closed when it is gone."""

from __future__ import annotations

import asyncio
from functools import cached_property
from typing import Any
from weakref import WeakValueDictionary

from traitlets import Bool

from workshop_hub import client, running_hub
from workshop_hub.errors import SessionRefused, WorkshopError
from workshop_hub.hub_errors import hub_error
from workshop_hub.pam_access import PamAccess
from workshop_hub.roster import hub_id
from workshop_hub.system import session_files
from workshop_hub.system.background import in_background

TIMEOUT = 60.0
"""Seconds in which PAM opens or closes a session. It may make a home, or ask a directory."""


class PamSession(PamAccess):
    """The part of the authenticator that has PAM sessions kept while servers run."""

    open_sessions = Bool(
        False,
        help="""
        Open a PAM session (the `session` rules of `service`) before each start of a server, keep
        it while the server runs, and close it afterwards. A process of its own keeps it, also while
        the hub restarts. Where PAM opens none, this server is not started, and its user reads
        PAM's reason. Modules that need the password cannot work. False, the default, opens none.
        """,
    ).tag(config=True)

    _may_be_left_over = False
    """Whether a session may be open whose server has ended."""

    async def pre_spawn_start(self, user: Any, spawner: Any) -> None:
        """Open a session for the server that is about to start; refuse the start without it."""
        if not self.open_sessions:
            return
        try:
            async with self._session_lock(user.name, spawner.name):
                variables = await self._open_session(user, spawner)
        except WorkshopError as exc:
            raise hub_error(exc) from exc
        if hasattr(spawner, "session_variables"):  # one of ours
            spawner.session_variables = variables

    async def post_spawn_stop(self, user: Any, spawner: Any) -> None:
        """Close the session of a server that has ended, or has not come to be."""
        if self.open_sessions or session_files.are_used():
            async with self._session_lock(user.name, spawner.name):
                answered = await self._close_session(user.settings, user.name, spawner.name)
            if answered and self._may_be_left_over:
                in_background(self._close_left_over(self.parent))

    def check_allow_config(self) -> None:
        """Close, once the hub runs, the sessions of servers that ended without it."""
        super().check_allow_config()
        if not (self.open_sessions or session_files.are_used()) or not hasattr(
            self.parent, "tornado_settings"
        ):
            return
        try:
            asyncio.get_running_loop()
        except RuntimeError:  # no hub is about to run
            return
        in_background(self._close_left_over(self.parent))

    async def _open_session(self, user: Any, spawner: Any) -> dict[str, str]:
        """Return the variables of the session. Raises WorkshopError."""
        order = self._order("open", user.settings, user.name, spawner.name)
        order["rhost"] = _origin(user, spawner)
        answer = await self.broker.carry_out(order, timeout=TIMEOUT)
        if answer["code"] == 0:
            variables: dict[str, str] = answer["variables"]
            return variables
        reason = _reason(answer)
        self.log.error(
            "No PAM session for %s (service %s): PAM error %s: %s",
            *(spawner._log_name, self.service, answer["code"], reason),
        )
        raise SessionRefused(
            f'The machine did not open a session for "{user.name}": {reason}.',
            remedy="Ask the administrator to look at the hub's log and at the machine's.",
        )

    async def _close_session(self, settings: Any, name: str, server: str) -> bool:
        """Close one session; say whether the broker answered.

        What fails is for the log, as the server has ended. Where there is no broker now, the
        session is closed when there is one again, and another server ends.
        """
        try:
            order = self._order("close", settings, name, server)
            answer = await self.broker.carry_out(order, timeout=TIMEOUT)
        except WorkshopError as exc:
            self.log.error("The PAM session of %s:%s may still be open: %s", name, server, exc)
            self._may_be_left_over = True
            return False
        if answer["code"] != 0:
            self.log.error("The PAM session of %s:%s: %s", name, server, _reason(answer))
        return True

    async def _close_left_over(self, app: Any) -> None:
        if not await running_hub.listens(app):
            return
        settings = app.tornado_settings
        self._may_be_left_over = False
        try:
            order = self._order("list", settings, "", "")
            answer = await self.broker.carry_out(order, timeout=TIMEOUT)
            if "sessions" not in answer:
                raise WorkshopError(f"{_reason(answer)}.")
        except WorkshopError as exc:
            self.log.error("Could not look for left-over PAM sessions: %s", exc)
            self._may_be_left_over = True
            return
        for name, server in answer["sessions"]:
            async with self._session_lock(name, server):
                if not running_hub.has_server(app, name, server):
                    self.log.warning("Closing the left-over PAM session of %s:%s", name, server)
                    await self._close_session(settings, name, server)

    def _order(self, what: str, settings: Any, name: str, server: str) -> dict[str, str]:
        return {
            "session": what,
            "service": self.service,
            "encoding": self.encoding,
            "hub": hub_id(settings["cookie_secret"]),
            "name": name,
            "server": server,
        }

    def _session_lock(self, name: str, server: str) -> asyncio.Lock:
        """Return what is held while the session of a server is opened, or closed."""
        return self._session_locks.setdefault((name, server), asyncio.Lock())

    @cached_property
    def _session_locks(self) -> WeakValueDictionary[tuple[str, str], asyncio.Lock]:
        return WeakValueDictionary()


def _reason(answer: dict[str, Any]) -> str:
    """Return what PAM's modules said, and PAM itself, as part of a sentence."""
    words = [*answer["said"], answer["message"]]
    return "; ".join(word.rstrip(".") for word in words if word)


def _origin(user: Any, spawner: Any) -> str:
    """Return the address from which somebody starts a server of his own; "" for all others."""
    handler = getattr(spawner, "handler", None)
    if handler is None or getattr(handler.current_user, "name", None) != user.name:
        return ""
    return client.address(handler.request)
