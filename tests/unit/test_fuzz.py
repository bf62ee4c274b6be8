"""Made-up bytes in what reads what strangers send; see tests/fuzz.py."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from support import require

RUNS = 40_000
FUZZ = Path(__file__).parents[1] / "fuzz.py"


def test_made_up_bytes_find_nothing(tmp_path: Path) -> None:
    require(find_spec("atheris"), "atheris has no wheel for this Python")
    done = subprocess.run(
        [sys.executable, FUZZ, f"-runs={RUNS}", "-max_len=1500", "-timeout=60", "-verbosity=0"],
        cwd=tmp_path,  # where it would leave the bytes
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
