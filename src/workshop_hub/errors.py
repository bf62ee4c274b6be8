"""Every error that a user or an administrator can meet: what happened, and what to do next."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import ClassVar


class WorkshopError(Exception):
    """An error with a sentence for the person who meets it.

    message: what happened, with the numbers, as one or two plain sentences.
    remedy: what to do next; empty where nothing can be done.
    log: the last lines of the server's log, shown below the sentences.

    The hub shows `jupyterhub_message` or `jupyterhub_html_message` of an exception on the
    page that waits for a server
    (https://jupyterhub.readthedocs.io/en/stable/reference/spawners.html).
    """

    label: ClassVar[str] = "error"
    """Short name for metrics and logs."""
    is_refusal: ClassVar[bool] = False
    """True where the request was wrong, not the machine: it does not count as a hub failure."""

    def __init__(self, message: str, *, remedy: str = "", log: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy
        self.log = log.strip("\n")

    def __str__(self) -> str:
        return "\n".join(part for part in (self.sentence, self.log) if part)

    @property
    def sentence(self) -> str:
        """What happened and what to do, without the log."""
        return f"{self.message} {self.remedy}".strip()

    @property
    def jupyterhub_message(self) -> str:
        """Plain text for the hub's pages."""
        return str(self)

    @property
    def jupyterhub_html_message(self) -> str:
        """HTML for the hub's pages; everything that came from outside is escaped."""
        log = f'<pre class="text-start">{escape(self.log)}</pre>' if self.log else ""
        return f"{escape(self.sentence)}{log}"


def choices(names: Iterable[str]) -> str:
    """List `names` for a message: `"a", "b"`."""
    return ", ".join(f'"{name}"' for name in sorted(names)) or "none"


class ConfigError(WorkshopError):
    """An option has a value that cannot work."""

    label = "config"


class LimitError(ConfigError):
    """A limit or a guarantee has a value that means nothing."""

    label = "limit_value"


class OptionRefused(WorkshopError):
    """The user asked for something that the administrator does not offer."""

    label = "option_refused"
    is_refusal = True


class DirectoryRefused(WorkshopError):
    """The notebook directory is missing, is no directory, or lies outside the allowed roots."""

    label = "directory"
    is_refusal = True


class AccountRefused(WorkshopError):
    """The account does not exist, or no server may run as it."""

    label = "account"
    is_refusal = True


class SessionRefused(WorkshopError):
    """PAM did not open a session for somebody, so that no server was started."""

    label = "session"
    is_refusal = True


class LimitsNotEnforceable(WorkshopError):
    """The machine cannot hold a server to the limits that are configured for it."""

    label = "limits"


class LauncherRefused(WorkshopError):
    """sudo, or the launcher behind it, refused to start the server."""

    label = "launcher"


class ServerExited(WorkshopError):
    """The server ended before it listened.

    exit_code: as the kernel gave it, 128 + N after signal N; None where it is not known.
    """

    label = "exited"

    def __init__(
        self, message: str, *, exit_code: int | None = None, remedy: str = "", log: str = ""
    ) -> None:
        super().__init__(message, remedy=remedy, log=log)
        self.exit_code = exit_code


class PortTaken(ServerExited):
    """The server could not bind its port: something else had it first. Try another port."""

    label = "port"


class NoFreePort(WorkshopError):
    """Every port of the configured range is in use."""

    label = "ports"


class StartTimeout(WorkshopError):
    """The server runs but did not listen in time."""

    label = "timeout"
    advice = (
        "Try again; if it happens again, ask the administrator to look at the server's log, and to "
        "raise start_timeout."
    )


class ImageError(WorkshopError):
    """The image is absent, cannot be pulled, or cannot run a server."""

    label = "image"


class EngineError(WorkshopError):
    """The container engine refused a request."""

    label = "engine"


class EngineUnavailable(EngineError):
    """The container engine is down, or did not answer in time."""

    label = "engine_down"


class HubUnreachable(WorkshopError):
    """The server would not reach the hub at the address it is given."""

    label = "hub_unreachable"


class ForeignContainer(WorkshopError):
    """A container of the name we need exists and is not ours."""

    label = "foreign_container"


class AccountCreationFailed(WorkshopError):
    """A system account could not be made."""

    label = "account_creation"


class UsersRefused(WorkshopError):
    """`workshop-hub users` was asked for what cannot be done; nothing was changed."""

    label = "users_refused"

    @classmethod
    def listing(cls, problems: Sequence[str]) -> UsersRefused:
        """Make one error of several, each a sentence; of one alone, that one."""
        if len(problems) == 1:
            return cls(problems[0])
        return cls(f"{len(problems)} things are wrong; nothing was done.", log="\n".join(problems))

    @property
    def problems(self) -> list[str]:
        """All that is wrong, each in its words."""
        return self.log.splitlines() or [self.sentence]


class UsersFailed(WorkshopError):
    """Something that `workshop-hub users` did for a person failed; it says what is there now."""

    label = "users_failed"


class JoinRefused(AccountCreationFailed):
    """Somebody cannot register so: the name, the password, or the number of accounts.

    outcome: as system.join_account tells it.
    """

    label = "join"
    is_refusal = True

    def __init__(self, message: str, *, outcome: str, remedy: str = "") -> None:
        super().__init__(message, remedy=remedy)
        self.outcome = outcome
