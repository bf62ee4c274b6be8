"""Where our pages are, for a hub that uses them."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Any

TEMPLATES = str(files("workshop_hub") / "templates")
"""Folder of our page templates; they extend the hub's own."""


def add_templates(app: Any) -> None:
    """Have a hub (JupyterHub) find our templates before its own, and a site's before ours."""
    hubs_own = str(Path(app.data_files_path) / "templates")
    others = [path for path in app.template_paths if path not in (hubs_own, TEMPLATES)]
    app.template_paths = [*others, TEMPLATES, hubs_own]
