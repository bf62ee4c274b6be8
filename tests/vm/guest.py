"""The machine that these tests run on, as root: units, accounts, and what the kernel says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
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


def install() -> None:
    """Install the units and the sudo rule as an administrator does."""
    accounts = [word for name in PEOPLE for word in ("--accounts", name)]
    to_root = ("--memory-low=100M", "--output=/")
    run(BIN / "workshop-hub", "units", f"--hub-user={HUB_USER}", *accounts, *to_root)
    coverage = {name: text for name, text in os.environ.items() if name.startswith("COVERAGE")}
    drop_in("workshop-hub.service", "coverage", "Service", environment_lines(coverage))
    systemctl("daemon-reload")


def environment_lines(variables: dict[str, str]) -> str:
    return "".join(f"Environment={json.dumps(f'{k}={v}')}\n" for k, v in variables.items())


def drop_in(unit: str, name: str, section: str, text: str) -> Path:
    """Add to a unit; return the file. Takes effect with `systemctl daemon-reload`."""
    folder = Path(f"/run/systemd/system/{unit}.d")
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{name}.conf"
    file.write_text(f"[{section}]\n{text}")
    return file


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
    words += [f"--setenv={name}" for name in os.environ if name.startswith("COVERAGE")]
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


def groups() -> list[Path]:
    """Return the groups of servers, what is left of ended ones included."""
    return [each for each in USERS.iterdir() if each.is_dir()]
