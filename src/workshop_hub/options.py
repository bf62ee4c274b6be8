"""The spawner's options, and trait types whose errors name the option and say what to write."""

from __future__ import annotations

from typing import Any

from jupyterhub.traitlets import ByteSpecification
from traitlets import (
    Bool,
    Callable,
    Dict,
    Enum,
    Float,
    HasTraits,
    Integer,
    List,
    TraitError,
    Unicode,
    Union,
    default,
)

from workshop_hub.errors import ConfigError
from workshop_hub.policy import environment, images


class InvalidOption(ConfigError, TraitError):
    """An option has a value that cannot work.

    As a TraitError it ends the hub's start with its message; as a ConfigError it is shown to the
    user where a group's override brings the value at a server's start.
    """


class Memory(ByteSpecification):
    """Bytes, as a number or with a unit: "512M", "2G"."""

    def validate(self, obj: object, value: object) -> int:
        """Return bytes; InvalidOption for anything that is no amount of memory."""
        try:
            if isinstance(value, bool):
                raise TypeError("a truth value")
            return int(super().validate(obj, value))
        except (TraitError, ValueError, OverflowError, TypeError, IndexError) as exc:
            raise InvalidOption(
                f"{self.name} is {value!r}, which is no amount of memory.",
                remedy='Give bytes with a unit K, M, G or T, for example "512M" or "2G".',
            ) from exc


class Cores(Float):  # type: ignore[type-arg] # traitlets 5.9 has no parameters
    """CPU cores: 0.5, 2."""

    def validate(self, obj: object, value: object) -> float:
        """Return cores; InvalidOption for anything that is no number."""
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return float(value)
        raise InvalidOption(
            f"{self.name} is {value!r}, which is no number of cores.",
            remedy="Give a number without quotes, for example 0.5 or 2.",
        )


class ServerOptions(HasTraits):
    """The options of WorkshopSpawner beyond the hub's own, and those whose meaning is sharper.

    All that a group, a profile or a user may vary is here: the hub's `group_overrides` and
    `apply_user_options` set them on the spawner.
    """

    backend = Union(
        [Callable(), Unicode()],
        default_value="process",
        help="""How servers are started.

        "process": as a local process of the user, through sudo. "docker": as a container with
        the user's uid and home. A function is given the spawner and returns one of the two.

        Example: `c.WorkshopSpawner.backend = "docker"`.
        """,
    ).tag(config=True)

    cpu_limit = Cores(
        None,
        allow_none=True,
        help="""CPU cores that a server may use at most; None for no limit, 0 is refused.

        Example: `c.WorkshopSpawner.cpu_limit = 2`.
        """,
    ).tag(config=True)

    mem_limit = Memory(
        None,
        help="""Memory that a server may use at most, in bytes or with a unit K, M, G, T.

        None for no limit, 0 is refused. Above it the kernel ends the process that uses the most.
        Example: `c.WorkshopSpawner.mem_limit = "2G"`.
        """,
    ).tag(config=True)

    cpu_guarantee = Cores(
        None,
        allow_none=True,
        help="""CPU cores that a server gets when the machine is busy; None or 0 for none.

        It is a weight: servers share a busy machine in proportion to it.
        Example: `c.WorkshopSpawner.cpu_guarantee = 0.5`.
        """,
    ).tag(config=True)

    mem_guarantee = Memory(
        None,
        help="""Memory that the kernel takes from a server last, in bytes or with a unit K, M, G, T.

        None or 0 for none. Example: `c.WorkshopSpawner.mem_guarantee = "512M"`.
        """,
    ).tag(config=True)

    pids_limit = Integer(
        None,
        allow_none=True,
        help="""Processes and threads that a server may have at most.

        None for 4096 where the machine can enforce it; 0 for no limit.
        Example: `c.WorkshopSpawner.pids_limit = 1000`.
        """,
    ).tag(config=True)

    limits_policy = Enum(
        ("enforce", "warn"),
        default_value="enforce",
        help="""What happens where the machine cannot enforce a limit that is set.

        "enforce": the server does not start, and says why. "warn": it starts without that limit,
        and the hub's log says so; for a laptop.
        Example: `c.WorkshopSpawner.limits_policy = "warn"`.
        """,
    ).tag(config=True)

    create_notebook_dir = Bool(
        False,
        help="""Whether to make `notebook_dir`, as the user, where it is missing.

        Example: `c.WorkshopSpawner.create_notebook_dir = True`.
        """,
    ).tag(config=True)

    allowed_roots = List(
        Unicode(),
        help="""Folders that `notebook_dir` must lie in, after symlinks; empty for the home alone.

        `~`, `{username}`, `{servername}`, `{home}` and `{uid}` are filled in.
        Example: `c.WorkshopSpawner.allowed_roots = ["~", "/srv/courses"]`.
        """,
    ).tag(config=True)

    image = Unicode(
        "workshop-hub/singleuser",
        help="""Image that containers are made from; it must have `jupyterhub-singleuser`.

        Example: `c.WorkshopSpawner.image = "quay.io/jupyter/scipy-notebook:latest"`.
        """,
    ).tag(config=True)

    allowed_images = Union(
        [Dict(), List(Unicode()), Callable()],
        default_value={},
        help="""Images that users may choose from; empty for no choice.

        A list of images, or a dictionary of name -> image, or a function of the spawner.
        Example: `c.WorkshopSpawner.allowed_images = {"Python": "course/py", "R": "course/r"}`.
        """,
    ).tag(config=True)

    pull_policy = Enum(
        ("ifnotpresent", "always", "never"),
        default_value="ifnotpresent",
        help="""When an image is pulled before a container is made from it.

        "ifnotpresent": where the engine does not have it. "always": before every start. "never":
        not at all; a start from an image that is absent fails.
        Example: `c.WorkshopSpawner.pull_policy = "never"`.
        """,
    ).tag(config=True)

    network_name = Unicode(
        "",
        help="""Docker network of the containers; empty for the backend's default.

        Example: `c.WorkshopSpawner.network_name = "workshop"`.
        """,
    ).tag(config=True)

    volumes = Dict(
        help="""What containers get mounted besides the home: source -> folder in the container.

        A source that begins with "/" or "~" is a folder of the machine and must exist; any other
        is a named volume. `{username}` and the other fields are filled in on both sides.
        Example: `c.WorkshopSpawner.volumes = {"/srv/data": {"bind": "/data", "mode": "ro"}}`.
        """,
    ).tag(config=True)

    read_only_volumes = Dict(
        help="""Like `volumes`, mounted read-only.

        Example: `c.WorkshopSpawner.read_only_volumes = {"/srv/data": "/data"}`.
        """,
    ).tag(config=True)

    extra_create_kwargs = Union(
        [Callable(), Dict()],
        default_value={},
        help="""More arguments for the request to make the container, as docker-py takes them.

        Example: `c.WorkshopSpawner.extra_create_kwargs = {"hostname": "workshop"}`.
        """,
    ).tag(config=True)

    extra_host_config = Union(
        [Callable(), Dict()],
        default_value={},
        help="""More host configuration for the container, as docker-py takes it.

        Example: `c.WorkshopSpawner.extra_host_config = {"shm_size": "256m"}`.
        """,
    ).tag(config=True)

    @default("env_keep")
    def _local_environment(self) -> list[str]:
        return list(environment.KEPT)

    @default("options_form")
    def _image_form(self) -> Any:
        return _image_form

    @default("options_from_form")
    def _read_image(self) -> Any:
        return _options_from_form


def _image_form(spawner: Any) -> str:
    """Return the choice of images, where containers are made and there is a choice."""
    allowed = spawner.allowed_images
    offered = images.offered(allowed(spawner) if callable(allowed) else allowed)
    return images.form(offered, spawner.image) if offered else ""


def _options_from_form(form: dict[str, list[str]]) -> dict[str, str]:
    return {"image": form["image"][0]} if form.get("image") else {}
