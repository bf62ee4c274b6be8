"""How the command that creates accounts is put together, run and ended."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from support import eventually_sync
from workshop_hub.errors import AccountCreationFailed, ConfigError
from workshop_hub.system import account_hooks, accounts, commands, useradd
from workshop_hub.system.accounts import Account

NAME = "workshop-no-such-account"


def program(folder: Path, name: str) -> Path:
    file = folder / name
    file.write_text("#!/bin/sh\n")
    file.chmod(0o755)
    return file


def test_debian_has_an_adduser_of_its_own(tmp_path: Path) -> None:
    adduser = program(tmp_path, "adduser")
    program(tmp_path, "useradd")
    command = useradd.default_command(root=True, path=str(tmp_path))
    assert command[0] == str(adduser)
    assert command[-1] == "--"
    assert command[command.index("--gecos") + 1] == ""


def test_elsewhere_adduser_is_a_link_to_useradd(tmp_path: Path) -> None:
    real = program(tmp_path, "useradd")
    (tmp_path / "adduser").symlink_to(real)
    command = useradd.default_command(root=True, path=str(tmp_path))
    assert command[:2] == [str(real), "--create-home"]
    assert command[-1] == "--"


def test_an_unprivileged_hub_goes_through_sudo_and_never_to_adduser(tmp_path: Path) -> None:
    program(tmp_path, "adduser")
    real = program(tmp_path, "useradd")
    command = useradd.default_command(root=False, path=str(tmp_path))
    assert command[:3] == ["sudo", "-n", str(real)]


@pytest.mark.parametrize(
    ("command", "uid", "expected"),
    [
        (["./add_user.sh"], None, ["./add_user.sh", "ada"]),
        (["./add_user.sh"], 1500, ["./add_user.sh", "--uid", "1500", "ada"]),
        (
            ["useradd", "--home", "/srv/USERNAME", "--"],
            1500,
            ["useradd", "--home", "/srv/ada", "--uid", "1500", "--", "ada"],
        ),
        (["add", "--for=USERNAME"], None, ["add", "--for=ada", "ada"]),
    ],
)
def test_the_name_comes_last(command: list[str], uid: int | None, expected: list[str]) -> None:
    assert useradd.arguments(command, "ada", uid) == expected


def test_the_sudoers_rule_escapes_what_sudoers_reads_as_its_own() -> None:
    rule = useradd.sudoers_rule("hub", ["/usr/sbin/useradd", "--key", "A=1,2", "--", "ada"])
    assert rule == r"hub ALL=(root) NOPASSWD: /usr/sbin/useradd --key A\=1\,2 -- *"


def test_the_command_does_not_get_the_hubs_secrets() -> None:
    given = commands.environment(
        {"CONFIGPROXY_AUTH_TOKEN": "s", "JUPYTERHUB_CRYPT_KEY": "s", "LANG": "C", "PATH": "/bin"}
    )
    assert given["LANG"] == "C"
    assert "s" not in given.values()
    assert given["PATH"].split(":") == ["/bin", "/usr/local/sbin", "/usr/sbin", "/sbin"]


def creator(*command: str, timeout: float = 20.0) -> useradd.AccountCreator:
    return useradd.AccountCreator(command, timeout=timeout, refuse=lambda account: "")


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """Write a program into the current folder and return its relative name."""
    monkeypatch.chdir(tmp_path)

    def write(text: str) -> str:
        file = tmp_path / "add_user.sh"
        file.write_text(f"#!/bin/sh\n{text}\n")
        file.chmod(0o755)
        return "./add_user.sh"

    return write


async def failure(command: useradd.AccountCreator, uid: int | None = None) -> AccountCreationFailed:
    with pytest.raises(AccountCreationFailed) as caught:
        await command.create(NAME, uid)
    return caught.value


async def test_an_existing_account_is_left_alone() -> None:
    assert (await creator("false").create("root")).uid == 0


async def test_a_failure_tells_the_code_and_the_last_lines(script: Callable[[str], str]) -> None:
    error = await failure(creator(script('echo "no room for $1" >&2; exit 3')))
    assert "exit code 3" in error.message
    assert f"./add_user.sh {NAME}" in error.message
    assert error.log == f"no room for {NAME}"


async def test_a_lie_is_found_out(script: Callable[[str], str]) -> None:
    error = await failure(creator(script("echo made it")))
    assert "the account is not there" in error.message
    assert error.log == "made it"


async def test_a_flood_of_output_ends_and_its_end_is_kept(script: Callable[[str], str]) -> None:
    error = await failure(creator(script("seq 1 300000; echo last; exit 1")))
    assert error.log.splitlines()[-2:] == ["300000", "last"]
    assert len(error.log.splitlines()) == account_hooks.LOG_LINES


async def test_an_endless_line_is_cut(script: Callable[[str], str]) -> None:
    error = await failure(creator(script("head -c 1000000 /dev/zero | tr '\\0' x; exit 1")))
    assert len(error.log) == commands.OUTPUT_KEPT


async def test_a_command_that_hangs_is_ended_with_all_it_started(
    script: Callable[[str], str], tmp_path: Path
) -> None:
    hang = script("sleep 600 & echo $! >child; echo waiting; wait")
    error = await failure(creator(hang, timeout=1.0))
    assert "did not end within 1 seconds" in error.message
    assert error.log == "waiting"
    child = int((tmp_path / "child").read_text())
    eventually_sync(lambda: not runs(child), "the command's child is gone")


def runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


async def test_what_outlives_the_command_is_not_waited_for(
    script: Callable[[str], str], tmp_path: Path
) -> None:
    error = await failure(creator(script("sleep 600 & echo $! >child; echo done")))
    assert "the account is not there" in error.message
    os.kill(int((tmp_path / "child").read_text()), 9)


async def test_one_that_ignores_term_is_killed(
    script: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commands, "GRACE", 0.5)
    error = await failure(creator(script("trap '' TERM; while :; do sleep 1; done"), timeout=0.5))
    assert "was stopped" in error.message


async def test_one_that_dies_of_a_signal(script: Callable[[str], str]) -> None:
    assert "ended by signal 9" in (await failure(creator(script("kill -9 $$")))).message


@pytest.mark.parametrize("program", ["./absent.sh", "/", "a\0b"])
async def test_one_that_cannot_be_started(program: str) -> None:
    error = await failure(creator(program))
    assert "cannot be started" in error.message
    assert str(Path.cwd()) in error.remedy


async def test_an_empty_command() -> None:
    assert "add_user_cmd is empty" in (await failure(creator())).message


@pytest.mark.parametrize("uid", [True, "1500", -1, 1.5])
async def test_a_uid_that_is_none(uid: object) -> None:
    with pytest.raises(ConfigError, match="uids gives"):
        await creator("true").create(NAME, uid)  # type: ignore[arg-type]


async def test_never_two_at_once(script: Callable[[str], str], tmp_path: Path) -> None:
    import asyncio

    once = creator(script("mkdir busy || exit 9; sleep 0.2; rmdir busy"))
    errors = await asyncio.gather(*(failure(once) for _ in range(3)))
    assert all("the account is not there" in error.message for error in errors)


def test_a_home_must_be_the_accounts_own_folder(tmp_path: Path) -> None:
    def at(home: Path | str, uid: int) -> str:
        return useradd.home_problem(Account("ada", uid, uid, str(home), "/bin/sh", (uid,)))

    me = os.getuid()
    assert at(tmp_path, me) == ""
    assert "belongs to uid" in at(tmp_path, me + 1)
    assert "No such file" in at(tmp_path / "absent", me)
    assert "no folder" in at(sys.executable, accounts.current().uid)
    assert at("/\0", me)
