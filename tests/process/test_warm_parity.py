"""A server that was forked from the warm launcher cannot be told from one that was executed."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from harness import PREFIX, ProcessHarness, made_account
from lab import SINGLEUSER, Lab, hub_api, open_lab
from launchers import Venv, WarmHub, children_of

from support import eventually
from workshop_hub.system.accounts import Account

PROBE = Path(__file__).parent / "probe"
LIMITS = Path("/etc/security/limits.d")

TOPICS = (
    "collector",
    "descriptors",
    "environment",
    "folder",
    "interpreter",
    "jupyter",
    "kernel",
    "locale",
    "logging",
    "originals",
    "packages",
    "signals",
    "streams",
    "warnings",
    "outside",
    "cell",
    "terminal",
)

GLIBC_OWN = (1 << 31) | (1 << 32)
"""Signals 32 and 33, which glibc uses itself; its posix_spawn leaves them ignored."""

LOOKED_AROUND = "[lsp] The following Language Servers will be available"
"""What jupyter_lsp says when it has looked for language servers, in a thread of its own."""

ALIKE = {"Umask", "Uid", "Gid", "Groups", "NoNewPrivs", "Seccomp", "THP_enabled"} | {
    f"Cap{name}" for name in ("Amb", "Bnd", "Eff", "Inh", "Prm")
}


@dataclass(frozen=True)
class Case:
    """One way to configure a server. limits: lines of limits.conf(5)."""

    options: dict[str, Any] = field(default_factory=dict)
    env: dict[str, str] = field(default_factory=dict)
    limits: str = ""
    own_packages: bool = False


CASES = {
    "usual": Case(),
    "strict": Case(
        options={"no_new_privileges": True},
        env={"PYTHONUNBUFFERED": "1", "PYTHONNOUSERSITE": "1", "TMPDIR": "{home}"},
        limits="{name} hard nofile 1500\n{name} soft nproc 900\n{name} - core 100\n",
        own_packages=True,
    ),
    "own-packages": Case(env={"PYTHONPATH": f"{PROBE}::/nowhere"}, own_packages=True),
}


def outside(pid: int) -> dict[str, Any]:
    """Return what everybody else sees of a process."""
    place = Path(f"/proc/{pid}")
    lines = (line.split(":\t", 1) for line in (place / "status").read_text().splitlines())
    owner = (place / "environ").stat()
    return {
        "status": {name: value for name, value in lines if name in ALIKE},
        "owner": [owner.st_uid, owner.st_gid],
        "command": (place / "cmdline").read_bytes().split(b"\0"),
        "environment": sorted((place / "environ").read_bytes().split(b"\0")),
        "links": [str((place / name).readlink()) for name in ("exe", "cwd", "root")],
        "files": [
            (place / name).read_text()
            for name in ("comm", "limits", "oom_score_adj", "coredump_filter", "cgroup")
        ],
    }


def ordered(descriptors: dict[str, Any]) -> list[Any]:
    """Return the standard streams as they are, and the rest in an order without its numbers."""
    streams = [descriptors.pop(number, None) for number in "012"]
    return [streams, sorted(descriptors.values())]


def plain(seen: dict[str, Any]) -> dict[str, Any]:
    """Return it without what differs between any two processes."""
    if "descriptors" in seen:
        seen["descriptors"] = ordered(seen["descriptors"])
    if "SigIgn" in seen.get("signals", {}):
        seen["signals"]["SigIgn"] = int(seen["signals"]["SigIgn"], 16) & ~GLIBC_OWN
    # the others are of modules that the server does without, see fast_start
    unlike = re.compile(r"jupyter_events\.logger\.\d+|alembic|lark|sqlalchemy")
    for name in [name for name in seen.get("logging", {}) if unlike.fullmatch(name)]:
        del seen["logging"][name]
    if seen["environment"].pop("JPY_PARENT_PID", None):
        seen["environment"]["JPY_PARENT_PID"] = "another"
    return seen


async def all_of(lab: Lab, home: Path, log: Path) -> dict[str, Any]:
    """Return all that can be seen of a server, and of what is started from it."""

    async def settled() -> bool:
        return LOOKED_AROUND in log.read_text() and children_of(lab.pid) == []

    await eventually(settled, "the server has done what it does beside its start")
    seen = plain(await lab.call("GET", "probe"))
    cell = "import json, warm_probe; print(json.dumps(warm_probe.outline()))"
    await lab.terminal(f"{sys.executable} {PROBE}/warm_probe.py ~/terminal.json")
    return {
        **seen,
        "outside": outside(lab.pid),
        "cell": plain(json.loads(await lab.cell(cell))),
        "terminal": plain(json.loads((home / "terminal.json").read_text())),
    }


@pytest.fixture(scope="module")
def hub(machine: None) -> Iterator[int]:
    with hub_api() as port:
        yield port


@contextlib.contextmanager
def probed(label: str) -> Iterator[Account]:
    """Make an account whose servers load the probe, and that is a member of a second group."""
    with made_account(label) as account:
        subprocess.run(["usermod", "-aG", "users", account.name], check=True)
        extensions = {"ServerApp": {"jpserver_extensions": {"warm_probe": True}}}
        write_as(account, ".jupyter/jupyter_server_config.json", json.dumps(extensions))
        yield account


def write_as(account: Account, path: str, text: str) -> None:
    """Write a file below the home, with the folders that it takes."""
    file = Path(account.home, path)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    subprocess.run(["chown", "-R", f"{account.name}:", account.home], check=True)


@pytest.fixture(scope="module")
def ana(machine: None) -> Iterator[Account]:
    with probed("ana") as account:
        yield account


@pytest.fixture(scope="module")
def folder(machine: None) -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(prefix=PREFIX))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


@contextlib.contextmanager
def with_limits(lines: str) -> Iterator[None]:
    """Add lines to limits.conf(5)."""
    file = LIMITS / f"{PREFIX}parity.conf"
    try:
        if lines:
            LIMITS.mkdir(exist_ok=True)
            file.write_text(lines)
        yield
    finally:
        file.unlink(missing_ok=True)


@pytest.fixture(scope="module", params=CASES)
async def both(
    request: pytest.FixtureRequest,
    usual_environment: None,
    hub: int,
    ana: Account,
    folder: Path,
) -> AsyncIterator[dict[str, dict[str, Any]]]:
    """What is seen of the same server, started by sudo and then warm, at the same port."""
    case = CASES[request.param]
    cmd = SINGLEUSER
    if case.own_packages:
        cmd = Venv.made(folder / request.param).singleuser()
        packages = f".local/lib/python3.{sys.version_info[1]}/site-packages"
        write_as(ana, f"{packages}/own.pth", "/usr/share\n")
    env = {name: value.format(home=ana.home) for name, value in case.env.items()}
    env.setdefault("PYTHONPATH", str(PROBE))
    found, port = {}, 0
    with with_limits(case.limits.format(name=ana.name)):
        for launcher in ("sudo", "warm"):
            # fast_start shows start.py in the command line of what sudo starts
            options = {"launcher": launcher, "fast_start": launcher == "warm", **case.options}
            harness = ProcessHarness(folder, ana, "parity", with_cgroup=False, options=options)
            warm = WarmHub(harness, harness.backend(warm_program=str(cmd)), cmd)
            arguments = ("--ServerApp.log_level=DEBUG", "--ServerApp.answer_yes=True")
            lab = await open_lab(
                harness, warm.backend, hub, *arguments, cmd=cmd, port=port, env=env
            )
            try:
                port = lab.at.port
                found[launcher] = await all_of(
                    lab, Path(ana.home), folder / "logs" / f"{lab.at.handle['key']}.log"
                )
                found[launcher]["parent"] = Path(f"/proc/{lab.pid}/stat").read_text().split()[3]
                if launcher == "warm":
                    found["state"] = warm.state
            finally:
                await lab.stop()
    await warm.close()
    yield found
    shutil.rmtree(Path(ana.home, ".local/lib"), ignore_errors=True)


@pytest.mark.parametrize("topic", TOPICS)
async def test_forked_and_executed_are_alike(both: dict[str, dict[str, Any]], topic: str) -> None:
    assert both["warm"][topic] == both["sudo"][topic]


async def test_what_is_compared_was_forked(both: dict[str, dict[str, Any]]) -> None:
    assert both["warm"]["parent"] == str(both["state"]["pid"]) != both["sudo"]["parent"]
    assert not both["state"]["trouble"]
    assert not both["state"]["without"]
