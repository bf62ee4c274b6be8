"""`workshop-hub doctor`, from outside: what is wrong is said before a hub starts."""

from __future__ import annotations

import getpass
import re
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from workshop_hub.cli import main


def run(*words: str | Path) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


def doctor(folder: Path, text: str) -> Result:
    config = folder / "jupyterhub_config.py"
    config.write_text(f"c = get_config()\n{text}\n")
    return run("doctor", "-f", config)


WORKSHOP = "c.JupyterHub.spawner_class = 'workshop'\n"
LOGINS = f"{WORKSHOP}c.JupyterHub.authenticator_class = 'workshop'\n"
JOIN = f"{LOGINS}c.WorkshopAuthenticator.join_code = 'seven-green-bottles'\n"


def lines(result: Result, level: str) -> list[str]:
    """Return the findings of a level, each with its remedy."""
    table = re.split(r"\n(?=ok |warning |error )", result.output)
    return [line for line in table if line.startswith(level)]


def test_doctor_says_how_passwords_are_checked(tmp_path: Path) -> None:
    ours = "c.JupyterHub.authenticator_class = 'workshop'\n"
    assert "passwords are checked in" in doctor(tmp_path, f"{WORKSHOP}{ours}").output
    missing = f"c.WorkshopAuthenticator.pam_broker = '{tmp_path}/none.sock'"
    result = doctor(tmp_path, f"{WORKSHOP}{ours}{missing}")
    assert "No PAM broker can be reached" in result.output
    assert result.exit_code == 1
    wrong = "c.WorkshopAuthenticator.pam_broker = 'sudoo'"
    assert "must be" in doctor(tmp_path, f"{WORKSHOP}{ours}{wrong}").output
    assert "passwords" not in doctor(tmp_path, WORKSHOP).output


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
        (
            WORKSHOP + "c.Spawner.mem_limit = '1G'\n"
            "c.ProcessBackend.cgroup_parent = 'no-such/group'",
            'c.WorkshopSpawner.limits_policy = "warn"',
        ),
        (
            WORKSHOP + "c.WorkshopSpawner.mem_limt = '2G'",
            "Did you mean c.WorkshopSpawner.mem_limit?",
        ),
        (WORKSHOP + "c.WorkshopSpwner.cpu_limit = 2", "Did you mean c.WorkshopSpawner?"),
        ("c.JupyterHb.spawner_class = 'workshop'", "Did you mean c.JupyterHub?"),
        (
            LOGINS + "c.LocalAuthenticator.allowed_group = {'x'}",
            "LocalAuthenticator.allowed_groups?",
        ),
        (
            LOGINS + "c.ProcessBackend.port_rang = (1, 2)",
            "Did you mean c.ProcessBackend.port_range?",
        ),
        (
            WORKSHOP + "c.ProcessBackend.port_range = (29999, 20000)",
            "the first port is above the last",
        ),
        (WORKSHOP + "c.JupyterHub.hub_ip = '192.0.2.1'", "The hub cannot listen at 192.0.2.1: "),
        (
            WORKSHOP + "c.JupyterHub.hub_bind_url = 'http://192.0.2.1:8081'",
            "or leave c.JupyterHub.hub_bind_url out",
        ),
        (
            JOIN + "c.WorkshopAuthenticator.join_group = 'no-such-group'",
            "Run: groupadd no-such-group",
        ),
        (JOIN + "c.WorkshopAuthenticator.join_group = 'root'", "one of the system's own"),
        (JOIN + "c.WorkshopAuthenticator.join_code = 'short'", "join_code has 5 characters"),
        (
            JOIN + "c.WorkshopAuthenticator.join_from = '2027-03-02T08:30+01:00'\n"
            "c.WorkshopAuthenticator.join_until = '2027-03-01T08:30+01:00'",
            "is not before join_until",
        ),
        (LOGINS + "c.PAMAuthenticator.service = 'no-such'", 'no PAM service "no-such"'),
        *(
            (
                f"{WORKSHOP}c.WorkshopSpawner.group_overrides = {{'x': {value}}}",
                'group_overrides["x"]',
            )
            for value in (
                "{'groups': ['a'], 'spawner_overrid': {'mem_limit': '1G'}}",
                "{'spawner_override': {'mem_limit': '1G'}}",
                "{'groups': 'teachers', 'spawner_override': {}}",
                "{'groups': ['a'], 'spawner_override': ['mem_limit']}",
                "[]",
            )
        ),
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


def test_doctor_takes_no_other_program_for_a_typing_error(tmp_path: Path) -> None:
    result = doctor(
        tmp_path,
        f"""{LOGINS}
from traitlets import Unicode
from workshop_hub import WorkshopSpawner

class CourseSpawner(WorkshopSpawner):
    course = Unicode().tag(config=True)

class WorkshopSpawners(WorkshopSpawner):
    pass

c.JupyterHub.spawner_class = CourseSpawner
c.CourseSpawner.course = "physics"
c.Spawner.course = "physics"
c.Spawner.image = "an option of a subclass"
c.WorkshopSpawners.pids_limit = 5
c.Spawner.environment.update(A="1")
c.Authenticator.join_max = 5
for name in "LDAPAuthenticator", "CASAuthenticator", "OAuthenticator", "NativeAuthenticator":
    c[name].allowed_users = {{"ada"}}
for name in "DockerSpawner", "SystemdSpawner", "SudoSpawner", "KubeSpawner", "TraefikProxy":
    c[name].option = 1
""",
    )
    assert not [line for line in lines(result, "error") if "nothing reads" in line], result.output


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (
            "c.LocalAuthenticator.allowed_groups = {'no-such-group'}",
            'The option allowed_groups names the group "no-such-group"',
        ),
        (
            "c.PAMAuthenticator.admin_groups = {'no-such-group'}",
            'The option admin_groups names the group "no-such-group"',
        ),
        (
            f"{JOIN}c.WorkshopAuthenticator.join_group = 'no-such-group'",
            'The option join_group names the group "no-such-group"',
        ),
        (
            "c.Authenticator.allowed_users = {'no-such-person'}",
            'The option allowed_users names "no-such-person"',
        ),
        (
            "c.Authenticator.admin_users = {'no-such-person'}",
            'The option admin_users names "no-such-person"',
        ),
        ("", "it's possible that nobody can login"),
    ],
)
def test_doctor_warns_of_logins_that_will_not_be(tmp_path: Path, line: str, said: str) -> None:
    result = doctor(tmp_path, LOGINS + line)
    assert any(said in each for each in lines(result, "warning")), result.output
    if "join_group" in said:
        assert "option allowed_groups" not in result.output


def test_doctor_warns_of_nobody_who_is_there_or_will_be(tmp_path: Path) -> None:
    here = f"c.Authenticator.allowed_users = {{'{getpass.getuser()}'}}"
    assert "has no such account" not in doctor(tmp_path, LOGINS + here).output
    new = (
        "c.Authenticator.allowed_users = {'no-such-person'}\n"
        "c.LocalAuthenticator.create_system_users = True"
    )
    assert "has no such account" not in doctor(tmp_path, LOGINS + new).output


def test_doctor_asks_the_authenticators_of_others_too(tmp_path: Path) -> None:
    assert any("nobody can login" in each for each in lines(doctor(tmp_path, WORKSHOP), "warning"))
    demanding = f"""{WORKSHOP}
from jupyterhub.auth import Authenticator

class Demanding(Authenticator):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.parent.db.execute("select")

c.JupyterHub.authenticator_class = Demanding
"""
    result = doctor(tmp_path, demanding)
    assert any(
        "Demanding cannot be made where no hub runs" in each for each in lines(result, "warning")
    )
