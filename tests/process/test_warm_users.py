"""Two users' servers from one warm launcher: each is the one's own, and nobody's else."""

from __future__ import annotations

import os
import pwd
import re
import shutil
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from harness import ProcessHarness, made_account
from lab import SINGLEUSER, Lab, hub_api, open_lab
from launchers import WarmHub

from support import require
from workshop_hub.launch import forkserver
from workshop_hub.launch.preload import HOME as NOBODYS_HOME
from workshop_hub.system.accounts import Account

SETTING = "@jupyterlab/apputils-extension:themes"
PROBE = Path(__file__).parent / "probe"
LOAD_PROBE = "--ServerApp.jpserver_extensions={'warm_probe': True}"


@dataclass
class Class:
    """Two servers of one launcher. trace: what all of its processes have opened, so far."""

    labs: dict[str, Lab]
    accounts: list[Account]
    launcher: dict[str, Any]
    trace: Path


@pytest.fixture(scope="module")
def hub(machine: None) -> Iterator[int]:
    with hub_api() as port:
        yield port


@pytest.fixture(scope="module")
async def pair(
    hub: int, usual_environment: None, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Class]:
    require(shutil.which("strace"), "strace is needed")
    folder = tmp_path_factory.mktemp("warm")
    trace = folder / "trace"
    # -D: the launcher is the hub's child, and may leave it
    strace = ["strace", "-D", "-f", "--seccomp-bpf", "-qq", "-s", "4096", "-e", "trace=%file"]
    options = {
        "launcher": "warm",
        "warm_command": [*strace, "-o", str(trace), sys.executable, "-I", forkserver.__file__],
    }
    with made_account("ana") as ana, made_account("ben") as ben:
        harness = ProcessHarness(folder, ana, with_cgroup=False, options=options)
        warm = WarmHub(harness, harness.backend(), SINGLEUSER)
        labs = {}
        for account in (ana, ben):
            harness.account = account
            env = {"PYTHONPATH": str(PROBE)}
            labs[account.name] = await open_lab(harness, warm.backend, hub, LOAD_PROBE, env=env)
        launcher = warm.state
        yield Class(labs, [ana, ben], launcher, trace)
        for lab in labs.values():
            await lab.stop()
        await warm.close()


async def test_every_page_is_served(pair: Class) -> None:
    for account in pair.accounts:
        lab = pair.labs[account.name]
        assert "jupyter-config-data" in await lab.browser.get(f"{lab.url}lab")
        await lab.call("PUT", "api/contents/notes.txt", text_file(account.name))
        named = {entry["name"] for entry in (await lab.call("GET", "api/contents"))["content"]}
        assert "notes.txt" in named
        owner = Path(account.home, "notes.txt").stat()
        assert (owner.st_uid, owner.st_gid, owner.st_mode & 0o777) == (
            account.uid,
            account.gid,
            0o644,
        )


def text_file(text: str) -> dict[str, str]:
    return {"type": "file", "format": "text", "content": text}


async def test_everybody_keeps_her_own_workspace_and_settings(pair: Class) -> None:
    for account in pair.accounts:
        lab = pair.labs[account.name]
        workspace = {"data": {"of": account.name}, "metadata": {"id": "kept"}}
        await lab.call("PUT", "lab/api/workspaces/kept", workspace)
        await lab.call("PUT", f"lab/api/settings/{SETTING}", {"raw": f'{{"theme": "{lab.user}"}}'})
    for account in pair.accounts:
        lab = pair.labs[account.name]
        assert (await lab.call("GET", "lab/api/workspaces/kept"))["data"] == {"of": account.name}
        setting = await lab.call("GET", f"lab/api/settings/{SETTING}")
        assert setting["settings"] == {"theme": account.name}
        kept = [*Path(account.home, ".jupyter/lab").rglob("*.jupyterlab-*")]
        assert len(kept) == 2
        assert {file.stat().st_uid for file in kept} == {account.uid}


async def test_kernels_and_terminals_are_the_users_own(pair: Class) -> None:
    for account in pair.accounts:
        lab = pair.labs[account.name]
        printed = await lab.cell("import os, getpass; print(os.getuid(), getpass.getuser())")
        assert printed.split() == [str(account.uid), account.name]
        await lab.terminal("id -un >~/terminal")
        assert Path(account.home, "terminal").read_text().strip() == account.name


async def test_no_two_servers_have_the_same_chances(pair: Class) -> None:
    one, other = [await lab.call("GET", "probe?what=chances") for lab in pair.labs.values()]
    assert one.keys() == other.keys()
    assert [name for name in one if one[name] == other[name]] == []


async def test_a_user_can_look_at_her_own_server_and_at_no_other(pair: Class) -> None:
    one, other = pair.labs.values()
    code = "import os; print([os.access(f'/proc/{p}/environ', 4) for p in (%d, %d, %d)])"
    pids = (one.pid, other.pid, pair.launcher["pid"])
    assert await one.cell(code % pids) == "[True, False, False]\n"


def lookers(trace: Path, folder: str) -> set[str]:
    """Return the processes that have looked at a folder or at anything below it."""
    below = re.compile(rf'"{re.escape(folder)}(/|")')
    lines = trace.read_text(errors="replace").splitlines()
    return {line.split()[0] for line in lines if below.search(line)}


def test_nobody_looks_into_the_home_of_the_launchers_account(pair: Class) -> None:
    assert lookers(pair.trace, sys.prefix)  # the trace tells what is looked at
    assert lookers(pair.trace, pwd.getpwuid(os.getuid()).pw_dir) == set()
    assert lookers(pair.trace, str(Path.home())) == set()


def test_servers_look_into_no_home_but_their_own(pair: Class) -> None:
    one, other = (lookers(pair.trace, account.home) for account in pair.accounts)
    servers = {str(lab.pid) for lab in pair.labs.values()}
    assert one | other > servers
    assert one & other == set()
    # the launcher imports with a home that nobody has
    assert str(pair.launcher["pid"]) in lookers(pair.trace, NOBODYS_HOME)
    assert lookers(pair.trace, NOBODYS_HOME) & (one | other) == set()


def test_a_server_reads_no_module_that_the_launcher_has_read(pair: Class) -> None:
    opened = re.compile(r'(\d+) openat\(.*/(\w+)\.cpython-\d+\.pyc".* = \d+')
    servers = {str(lab.pid) for lab in pair.labs.values()}
    lines = map(opened.match, pair.trace.read_text(errors="replace").splitlines())
    read = {found[2] for found in lines if found and found[1] in servers}
    assert read <= {"warm_probe"}  # the launcher does not know the probe
