"""Guesses at passwords as the login page meets them: who has to wait, which browser is known."""

from __future__ import annotations

import math
from typing import Any

from tornado.web import HTTPError

from workshop_hub import client
from workshop_hub.conversation import Question
from workshop_hub.known_browsers import KnownBrowsers
from workshop_hub.slowdown import Slowdown
from workshop_hub.system import pam

COOKIE = "workshop-hub-known"
"""Name of the cookie that says who has logged in in a browser before."""


class TooManyGuesses(HTTPError):
    """Whoever tries has to wait. seconds: for how long, rounded up."""

    def __init__(self, seconds: float) -> None:
        wait = max(1, math.ceil(seconds))
        unit = "second" if wait == 1 else "seconds"
        super().__init__(
            429,
            f"Too many wrong passwords have been tried. Please wait {wait} {unit}, then try again.",
        )
        self.headers = {"Retry-After": str(wait)}


class Guesses:
    """Slows guessing down (`slowdown`) for the pages of one hub."""

    def __init__(self) -> None:
        self._slowdown = Slowdown()

    def begin(self, handler: Any, name: str) -> bool:
        """Count a try at the name from a page. Raises TooManyGuesses.

        Return whether it is a stranger's who has had to wait for a turn at the name.
        """
        whence = _whence(handler, name)
        in_turn = not whence[2] and self._slowdown.crowded(name)
        if wait := self._slowdown.wait(*whence):
            raise TooManyGuesses(wait)
        return in_turn

    def end(self, handler: Any, name: str, heard: pam.Verdict | Question | None) -> None:
        """Note how it ended. heard: None where the machine had no answer."""
        whence = _whence(handler, name)
        if heard is None:
            self._slowdown.withdrawn(*whence)
        elif isinstance(heard, Question):
            return  # it has not ended
        elif heard.granted or heard.phase in (pam.ACCOUNT, pam.PASSWORD):  # the password is right
            self._slowdown.succeeded(*whence)
            _remember(handler, name)
        else:
            self._slowdown.failed(*whence, delay=heard.delay)


def _known(handler: Any) -> KnownBrowsers:
    return KnownBrowsers(KnownBrowsers.key_from(handler.settings["cookie_secret"]))


def _whence(handler: Any, name: str) -> tuple[str, str, str]:
    """Return the name, the address, and the browser's id where it is known."""
    browser = _known(handler).check(handler.get_cookie(COOKIE, ""), name)
    return name, client.address(handler.request), browser


def _remember(handler: Any, name: str) -> None:
    handler.set_cookie(
        COOKIE,
        _known(handler).add(handler.get_cookie(COOKIE, ""), name),
        path=handler.hub.base_url,
        max_age=KnownBrowsers.lifetime,
        httponly=True,
        samesite="Lax",
        secure=handler.request.protocol == "https",
    )
