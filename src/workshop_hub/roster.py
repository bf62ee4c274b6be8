"""What the spawners of one hub share: its id, its backends, and who is at work on a server."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
from collections.abc import Callable, Iterable, Mapping, MutableMapping
from weakref import WeakValueDictionary

from traitlets.config import Config

from workshop_hub.backends.base import Backend, Handle, Owner
from workshop_hub.errors import WorkshopError

RETRY_DELAYS = (1.0, 2.0, 5.0, 10.0, 30.0, *[60.0] * 240)
"""Seconds between the attempts to end what could not be ended: four hours of them."""

KEY = "workshop_hub_roster"
"""Where the roster is kept in the hub's tornado settings, of which there is one a hub."""


class Roster:
    """The backends of one hub, each made when it is first used.

    known: backend classes by name. hub_id: the same after a restart, different for every hub.
    """

    def __init__(
        self,
        known: Mapping[str, type[Backend]],
        *,
        config: Config,
        log: logging.Logger,
        hub_id: str,
        internal_ssl: bool,
    ) -> None:
        self.hub_id = hub_id
        self._known = known
        self._config = config
        self._log = log
        self._internal_ssl = internal_ssl
        self._backends: dict[str, Backend] = {}
        self._locks: WeakValueDictionary[Owner, asyncio.Lock] = WeakValueDictionary()

    @classmethod
    def of(
        cls,
        settings: MutableMapping[str, object],
        known: Mapping[str, type[Backend]],
        *,
        config: Config,
        log: logging.Logger,
    ) -> Roster:
        """Return the roster of the hub with these tornado settings."""
        roster = settings.get(KEY)
        if not isinstance(roster, Roster):
            roster = settings[KEY] = cls(
                known,
                config=config,
                log=log,
                hub_id=hub_id(settings["cookie_secret"]),
                internal_ssl=bool(settings.get("internal_ssl")),
            )
        return roster

    def backend(self, name: str) -> Backend:
        """Return the backend called `name`."""
        if name not in self._backends:
            self._backends[name] = self._known[name](
                config=self._config,
                log=self._log,
                hub_id=self.hub_id,
                internal_ssl=self._internal_ssl,
            )
        return self._backends[name]

    def lock(self, owner: Owner) -> asyncio.Lock:
        """Return the lock that is held while a server is started or ended."""
        return self._locks.setdefault(owner, asyncio.Lock())

    async def end_orphans(
        self, names: Iterable[str], is_known: Callable[[Owner], bool]
    ) -> list[Owner]:
        """End what an earlier, killed run of this hub left on the machine.

        is_known: whether the hub runs, starts or ends a server of that owner now.
        """
        ended = []
        for name in names:
            try:
                found = await self.backend(name).list_owned()
            except WorkshopError as exc:
                self._log.warning("Could not look for left-over servers (%s): %s", name, exc)
                continue
            for item in found:
                async with self.lock(item.owner):
                    if is_known(item.owner):
                        continue
                    self._log.warning("Ending %s's left-over server (%s)", item.owner, name)
                    try:
                        await self.backend(name).stop(item.handle, now=True)
                    except WorkshopError as exc:
                        self._log.error("%s's left-over server: %s", item.owner, exc)
                    else:
                        ended.append(item.owner)
        return ended

    async def end_later(self, name: str, owner: Owner, handle: Handle) -> None:
        """Go on trying to end a server that could not be ended: the hub itself has forgotten it."""
        for delay in RETRY_DELAYS:
            await asyncio.sleep(delay)
            try:
                async with self.lock(owner):
                    await self.backend(name).stop(handle, now=True)
            except WorkshopError as exc:
                self._log.warning("%s's server cannot be ended yet: %s", owner, exc.message)
            else:
                self._log.info("%s's server, which could not be ended before, has ended", owner)
                return
        self._log.error("%s's server could not be ended; end it by hand: %s", owner, handle)


def hub_id(cookie_secret: object) -> str:
    """Return 12 hex digits that only the hub with this secret has.

    The secret outlives restarts and is made at random for every hub.
    """
    secret = cookie_secret if isinstance(cookie_secret, bytes) else str(cookie_secret).encode()
    return hmac.new(secret, b"workshop-hub", hashlib.sha256).hexdigest()[:12]
