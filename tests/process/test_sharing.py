"""Several accounts on one machine: ports, and servers that start at once."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from harness import ProcessHarness, answer, made_account, processes_of, started, with_url

from support import eventually
from workshop_hub.backends.base import Listening, Owner, accepts_connections
from workshop_hub.errors import LauncherRefused, NoFreePort, PortTaken
from workshop_hub.system.accounts import Account

LISTEN = """
import socket, sys, time
s = socket.socket()
s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
s.bind(("127.0.0.1", int(sys.argv[1])))
s.listen()
time.sleep(3600)
"""


@asynccontextmanager
async def listener(account: Account, port: int) -> AsyncIterator[None]:
    """Listen on a port as an account, as a thief of tokens would."""
    become = ["setpriv", "--reuid", account.name, "--regid", account.name, "--clear-groups"]
    process = await asyncio.create_subprocess_exec(
        *become, "/usr/bin/env", "-i", sys.executable, "-I", "-c", LISTEN, str(port)
    )
    try:
        await eventually(lambda: accepts_connections("127.0.0.1", port), "the thief listens")
        yield
    finally:
        process.kill()
        await process.wait()


async def test_a_stranger_on_the_port_is_not_taken_for_the_server(
    hub: ProcessHarness, bob: Account
) -> None:
    backend = hub.backend()
    spec = hub.spec("silent")
    address = await backend.prepare(spec)
    async with listener(bob, address.port):
        with pytest.raises(PortTaken) as caught:
            await started(backend, spec, address)
    assert str(address.port) in str(caught.value)
    assert processes_of(hub.account.uid) == []


async def test_a_server_that_cannot_bind_is_told_from_one_that_fails(
    hub: ProcessHarness, bob: Account
) -> None:
    backend = hub.backend()
    spec = hub.spec()
    address = await backend.prepare(spec)
    async with listener(bob, address.port):
        with pytest.raises(PortTaken):
            await started(backend, spec, address)
        again = await backend.prepare(spec)
        assert again.port != address.port
        at = await started(backend, spec, again)
    await backend.stop(at.handle, now=True)


async def test_a_port_that_is_in_use_is_not_given_out(
    root_hub: ProcessHarness, bob: Account
) -> None:
    backend = root_hub.backend(port_range=(29000, 29001))
    async with listener(bob, 29000):
        assert (await backend.prepare(root_hub.spec())).port == 29001
        with pytest.raises(NoFreePort, match="All 2 ports"):
            await backend.prepare(root_hub.spec(server="second"))
        with pytest.raises(NoFreePort, match="29000 is in use"):
            await backend.prepare(root_hub.spec(port=29000))


async def test_an_adopted_server_keeps_its_port(root_hub: ProcessHarness) -> None:
    only = {"port_range": (29002, 29002)}
    at = await started(root_hub.backend(**only), root_hub.spec())
    backend = root_hub.backend(**only)
    await backend.poll(at.handle)
    with pytest.raises(NoFreePort):
        await backend.prepare(root_hub.spec(server="second"))
    await backend.stop(at.handle, now=True)
    assert (await backend.prepare(root_hub.spec(server="second"))).port == 29002


async def test_a_port_is_pinned_and_an_address_is_chosen(root_hub: ProcessHarness) -> None:
    backend = root_hub.backend()
    at = await started(backend, root_hub.spec(port=29003, ip="localhost"))
    assert (at.ip, at.port) == ("127.0.0.1", 29003)
    await backend.stop(at.handle, now=True)
    at = await started(backend, root_hub.spec(ip="0.0.0.0"))
    assert (await answer(replace(at, ip="127.0.0.2")))["uid"] == root_hub.account.uid
    await backend.stop(at.handle, now=True)


async def test_six_servers_start_at_once(hub: ProcessHarness, bob: Account) -> None:
    backend = hub.backend()
    specs = [hub.spec(server=name) for name in ("", "b", "c")]
    specs += [
        replace(spec, account=bob, owner=Owner(hub.hub_id, bob.name, spec.owner.server))
        for spec in specs
    ]
    addresses = await asyncio.gather(*map(backend.prepare, specs))
    assert len({address.port for address in addresses}) == 6
    found = await asyncio.gather(
        *(started(backend, spec, at) for spec, at in zip(specs, addresses, strict=True))
    )
    for spec, at in zip(specs, found, strict=True):
        assert (await answer(at))["uid"] == spec.account.uid
    assert {owned.owner for owned in await backend.list_owned()} == {spec.owner for spec in specs}
    await asyncio.gather(*(backend.stop(at.handle) for at in found))
    assert processes_of(hub.account.uid) == processes_of(bob.uid) == []


async def test_starting_again_ends_what_runs(hub: ProcessHarness) -> None:
    backend = hub.backend()
    spec = hub.spec("child")
    first = await started(backend, spec)
    second = await started(hub.backend(), spec)
    assert not (await backend.poll(first.handle)).running
    await backend.stop(first.handle, now=True)
    assert (await backend.poll(second.handle)).running, "a handle of an earlier life ends nothing"
    await backend.stop(second.handle, now=True)
    assert processes_of(hub.account.uid) == []


async def test_another_hubs_servers_are_not_listed(hub: ProcessHarness) -> None:
    at = await started(hub.backend(), hub.spec())
    assert await hub.backend(hub_id="0" * 12).list_owned() == []
    await hub.backend().stop(at.handle, now=True)


async def test_a_lost_folder_of_logs_loses_no_server_of_a_cgroup(hub: ProcessHarness) -> None:
    at = await started(hub.backend(), hub.spec("child", server="named"))
    backend = hub.backend(log_dir=str(hub.folder / "other"))
    found = await backend.list_owned()
    if hub.with_cgroup:
        assert [owned.owner for owned in found] == [hub.spec(server="named").owner]
        assert (await backend.poll(found[0].handle)).running
        await backend.stop(found[0].handle)
    else:
        await backend.stop(at.handle)
    assert processes_of(hub.account.uid) == []


async def test_an_account_deleted_while_its_server_runs(hub: ProcessHarness) -> None:
    with made_account("erin", group="users") as hub.account:
        backend = hub.backend()
        at = await started(backend, hub.spec("child"))
        delete = await asyncio.create_subprocess_exec(
            "userdel", "--force", hub.account.name, stderr=subprocess.DEVNULL
        )
        await delete.wait()
        assert (await backend.poll(at.handle)).running
        await backend.stop(at.handle)
        assert processes_of(hub.account.uid) == []


async def test_a_uid_that_was_given_to_somebody_else(hub: ProcessHarness, bob: Account) -> None:
    """The handle's account has another uid by now: its server is ended, nobody else's is."""
    with made_account("fay", group="users") as hub.account:
        backend = hub.backend()
        at = await started(backend, hub.spec("child"))
        bobs = hub.spec("child", account=bob, owner=Owner(hub.hub_id, "bob"))
        theirs = await started(backend, bobs)
        await backend.stop({**at.handle, "account": bob.name})
        assert processes_of(hub.account.uid) == []
        assert (await backend.poll(theirs.handle)).running
        await backend.stop(theirs.handle)


async def test_a_handle_of_another_boot_is_dead(hub: ProcessHarness) -> None:
    backend = hub.backend()
    at = await started(backend, hub.spec())
    before = {**at.handle, "boot_id": "another"}
    assert not (await backend.poll(before)).running
    await backend.stop(before)
    assert (await backend.poll(at.handle)).running
    assert len(await hub.backend().list_owned()) == 1
    await backend.stop(at.handle)


async def test_a_handle_that_makes_no_sense_is_unknown(root_hub: ProcessHarness) -> None:
    status = await root_hub.backend().poll({"version": 99})
    assert status.running
    assert "99" in status.unknown


async def test_a_reused_pid_is_not_the_server(root_hub: ProcessHarness) -> None:
    backend = root_hub.backend()
    at = await started(backend, root_hub.spec())
    assert not (await backend.poll({**at.handle, "start_time": 1})).running
    await backend.stop(at.handle)


async def test_sudo_that_is_not_installed_is_named(root_hub: ProcessHarness) -> None:
    with pytest.raises(LauncherRefused, match="no-such-sudo is not installed"):
        await root_hub.backend(sudo_command=["no-such-sudo"]).prepare(root_hub.spec())


async def test_a_launcher_that_others_could_replace_is_refused(root_hub: ProcessHarness) -> None:
    launcher = root_hub.folder / "become.py"
    launcher.touch()
    command = [sys.executable, "-I", "-S", str(launcher)]
    backend = root_hub.backend(launcher_command=command)
    launcher.chmod(0o646)
    with pytest.raises(LauncherRefused, match="may"):
        await backend.prepare(root_hub.spec())


async def test_doctor_tells_what_a_root_hub_can_do(hub: ProcessHarness) -> None:
    found = {one.subject: one for one in await hub.backend().check()}
    assert found["launcher"].level == "ok"
    assert "become.py" in found["launcher"].message
    if not hub.with_cgroup:
        assert found["limits"].level == "warning"
        assert "No limits" in found["limits"].message


async def test_progress_tells_where_a_server_is_found_again(hub: ProcessHarness) -> None:
    backend = hub.backend()
    spec = hub.spec()
    address = await backend.prepare(spec)
    steps = [step async for step in backend.start(with_url(spec, address), address)]
    assert steps[0].handle
    assert isinstance(steps[-1], Listening)
    await hub.backend().stop(steps[0].handle)
    assert processes_of(hub.account.uid) == []
    assert Path(hub.folder / "logs").exists()
