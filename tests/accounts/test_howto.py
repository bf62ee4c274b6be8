"""docs/howto/accounts.md: what it shows works."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from accounts.conftest import Machine
from traitlets.config.loader import PyFileConfigLoader

from workshop_hub import WorkshopAuthenticator
from workshop_hub.system import useradd

TEXT = (Path(__file__).parents[2] / "docs/howto/accounts.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)


def test_the_commands_run(machine: Machine) -> None:
    assert len(blocks("sh")) == 4
    for block in blocks("sh"):
        machine.run("sh", "-ec", block)
    assert machine.run("id", "--name", "--groups", "grace").split() == [
        "grace",
        "course",
        "teachers",
    ]
    assert re.search(r"^katherine:[^!*:]+:", machine.run("cat", "/etc/shadow"), re.MULTILINE)


@pytest.mark.parametrize("block", blocks("python"))
def test_the_options_exist(block: str, tmp_path: Path) -> None:
    file = tmp_path / "config.py"
    file.write_text(block)
    config = PyFileConfigLoader(str(file)).load_config()
    made = WorkshopAuthenticator(config=config)
    for section, options in config.items():
        if section not in ("JupyterHub", "WorkshopSpawner"):
            for name, value in options.items():
                assert getattr(made, name) == value


def test_the_line_of_sudoers_is_the_one_that_is_needed(machine: Machine) -> None:
    (line,) = blocks("sudoers")
    command = useradd.default_command(root=False)[2:]
    assert line.strip() == useradd.sudoers_rule("jupyterhub", [*command, "ada"])
    machine.write("/home/wsacct-sudoers", line, mode="440")
    machine.run("visudo", "--check", "--file=/home/wsacct-sudoers")
