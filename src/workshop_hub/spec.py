"""What a spawner's options ask of a backend: checked, filled in, and frozen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from workshop_hub.backends.base import (
    Address,
    Backend,
    Certificates,
    ContainerOptions,
    LaunchSpec,
    LimitsPolicy,
    Owner,
)
from workshop_hub.policy import environment, images, paths, selection
from workshop_hub.policy.limits import Limits
from workshop_hub.policy.volumes import rendered_volumes
from workshop_hub.system.accounts import Account

if TYPE_CHECKING:
    from workshop_hub.spawner import WorkshopSpawner

EVERY_ADDRESS = ("", "0.0.0.0", "::")  # noqa: S104 - to compare with, not to bind


def check_options(spawner: WorkshopSpawner) -> None:
    """Raise ConfigError where the options, taken together, cannot work for any user."""
    namespace = spawner.template_namespace()
    limits(spawner)
    paths.allowed_roots(spawner.allowed_roots, namespace)
    paths.notebook_dir(spawner.notebook_dir, namespace)
    paths.default_url(spawner.default_url, namespace)
    for volumes in (spawner.volumes, spawner.read_only_volumes):
        rendered_volumes(volumes, namespace)
    if not callable(spawner.backend):
        selection.check_backend(spawner.backend, spawner.backends)


def backends_in_use(spawner: WorkshopSpawner) -> set[str]:
    """Return the backends that the configuration names; all of them where it computes them."""
    overrides = spawner.group_overrides
    if callable(spawner.backend) or callable(overrides) or spawner.apply_user_options:
        return set(spawner.backends)
    named = [each["spawner_override"].get("backend") for each in overrides.values()]
    if any(callable(name) for name in named):
        return set(spawner.backends)
    return {spawner.backend, *filter(None, named)}


def limits(spawner: WorkshopSpawner) -> Limits:
    """Return the limits that the options ask for; LimitError where they mean nothing."""
    return Limits(
        cpu_limit=spawner.cpu_limit,
        mem_limit=spawner.mem_limit,
        cpu_guarantee=spawner.cpu_guarantee,
        mem_guarantee=spawner.mem_guarantee,
        pids_limit=spawner.pids_limit,
    )


def launch_spec(
    spawner: WorkshopSpawner, owner: Owner, account: Account, certificates: Certificates | None
) -> LaunchSpec:
    """Return what is to be started, all but its environment.

    Raises ConfigError, DirectoryRefused or OptionRefused.
    """
    namespace = spawner.template_namespace()
    folder = paths.notebook_dir(spawner.notebook_dir, namespace)
    roots = paths.allowed_roots(spawner.allowed_roots, namespace)
    if folder:
        paths.check_inside(folder, roots)
    return LaunchSpec(
        owner=owner,
        account=account,
        limits=limits(spawner),
        limits_policy=cast(LimitsPolicy, spawner.limits_policy),
        cmd=(*spawner.cmd, *spawner.get_args()),
        notebook_dir=folder,
        create_notebook_dir=spawner.create_notebook_dir,
        allowed_roots=roots,
        start_timeout=float(spawner.start_timeout),
        ip=spawner.ip,
        port=spawner.port,
        hub_ip=spawner.hub.ip,
        hub_port=spawner.hub.port,
        certificates=certificates,
        container=_container_options(spawner, namespace),
    )


def server_environment(
    spawner: WorkshopSpawner, backend: Backend, spec: LaunchSpec, address: Address
) -> dict[str, str]:
    """Return the server's whole environment, now that its address is known.

    Raises ConfigError for what no process can be given.
    """
    spawner.hub_connect_url = spawner.hub_connect_url or _hub_url(spawner, address)
    env = spawner.get_env()
    if spec.notebook_dir and "JUPYTERHUB_ROOT_DIR" not in spawner.environment:
        env["JUPYTERHUB_ROOT_DIR"] = spec.notebook_dir
    if backend.is_on_this_machine:
        env = {**environment.of_session(spawner.session_variables), **env}
    else:
        kept = environment.MACHINE_VARIABLES & set(spawner.env_keep)
        for name in kept - set(spawner.environment):
            env.pop(name, None)
    return environment.checked(env)


def value(option: Any, spawner: WorkshopSpawner) -> Any:
    """Return an option's value; call it first where it is a function of the spawner."""
    return option(spawner) if callable(option) else option


def _container_options(spawner: WorkshopSpawner, namespace: Mapping[str, str]) -> ContainerOptions:
    offered = images.offered(value(spawner.allowed_images, spawner))
    writable, read_only = rendered_volumes(spawner.volumes, namespace)
    _, more = rendered_volumes(spawner.read_only_volumes, namespace, read_only=True)
    return ContainerOptions(
        image=images.choose(spawner.image, offered, spawner.user_options.get("image")),
        pull_policy=spawner.pull_policy,
        network_name=spawner.network_name,
        volumes=writable,
        read_only_volumes={**read_only, **more},
        extra_create_kwargs=value(spawner.extra_create_kwargs, spawner),
        extra_host_config=value(spawner.extra_host_config, spawner),
    )


def _hub_url(spawner: WorkshopSpawner, address: Address) -> str | None:
    """Return where the server reaches the hub; None leaves it to the hub's configuration."""
    hub = spawner.hub
    if hub.connect_ip or hub.connect_url:
        return None
    if address.hub_url or hub.ip not in EVERY_ADDRESS:
        return address.hub_url
    return f"{hub.proto}://127.0.0.1:{hub.port}"
