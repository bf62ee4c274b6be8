"""The commands, from outside: what they print, what they write, how they end."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from workshop_hub.cli import main

ROOT = Path(__file__).parents[2]


def run(*words: str | Path) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


def doctor(folder: Path, text: str) -> Result:
    config = folder / "jupyterhub_config.py"
    config.write_text(f"c = get_config()\n{text}\n")
    return run("doctor", "-f", config)


WORKSHOP = "c.JupyterHub.spawner_class = 'workshop'\n"


@pytest.mark.parametrize("command", ["demo", "doctor", "units"])
def test_every_command_explains_itself(command: str) -> None:
    result = run(command, "--help")
    assert result.exit_code == 0
    assert "Usage:" in result.output


def test_units_are_shown_with_the_sudo_rule() -> None:
    result = run("units", "--hub-user", "nobody", "--accounts", "%course", "--accounts", "ada")
    assert result.exit_code == 0
    assert "User=nobody" in result.output
    assert "/etc/systemd/system/workshop-users.service" in result.output
    assert "nobody ALL=(%course, ada) NOPASSWD:" in result.output


def test_units_are_written_with_their_modes(tmp_path: Path) -> None:
    result = run("units", "--hub-user", "nobody", "--output", tmp_path)
    assert result.exit_code == 0
    sudoers = tmp_path / "etc/sudoers.d/workshop-hub"
    assert stat.S_IMODE(sudoers.stat().st_mode) == 0o440
    assert sudoers.read_text().count("NOPASSWD") == 1
    again = run("units", "--hub-user", "nobody", "--output", tmp_path, "--accounts", "ada")
    assert again.exit_code == 0
    assert "(ada)" in sudoers.read_text()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--hub-user", "root"], "not run as root"),
        (["--hub-user", "no-such-account"], "no account"),
        (["--hub-user", "nobody", "--accounts", "a b"], "cannot be written"),
        (["--hub-user", "nobody", "--memory-low", "lots"], "memory_low is 'lots'"),
    ],
)
def test_units_refuse_what_cannot_work(words: list[str], said: str) -> None:
    result = run("units", *words)
    assert result.exit_code == 1
    assert said in result.stderr


def test_units_say_where_they_could_not_write(tmp_path: Path) -> None:
    (tmp_path / "etc").write_text("in the way")
    result = run("units", "--hub-user", "nobody", "--output", tmp_path)
    assert result.exit_code == 1
    assert "cannot be written" in result.stderr


def test_doctor_wants_a_configuration(tmp_path: Path) -> None:
    result = run("doctor", "-f", tmp_path / "missing.py")
    assert result.exit_code == 1
    assert "There is no configuration file" in result.stderr


def test_doctor_tells_why_a_configuration_does_not_load(tmp_path: Path) -> None:
    result = doctor(tmp_path, "1 / 0")
    assert result.exit_code == 1
    assert "ZeroDivisionError" in result.stderr


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("", 'Set c.JupyterHub.spawner_class = "workshop"'),
        (WORKSHOP + "c.Spawner.mem_limit = '12Q'", "mem_limit is '12Q'"),
        (WORKSHOP + "c.Spawner.cpu_limit = 1; c.Spawner.cpu_guarantee = 2", "cpu_guarantee (2)"),
        (WORKSHOP + "c.WorkshopSpawner.backend = 'podman'", '"docker", "process"'),
        (WORKSHOP + "c.ConfigurableHTTPProxy.command = 'no-such-proxy'", "no-such-proxy is not on"),
        (
            WORKSHOP + "c.WorkshopSpawner.backend = 'docker'\n"
            "c.DockerBackend.base_url = 'unix:///nowhere/docker.sock'",
            "No container engine runs at unix:///nowhere/docker.sock",
        ),
        (
            WORKSHOP + "c.Spawner.mem_limit = '1G'\n"
            "c.ProcessBackend.cgroup_parent = 'no-such/group'",
            "process: limits",
        ),
        (WORKSHOP + "c.ProcessBackend.launcher_command = ['/bin/no-such']", "process: launcher"),
    ],
)
def test_doctor_finds_what_is_wrong(tmp_path: Path, line: str, said: str) -> None:
    result = doctor(tmp_path, line)
    assert result.exit_code == 1
    errors = result.output.split("\nerror")[1:]
    assert any(said in error for error in errors), result.output


def test_doctor_takes_limits_that_do_not_hold_for_a_warning_where_they_are_not_required(
    tmp_path: Path,
) -> None:
    line = "c.ProcessBackend.cgroup_parent = 'no-such/group'\n"
    for policy in ("c.WorkshopSpawner.limits_policy = 'warn'; c.Spawner.mem_limit = '1G'", ""):
        result = doctor(tmp_path, f"{WORKSHOP}{line}{policy}")
        assert "\nwarning  process: limits" in result.output
        assert "\nerror    process: limits" not in result.output


def test_doctor_finds_an_environment_that_others_cannot_read(tmp_path: Path) -> None:
    program = tmp_path / "private" / "server"
    program.parent.mkdir(mode=0o700)
    program.touch(mode=0o755)
    result = doctor(tmp_path, f"{WORKSHOP}c.Spawner.cmd = ['{program}']")
    assert "is closed to them" in result.output
    assert result.exit_code == 1


def test_the_demo_says_that_a_port_is_taken() -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        result = run("demo", "--port", str(port))
    assert result.exit_code == 1
    assert f"Port {port} of this machine cannot be used" in result.stderr
    assert f"--port {port + 100}" in result.stderr


def test_the_demo_needs_an_engine_for_containers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")
    result = run("demo", "--backend", "docker", "--port", "0")
    assert result.exit_code == 1
    assert "No container engine runs at unix:///nowhere/docker.sock" in result.output
