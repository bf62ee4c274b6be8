"""Our errors, as the hub wants to be told of them."""

from __future__ import annotations

from tornado.web import HTTPError

from workshop_hub.errors import WorkshopError

try:
    from jupyterhub.spawner import SpawnException
except ImportError:  # JupyterHub 5
    SpawnException = None


def hub_error(error: WorkshopError) -> HTTPError:
    """Return the exception that makes the hub show `error`, and log it without a traceback.

    A refusal of what the user asked for does not count as a failure of the hub
    (`consecutive_failure_limit`). The message is set as attributes too: the page that waits for a
    server reads only those.
    """
    if not error.is_refusal:
        translated = HTTPError(500, error.sentence, reason=error.label)
    elif SpawnException is None:
        translated = HTTPError(400, error.sentence, reason=error.label)
    else:
        translated = SpawnException(error.sentence, reason=error.label)
    shown = {
        name: getattr(error, name) for name in ("jupyterhub_message", "jupyterhub_html_message")
    }
    vars(translated).update(shown)
    return translated
