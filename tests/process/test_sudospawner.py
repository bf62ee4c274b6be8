"""The existing mediator in the place of our launcher."""

from __future__ import annotations

import importlib.util
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import PREFIX, TINY, ProcessHarness, answer, processes_of, started
from unprivileged import SUDOERS, UnprivilegedHub, last

from support import eventually_sync, require
from workshop_hub.backends.base import Certificates
from workshop_hub.errors import ConfigError, LauncherRefused

CMD = ("jupyterhub-singleuser",)

MEDIATOR = """#!{python}
import sys
from sudospawner.mediator import main
sys.exit(main())
"""


@pytest.fixture(scope="module")
def mediator() -> Iterator[Path]:
    """The mediator's script, with tests/tiny_server.py where it looks for the server."""
    require(importlib.util.find_spec("sudospawner"), "sudospawner is not installed")
    folder = Path(tempfile.mkdtemp(prefix=PREFIX))
    folder.chmod(0o755)
    scripts = {
        "sudospawner": MEDIATOR.format(python=sys.executable),
        "sudospawner-singleuser": f'#!/bin/sh\nexec {sys.executable} -I -S {TINY} "$@"\n',
    }
    for name, text in scripts.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    yield folder / "sudospawner"
    shutil.rmtree(folder)


def all_end(uid: int) -> None:
    """Wait for the mediator too: it ends by itself, a moment after the server that it waits for."""
    eventually_sync(lambda: not processes_of(uid), "all is ended")


async def test_a_server_is_started_seen_and_stopped(hub: ProcessHarness, mediator: Path) -> None:
    options = {"launcher": "sudospawner", "sudospawner_path": str(mediator)}
    backend = hub.backend(**options)
    at = await started(backend, hub.spec(cmd=(*CMD, "print:hello"), env={"ODD": "a\nb"}))
    seen = await answer(at)
    assert (seen["uid"], seen["argv"]) == (hub.account.uid, ["print:hello"])
    assert (seen["env"]["ODD"], seen["env"]["HOME"]) == ("a\nb", hub.account.home)
    adopted = hub.backend(**options)
    assert (await adopted.poll(at.handle)).running
    assert "hello" in await adopted.log_tail(at.handle)
    await adopted.stop(at.handle)
    assert not (await adopted.poll(at.handle)).running
    all_end(hub.account.uid)


async def test_an_early_exit_is_told(hub: ProcessHarness, mediator: Path) -> None:
    backend = hub.backend(launcher="sudospawner", sudospawner_path=str(mediator))
    with pytest.raises(LauncherRefused, match="Exited with status: 3"):
        await started(backend, hub.spec(cmd=(*CMD, "exit:3")))
    all_end(hub.account.uid)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"cmd": ("jupyter-labhub",)}, 'start "jupyter-labhub"'),
        ({"notebook_dir": "/home", "create_notebook_dir": True}, "create_notebook_dir"),
        ({"certificates": Certificates("k", "c", "a")}, "internal_ssl"),
    ],
)
async def test_what_the_mediator_cannot_do(
    root_hub: ProcessHarness, mediator: Path, changes: dict[str, object], said: str
) -> None:
    backend = root_hub.backend(launcher="sudospawner", sudospawner_path=str(mediator))
    with pytest.raises(ConfigError, match=said):
        await backend.prepare(root_hub.spec(**{"cmd": CMD, **changes}))


async def test_a_missing_mediator_is_named(root_hub: ProcessHarness) -> None:
    backend = root_hub.backend(launcher="sudospawner", sudospawner_path="/opt/no/sudospawner")
    with pytest.raises(LauncherRefused, match="/opt/no/sudospawner does not exist"):
        await backend.prepare(root_hub.spec(cmd=CMD))


def test_an_unprivileged_hub_uses_the_rule_that_a_site_has(
    plain_hub: UnprivilegedHub, mediator: Path
) -> None:
    rule = f"{plain_hub.account.name} ALL=({plain_hub.user.name}) NOPASSWD: {mediator}\n"
    (SUDOERS / plain_hub.account.name).write_text(rule)
    said = plain_hub.run(
        "start",
        "poll",
        "stop",
        "poll",
        changes={"cmd": list(CMD)},
        launcher="sudospawner",
        sudospawner_path=str(mediator),
    )
    polls = [one["running"] for one in said if one["kind"] == "poll"]
    assert polls == [True, False]
    assert last(said, "stopped")
    all_end(plain_hub.user.uid)
