"""The options of a demo's hub."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from workshop_hub.cli.demo_account import DemoAccount
from workshop_hub.policy.limits import Limits

LIMITS = Limits(cpu_limit=1.0, mem_limit=1024**3)
"""Enough for a first notebook, and little enough for anybody's laptop."""


@dataclass(frozen=True)
class Plan:
    """What was asked for on the command line."""

    backend: str
    port: int
    image: str
    check: bool


def spawner_options(plan: Plan, folder: Path) -> dict[str, object]:
    """Return the options of the servers: limits that a laptop can bear, and a place to work in."""
    options: dict[str, object] = {
        "WorkshopSpawner.backend": plan.backend,
        "WorkshopSpawner.cpu_limit": LIMITS.cpu_limit,
        "WorkshopSpawner.mem_limit": LIMITS.mem_limit,
        "WorkshopSpawner.limits_policy": "warn",
        "WorkshopSpawner.default_url": "/lab",
        "WorkshopSpawner.notebook_dir": "~/notebooks",
        "WorkshopSpawner.create_notebook_dir": True,
        # or npm, which JupyterLab's language servers ask, would leave a folder in /tmp
        "WorkshopSpawner.environment": {"NODE_DISABLE_COMPILE_CACHE": "1"},
    }
    if plan.image:
        options["WorkshopSpawner.image"] = plan.image
    if os.geteuid() != 0:
        options |= own_account_options(plan, folder)
    return options


def own_account_options(plan: Plan, folder: Path) -> dict[str, object]:
    """Return options that keep the caller's home clean: its servers write elsewhere.

    That is below `folder`, and for containers in their own /tmp.
    """
    place = Path("/tmp/workshop-demo")  # noqa: S108 - inside the container
    options: dict[str, object] = {}
    if plan.backend == "process":
        place = folder / "home"
        place.mkdir()
        options["ProcessBackend.run_as"] = "hub"
    return {
        **options,
        "WorkshopSpawner.notebook_dir": f"{place}/notebooks",
        "WorkshopSpawner.allowed_roots": [str(place)],
        "WorkshopSpawner.environment": {
            "NODE_DISABLE_COMPILE_CACHE": "1",
            "IPYTHONDIR": f"{place}/ipython",
            "JUPYTER_CONFIG_DIR": f"{place}/config",
            "JUPYTER_DATA_DIR": f"{place}/data",
            "JUPYTER_RUNTIME_DIR": f"{place}/runtime",
            "XDG_CACHE_HOME": f"{place}/cache",
            "npm_config_cache": f"{place}/npm",
        },
    }


def authenticator_options(account: DemoAccount) -> dict[str, object]:
    """Return options that let in nobody but the demo's account."""
    options: dict[str, object] = {"Authenticator.allowed_users": {account.name}}
    if account.has_pam:
        return {**options, "JupyterHub.authenticator_class": "workshop"}
    return {
        **options,
        "JupyterHub.authenticator_class": "dummy",
        "DummyAuthenticator.password": account.password,
    }
