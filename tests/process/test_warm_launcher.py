"""What the warm launcher leaves to others, and how it follows changes of what it has imported."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from harness import PREFIX, answer, started
from launchers import NAME, Venv, WarmHub, small_program

from workshop_hub.backends.base import Listening
from workshop_hub.errors import AccountRefused
from workshop_hub.launch.preload import HOME as NOBODYS_HOME
from workshop_hub.system.accounts import Account

UNFIT = {
    "asks_for_home": "import os\nplace = os.path.expanduser('~')",
    "has_thread": "import threading, time\n"
    "threading.Thread(target=time.sleep, args=(3600,), daemon=True).start()",
}
BROKEN = "raise RuntimeError('of no use')"
TELL_PLACE = "run:import asks_for_home; os.environ['PLACE'] = asks_for_home.place"
TELL_NUMBER = "run:import is_sound; os.environ['NUMBER'] = str(is_sound.number)"

CORE = "jupyterlab_pygments.py"
"""Stands for a package that is imported for every server, if it is there."""

KEEPS_HOME = f"place = {NOBODYS_HOME!r} + '/.cache'"
READS_USER = "import os\nos.environ.get('USER')"


@pytest.fixture(scope="module")
def folder(machine: None, usual_environment: None) -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(prefix=PREFIX))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


@pytest.fixture(scope="module")
def venv(folder: Path) -> Venv:
    venv = Venv.made(folder / "venv")
    venv.put_extension("is_sound", "number = 1")
    venv.put_extension("is_broken", BROKEN)
    return venv


@pytest.fixture(scope="module")
async def hub(
    alice: Account, venv: Venv, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[WarmHub]:
    program = small_program(venv.folder / "bin", venv.python)
    hub = WarmHub.made(tmp_path_factory.mktemp("warm"), alice, program)
    yield hub
    await hub.close()


async def ended(hub: WarmHub, *servers: Listening) -> None:
    for at in servers:
        await hub.backend.stop(at.handle)


async def test_extensions_that_cannot_be_shared_are_left_to_each_server(
    alice: Account, folder: Path, tmp_path: Path
) -> None:
    venv = Venv.made(folder / "unfit")
    for name, text in UNFIT.items():
        venv.put_extension(name, text)
    hub = WarmHub.made(tmp_path, alice, small_program(venv.folder / "bin", venv.python))
    at = await hub.start(TELL_PLACE)
    assert hub.is_warm(at)
    assert (await answer(at))["env"]["PLACE"] == alice.home
    without = hub.state["without"]
    assert set(without) == set(UNFIT)
    assert "reads HOME" in without["asks_for_home"]
    assert "starts a thread" in without["has_thread"]
    assert len([*Path(f"/proc/{hub.launcher}/task").iterdir()]) == 1
    await ended(hub, at)
    await hub.close()


async def test_an_extension_that_is_broken_keeps_nobody_from_a_server(hub: WarmHub) -> None:
    at = await hub.start(TELL_NUMBER)
    assert hub.is_warm(at)
    assert (await answer(at))["env"]["NUMBER"] == "1"
    log = hub.harness.folder / "logs" / "launcher.log"
    assert "is_broken cannot be imported: RuntimeError('of no use')" in log.read_text()
    await ended(hub, at)


@pytest.mark.parametrize(
    ("variable", "value", "told"),
    [
        ("PYTHONOPTIMIZE", "1", "its environment sets PYTHONOPTIMIZE, which is read when"),
        ("LD_PRELOAD", "", "its environment sets LD_PRELOAD, which is read when"),
        ("LC_ALL", "C", "its locale C is none of UTF-8"),
        ("LANG", "tlh_QO.UTF-8", "its locale tlh_QO.UTF-8 is not installed"),
        ("LC_MESSAGES", "C", "its environment sets LC_MESSAGES to another value"),
        ("SSL_CERT_FILE", "/dev/null", "its environment sets SSL_CERT_FILE to another value"),
        ("PYTHONPATH", "{folder}", "{folder} has its own babel"),
    ],
)
async def test_an_environment_that_a_fork_cannot_follow_is_left_to_sudo(
    hub: WarmHub,
    variable: str,
    value: str,
    told: str,
    caplog: pytest.LogCaptureFixture,
    folder: Path,
) -> None:
    (folder / "babel.py").touch()
    value, told = (text.format(folder=folder) for text in (value, told))
    at = await hub.start(**{variable: value})
    assert not hub.is_warm(at)
    assert "is started by sudo, not warm: " in caplog.text
    assert told in caplog.text
    await ended(hub, at)


@pytest.mark.parametrize(
    ("name", "first_line", "told"),
    [
        ("another", "#!{python}", "its cmd is {cmd}"),
        (NAME, "#!/usr/bin/python3", "{cmd} is run by /usr/bin/python3"),
        (NAME, "#!{python} -I", "{cmd} is run by {python} -I"),
        (NAME, "#!/usr/bin/env {python}", "{cmd} is run by /usr/bin/env {python}"),
    ],
)
async def test_a_program_that_a_fork_cannot_be_is_left_to_sudo(
    hub: WarmHub,
    name: str,
    first_line: str,
    told: str,
    caplog: pytest.LogCaptureFixture,
    folder: Path,
) -> None:
    cmd = folder / name
    line = first_line.format(python=hub.program.with_name("python"))
    cmd.write_text(hub.program.read_text().replace(f"#!{hub.program.with_name('python')}", line))
    cmd.chmod(0o755)
    at = await hub.start(cmd=str(cmd))
    assert not hub.is_warm(at)
    words = told.format(cmd=cmd, python=hub.program.with_name("python"))
    assert f"is started by sudo, not warm: {words}" in caplog.text
    await ended(hub, at)


@pytest.fixture
def group(machine: None) -> Iterator[str]:
    name = f"{PREFIX}{os.getpid()}"
    run("groupadd", name)
    yield name
    run("groupdel", name)


async def test_nobody_is_served_but_members_of_the_group(
    alice: Account, group: str, tmp_path: Path, hub: WarmHub
) -> None:
    limited = WarmHub.made(tmp_path, alice, hub.program, warm_group=group)
    with pytest.raises(AccountRefused, match=f"serves the group {group}; {alice.name} is not in"):
        await limited.start()
    await asyncio.to_thread(run, "usermod", "-aG", group, alice.name)
    at = await limited.start()
    assert limited.is_warm(at)
    await ended(limited, at)
    await asyncio.to_thread(run, "groupmod", "-n", f"{group}-x", group)
    with pytest.raises(AccountRefused, match=f"serves the group {group}, which does not exist"):
        await limited.start()
    await asyncio.to_thread(run, "groupmod", "-n", group, f"{group}-x")
    await limited.close()


def run(*words: str) -> None:
    subprocess.run(words, check=True)


async def test_nobody_is_served_but_the_uids_that_it_was_started_for(
    alice: Account, tmp_path: Path, hub: WarmHub
) -> None:
    limited = WarmHub.made(tmp_path, alice, hub.program, warm_uids=(1, alice.uid - 1))
    with pytest.raises(AccountRefused, match=f"the uids 1 to {alice.uid - 1}; {alice.uid} is not"):
        await limited.start()
    await limited.close()


async def test_an_account_that_has_another_uid_by_now_is_told(hub: WarmHub, bob: Account) -> None:
    spec = hub.spec()
    mixed_up = replace(hub.harness.account, uid=bob.uid)
    with pytest.raises(AccountRefused, match=f"the hub expected {bob.uid}"):
        await started(hub.backend, replace(spec, account=mixed_up))


def incarnation(pid: int) -> list[str]:
    """Return what is another when a process has run a program anew: where its memory begins."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return fields[23:26]  # startcode, endcode, startstack


def new_number(hub: WarmHub, venv: Venv) -> None:
    venv.put("is_sound.py", "number = 2\ndef _load_jupyter_server_extension(app): pass\n")


def by_signal(hub: WarmHub, venv: Venv) -> None:
    os.kill(hub.launcher, signal.SIGHUP)


def by_word(hub: WarmHub, venv: Venv) -> None:
    assert hub.ask(b"R") == "reloading\n"


@pytest.mark.parametrize("change", [new_number, by_signal, by_word])
async def test_what_is_new_is_imported_and_what_runs_goes_on(
    hub: WarmHub, venv: Venv, change: Callable[[WarmHub, Venv], None]
) -> None:
    venv.put("is_sound.py", "number = 1\ndef _load_jupyter_server_extension(app): pass\n")
    old = await hub.start(TELL_NUMBER, server="old")
    launcher, before = hub.launcher, incarnation(hub.launcher)
    change(hub, venv)
    new = await hub.start(TELL_NUMBER, server="new")
    assert hub.is_warm(new)
    assert hub.launcher == launcher
    assert incarnation(launcher) != before
    numbers = [(await answer(at))["env"]["NUMBER"] for at in (old, new)]
    assert numbers == ["1", "2" if change is new_number else "1"]
    assert hub.is_warm(old)
    await answer(old, "/exit/7")
    assert (await hub.end_of(old)).exit_code == 7
    assert (await hub.backend.poll(new.handle)).running
    await ended(hub, old, new)


async def test_a_package_that_is_installed_is_noticed(hub: WarmHub, venv: Venv) -> None:
    await ended(hub, await hub.start())
    before = incarnation(hub.launcher)
    venv.put("new.py", "").with_name("new-1.0.dist-info").mkdir()
    at = await hub.start()
    assert hub.is_warm(at)
    assert incarnation(hub.launcher) != before
    await ended(hub, at)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (KEEPS_HOME, "jupyterlab_pygments.place keeps a path or name of whoever imports it"),
        (READS_USER, "jupyterlab_pygments reads USER when it is imported"),
    ],
)
async def test_what_every_server_needs_and_cannot_be_shared_is_told(
    hub: WarmHub, venv: Venv, text: str, told: str, caplog: pytest.LogCaptureFixture
) -> None:
    core = venv.put(CORE, text)
    at = await hub.start()
    assert not hub.is_warm(at)
    assert f"not warm: the launcher cannot be shared: {told}" in caplog.text
    assert told in hub.state["trouble"]
    core.unlink()
    after = await hub.start(server="after")
    assert hub.is_warm(after)
    await ended(hub, at, after)


async def test_a_launcher_whose_program_is_gone_for_a_while_serves_again(
    hub: WarmHub, venv: Venv, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cmd = str(small_program(folder, venv.python))
    launcher = hub.launcher
    away = hub.program.rename(hub.program.with_name("away"))
    at = await hub.start(cmd=cmd)
    assert not hub.is_warm(at)
    assert f"{hub.program} is no script that names its Python" in caplog.text
    away.rename(hub.program)
    after = await hub.start(cmd=cmd, server="after")
    assert hub.is_warm(after)
    assert hub.launcher == launcher
    await ended(hub, at, after)
