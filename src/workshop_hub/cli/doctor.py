"""`workshop-hub doctor`: find what would keep people from working, before one of them does."""

from __future__ import annotations

import asyncio
import shutil
import sys
import tempfile
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import click
from jupyterhub.app import JupyterHub
from traitlets import TraitError

from workshop_hub import spec
from workshop_hub.backends.base import Backend, Finding
from workshop_hub.backends.docker import DockerBackend, hub_address
from workshop_hub.cli.doctor_hub import error_finding, hub_findings
from workshop_hub.cli.doctor_logins import login_findings
from workshop_hub.cli.output import fail, show_findings, wide_console
from workshop_hub.errors import ConfigError, WorkshopError
from workshop_hub.policy.limits import Limits
from workshop_hub.spawner import WorkshopSpawner
from workshop_hub.startup import check_options

WITHOUT_LIMITS = (
    'Or go on without limits: c.WorkshopSpawner.limits_policy = "warn"; a server may then take all '
    "that the machine has."
)

LIMIT_NAMES = {field.name for field in fields(Limits)}


@click.command()
@click.option(
    "-f",
    "--config",
    type=click.Path(path_type=Path),
    default=Path("jupyterhub_config.py"),
    show_default=True,
    help="The hub's configuration file.",
)
def doctor(config: Path) -> None:
    """Look for what would keep the hub, logins or servers from working, and say how to mend it.

    Run it as the account that the hub runs as, with the hub's environment. It makes what the hub
    would make of the configuration, and asks that; it starts no server and changes nothing. Exit
    code 1 if something is wrong; warnings do not count.
    """
    try:
        app = load(config)
    except WorkshopError as exc:
        fail(exc)
    findings = asyncio.run(look(app))
    show_findings(wide_console(), findings)
    sys.exit(1 if any(finding.level == "error" for finding in findings) else 0)


def load(config: Path) -> JupyterHub:
    """Return a hub with this configuration, that does not run. Raises ConfigError."""
    if not config.is_file():
        raise ConfigError(
            f"There is no configuration file {config}.",
            remedy="Name it: workshop-hub doctor -f /etc/jupyterhub/jupyterhub_config.py",
        )
    app = JupyterHub(log_level="WARN")
    app.raise_config_file_errors = True
    try:
        # catch_config_error, which wraps the method, would end this program
        JupyterHub.load_config_file.__wrapped__(app, str(config.absolute()))
    except (Exception, SystemExit) as exc:
        raise ConfigError(
            f"{config} cannot be loaded: {type(exc).__name__}: {exc}",
            remedy=getattr(exc, "remedy", ""),
        ) from exc
    return app


async def look(app: JupyterHub) -> list[Finding]:
    """Return all that is to say about the configured hub on this machine."""
    findings = [*hub_findings(app), *await login_findings(app)]
    if not issubclass(app.spawner_class, WorkshopSpawner):
        name = app.spawner_class.__name__
        remedy = 'Set c.JupyterHub.spawner_class = "workshop".'
        return [*findings, Finding("error", "spawner", f"The hub uses {name}.", remedy)]
    try:
        probe = check_options(app, app.spawner_class)
    except (ConfigError, TraitError) as exc:
        return [*findings, error_finding("spawner", exc)]
    findings.append(Finding("ok", "spawner", f"options are sound; {spec.limits(probe)}"))
    for name in sorted(spec.backends_in_use(probe)):
        findings += [as_line(found, name) for found in await backend_findings(app, probe, name)]
    return findings


async def backend_findings(app: JupyterHub, probe: WorkshopSpawner, name: str) -> list[Finding]:
    """Make a backend as the hub would, and ask it."""
    # what is started for the trial is not to be where a running hub has its own
    with tempfile.TemporaryDirectory(prefix="workshop-hub-doctor-") as folder:
        try:
            backend = probe.backends[name](config=app.config, hub_id="0" * 12, log_dir=folder)
        except (ConfigError, TraitError) as exc:
            return [error_finding("options", exc)]
        found = await backend.check()
        backend.close()
    if not any(finding.subject == "engine" and finding.level == "error" for finding in found):
        found += await more_findings(app, probe, backend)
    strict = limits_required(probe)
    return [judged(finding, strict=strict) for finding in found]


async def more_findings(app: JupyterHub, probe: WorkshopSpawner, backend: Backend) -> list[Finding]:
    """Look at what takes the hub's and the spawner's options to judge, beside the backend's."""
    if isinstance(backend, DockerBackend):
        image = await backend.check_image(probe.image, probe.pull_policy)
        return [image, *await hub_address_findings(app, backend)]
    if getattr(backend, "run_as", "") == "hub":
        return []
    return [command_finding(probe.cmd)]


def command_finding(cmd: list[str]) -> Finding:
    """Say whether users other than the hub's can run the server's program."""
    program = shutil.which(cmd[0])
    if program is None:
        remedy = "Set c.Spawner.cmd to its full path, or the hub's PATH."
        return Finding("warning", "command", f"{cmd[0]} is not on the hub's PATH.", remedy)
    for path in (Path(program), Path(sys.executable), Path(sys.prefix)):
        if closed := closed_to_others(path):
            return Finding(
                "error",
                "command",
                f"{path} cannot be used by other users: {closed} is closed to them.",
                "Install the hub's environment where everybody may read it, such as "
                "/opt/workshop-hub.",
            )
    return Finding("ok", "command", program)


def closed_to_others(path: Path) -> Path | None:
    """Return the first of `path`, its target and their parents that others may not enter."""
    for each in (path.absolute(), path.resolve()):
        for step in (*reversed(each.parents), each):
            if not step.stat().st_mode & 0o001:
                return step
    return None


async def hub_address_findings(app: JupyterHub, backend: DockerBackend) -> list[Finding]:
    """Say whether containers can reach the hub at the address that it listens at."""
    if backend.hub_connect_ip or app.hub_connect_ip or app.hub_connect_url or app.hub_bind_url:
        return []
    try:
        network = await backend.engine.network(backend.network_name)
    except WorkshopError:
        return []  # said already
    ours = hub_address.gateway(network) if network is not None else ""
    if not ours or not hub_address.is_loopback(app.hub_ip):
        return []
    return [
        Finding(
            "error",
            "hub_ip",
            f"The hub listens at {app.hub_ip} only, where no container can reach it.",
            f'Set c.JupyterHub.hub_ip = "{ours}".',
        )
    ]


def limits_required(probe: WorkshopSpawner) -> bool:
    """Say whether a server would not start where limits cannot be enforced."""
    if probe.limits_policy != "enforce":
        return False
    overrides: Any = probe.group_overrides
    if callable(overrides):
        return True
    named = {key for each in overrides.values() for key in each["spawner_override"]}
    return bool(spec.limits(probe).configured or named & LIMIT_NAMES)


def judged(finding: Finding, *, strict: bool) -> Finding:
    """Weigh a finding about limits by what is configured. strict: see `limits_required`."""
    if finding.level == "ok" or not finding.subject.startswith("limit"):
        return finding
    if not strict:
        return replace(finding, level="warning")
    return replace(finding, level="error", remedy=f"{finding.remedy} {WITHOUT_LIMITS}".strip())


def as_line(finding: Finding, backend: str) -> Finding:
    """Name the backend that a finding is about."""
    return replace(finding, subject=f"{backend}: {finding.subject}")
