"""What the warm launcher has found out is used only where a server would find the same."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ASK = """
import json, os, ssl, sys
import httpx, jupyter_lsp.types as lsp
from workshop_hub.launch import answers
found = answers.ask()
os.environ.update(json.loads(sys.argv[1]))
found.give()
clients = [httpx.Client() for _ in range(2)]
trust = [client._transport._pool._ssl_context for client in clients]
root = lsp.LanguageServerManagerAPI._npm_prefix(None, found.npm)
other = lsp.LanguageServerManagerAPI._npm_prefix(None, sys.argv[2])
lent = [each is found.trust for each in trust]
print(json.dumps([root, other, lent, len(trust[1].get_ca_certs()) > 0]))
"""


def npm(folder: Path) -> Path:
    """Make an npm that counts how often it was asked."""
    folder.mkdir()
    program = folder / "npm"
    program.write_text(f'#!/bin/sh\necho asked >>"{folder}/asked"\necho "{folder}/global"\n')
    program.chmod(0o755)
    return program


@pytest.mark.parametrize(
    ("npmrc", "env", "times"),
    [(False, {}, 1), (True, {}, 2), (False, {"NPM_CONFIG_PREFIX": "/own"}, 2)],
)
def test_npm_is_asked_again_only_where_the_user_has_told_it_something(
    tmp_path: Path, npmrc: bool, env: dict[str, str], times: int
) -> None:
    usual, other = npm(tmp_path / "usual"), npm(tmp_path / "other")
    home = tmp_path / "home"
    home.mkdir()
    if npmrc:
        (home / ".npmrc").write_text("prefix=/own\n")
    done = subprocess.run(
        [sys.executable, "-c", ASK, json.dumps({"HOME": str(home), **env}), str(other)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=home,
        env={"PATH": f"{usual.parent}:/usr/bin:/bin", "HOME": "/nonexistent"},
    )
    assert done.returncode == 0, done.stderr
    root, from_other, lent, trusts = json.loads(done.stdout)
    assert root == f"{usual.parent}/global"
    assert from_other == f"{other.parent}/global"
    assert (usual.parent / "asked").read_text().count("asked") == times
    assert lent == [True, False]
    assert trusts
