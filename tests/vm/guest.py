"""The machine that these tests run on, as root: units, accounts, and what the kernel says."""

from __future__ import annotations

import subprocess
import sys
from contextlib import suppress
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
HOLDER = CGROUPS / "workshop.slice/workshop-users.service"
USERS = HOLDER / "users"
"""Where the groups of the servers are."""

HUB_USER = "hub"
STATE = Path("/var/lib/workshop-hub")
"""Folder that the hub's unit runs in."""

UNITS = Path("/etc/systemd/system")
SUDOERS = Path("/etc/sudoers.d/workshop-hub")
CONFIG = Path("/etc/jupyterhub/jupyterhub_config.py")
BIN = Path(sys.executable).parent
LAUNCHER = Path("/run/workshop-hub/launcher.sock")
"""Where the warm launcher listens, in the units that have one."""

PEOPLE = ("ana", "ben", "cleo")


def run(*command: str | Path, timeout: float = 60, **options: object) -> str:
    """Run a command that must succeed; return what it prints."""
    done = subprocess.run(
        [str(word) for word in command],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        **options,
    )
    assert done.returncode == 0, f"{command}: {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout


def systemctl(*words: str) -> str:
    return run("systemctl", *words)


def install(launcher: str = "sudo") -> None:
    """Install the units and the sudo rule as an administrator does."""
    words = [word for name in PEOPLE for word in ("--accounts", name)]
    words += ["--memory-low=100M", "--output=/", f"--launcher={launcher}"]
    words += ["--uids=1000-1999"] if launcher == "warm" else []
    run(BIN / "workshop-hub", "units", f"--hub-user={HUB_USER}", *words)
    systemctl("daemon-reload")


def as_hub(
    *command: str | Path, properties: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command where and as the hub runs: in a unit of its own, in the hub's slice."""
    unit = {
        "User": HUB_USER,
        "Slice": "workshop.slice",
        "StateDirectory": "workshop-hub",
        "WorkingDirectory": str(STATE),
        "KillMode": "process",
        **(properties or {}),
    }
    words = [f"--property={name}={value}" for name, value in unit.items()]
    return subprocess.run(
        ["systemd-run", "--quiet", "--pipe", "--wait", "--collect", *words, *map(str, command)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        stdin=subprocess.DEVNULL,
    )


def value(group: Path, file: str) -> str:
    return (group / file).read_text().strip()


def table(group: Path, file: str) -> dict[str, int]:
    """Read a file of lines `name number`."""
    rows = (line.split() for line in value(group, file).splitlines())
    return {name: int(number) for name, number in rows}


def processes(group: Path) -> list[int]:
    return [int(line) for line in value(group, "cgroup.procs").split()]


def start_holder() -> None:
    """Start the unit that holds the servers; return when the warm launcher, if any, has imported.

    What else is started meanwhile would take too long for the one processor of the guest.
    """
    systemctl("start", "workshop-users.service")
    if LAUNCHER.exists():
        run(BIN / "workshop-hub", "launcher", "status", f"--socket={LAUNCHER}", timeout=300)


def warm_launcher() -> int:
    """Return the process of the warm launcher; 0 where there is none."""
    for pid in processes(HOLDER / "holder"):
        command = b""
        with suppress(FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
        if b"/forkserver.py\0" in command and b"/hold-users\0" not in command:
            return pid
    return 0


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def groups() -> list[Path]:
    """Return the groups of servers, what is left of ended ones included; not the hub's trials."""
    return [each for each in USERS.iterdir() if each.is_dir() and each.name[0] != "."]
