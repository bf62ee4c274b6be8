"""Finds the part of the cgroup tree that a hub may use, and tries what it can do there."""

from __future__ import annotations

import errno
import os
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from workshop_hub.errors import LimitsNotEnforceable
from workshop_hub.system import cgroup
from workshop_hub.system.cgroup import CONTROLLERS, Mount

HOLDER = "workshop.slice/workshop-users.service"
"""The delegated group that `workshop-hub units` sets up, below the mount."""

ROOT_HOLDER = "workshop-hub"
"""What a hub that is root makes for itself where nothing was set up."""

USERS = "users"
"""The group below the holder in which the servers' groups are: the holder's own process must not
be beside them, and the holder cannot have both processes and controllers."""


@dataclass(frozen=True)
class Tree:
    """A part of the cgroup tree that servers' groups can be made in.

    users: the folder. controllers: those that work there. lacks: why the others do not, a
    sentence; remedy: what to do about that.
    """

    mount: Mount
    users: Path
    controllers: frozenset[str]
    lacks: str = ""
    remedy: str = ""

    @property
    def is_the_hubs_own(self) -> bool:
        """Whether a hub that is root made all of it, and no administrator decides about it."""
        return self.users.parent == self.mount.path / ROOT_HOLDER

    def protect(self) -> None:
        """Claim for the hub's own groups what the servers in them are guaranteed, and no more.

        With less no guarantee holds, with more all servers are protected alike. Where the groups
        are delegated, the administrator has claimed it for the unit.
        """
        if not self.is_the_hubs_own:
            return
        servers = (self.users / name for name in cgroup.names(self.users))
        total = sum(cgroup.number(server, "memory.low") or 0 for server in servers)
        for group in (self.users.parent, self.users):
            with suppress(OSError):
                cgroup.write(group / "memory.low", str(total))

    def unprotected(self) -> list[Path]:
        """Return the groups above the servers without memory.low: no guarantee holds in them."""
        if self.is_the_hubs_own or "memory" not in self.controllers:
            return []
        inner = self.users.relative_to(self.mount.path).parts
        groups = [self.mount.path.joinpath(*inner[:depth]) for depth in range(1, len(inner) + 1)]
        return [
            group for group in groups if cgroup.texts(group, ["memory.low"]) == {"memory.low": "0"}
        ]


def open_tree(configured: str, mount: Mount | None) -> Tree:
    """Make the part of the tree ready that is `configured`, or that is found; try it for real.

    configured: name of the group below the mount; empty to look for one.
    Blocks for some milliseconds. Raises LimitsNotEnforceable, which says why there is none.
    """
    if mount is None:
        raise LimitsNotEnforceable(
            "No cgroup v2 is mounted on this machine.",
            remedy="Boot with systemd.unified_cgroup_hierarchy=1, or use the Docker backend.",
        )
    holder = _holder(configured, mount)
    try:
        holder.mkdir(exist_ok=True)
        users = holder / USERS
        users.mkdir(exist_ok=True)
    except OSError as exc:
        raise cgroup.explain(exc, holder) from exc
    trouble = [_hand_down(group) for group in _chain(holder, mount)]
    _follow(holder, users)
    controllers = frozenset(_words(users / "cgroup.subtree_control")) & set(CONTROLLERS)
    _try(users, mount)
    if controllers == set(CONTROLLERS):
        return Tree(mount, users, controllers)
    missing = ", ".join(sorted(set(CONTROLLERS) - controllers))
    reason = next((item for item in trouble if item), None)
    if reason is None:
        return Tree(mount, users, controllers, *_not_there(holder, mount, missing))
    return Tree(mount, users, controllers, f"No {missing} controller: {reason}", reason.remedy)


def _holder(configured: str, mount: Mount) -> Path:
    if configured:
        return mount.path / configured.strip("/")
    holder = mount.path / HOLDER
    if holder.is_dir():
        return holder
    if os.geteuid() == 0:
        return mount.path / ROOT_HOLDER
    raise LimitsNotEnforceable(
        f"The hub's account has no part of the cgroup tree to itself: {holder} does not exist.",
        remedy="Install the units that `workshop-hub units` writes, or set "
        "ProcessBackend.cgroup_parent to a group that is delegated to the hub's account.",
    )


def _chain(holder: Path, mount: Mount) -> list[Path]:
    """Return the groups that must hand controllers down, from the top."""
    if holder == mount.path / ROOT_HOLDER:
        return [mount.path, holder, holder / USERS]
    return [holder, holder / USERS]


def _hand_down(group: Path) -> LimitsNotEnforceable | None:
    """Let the group give its children the controllers it has; return the refusal.

    All at once, so that one refusal is a refusal of all: beside a process memory is refused
    (EBUSY), but cpu alone would be accepted, and make the group a threaded one, whose children
    can hold no processes at all (cgroup-v2.html, "Threads").
    """
    present = _words(group / "cgroup.controllers")
    given = _words(group / "cgroup.subtree_control")
    missing = [f"+{name}" for name in CONTROLLERS if name in present and name not in given]
    try:
        if missing:
            cgroup.write(group / "cgroup.subtree_control", " ".join(missing))
    except OSError as exc:
        for one in missing if exc.errno != errno.EBUSY else ():
            with suppress(OSError):
                cgroup.write(group / "cgroup.subtree_control", one)
        return cgroup.explain(exc, group / "cgroup.subtree_control")
    return None


def _follow(holder: Path, users: Path) -> None:
    """Protect as much memory for all servers as the holder has.

    With less, guarantees do not hold. With more they mean nothing where the holder has a limit:
    what no server has claimed of it protects all of them alike (memory_recursiveprot).
    """
    with suppress(OSError):
        cgroup.write(users / "memory.low", (holder / "memory.low").read_text().strip())


def _not_there(holder: Path, mount: Mount, missing: str) -> tuple[str, str]:
    if set(CONTROLLERS) <= set(_words(mount.path / "cgroup.controllers")):
        return (
            f"No {missing} controller in {holder}: it is not delegated.",
            "Add Delegate=cpu memory pids to the unit, and restart it.",
        )
    return (
        f"No {missing} controller in cgroup v2: this machine uses them by cgroup v1.",
        "Boot with systemd.unified_cgroup_hierarchy=1, or use the Docker backend.",
    )


def _try(users: Path, mount: Mount) -> None:
    """Make a group, put a process into it, and kill it there.

    What access(2) says is not what happens: read-only mounts, and the rights on the common
    ancestor's cgroup.procs that a move needs, show only when tried.
    """
    group = users / f".probe-{os.getpid()}"
    try:
        group.mkdir(exist_ok=True)
    except OSError as exc:
        raise cgroup.explain(exc, group) from exc
    try:
        _try_group(group, mount)
    finally:
        deadline = time.monotonic() + 2
        while not cgroup.remove(group) and time.monotonic() < deadline:
            time.sleep(0.005)


def _try_group(group: Path, mount: Mount) -> None:
    if not (group / "cgroup.kill").exists():
        raise LimitsNotEnforceable(
            f"This kernel ({os.uname().release}) has no cgroup.kill; it came with Linux 5.14.",
            remedy="Use a newer kernel, or the Docker backend.",
        )
    with subprocess.Popen(["/bin/cat"], stdin=subprocess.PIPE) as process:
        try:
            cgroup.write(group / "cgroup.procs", str(process.pid))
        except OSError as exc:
            outside = _outside(group, mount) if exc.errno == errno.EACCES else None
            raise outside or cgroup.explain(exc, group / "cgroup.procs") from exc
        finally:
            process.kill()


def _outside(group: Path, mount: Mount) -> LimitsNotEnforceable | None:
    """Say that this process is not in the holder's slice; None where it is, or there is none.

    The kernel wants the right to write cgroup.procs of the group above both places, and above
    every slice is the root of all groups, which is nobody's to write.
    """
    lines = Path("/proc/self/cgroup").read_text(errors="surrogateescape").splitlines()
    own = next((line[3:] for line in lines if line.startswith("0::")), "/")
    around = group.parents[2]
    if around.suffix != ".slice" or f"{own}/".startswith(f"{mount.name_of(around)}/"):
        return None
    return LimitsNotEnforceable(
        f"This process is in the cgroup {own}, and it can start servers in {group.parent} only "
        f"from within {around.name}.",
        remedy=f"Add Slice={around.name} to the hub's unit. To look from a shell: systemd-run "
        f"--pty --uid=HUB_USER --slice={around.name} workshop-hub doctor -f CONFIG",
    )


def _words(file: Path) -> list[str]:
    try:
        return file.read_text().split()
    except OSError:
        return []
