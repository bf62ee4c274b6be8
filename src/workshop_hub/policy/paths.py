"""The folder a server works in, and the page it opens with."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from posixpath import isabs, normpath

from workshop_hub.errors import ConfigError, DirectoryRefused, choices
from workshop_hub.policy.templates import render


def notebook_dir(template: str, namespace: Mapping[str, str]) -> str:
    """Return the absolute folder that `notebook_dir` means for a user; empty for none.

    A leading `~` is the user's home. Raises ConfigError for a broken template.
    """
    return _folder("notebook_dir", template, namespace) if template else ""


def allowed_roots(templates: Sequence[str], namespace: Mapping[str, str]) -> tuple[str, ...]:
    """Return the absolute folders that a notebook_dir may lie in; the home where none is given."""
    return tuple(_folder("allowed_roots", template, namespace) for template in templates or ["~"])


def check_inside(folder: str, roots: Sequence[str]) -> None:
    """Raise DirectoryRefused where `folder` is outside of all `roots`, symlinks aside.

    Symlinks are looked at when the server starts, as the user.
    """
    if any(is_inside(folder, root) for root in roots):
        return
    raise DirectoryRefused(
        f"The notebook directory {folder} lies outside the folders that are allowed: "
        f"{choices(roots)}.",
        remedy="Choose a folder inside, or ask the administrator to add to allowed_roots.",
    )


def is_inside(folder: str, root: str) -> bool:
    """Say whether the normalised `folder` is `root` or lies below it."""
    return folder == root or folder.startswith(root.rstrip("/") + "/")


def default_url(template: str, namespace: Mapping[str, str]) -> str:
    """Return the path that the server opens with, beginning with `/`; empty for its own default.

    Raises ConfigError for anything that leads away from the user's server.
    """
    if not template:
        return ""
    url = render("default_url", template, namespace)
    path = url if url.startswith("/") else f"/{url}"
    leads_away = re.match(r"[A-Za-z][A-Za-z0-9+.-]*:", url) or path.startswith(("//", "/\\"))
    if leads_away or not path.isprintable() or "\\" in path:
        raise ConfigError(
            f'default_url is "{url}"; it must be a path on the user\'s own server.',
            remedy='For example "/lab" or "/lab/tree/welcome.ipynb".',
        )
    return path


def _folder(option: str, template: str, namespace: Mapping[str, str]) -> str:
    folder = render(option, template, namespace)
    if folder == "~" or folder.startswith("~/"):
        folder = namespace["home"] + folder[1:]
    if not isabs(folder) or not folder.isprintable():
        raise ConfigError(
            f'{option} is "{template}", for this user "{folder}"; it must be an absolute folder.',
            remedy='Begin it with "/" or with "~/" for the home of the user.',
        )
    return "/" + normpath(folder).lstrip("/")
