"""docs/howto/users.md: what it shows works, in the order in which it is shown."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from accounts.conftest import Machine
from accounts.users_command import Users

TEXT = (Path(__file__).parents[2] / "docs/howto/users.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)


def test_the_commands_run(machine: Machine, tmp_path: Path) -> None:
    users = Users(machine, tmp_path)
    (tmp_path / "course").mkdir()
    (tmp_path / "people.csv").write_text(blocks("csv")[0])
    path = f"{Path(sys.executable).parent}:/usr/sbin:/usr/bin:/sbin:/bin"
    for block in blocks("sh"):
        text = block.replace("groupadd ", "groupadd --force ")
        run = 'cd "$0" && PATH=$1 && eval "$2"'
        machine.run("sh", "-ec", run, str(tmp_path), path, text)
        if "people.csv" in block:
            assert len(users.list()) == 32
    assert set(users.list()) == {"emmy", "mary"}
    assert len(list((tmp_path / "archive").iterdir())) == 15
    users.remove_all()
