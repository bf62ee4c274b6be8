"""What every server finds out when it starts, and is the same for all: the launcher asks once."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from ssl import SSLContext

from workshop_hub.launch import entry_points

NPM_TIMEOUT = 10.0
"""Seconds; usually 0.2."""


@dataclass(frozen=True)
class Answers:
    """What was found out.

    trust: what httpx trusts, read from a file. npm, npm_folder: npm's path, and the folder that it
    installs into for everybody. files: what it depends on.
    """

    trust: SSLContext | None = None
    npm: str = ""
    npm_folder: str = ""
    files: tuple[str, ...] = ()

    def give(self) -> None:
        """Have this process use the answers, where its user's would be the same."""
        if self.trust is not None:
            _lend(self.trust)
        if self.npm_folder and not _tells_npm():
            _answer_npm(self.npm, self.npm_folder)


def ask() -> Answers:
    """Find out what the loaded modules will ask for."""
    httpx = sys.modules.get("httpx")
    trust = httpx.create_ssl_context() if httpx else None
    certifi = sys.modules.get("certifi")  # where that comes from
    npm = shutil.which("npm") or ""
    folder = _npm_folder(npm) if npm and "jupyter_lsp.types" in sys.modules else ""
    files = [certifi.where()] if trust and certifi else []
    files += [npm] if npm else []
    return Answers(trust, npm, folder, (*files, *entry_points.know()))


def _npm_folder(npm: str) -> str:
    try:
        asked = subprocess.run(
            [npm, "prefix", "-g"], capture_output=True, text=True, timeout=NPM_TIMEOUT, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return asked.stdout.strip()


def _tells_npm() -> bool:
    """Say whether the user has told npm where to install, as far as npm would look."""
    names = {name.lower() for name in os.environ}
    told = "prefix" in names or any(name.startswith("npm_config_") for name in names)
    return told or any(Path(folder, ".npmrc").exists() for folder in (Path.home(), Path.cwd()))


def _answer_npm(npm: str, folder: str) -> None:
    """Spare jupyter_lsp a run of npm, which takes longer than all the rest of a warm start."""
    api = getattr(sys.modules.get("jupyter_lsp.types"), "LanguageServerManagerAPI", None)
    ask_npm: Callable[[object, str], object] | None = getattr(api, "_npm_prefix", None)
    if api is None or ask_npm is None:
        return

    def answer(self: object, path: str) -> object:
        return folder if path == npm else ask_npm(self, path)

    api._npm_prefix = answer


def _lend(trust: SSLContext) -> None:
    """Give the first client of httpx, which is JupyterLab's, what it would read from a file.

    That takes each server 0.04 CPU seconds, and 5 MB.
    """
    transports = sys.modules.get("httpx._transports.default")
    make = getattr(transports, "create_ssl_context", None)
    if transports is None or make is None:
        return

    def lend(verify: object = True, cert: object = None, trust_env: bool = True) -> SSLContext:
        if verify is not True or cert:
            return make(verify=verify, cert=cert, trust_env=trust_env)  # type: ignore[no-any-return]
        transports.create_ssl_context = make  # type: ignore[attr-defined]
        return trust

    transports.create_ssl_context = lend  # type: ignore[attr-defined]
