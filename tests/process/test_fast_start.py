"""Servers that start without what no server uses."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import PREFIX, TINY, ProcessHarness, answer, command_line, processes_of, started

from hubs import Hub
from workshop_hub.cli.browser import Browser
from workshop_hub.cli.kernel import run_cell
from workshop_hub.system.accounts import Account

SINGLEUSER = Path(sys.executable).with_name("jupyterhub-singleuser")

FRESH = Path(__file__).parents[1] / "bench" / "fresh.py"

RUN_TINY = f"import runpy\nrunpy.run_path({str(TINY)!r}, run_name='__main__')\n"

SCRIPTS = {
    "python": f"#!{sys.executable} -I\n{RUN_TINY}",
    "sh": f'#!/bin/sh\nexec {sys.executable} -I {TINY} "$@"\n',
    "env": f"#!/usr/bin/env python3\n{RUN_TINY}",
    "pip, long path": f"""#!/bin/sh\n'''exec' {sys.executable} "$0" "$@"\n' '''\n{RUN_TINY}""",
}

NOTES_IMPORTERS = """
import os
with open(os.path.expanduser("~/importers"), "a") as file:
    print(os.getpid(), file=file)
def is_valid_syntax(term, text):
    return True
"""
"""Stands for rfc3987_syntax, and tells which processes have loaded it."""


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that every user may read."""
    made = Path(tempfile.mkdtemp(prefix=PREFIX))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


async def command_of(harness: ProcessHarness, cmd: str, **options: object) -> list[str]:
    """Start tests/tiny_server.py by `cmd`, end it, and return the command line that it had."""
    backend = harness.backend(**options)
    at = await started(backend, harness.spec(cmd=(cmd, "print:a b", "print:")))
    try:
        seen = await answer(at)
        assert (seen["uid"], seen["argv"]) == (harness.account.uid, ["print:a b", "print:"])
        return command_line(seen["pid"]).split()
    finally:
        await backend.stop(at.handle)


@pytest.mark.parametrize("kind", SCRIPTS)
async def test_every_kind_of_script_is_started(
    hub: ProcessHarness, folder: Path, kind: str
) -> None:
    script = folder / "jupyterhub-singleuser"
    script.write_text(SCRIPTS[kind])
    script.chmod(0o755)
    words = await command_of(hub, str(script))
    assert any(word.endswith("/launch/start.py") for word in words) == (kind == "python")
    if kind == "python":
        assert (words[:2], words[3]) == ([sys.executable, "-I"], str(script))


@pytest.mark.parametrize(
    ("name", "fast"), [("jupyterhub-singleuser", False), ("another-server", True)]
)
async def test_other_servers_are_started_as_they_are(
    root_hub: ProcessHarness, folder: Path, name: str, fast: bool
) -> None:
    script = folder / name
    script.write_text(SCRIPTS["python"])
    script.chmod(0o755)
    words = await command_of(root_hub, str(script), fast_start=fast)
    assert words[:3] == [sys.executable, "-I", str(script)]


@pytest.fixture(params=[True, False], ids=["fast", "plain"])
def lab(
    request: pytest.FixtureRequest, tmp_path: Path, folder: Path, alice: Account
) -> Iterator[tuple[Hub, bool]]:
    """A hub at which alice has a JupyterLab, and whether it was started fast."""
    (folder / "rfc3987_syntax.py").write_text(NOTES_IMPORTERS)
    hub = Hub(
        tmp_path,
        "c.JupyterHub.spawner_class = 'workshop'\n"
        f"c.Spawner.cmd = {[str(SINGLEUSER)]!r}\n"
        f"c.Spawner.environment = {{'PYTHONPATH': {str(folder)!r}}}\n"
        f"c.ProcessBackend.fast_start = {request.param}\n",
    ).start()
    events = hub.start_server(alice.name)
    assert events[-1].get("ready"), (events, hub.log[-6000:])
    yield hub, request.param
    hub.stop_server(alice.name)
    hub.kill()
    Path(alice.home, "importers").unlink()


async def test_a_server_loads_no_check_of_iris_and_its_kernels_can(
    lab: tuple[Hub, bool], alice: Account
) -> None:
    hub, fast = lab
    browser = Browser()
    await browser.get(f"{hub.root}/hub/login")
    await browser.submit(browser.url, {"username": alice.name, "password": hub.password})
    server = f"{hub.root}/user/{alice.name}/"
    assert "jupyter-config-data" in await browser.get(f"{server}lab")
    pids = [pid for pid in processes_of(alice.uid) if str(SINGLEUSER) in command_line(pid)]
    servers = {pid for pid in pids if Path(f"/proc/{pid}/exe").samefile(sys.executable)}
    importers = Path(alice.home, "importers")
    before = set(map(int, importers.read_text().split())) if importers.exists() else set()
    assert before == (set() if fast else servers)
    code = "import json, os, rfc3987_syntax as r; print(json.dumps([os.getpid(), r.__file__]))"
    pid, file = json.loads(await run_cell(browser, server, code, timeout=60))
    assert file.endswith("rfc3987_syntax.py")
    assert set(map(int, importers.read_text().split())) == before | {pid}
    assert len(servers) == 1


def test_what_a_start_costs_can_be_measured() -> None:
    done = subprocess.run(
        [sys.executable, FRESH, "--rounds", "1", "start.py"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines()[0].split()[:4] == ["CPU", "s", "median", "MiB"]
    assert done.stdout.splitlines()[1].split()[0] == "start.py"
