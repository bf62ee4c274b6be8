"""What cannot be started, and the sentence that says why; nothing is left of it."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from harness import ProcessHarness, answer, made_account, processes_of, started

from workshop_hub.errors import (
    AccountRefused,
    ConfigError,
    DirectoryRefused,
    LimitsNotEnforceable,
    ServerExited,
    StartTimeout,
    WorkshopError,
)
from workshop_hub.launch import become, message
from workshop_hub.launch.message import Order
from workshop_hub.policy.limits import Limits
from workshop_hub.system.accounts import Account


async def refusal(
    hub: ProcessHarness, kind: type[WorkshopError], *tiny: str, **changes: object
) -> str:
    """Start what must be refused; return what is said, after seeing that nothing is left."""
    backend = hub.backend()
    with pytest.raises(kind) as caught:
        await started(backend, hub.spec(*tiny, **changes))
    assert processes_of(hub.account.uid) == []
    assert await backend.list_owned() == []
    return str(caught.value)


@pytest.fixture
def carol(machine: None) -> Iterator[Account]:
    """An account of one test's own, whose home it may spoil."""
    with made_account("carol") as account:
        yield account


async def test_root_is_refused(root_hub: ProcessHarness) -> None:
    root_hub.account = replace(root_hub.account, uid=0)
    with pytest.raises(AccountRefused):
        await root_hub.backend().prepare(root_hub.spec())


def test_the_launcher_itself_does_nothing_as_root(machine: None) -> None:
    order = Order(key="k", uid=0, cmd=("true",), env={})
    done = subprocess.run(
        [sys.executable, "-I", "-S", become.__file__],
        input=message.start_message(order),
        capture_output=True,
        check=False,
    )
    assert done.returncode == become.REFUSED
    assert b"as root" in done.stdout


async def test_run_as_hub_is_refused_to_root(root_hub: ProcessHarness) -> None:
    with pytest.raises(ConfigError, match="hub is root"):
        root_hub.backend(run_as="hub")


async def test_a_missing_home_is_named(tmp_path: Path, carol: Account) -> None:
    Path(carol.home).rename(tmp_path / "moved")
    hub = ProcessHarness(tmp_path, carol, with_cgroup=False)
    said = await refusal(hub, AccountRefused)
    assert f"home directory {carol.home} does not exist" in said


async def test_a_home_of_root_is_named(tmp_path: Path, carol: Account) -> None:
    os.chown(carol.home, 0, 0)
    Path(carol.home).chmod(0o755)
    said = await refusal(ProcessHarness(tmp_path, carol, with_cgroup=False), AccountRefused)
    assert f"home directory {carol.home} belongs to uid 0" in said


async def test_a_closed_home_is_named(tmp_path: Path, carol: Account) -> None:
    os.chown(carol.home, 0, 0)
    Path(carol.home).chmod(0o700)
    said = await refusal(ProcessHarness(tmp_path, carol, with_cgroup=False), AccountRefused)
    assert f"home directory {carol.home} cannot be entered: Permission denied" in said


@pytest.fixture
def full_home(carol: Account) -> Iterator[Account]:
    own = f"size=64k,uid={carol.uid},gid={carol.gid},mode=700"
    subprocess.run(["mount", "-t", "tmpfs", "-o", own, "tmpfs", carol.home], check=True)
    (Path(carol.home) / "big").write_bytes(bytes(65536))
    yield carol
    subprocess.run(["umount", carol.home], check=True)


async def test_a_full_home_is_named(tmp_path: Path, full_home: Account) -> None:
    said = await refusal(ProcessHarness(tmp_path, full_home, with_cgroup=False), AccountRefused)
    assert f"home directory {full_home.home} is full" in said


async def test_an_account_made_anew_is_not_mistaken(root_hub: ProcessHarness) -> None:
    root_hub.account = replace(root_hub.account, uid=root_hub.account.uid + 10_000)
    assert "the hub expected" in await refusal(root_hub, AccountRefused)


async def test_an_account_that_is_gone_is_named(root_hub: ProcessHarness) -> None:
    root_hub.account = replace(root_hub.account, name="wsh-test-nobody")
    assert "wsh-test-nobody" in await refusal(root_hub, AccountRefused)


async def test_the_notebook_dir_is_made_by_the_user(
    root_hub: ProcessHarness, carol: Account
) -> None:
    root_hub.account = carol
    folder = Path(carol.home, "a", "b")
    backend = root_hub.backend()
    at = await started(backend, root_hub.spec(notebook_dir=str(folder), create_notebook_dir=True))
    assert folder.stat().st_uid == folder.parent.stat().st_uid == carol.uid
    assert (await answer(at))["cwd"] == carol.home
    await backend.stop(at.handle, now=True)


async def test_a_missing_notebook_dir_is_named(root_hub: ProcessHarness) -> None:
    said = await refusal(root_hub, DirectoryRefused, notebook_dir=f"{root_hub.account.home}/none")
    assert "none does not exist" in said


async def test_a_file_is_no_notebook_dir(root_hub: ProcessHarness, carol: Account) -> None:
    root_hub.account = carol
    Path(carol.home, "file").touch()
    said = await refusal(root_hub, DirectoryRefused, notebook_dir=f"{carol.home}/file")
    assert "Not a directory" in said


async def test_a_link_out_of_the_roots_is_refused(root_hub: ProcessHarness, carol: Account) -> None:
    root_hub.account = carol
    Path(carol.home, "link").symlink_to("/var")
    for folder in ("link", "link/tmp"):
        said = await refusal(root_hub, DirectoryRefused, notebook_dir=f"{carol.home}/{folder}")
        assert "leads to /var" in said


async def test_nothing_is_made_outside_of_the_roots(
    root_hub: ProcessHarness, carol: Account, tmp_path: Path
) -> None:
    root_hub.account = carol
    outside = tmp_path / "outside"
    outside.mkdir()
    outside.chmod(0o777)
    Path(carol.home, "link").symlink_to(outside)
    folder = f"{carol.home}/link/new"
    await refusal(root_hub, DirectoryRefused, notebook_dir=folder, create_notebook_dir=True)
    assert list(outside.iterdir()) == []


async def test_a_link_into_another_root_is_allowed(
    root_hub: ProcessHarness, carol: Account
) -> None:
    root_hub.account = carol
    Path(carol.home, "link").symlink_to("/var")
    backend = root_hub.backend()
    spec = root_hub.spec(notebook_dir=f"{carol.home}/link", allowed_roots=(carol.home, "/var"))
    at = await started(backend, spec)
    await backend.stop(at.handle, now=True)


@pytest.mark.parametrize(
    ("cmd", "said"),
    [
        (("no-such-program",), '"no-such-program" was not found in PATH'),
        (("/no/such/program",), '"/no/such/program" was not found'),
        (("jupyterhub-singleuser --debug",), "looks like a whole command"),
        (("/etc/passwd",), 'may not execute "/etc/passwd"'),
        (("/root/bin/program",), 'may not execute "/root/bin/program"'),
    ],
)
async def test_a_command_that_cannot_be_run(
    root_hub: ProcessHarness, cmd: tuple[str, ...], said: str
) -> None:
    assert said in await refusal(root_hub, ConfigError, cmd=cmd)


async def test_the_command_is_looked_for_in_the_servers_own_path(
    root_hub: ProcessHarness, carol: Account
) -> None:
    root_hub.account = carol
    program = Path(carol.home, "bin", "own-server")
    program.parent.mkdir()
    tiny = root_hub.spec().cmd
    program.write_text(f"#!/bin/sh\nexec {' '.join(tiny)}\n")
    program.chmod(0o755)
    backend = root_hub.backend()
    spec = root_hub.spec(cmd=("own-server",), env={"PATH": f"{carol.home}/bin:/usr/bin:/bin"})
    at = await started(backend, spec)
    await backend.stop(at.handle, now=True)


async def test_the_environment_arrives_as_it_is(root_hub: ProcessHarness) -> None:
    wanted = {
        "LINES_": "one\ntwo\n",
        "EQUALS": "a=b=c",
        "EMPTY": "",
        "QUOTES": "'\"$HOME`",
        "UML": "ä",
    }
    backend = root_hub.backend()
    at = await started(backend, root_hub.spec(env=wanted))
    seen = (await answer(at))["env"]
    assert {name: seen.get(name) for name in wanted} == wanted
    account = root_hub.account
    assert (seen["HOME"], seen["USER"], seen["LOGNAME"]) == (
        account.home,
        account.name,
        account.name,
    )
    assert not [name for name in seen if name.startswith("SUDO")]
    await backend.stop(at.handle, now=True)


async def test_nothing_secret_shows_in_a_command_line(root_hub: ProcessHarness) -> None:
    backend = root_hub.backend()
    at = await started(backend, root_hub.spec(env={"JUPYTERHUB_API_TOKEN": "sesame"}))
    for line in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            assert b"sesame" not in line.read_bytes()
        except OSError:
            continue
    await backend.stop(at.handle, now=True)


@pytest.mark.parametrize("env", [{"NUL": "a\0b"}, {"": "nameless"}, {"A=B": "c\0"}])
async def test_what_no_process_can_be_given(root_hub: ProcessHarness, env: dict[str, str]) -> None:
    await refusal(root_hub, ConfigError, env=env)


async def test_a_refused_value_is_not_shown(root_hub: ProcessHarness) -> None:
    assert "sesame" not in await refusal(root_hub, ConfigError, env={"TOKEN": "sesame\0"})


async def test_too_much_is_refused(root_hub: ProcessHarness) -> None:
    said = await refusal(root_hub, ConfigError, env={"BIG": "x" * (1 << 20)})
    assert "1048576" in said


async def test_a_value_that_the_kernel_will_not_pass_is_refused(hub: ProcessHarness) -> None:
    said = await refusal(hub, ConfigError, env={"BIG": "x" * 200_000})
    assert "Argument list too long" in said


async def test_an_early_exit_tells_its_code_and_its_log(hub: ProcessHarness) -> None:
    backend = hub.backend()
    begin = time.monotonic()
    with pytest.raises(ServerExited) as caught:
        await started(backend, hub.spec("print:the reason", "exit:3"))
    assert time.monotonic() - begin < 10
    assert caught.value.exit_code == 3
    assert "the reason" in caught.value.log
    assert processes_of(hub.account.uid) == []
    assert await backend.list_owned() == []


async def test_a_server_that_never_listens_is_ended(hub: ProcessHarness) -> None:
    said = await refusal(hub, StartTimeout, "silent", start_timeout=2)
    assert "within 2 seconds" in said


# a warm start takes no step between the process and its listening; see test_warm_life
@pytest.mark.parametrize("hub", ["cgroup", "no-cgroup"], indirect=True)
async def test_a_start_that_is_given_up_leaves_nothing(hub: ProcessHarness) -> None:
    backend = hub.backend()
    spec = hub.spec("silent")
    address = await backend.prepare(spec)
    steps = backend.start(spec, address)
    async for step in steps:
        if "waiting" in step.message:
            break
    assert processes_of(hub.account.uid)
    await steps.aclose()
    assert processes_of(hub.account.uid) == []
    assert await backend.list_owned() == []


async def test_limits_are_refused_where_nothing_enforces_them(root_hub: ProcessHarness) -> None:
    limits = Limits(mem_limit=512 * 1024**2, cpu_limit=0.5)
    backend = root_hub.backend()
    with pytest.raises(LimitsNotEnforceable) as caught:
        await backend.prepare(root_hub.spec(limits=limits))
    assert "cpu_limit, mem_limit cannot be enforced" in caught.value.message
    at = await started(backend, root_hub.spec(limits=limits, limits_policy="warn"))
    assert (await backend.usage(at.handle)).limits == Limits()
    await backend.stop(at.handle, now=True)


async def test_logs_are_for_the_hub_alone(hub: ProcessHarness) -> None:
    backend = hub.backend()
    at = await started(backend, hub.spec("print:secret"))
    logs = hub.folder / "logs"
    assert stat.S_IMODE(logs.stat().st_mode) == 0o700
    for file in logs.iterdir():
        assert (file.stat().st_uid, stat.S_IMODE(file.stat().st_mode)) == (0, 0o600)
    await backend.stop(at.handle, now=True)


@pytest.mark.parametrize("root_hub", ["sudo"], indirect=True)  # with a folder of its own
async def test_a_folder_of_logs_that_others_may_write_is_refused(root_hub: ProcessHarness) -> None:
    (root_hub.folder / "logs").mkdir()
    (root_hub.folder / "logs").chmod(0o777)
    with pytest.raises(ConfigError, match="may be written by others"):
        await started(root_hub.backend(), root_hub.spec())
