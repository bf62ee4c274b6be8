"""One suite for the Backend interface, over every kind of backend."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

for folder in ("contract", "process"):
    sys.path.insert(0, str(Path(__file__).parents[1] / folder))

from rig import KINDS, Rig  # noqa: E402 - found on the path that was just set


@pytest.fixture(params=list(KINDS))
def rig(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Rig]:
    yield from KINDS[request.param](tmp_path)
