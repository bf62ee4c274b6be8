"""Who takes part, and with what configuration: nothing is set but what is needed to start."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

PREFIX = "wshbench"
"""How the names of all containers begin, so that they are found again."""

CGROUP = "workshop-bench"
"""Control group of our process backend, removed at the end of each hub."""

SPARE_MB = 1500
"""Memory to keep free for the machine, the hub and its proxy."""

CELL_MB = 90
"""What a kernel takes, roughly."""


@dataclass(frozen=True)
class Contender:
    """One way to start servers.

    config: for the hub, with the fields {image} and {gateway} where it wants containers.
    mb: memory that a user needs, a little above what has been seen; only to leave out what
    would not fit. crowd: whether it runs with more users than a class by default.
    image: "ours", "plain" for one that has nothing but what pip installs, "" for no container.
    """

    name: str
    title: str
    config: str
    mb: int
    crowd: bool = False
    image: str = ""
    ours: bool = False
    serves: bool = True

    def need_mb(self, users: int, cells: int) -> float:
        """Return the memory that a class of it needs, with so many kernels at a time."""
        return SPARE_MB + users * self.mb + cells * CELL_MB


FLOOR = Contender(
    "floor",
    "Hub and proxy alone (no servers)",
    """
sys.path.insert(0, {tests!r})
c.JupyterHub.spawner_class = "bench.floor.FloorSpawner"
""",
    mb=2,
    crowd=True,
    serves=False,
)

LOCAL = Contender(
    "local",
    "LocalProcessSpawner",
    """
c.JupyterHub.spawner_class = "jupyterhub.spawner.LocalProcessSpawner"
""",
    mb=120,
)

SUDOSPAWNER = Contender(
    "sudospawner",
    "SudoSpawner",
    """
c.JupyterHub.spawner_class = "sudospawner.SudoSpawner"
""",
    mb=180,
)

SYSTEMUSER = Contender(
    "systemuser",
    "SystemUserSpawner",
    """
c.JupyterHub.spawner_class = "dockerspawner.SystemUserSpawner"
c.JupyterHub.hub_ip = {gateway!r}
c.DockerSpawner.image = {image!r}
c.DockerSpawner.prefix = {prefix!r}
c.DockerSpawner.network_name = "bridge"
c.DockerSpawner.use_internal_ip = True
c.DockerSpawner.remove = True
""",
    mb=135,
    image="plain",
)

SUDO = Contender(
    "sudo",
    "WorkshopSpawner, sudo",
    """
c.JupyterHub.spawner_class = "workshop"
c.ProcessBackend.launcher = "sudo"
c.ProcessBackend.cgroup_parent = {cgroup!r}
""",
    mb=110,
    crowd=True,
    ours=True,
)

WARM = Contender(
    "warm",
    "WorkshopSpawner, warm",
    """
c.JupyterHub.spawner_class = "workshop"
c.ProcessBackend.launcher = "warm"
c.ProcessBackend.cgroup_parent = {cgroup!r}
""",
    mb=45,
    crowd=True,
    ours=True,
)

DOCKER = Contender(
    "docker",
    "WorkshopSpawner, Docker",
    """
c.JupyterHub.spawner_class = "workshop"
c.WorkshopSpawner.backend = "docker"
c.WorkshopSpawner.image = {image!r}
c.JupyterHub.hub_ip = {gateway!r}
c.DockerBackend.prefix = {prefix!r}
""",
    mb=120,
    image="ours",
    ours=True,
)

CONTENDERS = (FLOOR, WARM, SUDO, LOCAL, SUDOSPAWNER, DOCKER, SYSTEMUSER)


class UnknownContender(ValueError):
    """There is no contender of that name."""


def chosen(names: Iterable[str]) -> tuple[Contender, ...]:
    """Return the contenders of these names, in our order; all for no names."""
    wanted = set(names)
    known = {each.name for each in CONTENDERS}
    if unknown := wanted - known:
        raise UnknownContender(
            f"No contender is called {', '.join(sorted(unknown))}; there are: "
            f"{', '.join(each.name for each in CONTENDERS)}."
        )
    return tuple(each for each in CONTENDERS if not wanted or each.name in wanted)


def in_round(contenders: tuple[Contender, ...], number: int) -> tuple[Contender, ...]:
    """Return the order of a round: each begins with another, so that none is always the first."""
    shift = number % len(contenders)
    return contenders[shift:] + contenders[:shift]
