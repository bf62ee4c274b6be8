"""The login page, with one more page for what PAM asks beside a password."""

from __future__ import annotations

from typing import Any

from jupyterhub.handlers.login import LoginHandler
from tornado.httputil import url_concat
from tornado.web import HTTPError

from workshop_hub.conversation import Question
from workshop_hub.logins import LOCKS
from workshop_hub.system import pam

REFUSED = "Invalid username or password"
"""What JupyterHub says to whoever has not given both."""

TITLES = {
    pam.AUTHENTICATION: "One more step",
    pam.ACCOUNT: "One more step",
    pam.PASSWORD: "Please choose a new password",
}


class Asked(HTTPError):
    """PAM asks for more than the form has; a page has to ask for it."""

    def __init__(self, question: Question) -> None:
        super().__init__(403, "This login needs more than a password; use the hub's login page.")
        self.question = question


class WorkshopLoginHandler(LoginHandler):  # type: ignore[misc, unused-ignore]
    """JupyterHub's login page."""

    async def post(self) -> None:
        """Check what was filled in; show a page that asks for more where PAM does."""
        try:
            await super().post()
        except Asked as asked:
            self.finish(await self._page(asked.question))

    def _render(
        self, login_error: str | None = None, username: str | None = None, **options: Any
    ) -> Any:
        if login_error == REFUSED and self.authenticator.locks_accounts:
            login_error = f"{login_error}. {LOCKS}"
        return super()._render(login_error, username, **options)

    async def _page(self, question: Question) -> str:
        here = self.authenticator.login_url(self.hub.base_url)
        onward: dict[str, Any] = {"next": self.get_argument("next", "")}
        return str(
            await self.render_template(
                "login_question.html",
                title=TITLES[question.phase],
                question=question,
                here=url_concat(here, onward if onward["next"] else {}),
                again=self.settings["login_url"],
                error_style=pam.ERROR,
                xsrf=self.xsrf_token.decode("ascii"),
            )
        )
