"""What goes wrong with a container engine, in words. Foreign exceptions are mapped here, once."""

from __future__ import annotations

import errno
import json
import os
import pwd
from collections.abc import Iterator

from workshop_hub.errors import EngineError, EngineUnavailable, WorkshopError


class EngineNotFound(EngineError):
    """The engine knows no object of that name. The callers turn it into an answer."""

    label = "engine_not_found"


class EngineConflict(EngineError):
    """The object is not in a state for this: the name is taken, or it is not running."""

    label = "engine_conflict"


def hung(base_url: str, timeout: float, about: str) -> EngineUnavailable:
    """Describe an engine that takes requests and does not answer them."""
    return EngineUnavailable(
        f"The container engine at {base_url} did not answer within {timeout:g} seconds "
        f"(asked about {about}).",
        remedy="Ask the administrator to look at the engine (journalctl -u docker) and to restart "
        "it; running servers are not ended where live-restore is on.",
    )


def translate(exc: Exception, base_url: str, about: str) -> WorkshopError:
    """Turn an exception of the Docker library or of its transport into one of ours.

    about: what the request was about, for the sentence.
    """
    if isinstance(exc, WorkshopError):
        return exc
    status = getattr(exc, "status_code", None)
    if isinstance(status, int):
        return _refused(status, _explanation(exc), about)
    return _unreachable(exc, base_url)


def is_timeout(exc: Exception) -> bool:
    """Say whether the transport gave up waiting."""
    return any(type(link).__name__.endswith(("Timeout", "TimeoutError")) for link in _chain(exc))


def _refused(status: int, explanation: str, about: str) -> EngineError:
    kind = {404: EngineNotFound, 409: EngineConflict}.get(status, EngineError)
    return kind(f"The container engine refused a request about {about}: {explanation}")


def _explanation(exc: Exception) -> str:
    text = getattr(exc, "explanation", None) or str(exc)
    if isinstance(text, bytes):
        text = text.decode(errors="replace")
    try:
        message = json.loads(str(text))["message"]
    except (ValueError, KeyError, TypeError):
        message = text
    return str(message).strip()


def _unreachable(exc: Exception, base_url: str) -> EngineError:
    number = next((e.errno for e in _chain(exc) if isinstance(e, OSError) and e.errno), None)
    if number in (errno.EACCES, errno.EPERM):
        user = _own_name()
        return EngineUnavailable(
            f"The account {user} may not use the container engine at {base_url} "
            "(permission denied).",
            remedy=f"Put it into the group that owns the socket (usermod -aG docker {user}) and "
            "start the hub anew. Whoever is in that group can become root.",
        )
    if number in (errno.ENOENT, errno.ECONNREFUSED):
        return EngineUnavailable(
            f"No container engine runs at {base_url}.",
            remedy="Start it (systemctl start docker), or name its socket in "
            "c.DockerBackend.base_url or DOCKER_HOST.",
        )
    if number is None and not isinstance(exc, OSError):
        return EngineError(f"The container engine at {base_url} gave no usable answer: {exc}")
    return EngineUnavailable(
        f"The container engine at {base_url} cannot be reached: {exc}",
        remedy="Check c.DockerBackend.base_url or DOCKER_HOST, and that the engine runs.",
    )


def _chain(exc: BaseException) -> Iterator[BaseException]:
    """Go through the causes: the true one hides under up to four layers of libraries."""
    seen: set[int] = set()
    todo: list[BaseException] = [exc]
    while todo:
        link = todo.pop(0)
        if id(link) in seen:
            continue
        seen.add(id(link))
        yield link
        inner = [link.__cause__, link.__context__, *link.args]
        todo += [item for item in inner if isinstance(item, BaseException)]


def _own_name() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())
