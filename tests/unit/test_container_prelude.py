"""The shell lines before the server, run by this machine's own shell."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from workshop_hub.backends.base import Certificates, ContainerOptions, LaunchSpec, Owner
from workshop_hub.backends.docker import prelude
from workshop_hub.backends.docker.prelude import (
    MARK,
    REFUSED,
    SCRIPT,
    STARTER,
    command,
    environment,
    refusal,
)
from workshop_hub.policy.limits import Limits
from workshop_hub.system.accounts import Account


def spec(
    folder: Path | str = "",
    *roots: Path,
    create: bool = False,
    cmd: tuple[str, ...] = ("pwd", "-P"),
    certificates: Certificates | None = None,
) -> LaunchSpec:
    return LaunchSpec(
        owner=Owner("0123456789ab", "alice"),
        account=Account("alice", os.getuid(), os.getgid(), "/", "/bin/sh", (os.getgid(),)),
        limits=Limits(),
        limits_policy="enforce",
        cmd=cmd,
        notebook_dir=str(folder),
        create_notebook_dir=create,
        allowed_roots=tuple(map(str, roots)),
        start_timeout=1.0,
        container=ContainerOptions(image="any"),
        certificates=certificates,
    )


def run(wanted: LaunchSpec, *, fast: bool = False) -> subprocess.CompletedProcess[str]:
    env = {"PATH": os.environ["PATH"], **environment(wanted, fast=fast)}
    return subprocess.run(
        command(wanted, fast=fast), env=env, capture_output=True, text=True, check=False, cwd="/"
    )


def refused(wanted: LaunchSpec) -> str:
    result = run(wanted)
    assert result.returncode == REFUSED
    assert result.stdout == ""
    return refusal(result.returncode, result.stderr)


def test_without_a_directory_the_command_stays_as_it_is() -> None:
    assert command(spec(cmd=("a", "b c"))) == ("a", "b c")


def test_the_server_starts_in_its_directory(tmp_path: Path) -> None:
    work = tmp_path / "my work; $(touch x)"
    work.mkdir()
    result = run(spec(work, tmp_path))
    assert result.stdout.strip() == str(work.resolve())


def test_arguments_arrive_as_they_are(tmp_path: Path) -> None:
    cmd = ("printf", "%s|", "a b", "", "*", "$HOME", '"')
    assert run(spec(tmp_path, tmp_path, cmd=cmd)).stdout == 'a b||*|$HOME|"|'


def test_a_missing_directory_is_made_where_asked(tmp_path: Path) -> None:
    work = tmp_path / "deep" / "er"
    assert "does not exist" in refused(spec(work, tmp_path))
    assert not work.exists()
    assert run(spec(work, tmp_path, create=True)).stdout.strip() == str(work.resolve())


def test_a_directory_that_cannot_be_made_says_why(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    words = refused(spec(tmp_path / "file" / "sub", tmp_path, create=True))
    assert "could not be made: Not a directory" in words


def test_a_link_that_leads_outside_is_refused(tmp_path: Path) -> None:
    inside, outside = tmp_path / "in", tmp_path / "outside"
    inside.mkdir()
    outside.mkdir()
    (inside / "work").symlink_to(outside)
    assert f"leads to {outside.resolve()}, outside" in refused(spec(inside / "work", inside))
    assert run(spec(inside / "work", inside, outside)).returncode == 0


def test_a_root_that_is_itself_a_link_counts_for_where_it_leads(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "root").symlink_to("real")
    assert run(spec(tmp_path / "root", tmp_path / "root")).returncode == 0


def test_a_name_that_only_begins_like_a_root_is_outside(tmp_path: Path) -> None:
    (tmp_path / "ab").mkdir()
    (tmp_path / "a").mkdir()
    assert "outside" in refused(spec(tmp_path / "ab", tmp_path / "a"))
    assert "outside" in refused(spec(tmp_path / "ab", tmp_path / "missing"))


def test_the_whole_machine_as_root_is_inside(tmp_path: Path) -> None:
    assert run(spec(tmp_path, Path("/"))).returncode == 0


def test_a_missing_program_ends_as_shells_do(tmp_path: Path) -> None:
    result = run(spec(tmp_path, tmp_path, cmd=("no-such-program",)))
    assert result.returncode == 127
    assert "not found" in result.stderr


@pytest.mark.parametrize("log", ["", "some line", f"x {MARK}not at the beginning"])
def test_an_exit_with_our_code_but_without_our_words_is_no_refusal(log: str) -> None:
    assert refusal(REFUSED, log) == ""
    assert refusal(1, f"{MARK}words") == ""


def test_certificates_are_written_for_the_user_alone_and_leave_the_environment(
    tmp_path: Path,
) -> None:
    """With another folder than the container's, which this machine does not have."""
    given = spec(
        tmp_path, tmp_path, cmd=("env",), certificates=Certificates("KEY\n2", "CERT", "CA")
    )
    env = {
        key: value.replace("/run/workshop-hub", str(tmp_path))
        for key, value in environment(given).items()
    }
    assert SCRIPT not in env.values()
    result = subprocess.run(
        command(given),
        env={"PATH": os.environ["PATH"], **env},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "KEY" not in result.stdout
    assert "WORKSHOP_HUB" not in result.stdout
    assert (tmp_path / "key.pem").read_text() == "KEY\n2"
    assert (tmp_path / "ca.pem").read_text() == "CA"
    assert [f"{path.stat().st_mode & 0o777:o}" for path in tmp_path.iterdir()] == ["400"] * 3


def singleuser(folder: Path, first_line: str) -> str:
    """Make a server's script that tells how it was started."""
    script = folder / "jupyterhub-singleuser"
    script.write_text(f"{first_line}\nimport sys\nprint(sys.orig_argv[1:], sys.argv[1:])\n")
    script.chmod(0o755)
    return str(script)


@pytest.fixture
def starter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """launch/start.py, where the lines look for it in a container."""
    file = tmp_path / "start.py"
    file.write_text("import sys\nprint('started', *sys.argv[1:])\n")
    monkeypatch.setattr(prelude, "SCRIPT", prelude.SCRIPT.replace(STARTER, str(file)))
    return file


def test_a_server_of_python_is_started_fast(tmp_path: Path, starter: Path) -> None:
    script = singleuser(tmp_path, f"#!{sys.executable}")
    wanted = spec(cmd=(script, "a b", "--x=*"))
    assert run(wanted).stdout == f"[{script!r}, 'a b', '--x=*'] ['a b', '--x=*']\n"
    assert run(wanted, fast=True).stdout == f"started {script} a b --x=*\n"
    starter.unlink()  # in a container that is read-only it never was
    assert run(wanted, fast=True).stdout == run(wanted).stdout


def test_a_server_is_found_as_the_shell_finds_it(
    tmp_path: Path, starter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = singleuser(tmp_path, f"#!{sys.executable}")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    found = run(spec(tmp_path, tmp_path, cmd=("jupyterhub-singleuser", "x")), fast=True)
    assert found.stdout == f"started {script} x\n"


@pytest.mark.parametrize(
    "first_line",
    [f"#!{sys.executable} -s", "#!/usr/bin/env python3", "#!/bin/sh", "", f"#! {sys.executable}"],
)
def test_other_programs_are_left_as_they_are(
    tmp_path: Path, starter: Path, first_line: str
) -> None:
    script = singleuser(tmp_path, first_line)
    assert "started" not in run(spec(tmp_path, tmp_path, cmd=(script,)), fast=True).stdout
    other = Path(script).rename(tmp_path / "another")
    assert command(spec(cmd=(str(other),)), fast=True) == (str(other),)
