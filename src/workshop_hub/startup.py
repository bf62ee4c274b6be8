"""What happens once, when a hub that uses our spawner loads its configuration."""

from __future__ import annotations

import asyncio
import functools
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from traitlets import TraitError

from workshop_hub import misspelt, running_hub, spec
from workshop_hub.errors import ConfigError, WorkshopError, choices
from workshop_hub.options import InvalidOption
from workshop_hub.pages import add_templates
from workshop_hub.policy.ending import Ending
from workshop_hub.roster import Roster

if TYPE_CHECKING:
    from jupyterhub.app import JupyterHub

    from workshop_hub.spawner import WorkshopSpawner


def watch() -> None:
    """Have the hub, if this is one, call `prepare` once its configuration is loaded.

    JupyterHub makes a spawner only for a server; with none running nothing would read our
    options before the first user asks. `init_hub` comes after the whole configuration is loaded
    and before the hub makes its pages. There is no object to observe yet where the spawner is
    named by its entry point: JupyterHub imports all of them while it is being made itself.
    """
    module = sys.modules.get("jupyterhub.app")
    if module is not None:
        module.JupyterHub.init_hub = _preparing(module.JupyterHub.init_hub)


def _preparing(init_hub: Callable[[JupyterHub], None]) -> Callable[[JupyterHub], None]:
    @functools.wraps(init_hub)
    def init_and_prepare(app: JupyterHub) -> None:
        init_hub(app)
        _on_hub(app)

    return init_and_prepare


def _on_hub(app: JupyterHub) -> None:
    from workshop_hub.spawner import WorkshopSpawner

    if not issubclass(app.spawner_class, WorkshopSpawner):
        return
    try:
        prepare(app, app.spawner_class)
    except TraitError as exc:
        app.log.critical("Bad config encountered during initialization: %s", exc)
        app.exit(1)


def prepare(app: JupyterHub, spawner_class: type[WorkshopSpawner]) -> None:
    """Check the options, add our pages, and look for left-over servers once the hub listens.

    Raises InvalidOption, which ends the hub's start with its message.
    """
    for error in misspelt.sections(app):
        app.log.error("%s", error)
    probe = check_options(app, spawner_class)
    add_pages(app)
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        return  # a subcommand such as `jupyterhub token`: no hub is about to run
    app.workshop_hub_startup = loop.create_task(_after_start(app, probe))


def check_options(app: JupyterHub, spawner_class: type[WorkshopSpawner]) -> WorkshopSpawner:
    """Make a spawner of the configuration, and one for each group's overrides; return the first."""
    try:
        probe = spawner_class(parent=app)
        probe.check_options()
        overrides = probe.group_overrides
        for name, override in overrides.items() if isinstance(overrides, dict) else ():
            _check_override(spawner_class(parent=app), name, override)
    except InvalidOption:
        raise
    except ConfigError as exc:
        raise InvalidOption(exc.message, remedy=exc.remedy) from exc
    return probe


def _check_shape(name: str, override: Any) -> None:
    """Raise ConfigError where the hub could not read a group's overrides."""
    given = override if isinstance(override, dict) else {}
    is_sound = isinstance(given.get("groups"), (list, tuple, set, frozenset))
    if not is_sound or not isinstance(given.get("spawner_override"), dict):
        found = f"a dictionary with {choices(map(str, given))}" if given else repr(override)
        raise ConfigError(
            f'group_overrides["{name}"] must have a list "groups" and a dictionary '
            f'"spawner_override"; it is {found}.',
            remedy='For example {"groups": ["teachers"], "spawner_override": {"mem_limit": "4G"}}.',
        )


def _check_override(spawner: WorkshopSpawner, name: str, override: Any) -> None:
    _check_shape(name, override)
    fixed = {
        key: value for key, value in override["spawner_override"].items() if not callable(value)
    }
    unknown = [key for key in fixed if not spawner.has_trait(key)]
    if unknown:
        raise ConfigError(
            f'group_overrides["{name}"] sets {", ".join(unknown)}, which is no option of the '
            "spawner.",
            remedy="Look for a typing error; docs/reference/spawner.md lists the options.",
        )
    try:
        spawner._apply_overrides(fixed)
        spawner.check_options()
    except ConfigError as exc:
        raise ConfigError(f'group_overrides["{name}"]: {exc.message}', remedy=exc.remedy) from exc


def add_pages(app: JupyterHub) -> None:
    """Have every page of the hub tell the user what became of the user's servers."""
    add_templates(app)
    app.template_vars = {**app.template_vars, "workshop_notices": notices}


def notices(user: Any) -> list[dict[str, str]]:
    """Return what `user` should know of the user's servers.

    Each has server, message, level (of Bootstrap's alerts), at (ISO 8601), time and log.
    """
    spawners = user.orm_user.orm_spawners.values() if user else ()
    return [found for each in spawners if (found := _notice(user, each))]


def _notice(user: Any, orm_spawner: Any) -> dict[str, str] | None:
    name = orm_spawner.name
    spawner = user.spawners.get(name)
    if spawner is not None and (spawner.active or spawner._failed):
        message = getattr(spawner, "notice", "") if spawner.ready else ""
        return {"server": name, "message": message, "level": "warning"} if message else None
    ending = Ending.from_state((orm_spawner.state or {}).get("ended"))
    if ending is None:
        return None
    return {
        "server": name,
        "message": f"Your server has ended. {ending.message}",
        "level": "info" if ending.expected else "warning",
        "at": ending.at,
        "time": ending.at.replace("T", " ").replace("+00:00", " UTC"),
        "log": ending.log,
    }


async def _after_start(app: JupyterHub, probe: WorkshopSpawner) -> None:
    if not await running_hub.listens(app):
        return
    roster = Roster.of(app.tornado_settings, probe.backends, config=app.config, log=app.log)
    names = spec.backends_in_use(probe)
    try:
        await roster.end_orphans(
            names, lambda owner: running_hub.has_server(app, owner.user, owner.server)
        )
        for name in names:  # afterwards: it waits until a warm launcher has imported
            for finding in await roster.backend(name).check():
                if finding.level != "ok":
                    app.log.warning("%s: %s %s", finding.subject, finding.message, finding.remedy)
    except WorkshopError as exc:
        app.log.error("The check at the hub's start failed; the hub goes on: %s", exc)
    except Exception:
        app.log.exception("The check at the hub's start failed; the hub goes on")
