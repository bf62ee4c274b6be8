"""What was imported is seen to change."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from workshop_hub.launch.stamps import Stamps


def replace(folder: Path) -> Path:
    (folder / "new").write_text("one")
    return (folder / "new").rename(folder / "one")


def rewrite(folder: Path) -> Path:
    (folder / "one").write_text("longer")
    return folder / "one"


def rewrite_with_as_much(folder: Path) -> Path:
    (folder / "one").write_text("two")
    os.utime(folder / "one", ns=(1, 1))
    return folder / "one"


def remove(folder: Path) -> Path:
    (folder / "one").unlink()
    return folder / "one"


def appear(folder: Path) -> Path:
    (folder / "absent").write_text("")
    return folder / "absent"


def fill(folder: Path) -> Path:
    (folder / "packages" / "another.py").write_text("")
    return folder / "packages"


@pytest.mark.parametrize("change", [replace, rewrite, rewrite_with_as_much, remove, appear, fill])
def test_a_change_is_seen_and_named(tmp_path: Path, change: Callable[[Path], Path]) -> None:
    odd = tmp_path / os.fsdecode(b"a\nb \xff")
    for file in (tmp_path / "one", odd):
        file.write_text("one")
    (tmp_path / "packages").mkdir()
    os.utime(tmp_path / "packages", (1, 1))  # a coarse clock may not tell two changes apart
    names = ("one", "absent", "packages", odd.name)
    stamps = Stamps(["", *(str(tmp_path / name) for name in names)])
    assert stamps.changed() == ""
    changed = change(tmp_path)
    assert stamps.changed() == str(changed)
    stamps.add([str(tmp_path)])
    assert stamps.changed() != ""
