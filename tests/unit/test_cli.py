"""The commands, from outside: what they print, what they write, how they end."""

from __future__ import annotations

import re
import stat
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from workshop_hub import WorkshopAuthenticator, pam_access, pam_service
from workshop_hub.backends.process import ProcessBackend
from workshop_hub.cli import main
from workshop_hub.errors import ConfigError
from workshop_hub.launch import as_root, warm
from workshop_hub.system import pam_rules

ROOT = Path(__file__).parents[2]


def run(*words: str | Path) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


@pytest.mark.parametrize("command", ["demo", "doctor", "launcher", "pam-service", "units"])
def test_every_command_explains_itself(command: str) -> None:
    result = run(command, "--help")
    assert result.exit_code == 0
    assert "Usage:" in result.output


def test_units_are_shown_with_the_sudo_rule() -> None:
    result = run("units", "--hub-user", "nobody", "--accounts", "%users", "--accounts", "daemon")
    assert result.exit_code == 0
    assert "User=nobody" in result.output
    assert "/etc/systemd/system/workshop-users.service" in result.output
    assert "nobody ALL=(%users, daemon) NOPASSWD:" in result.output


WARM = ("--hub-user", "nobody", "--launcher", "warm")


def test_units_of_the_warm_launcher_fix_whose_servers_it_starts(tmp_path: Path) -> None:
    result = run("units", *WARM, "--accounts", "%users", "--output", tmp_path)
    assert result.exit_code == 0
    assert 'c.ProcessBackend.launcher = "warm"' in result.output
    place = re.search(r'c.ProcessBackend.warm_socket = "(.*)"', result.output)
    units = tmp_path / "etc/systemd/system"
    socket = (units / "workshop-users.socket").read_text()
    assert place
    assert f"ListenStream={place[1]}\nSocketUser=nobody\nSocketMode=0600\n" in socket
    drop_in = units / "workshop-users.service.d/warm.conf"
    started = drop_in.read_text().splitlines()[-1]
    assert started.endswith("--group=users")
    assert "--with-hub" not in started
    run("units", *WARM, "--accounts", "daemon", "--uids", "2000-2999", "--output", tmp_path)
    started = drop_in.read_text().splitlines()[-1]
    assert "--uids=2000-2999" in started
    assert "--group" not in started


def test_units_without_the_warm_launcher_are_what_they_were(tmp_path: Path) -> None:
    for folder, ways in (("sudo", [()]), ("both", [WARM, ()])):
        for words in ways:
            run("units", "--hub-user", "nobody", *words, "--output", tmp_path / folder)
    left = {
        folder: {
            file.relative_to(tmp_path / folder): file.read_text()
            for file in (tmp_path / folder).rglob("*")
            if file.is_file()
        }
        for folder in ("sudo", "both")
    }
    assert left["sudo"] == left["both"]
    assert len(left["sudo"]) == 7


def test_units_without_passwords_are_what_they_were(tmp_path: Path) -> None:
    """A hub with another authenticator has no use for a program that checks them as root."""
    for _ in range(2):
        run("units", "--hub-user", "nobody", "--output", tmp_path)
        result = run("units", "--hub-user", "nobody", "--no-pam", "--output", tmp_path)
        assert "workshop-users-pam.socket is not wanted any more: removed" in result.output
    left = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert len(left) == 4
    assert not any("users-pam" in file.read_text() for file in left if "sudoers" not in file.name)


def test_who_may_have_passwords_checked_and_how_is_written_the_same_everywhere() -> None:
    shown = run("units", "--hub-user", "nobody").output
    rule = re.search(r"^#(nobody ALL=\(root\) NOPASSWD: .*pam_broker.*)$", shown, re.MULTILINE)
    unit = re.search(r"^ExecStart=(.*pam_broker.*) --hub-user nobody$", shown, re.MULTILINE)
    wanted = WorkshopAuthenticator()._wanted()
    assert rule
    assert unit
    assert rule[1] == as_root.rule(wanted.command, "nobody")
    assert unit[1].split() == wanted.command
    assert f"ListenSequentialPacket={pam_access.SOCKET}" in shown


def test_the_line_of_sudoers_in_the_page_is_the_one_that_is_needed() -> None:
    page = (ROOT / "docs/howto/unprivileged-hub.md").read_text()
    (block,) = re.findall(r"^```sudoers\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    words = pam_rules.arguments("workshop-hub")
    command = pam_access.broker_command(Path("/opt/workshop-hub/bin"), words)
    assert block.strip() == as_root.rule(command, "jupyterhub")


@pytest.mark.parametrize("form", ["debian", "fedora", "suse"])
def test_the_pam_service_has_all_that_pam_asks_for(form: str) -> None:
    shown = run("pam-service", "--form", form).output
    lines = [line.split() for line in shown.splitlines() if line.strip() and line[0] != "#"]
    for kind in ("auth", "account", "password", "session"):
        assert any(words[0] == kind or words[-1].startswith(f"common-{kind}") for words in lines), (
            kind
        )


def test_the_pam_service_of_an_administrator_is_not_overwritten(tmp_path: Path) -> None:
    words = ("pam-service", "--form", "fedora", "--output", tmp_path)
    file = tmp_path / "etc/pam.d/workshop-hub"
    assert run(*words).exit_code == 0
    assert stat.S_IMODE(file.stat().st_mode) == 0o644
    assert run(*words).exit_code == 0
    file.write_text("auth required pam_deny.so\n")
    refused = run(*words)
    assert refused.exit_code == 1
    assert "is there already, and differs" in refused.stderr
    assert file.read_text().endswith("pam_deny.so\n")
    assert run(*words, "--force").exit_code == 0
    assert "system-auth" in file.read_text()


def test_the_form_of_the_pam_service_is_the_machines(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="has none of"):
        pam_service.form((tmp_path,))
    for known_by, form in (
        ("system-auth", "fedora"),
        ("common-auth", "suse"),
        ("common-session-noninteractive", "debian"),
    ):
        (tmp_path / known_by).touch()
        assert pam_service.form((tmp_path / "no-such-folder", tmp_path)) == form


def test_the_sudo_rule_of_the_warm_launcher_is_what_the_hub_runs(tmp_path: Path) -> None:
    backend = ProcessBackend(launcher="warm", warm_group="users", log_dir=str(tmp_path))
    ours = warm.command(
        backend.warm_command,
        (),
        uids=backend.warm_uids,
        group=backend.warm_group,
        program=backend.warm_program,
        fast=backend.fast_start,
    )
    shown = run("units", *WARM, "--accounts", "%users").output
    (rule,) = [line for line in shown.splitlines() if line.startswith("#nobody ALL=(root)")][:1]
    allowed = rule.partition("NOPASSWD: ")[2]
    assert re.sub(r"\\(.)", r"\1", allowed) == " ".join(ours)


def test_units_are_written_with_their_modes(tmp_path: Path) -> None:
    result = run("units", "--hub-user", "nobody", "--output", tmp_path)
    assert result.exit_code == 0
    sudoers = tmp_path / "etc/sudoers.d/workshop-hub"
    assert stat.S_IMODE(sudoers.stat().st_mode) == 0o440
    assert len(re.findall("^[^#].*NOPASSWD", sudoers.read_text(), re.MULTILINE)) == 1
    again = run("units", "--hub-user", "nobody", "--output", tmp_path, "--accounts", "daemon")
    assert again.exit_code == 0
    assert "(daemon)" in sudoers.read_text()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--hub-user", "root"], "not run as root"),
        (["--hub-user", "no-such-account"], "nologin no-such-account"),
        (["--hub-user", "nobody", "--accounts", "a b"], "cannot be written"),
        (["--hub-user", "nobody", "--memory-low", "lots"], "memory_low is 'lots'"),
        (["--hub-user", "nobody", "--accounts", "root"], "could run servers as root"),
        (["--hub-user", "nobody", "--accounts", "%root"], "could run servers as root"),
        (
            ["--hub-user", "nobody", "--accounts", "ALL", "--missing-ok"],
            "could run servers as root",
        ),
        (["--hub-user", "nobody", "--accounts", "%nosuch"], "groupadd nosuch"),
        (["--hub-user", "nobody", "--accounts", "nosuch"], "useradd --create-home nosuch"),
        ([*WARM, "--accounts", "ada"], "cannot be told to serve ada: it takes one group"),
        ([*WARM, "--accounts", "%a", "--accounts", "%b"], "cannot be told to serve %a, %b"),
        ([*WARM, "--accounts", "ada", "--uids", "2000"], "--uids is '2000'"),
        ([*WARM, "--accounts", "ada", "--uids", "20-10"], "--uids is '20-10'"),
    ],
)
def test_units_refuse_what_cannot_work(words: list[str], said: str) -> None:
    result = run("units", *words)
    assert result.exit_code == 1
    assert said in result.stderr


def test_units_may_name_what_is_made_later() -> None:
    words = ("--hub-user", "nobody", "--accounts", "%nosuch", "--accounts", "nosuch")
    result = run("units", *words, "--missing-ok")
    assert result.exit_code == 0
    assert "nobody ALL=(%nosuch, nosuch) NOPASSWD:" in result.output


def test_units_say_where_they_could_not_write(tmp_path: Path) -> None:
    (tmp_path / "etc").write_text("in the way")
    result = run("units", "--hub-user", "nobody", "--output", tmp_path)
    assert result.exit_code == 1
    assert "cannot be written" in result.stderr


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
