"""Orders, reports and refusals: what passes between the hub and the launcher."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from workshop_hub.errors import AccountRefused, ConfigError, LauncherRefused
from workshop_hub.launch import become, forkserver, message, running, sudo
from workshop_hub.launch.message import Order, Refusal, Report, Target
from workshop_hub.system import safety

NOBODY = ("setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups")

ORDER = Order(key="h.u.", uid=os.getuid(), cmd=("true",), env={})


def launched(told: bytes, *prefix: str) -> tuple[int, str]:
    """Run the launcher as this account and return its exit code and report."""
    command = [*prefix, sys.executable, "-I", "-S", become.__file__]
    done = subprocess.run(command, input=told, capture_output=True, check=False)
    return done.returncode, done.stdout.decode()


@pytest.mark.parametrize(
    "told",
    [
        b"",
        b"\0",
        b"workshop-hub 2\0verb=start\0end\0",
        message.start_message(ORDER)[:-1],
        message.start_message(ORDER).removesuffix(b"end\0"),
        b"x" * (become.MAX_MESSAGE + 10),
    ],
    ids=["nothing", "NUL", "version", "cut", "no end", "too long"],
)
def test_half_an_order_is_no_order(told: bytes) -> None:
    code, said = launched(told)
    assert code == become.REFUSED
    assert message.read_report(said).refusal == Refusal(
        "protocol", "The launcher was given no complete order of this version."
    )


def test_an_order_for_somebody_else_is_refused() -> None:
    code, said = launched(
        message.signal_message(Target("k", 1, 0, 0), [15], tree=False),
        *(NOBODY if os.getuid() == 0 else ()),
    )
    refusal = message.read_report(said).refusal
    assert code == become.REFUSED
    assert refusal
    assert refusal.kind == "uid"


def test_the_launcher_imports_little() -> None:
    """Each import costs every start."""
    code = f"exec(open({become.__file__!r}).read(), {{'__name__': 'x'}}); print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", f"import sys; {code}"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert not {"json", "subprocess", "typing", "re", "enum", "signal"} & set(done.stdout.split())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("#!/opt/hub/bin/python\n", "/opt/hub/bin/python"),
        ("#! /usr/bin/python3.11 -sP \nimport re\n", "/usr/bin/python3.11 -sP"),
        ("#!/usr/bin/python3\r\n", "/usr/bin/python3"),
        ("#!/usr/bin/python3 -m\n", ""),
        ("#!/usr/bin/python3 -Im\n", ""),
        ("#!/usr/bin/python3 -x\n", ""),
        ("#!/usr/bin/python3 -\n", ""),
        ("#!/usr/bin/python3 --\n", ""),
        ("#!/usr/bin/python3 -I -s\n", ""),
        ("#!/usr/bin/python3 script\n", ""),
        ("#!/usr/bin/env python3\n", ""),
        ("#!/opt/pypy/bin/pypy3\n", ""),
        ("#!python3\n", ""),
        ("#!/bin/sh\n'''exec' \"/opt/a hub/bin/python\" \"$0\" \"$@\"\n' '''\n", ""),
        ("#!" + "/long" * 60 + "/python\n", ""),
        ("#!/usr/bin/python3", ""),
        ("#!\n", ""),
        ("\x7fELF\0", ""),
        ("", ""),
    ],
)
def test_a_python_script_is_known_by_its_first_line(tmp_path: Path, text: str, words: str) -> None:
    script = tmp_path / "jupyterhub-singleuser"
    script.write_bytes(text.encode())
    assert become.interpreter(str(script)) == words.split()


def test_a_script_that_is_not_there_has_no_interpreter(tmp_path: Path) -> None:
    assert become.interpreter(str(tmp_path / "absent")) == []


@pytest.mark.parametrize(
    ("text", "report"),
    [
        ("", Report()),
        ("pid 5 99\nexit 3\n", Report(pid=5, start_time=99, exit_code=3)),
        ("exit 3\npid 5 99\n", Report(pid=5, start_time=99, exit_code=3)),
        ("pid 5 99\npid 1 1\n", Report(pid=5, start_time=99)),
        ("pid 5\nexit x\noom -1\n\0\nexit\n", Report()),
        ("pid " + "9" * 30 + " 1\n", Report()),
        ("pid " + "9" * 19 + " 1\n", Report()),
        ("pid 0 1\n", Report()),
        ("oom 4\n", Report(oom_kills=4)),
        ("error home\tno\n", Report(refusal=Refusal("home", "no"))),
        ("error\n", Report(refusal=Refusal("", ""))),
        ("error a\tb\tc\n", Report(refusal=Refusal("a", "b"))),
    ],
)
def test_a_report_is_read_without_trust(text: str, report: Report) -> None:
    assert message.read_report(text) == report


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"env": {"TOKEN": "sesame\0"}}, "environment variable 'TOKEN'"),
        ({"cmd": ("sesame\0",)}, "command"),
        ({"env": {"": "sesame"}}, "without a name"),
        ({"env": {"BIG": "x" * become.MAX_MESSAGE}}, str(become.MAX_MESSAGE)),
    ],
)
def test_what_cannot_be_ordered(changes: dict[str, object], said: str) -> None:
    values = {"key": "k", "uid": 1, "cmd": ("true",), "env": {}, **changes}
    with pytest.raises(ConfigError) as caught:
        message.start_message(Order(**values))  # type: ignore[arg-type]
    assert said in str(caught.value)
    assert "sesame" not in str(caught.value)


COMMAND = ("/opt/w/bin/python", "-I", "-S", "/opt/w/become.py")


@pytest.mark.parametrize(
    ("words", "remedy"),
    [
        ("sudo: a password is required", "NOPASSWD: /opt/w/bin/python -I -S /opt/w/become.py"),
        ("Sorry, user hub is not allowed to execute 'x' as bob on h.", "NOPASSWD"),
        ("hub is not in the sudoers file.", "NOPASSWD"),
        ("sudo: sorry, you must have a tty to run sudo", "!requiretty"),
        ('sudo: The "no new privileges" flag is set, which prevents sudo', "NoNewPrivileges="),
        ("sudo: effective uid is not 0, is /usr/bin/sudo on a file system with", "nosuid"),
        ("sudo: /opt/w/bin/python: command not found", "open to every user"),
        ("sudo: something new", "Ask the administrator."),
        ("", "Ask the administrator."),
    ],
)
def test_sudo_is_quoted_and_the_cure_is_named(words: str, remedy: str) -> None:
    error = sudo.explain_refusal(1, f"{words}\nmore", "bob", COMMAND)
    assert isinstance(error, LauncherRefused)
    assert words.removeprefix("sudo: ") in error.message
    assert remedy in error.remedy


def test_an_unknown_account_is_an_account_refused() -> None:
    assert isinstance(
        sudo.explain_refusal(1, "sudo: unknown user bob\n", "bob", COMMAND), AccountRefused
    )


def test_the_rule_escapes_what_sudoers_would_read_otherwise() -> None:
    rule = sudo.sudoers_rule(["/opt/a b/py,thon", "-I"], "hub")
    assert rule == "hub ALL=(%GROUP) NOPASSWD: /opt/a\\ b/py\\,thon -I"


async def test_a_launcher_that_hangs_is_ended() -> None:
    with pytest.raises(LauncherRefused, match="did not finish within"):
        await running.run_for_words(["sleep", "3600"], b"", timeout=0.2)


async def test_a_program_that_is_not_there_is_named() -> None:
    with pytest.raises(LauncherRefused, match="/no/such cannot be run"):
        await running.run_for_words(["/no/such"], b"", timeout=5)


async def test_words_are_bounded_and_the_exit_code_is_passed_on() -> None:
    code, words = await running.run_for_words(
        ["sh", "-c", "head -c 100000 /dev/zero | tr '\\0' x; exit 7"], b"", timeout=20
    )
    assert (code, len(words)) == (7, 8192)


async def test_the_hubs_environment_is_not_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONFIGPROXY_AUTH_TOKEN", "sesame")
    _, words = await running.run_for_words(["env"], b"", timeout=20)
    assert "sesame" not in words


def test_what_runs_as_every_user_is_looked_at() -> None:
    found = safety.launcher_files([sys.executable, "-I", "-S", become.__file__])
    beside = Path(become.__file__).with_name("start.py")
    assert {Path(sys.executable), Path(become.__file__), beside, Path(os.__file__)} == set(found)


def test_what_root_imports_for_the_warm_launcher_is_looked_at() -> None:
    program = Path(sys.executable).with_name("jupyterhub-singleuser")
    found = safety.warm_files([sys.executable, "-I", forkserver.__file__], str(program))
    beside = {Path(forkserver.__file__).with_name(name) for name in ("preload.py", "forked.py")}
    packages = {Path(sysconfig.get_path("purelib")), Path(os.__file__).parent}
    assert {Path(forkserver.__file__), program, *beside, *packages} <= set(found)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give files away")
def test_what_root_runs_may_not_be_the_hubs(tmp_path: Path) -> None:
    file = tmp_path / "launcher"
    file.touch(mode=0o644)
    for folder in (tmp_path, tmp_path.parent, tmp_path.parent.parent):
        folder.chmod(0o755)
    assert safety.trouble(file, 0) == ""
    os.chown(file, 65534, -1)
    assert safety.trouble(file, 65534) == ""  # run as anybody but root
    assert "belongs to uid 65534" in safety.trouble(file, 0)


def test_a_safe_file_is_safe() -> None:
    assert safety.trouble(Path("/bin/sh"), os.getuid()) == ""


@pytest.mark.parametrize(
    ("place", "mode", "said"),
    [
        ("folder/file", 0o646, "written by everybody"),
        ("folder/file", 0o640, "read by every user"),
        ("folder", 0o757, "written by everybody"),
        ("folder", 0o750, "entered by every user"),
    ],
)
def test_a_file_on_an_unsafe_way_is_not(tmp_path: Path, place: str, mode: int, said: str) -> None:
    file = tmp_path / "folder" / "file"
    file.parent.mkdir(mode=0o755)
    file.touch()
    file.chmod(0o644)
    link = tmp_path / "link"
    link.symlink_to(file)
    for folder in (tmp_path, tmp_path.parent, tmp_path.parent.parent):
        folder.chmod(0o755)
    assert safety.trouble(link, os.getuid()) == ""
    (tmp_path / place).chmod(mode)
    for way in (file, link):
        found = safety.trouble(way, os.getuid())
        assert str(tmp_path / place) in found
        assert said in found
