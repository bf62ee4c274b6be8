"""The administrator's extra_create_kwargs and extra_host_config: merged last, within bounds.

What would quietly undo a limit, lose the reason why a server ended, or let a user become root is
refused, and the refusal names the option that is meant for it. Nothing is dropped silently.
"""

from __future__ import annotations

from collections.abc import Mapping

from workshop_hub.backends.docker.container import Mount, Request
from workshop_hub.errors import ConfigError

_LIMIT = "set c.WorkshopSpawner.{}, which is also checked and shown to users"
_REASON = "the reason why a server ended would be lost"
_ROOT = "it would let a user of a container become root on this machine"

REFUSED_CREATE: Mapping[str, str] = {
    "name": "servers are found by the name we give",
    "image": "set c.WorkshopSpawner.image",
    "command": "set c.WorkshopSpawner.cmd and args",
    "host_config": "use extra_host_config",
    "detach": "a server always runs by itself",
    "tty": "the log of a server is read, and a terminal would mix it up",
}
"""What extra_create_kwargs may not have, and why, or what is meant for it."""

REFUSED_HOST: Mapping[str, str] = {
    "mem_limit": _LIMIT.format("mem_limit"),
    "memswap_limit": _LIMIT.format("mem_limit"),
    "mem_reservation": _LIMIT.format("mem_guarantee"),
    "kernel_memory": _LIMIT.format("mem_limit"),
    "nano_cpus": _LIMIT.format("cpu_limit"),
    "cpu_quota": _LIMIT.format("cpu_limit"),
    "cpu_period": _LIMIT.format("cpu_limit"),
    "cpu_count": _LIMIT.format("cpu_limit"),
    "cpu_percent": _LIMIT.format("cpu_limit"),
    "cpu_shares": _LIMIT.format("cpu_guarantee"),
    "pids_limit": _LIMIT.format("pids_limit"),
    "oom_kill_disable": "a server at its memory limit would hang instead of being ended",
    "cgroup_parent": "set c.DockerBackend.cgroup_parent",
    "read_only": "set c.DockerBackend.read_only",
    "network_mode": "set c.WorkshopSpawner.network_name",
    "port_bindings": "set c.DockerBackend.publish",
    "publish_all_ports": "set c.DockerBackend.publish",
    "log_config": "the log is read by us; set c.DockerBackend.log_max_size and log_max_files",
    "auto_remove": _REASON,
    "restart_policy": "the hub starts servers; the engine would start one with an old token",
    "binds": "use c.WorkshopSpawner.volumes, whose folders are checked before they are mounted",
    "mounts": "use c.WorkshopSpawner.volumes, whose folders are checked before they are mounted",
    "privileged": _ROOT,
    "pid_mode": "ending the container would no longer end all that the user started",
}
"""What extra_host_config may not have, and why, or what is meant for it."""


def merge(request: Request, create: Mapping[str, object], host: Mapping[str, object]) -> Request:
    """Return the request with the extras. Lists and dictionaries are added to, values replaced.

    Raises ConfigError for what is refused.
    """
    _refuse("extra_create_kwargs", create, REFUSED_CREATE)
    _refuse("extra_host_config", host, REFUSED_HOST)
    for option in _texts(host.get("security_opt")):
        name, _, setting = option.replace("=", ":").partition(":")
        if name == "no-new-privileges" and setting.lower() in ("false", "f", "0"):
            raise _refusal("extra_host_config", f"security_opt {option}", _ROOT)
    merged = Request(
        request.name, _merged(request.create, create), _merged(request.host, host, "cap_drop")
    )
    for label, value in _mapping(request.create["labels"]).items():
        if _mapping(merged.create["labels"]).get(label) != value:
            raise _refusal("extra_create_kwargs", f"label {label}", "servers are found by it")
    return merged


def check_identity(request: Request, mounts: tuple[Mount, ...], uid: int) -> None:
    """Raise ConfigError unless the container runs as the account, and that is not root.

    As root, even without any capability, a program that is written into a mounted folder can be
    made setuid-root on the host.
    """
    user = str(request.create.get("user") or "").partition(":")[0]
    writable = [mount.source for mount in mounts if mount.is_bind and not mount.read_only]
    if user in ("", "0", "root") and writable:
        raise ConfigError(
            f"The container would run as root with the folder {writable[0]} of this machine "
            "writable inside; that lets its user become root on the machine.",
            remedy='Remove "user" from extra_create_kwargs.',
        )
    if user != str(uid):
        raise ConfigError(
            f'extra_create_kwargs sets user to "{user}", but the server belongs to uid {uid}.',
            remedy='Remove "user" from extra_create_kwargs, or change only the group: "UID:GID".',
        )


def _refuse(option: str, extras: Mapping[str, object], refused: Mapping[str, str]) -> None:
    for key in extras:
        # False, None and their like ask for nothing.
        if key in refused and extras[key]:
            raise _refusal(option, key, refused[key])


def _refusal(option: str, key: str, why: str) -> ConfigError:
    return ConfigError(f"{option} sets {key}, which is not possible: {why}.")


def _merged(
    ours: Mapping[str, object], extras: Mapping[str, object], *replaced: str
) -> dict[str, object]:
    result = dict(ours)
    for key, value in extras.items():
        old = result.get(key)
        if isinstance(old, Mapping) and isinstance(value, Mapping) and key not in replaced:
            result[key] = {**old, **value}
        elif isinstance(old, list) and isinstance(value, list | tuple) and key not in replaced:
            result[key] = [*old, *(item for item in value if item not in old)]
        elif isinstance(old, Mapping | list) and value is not None and key not in replaced:
            kind = "dictionary" if isinstance(old, Mapping) else "list"
            raise ConfigError(
                f"The extra {key} is {value!r}; it must be a {kind}, which is added to ours."
            )
        else:
            result[key] = value
    return result


def _texts(value: object) -> list[str]:
    return [str(item) for item in value] if isinstance(value, list | tuple) else []


def _mapping(value: object) -> Mapping[str, object]:
    return value if isinstance(value, Mapping) else {}
