"""Entry points that are told from memory are those that are installed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

PROGRAM = """
import json, sys
from importlib import metadata
read = metadata.entry_points
from importlib.metadata import entry_points  # as a module does that was loaded before
from workshop_hub.launch import entry_points as all_of
sys.path.insert(0, sys.argv[1])
files = all_of.know()
asked = []
distributions, metadata.distributions = metadata.distributions, None  # nothing is read from now on
sys.path.insert(0, sys.argv[2])  # as the folder of a script
def told(group):
    return sorted(each.name for each in entry_points(group=group))
groups = ["jupyterlab.extension_manager_v1", "site.things", "no.such.group"]
said = {"known": [told(group) for group in groups]}
metadata.distributions = distributions
said["read"] = [sorted(each.name for each in read(group=group)) for group in groups]
said["loads"] = next(iter(entry_points(group="site.things"))).load().__name__
said["named"] = [each.name for each in entry_points(group="site.things", name="second")]
said["files"] = [file for file in files if file.startswith(sys.argv[1])]
exec(sys.argv[3])
said["after"] = told("site.things")
print(json.dumps(said))
"""


def install(folder: Path, name: str, *things: str) -> None:
    """Make what pip leaves of a package that has entry points."""
    about = folder / f"{name}-1.0.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    lines = "".join(f"{thing} = json:dumps\n" for thing in things)
    (about / "entry_points.txt").write_text(f"[site.things]\n{lines}")


def said(folder: Path, happens: str = "") -> dict[str, Any]:
    """Run PROGRAM with a package in `folder / "site"`; `happens` is code that it runs."""
    install(folder / "site", "thing", "first", "second")
    script = folder / "bin"
    script.mkdir()
    command = [sys.executable, "-c", PROGRAM, str(folder / "site"), str(script), happens]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_nothing_is_read_for_what_is_known(tmp_path: Path) -> None:
    found = said(tmp_path)
    assert found["known"] == found["read"]
    assert found["known"][1:] == [["first", "second"], []]
    assert found["known"][0] != []
    assert (found["loads"], found["named"]) == ("dumps", ["second"])
    assert found["after"] == ["first", "second"]
    assert found["files"] == [str(tmp_path / "site/thing-1.0.dist-info/entry_points.txt")]


def test_what_is_installed_later_is_found(tmp_path: Path) -> None:
    install(tmp_path / "new", "later", "third")
    move = f"import os; os.rename({str(tmp_path / 'new')!r} + '/later-1.0.dist-info', "
    move += f"{str(tmp_path / 'site')!r} + '/later-1.0.dist-info')"
    assert said(tmp_path, move)["after"] == ["first", "second", "third"]


def test_packages_of_the_users_own_are_found(tmp_path: Path) -> None:
    install(tmp_path / "own", "own", "hers")
    add = f"sys.path.append({str(tmp_path / 'own')!r})"
    assert said(tmp_path, add)["after"] == ["first", "hers", "second"]


def test_packages_beside_the_script_are_found(tmp_path: Path) -> None:
    install(tmp_path / "new", "beside", "near")
    move = f"import os; os.rename({str(tmp_path / 'new')!r} + '/beside-1.0.dist-info', "
    move += f"{str(tmp_path / 'bin')!r} + '/beside-1.0.dist-info')"
    assert said(tmp_path, move)["after"] == ["first", "near", "second"]


@pytest.mark.parametrize("first", ["", "/no/such/folder", sys.executable])
def test_whatever_comes_first_is_looked_at_as_usual(tmp_path: Path, first: str) -> None:
    happens = f"sys.path[0] = {first!r}; assert told('site.things') == "
    happens += "sorted(each.name for each in read(group='site.things'))"
    assert said(tmp_path, happens)["after"] == ["first", "second"]


def test_without_folders_of_packages_there_is_nothing(tmp_path: Path) -> None:
    assert said(tmp_path, "sys.path.clear()")["after"] == []


def test_what_cannot_be_read_is_left_to_whoever_asks(tmp_path: Path) -> None:
    install(tmp_path / "site", "broken")
    (tmp_path / "site/broken-1.0.dist-info/entry_points.txt").write_bytes(b"[\xff")
    code = PROGRAM.partition("asked = []")[0] + "print(entry_points is read, files)"
    command = [sys.executable, "-c", code, str(tmp_path / "site")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "True []\n"
    assert "Entry points are left to each server: UnicodeDecodeError" in done.stderr
