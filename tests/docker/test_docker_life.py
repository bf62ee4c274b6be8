"""Life of a container: started, polled, stopped, found again, and every way to fail."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from docker_harness import HUB_ID, IMAGE, OTHER_HUB_ID, DockerHarness, ask, with_env

from support import eventually
from workshop_hub.backends.base import Owner
from workshop_hub.backends.docker import DockerBackend
from workshop_hub.backends.docker.backend import SAVED_LINES
from workshop_hub.errors import (
    ConfigError,
    DirectoryRefused,
    EngineError,
    EngineUnavailable,
    ForeignContainer,
    HubUnreachable,
    ImageError,
    LimitsNotEnforceable,
    PortTaken,
    ServerExited,
    StartTimeout,
)
from workshop_hub.policy.limits import Limits
from workshop_hub.system.engine import Engine

NAME = f"workshop-{HUB_ID}-alice"


async def test_a_server_lives_and_ends(harness: DockerHarness, backend: DockerBackend) -> None:
    server = await harness.start(backend, harness.make_spec(("print:hello",)))
    assert (await ask(server.url))["argv"] == ["print:hello"]
    assert harness.containers() == [NAME]
    assert [step.percent for step in server.steps] == sorted(s.percent for s in server.steps)
    assert server.steps[-1].handle == server.handle
    assert "hello" in await backend.log_tail(server.handle)
    await backend.stop(server.handle)
    assert harness.containers() == []
    status = await backend.poll(server.handle)
    assert not status.running
    assert "hello" in status.log
    await backend.stop(server.handle)
    await backend.stop(server.handle, now=True)


async def test_it_is_reached_without_a_published_port(
    harness: DockerHarness, backend: DockerBackend
) -> None:
    server = await harness.start(backend, harness.make_spec())
    settings = harness.inspect(server.id)["NetworkSettings"]
    assert not any((settings["Ports"] or {}).values())
    assert server.ip == settings["Networks"]["bridge"]["IPAddress"]


async def test_a_published_server_is_reached_at_the_loopback(harness: DockerHarness) -> None:
    backend = harness.backend(publish=True)
    server = await harness.start(backend, harness.make_spec())
    assert server.ip == "127.0.0.1"
    ports = harness.inspect(server.id)["NetworkSettings"]["Ports"]["8888/tcp"]
    assert ports == [{"HostIp": "127.0.0.1", "HostPort": str(server.port)}]
    assert (await ask(server.url))["uid"] == harness.account("alice").uid


async def test_on_the_hosts_network_every_server_has_a_port_of_its_own(
    harness: DockerHarness,
) -> None:
    backend = harness.backend()
    options = {"network_name": "host"}
    first = await harness.start(backend, harness.make_spec(container=options))
    second = await harness.start(backend, harness.make_spec(user="bob", container=options))
    assert first.ip == second.ip == "127.0.0.1"
    assert first.port != second.port
    assert (await ask(first.url))["uid"] != (await ask(second.url))["uid"]


async def test_a_stranger_on_the_hosts_network_is_not_taken_for_the_server(
    harness: DockerHarness,
) -> None:
    backend = harness.backend()
    spec = harness.make_spec(("silent",), container={"network_name": "host"})
    address = await backend.prepare(spec)
    stranger = socket.create_server(("127.0.0.1", address.port))
    with stranger, pytest.raises(PortTaken, match=str(address.port)):
        await harness.launch(backend, spec, address)
    assert harness.containers() == []


async def test_a_network_of_ones_own(harness: DockerHarness, backend: DockerBackend) -> None:
    name = f"workshop-{HUB_ID}"
    harness.client.create_network(name)
    try:
        network = harness.client.inspect_network(name)
        spec = harness.make_spec(container={"network_name": name}, hub_ip="0.0.0.0")
        gateway = network["IPAM"]["Config"][0]["Gateway"]
        with pytest.raises(HubUnreachable, match=f"{gateway}:{harness.hub.port}"):
            await backend.prepare(spec)  # the tests' hub listens at the default bridge only
        backend.hub_connect_ip = harness.hub_ip
        server = await harness.start(backend, spec)
        assert list(harness.inspect(server.id)["NetworkSettings"]["Networks"]) == [name]
        await backend.stop(server.handle, now=True)
    finally:
        harness.client.remove_network(name)


async def test_on_the_hosts_network_nothing_is_published(harness: DockerHarness) -> None:
    spec = harness.make_spec(container={"network_name": "host"})
    with pytest.raises(ConfigError, match="nothing can be published"):
        await harness.backend(publish=True).prepare(spec)


async def test_what_a_server_prints_cannot_garble_a_page(
    harness: DockerHarness, backend: DockerBackend
) -> None:
    words = "print:" + "x" * 100_000 + "\x1b[31mred\x07"
    server = await harness.start(backend, harness.make_spec((words,)))
    for _ in range(2):
        shown = (await backend.poll(server.handle)).log or await backend.log_tail(server.handle)
        assert shown.endswith("xxx[31mred")
        assert len(shown) < 10_000
        await backend.stop(server.handle, now=True)


async def test_without_an_image_nothing_starts(
    harness: DockerHarness, backend: DockerBackend
) -> None:
    with pytest.raises(ConfigError, match="No image is chosen"):
        await backend.prepare(harness.make_spec(container={"image": ""}))


async def test_a_network_that_does_not_exist_lists_those_that_do(
    harness: DockerHarness, backend: DockerBackend
) -> None:
    with pytest.raises(ConfigError, match='"nowhere" does not exist; there are: "bridge"'):
        await backend.prepare(harness.make_spec(container={"network_name": "nowhere"}))


async def test_a_hub_on_its_loopback_names_the_setting(
    harness: DockerHarness, backend: DockerBackend
) -> None:
    with pytest.raises(HubUnreachable) as caught:
        await backend.prepare(harness.make_spec(hub_ip="127.0.0.1"))
    assert f'c.JupyterHub.hub_ip = "{harness.hub_ip}"' in caught.value.remedy


# -- servers that fail ---------------------------------------------------------------------------


async def test_a_server_that_exits_at_once(harness: DockerHarness, backend: DockerBackend) -> None:
    spec = harness.make_spec(("print:bad luck", "exit:3"))
    with pytest.raises(ServerExited, match="exit code 3") as caught:
        await harness.start(backend, spec)
    assert caught.value.exit_code == 3
    assert "bad luck" in caught.value.log
    assert harness.containers() == []
    kept = Path(backend.log_dir) / f"{NAME}.log"
    assert "bad luck" in kept.read_text()
    assert kept.stat().st_mode & 0o777 == 0o600


async def test_a_server_that_never_listens(harness: DockerHarness, backend: DockerBackend) -> None:
    spec = harness.make_spec(("print:thinking", "silent"), start_timeout=5)
    with pytest.raises(StartTimeout, match="5 seconds") as caught:
        await harness.start(backend, spec)
    assert "thinking" in caught.value.log
    assert harness.containers() == []


async def test_behind_docker_proxy_too_a_server_must_listen_itself(harness: DockerHarness) -> None:
    backend = harness.backend(publish=True)
    with pytest.raises(StartTimeout):
        await harness.start(backend, harness.make_spec(("silent",), start_timeout=1.5))


async def test_a_server_that_ignores_the_signal_is_killed(harness: DockerHarness) -> None:
    backend = harness.backend(stop_timeout=0.5)
    server = await harness.start(backend, harness.make_spec(("stubborn", "child")))
    await backend.stop(server.handle)
    assert harness.containers() == []


async def test_a_server_that_dies_tells_how(harness: DockerHarness, backend: DockerBackend) -> None:
    server = await harness.start(backend, harness.make_spec(("print:last words",)))
    with contextlib.suppress(OSError):
        await ask(f"{server.url}/exit/7")

    async def ended() -> bool:
        return not (await backend.poll(server.handle)).running

    await eventually(ended, "the server is seen to have ended")
    status = await harness.backend().poll(server.handle)  # also by a hub that was restarted
    assert (status.exit_code, status.oom_kills) == (7, 0)
    assert "last words" in status.log
    assert harness.containers() == [NAME]  # kept until its reason was read
    await backend.stop(server.handle, now=True)
    assert harness.containers() == []


async def test_a_server_killed_by_somebody_is_not_said_to_lack_memory(
    harness: DockerHarness, backend: DockerBackend
) -> None:
    server = await harness.start(backend, harness.make_spec())
    harness.client.kill(server.id)

    async def ended() -> bool:
        return not (await backend.poll(server.handle)).running

    await eventually(ended, "the server is seen to have ended")
    status = await backend.poll(server.handle)
    assert (status.exit_code, status.oom_kills) == (137, 0)


async def test_a_server_removed_while_it_starts_fails_the_start(
    harness: DockerHarness, backend: DockerBackend
) -> None:
    start = asyncio.ensure_future(harness.start(backend, harness.make_spec(("silent",))))

    async def runs() -> bool:
        return bool(harness.containers()) and harness.inspect(NAME)["State"]["Running"]

    await eventually(runs, "the container runs")
    harness.client.remove_container(NAME, force=True)
    with pytest.raises(ServerExited):
        await start


async def test_use_and_limits_of_an_engine_elsewhere_are_its_own_word(
    harness: DockerHarness, backend: DockerBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This machine's engine, taken for another machine's."""
    limits = Limits(cpu_limit=0.5, mem_limit=256 << 20, cpu_guarantee=0.1, pids_limit=100)
    monkeypatch.setattr(Engine, "is_local", False)
    server = await harness.start(backend, harness.make_spec(limits=limits))
    assert (await backend.usage(server.handle)).limits == replace(limits, cpu_guarantee=0.1)
    usage = await backend.usage(server.handle)
    assert usage.memory
    assert usage.cpu
    assert usage.pids
    harness.client.kill(server.id)
    usage = await backend.usage(server.handle)
    assert usage.memory is usage.cpu is usage.pids is None
    await backend.stop(server.handle, now=True)
    with pytest.raises(EngineError, match="does not exist any more"):
        await backend.usage(server.handle)


async def test_a_container_removed_behind_our_back_has_ended(
    harness: DockerHarness, backend: DockerBackend
) -> None:
    server = await harness.start(backend, harness.make_spec())
    harness.client.remove_container(server.id, force=True)
    assert not (await backend.poll(server.handle)).running
    await backend.stop(server.handle)


async def test_a_start_that_is_given_up_leaves_nothing(
    harness: DockerHarness, backend: DockerBackend
) -> None:
    spec = harness.make_spec(("silent",))
    address = await backend.prepare(spec)
    for containers_seen in (False, True):
        task = asyncio.ensure_future(harness.launch(backend, spec, address))

        async def made() -> bool:
            return bool(harness.containers())

        if containers_seen:
            await eventually(made, "the container exists")
        else:
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert harness.containers() == []


async def test_a_start_cancelled_while_its_failure_is_explained_leaves_nothing(
    harness: DockerHarness, backend: DockerBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engine takes long to give the log of a server that has failed."""
    asked = asyncio.Event()
    give_log = backend.engine.logs

    async def slow(container: str, lines: int) -> str:
        if lines == SAVED_LINES and not asked.is_set():
            asked.set()
            await asyncio.Event().wait()
        return await give_log(container, lines)

    monkeypatch.setattr(backend.engine, "logs", slow)
    start = asyncio.ensure_future(harness.start(backend, harness.make_spec(("exit:3",))))
    await asyncio.wait_for(asked.wait(), 60)
    start.cancel()
    with pytest.raises(asyncio.CancelledError):
        await start
    assert harness.containers() == []


async def test_a_start_cancelled_while_the_engine_creates_leaves_nothing(
    harness: DockerHarness, backend: DockerBackend
) -> None:
    spec = harness.make_spec(("silent",))
    address = await backend.prepare(spec)
    events = backend.start(with_env(spec, address), address)
    async for event in events:
        if event.message.startswith("Creating"):  # type: ignore[union-attr]
            break
    creating = asyncio.ensure_future(events.__anext__())

    async def asked() -> bool:
        return backend.engine._changes._active[NAME] > 0

    await eventually(asked, "the engine is asked to create it", every=0.0)
    creating.cancel()
    with pytest.raises(asyncio.CancelledError):
        await creating
    await events.aclose()
    assert harness.containers() == []


# -- images --------------------------------------------------------------------------------------


async def test_an_absent_image_names_the_command(
    harness: DockerHarness, backend: DockerBackend
) -> None:
    spec = harness.make_spec(container={"image": "no/such:image"})
    with pytest.raises(ImageError, match="no/such:image is not on this machine") as caught:
        await backend.prepare(spec)
    assert "docker pull no/such:image" in caught.value.remedy


async def test_an_image_that_no_registry_has_fails_with_its_words(
    harness: DockerHarness, backend: DockerBackend
) -> None:
    image = "127.0.0.1:1/no/such:image"  # nothing listens there
    spec = harness.make_spec(container={"image": image, "pull_policy": "ifnotpresent"})
    with pytest.raises(ImageError, match=r"cannot be pulled: .*refused"):
        await harness.start(backend, spec)


@pytest.mark.parametrize("with_directory", [False, True])
async def test_an_image_without_the_server_says_so(
    harness: DockerHarness, backend: DockerBackend, with_directory: bool
) -> None:
    folder = harness.account("alice").home if with_directory else ""
    spec = replace(harness.make_spec(), cmd=("no-such-server",), notebook_dir=folder)
    with pytest.raises(ImageError, match=f'{IMAGE} has no program "no-such-server"'):
        await harness.start(backend, spec)
    assert harness.containers() == []


# -- the engine ----------------------------------------------------------------------------------


async def test_an_engine_that_is_down_is_unknown_and_not_dead(harness: DockerHarness) -> None:
    backend = harness.backend(base_url=f"unix://{harness.folder}/none.sock")
    status = await backend.poll({"id": "abc", "name": "abc", "port": 1})
    assert status.running
    assert "No container engine runs" in status.unknown
    with pytest.raises(EngineUnavailable):
        await backend.prepare(harness.make_spec())
    (finding,) = await backend.check()
    assert finding.level == "error"
    assert "systemctl start docker" in finding.remedy


async def test_doctor_finds_this_engine_able(
    harness: DockerHarness, backend: DockerBackend
) -> None:
    findings = {finding.subject: finding for finding in await backend.check()}
    assert findings["engine"].level == "ok"
    assert findings["network"].level == "ok"
    assert harness.hub_ip in findings["network"].message
    assert "error" not in {finding.level for finding in findings.values()}
    assert (await backend.check_image(IMAGE, "never")).level == "ok"
    assert (await backend.check_image("no/such:image", "never")).level == "error"


# -- whose containers ----------------------------------------------------------------------------


async def test_a_strangers_container_of_our_name_is_never_touched(
    harness: DockerHarness, backend: DockerBackend
) -> None:
    made = harness.client.create_container(IMAGE, ["sleep", "60"], name=NAME)
    try:
        harness.client.start(made["Id"])
        with pytest.raises(ForeignContainer, match=NAME):
            await backend.prepare(harness.make_spec())
        assert harness.inspect(made["Id"])["State"]["Running"]
        assert await backend.list_owned() == []
    finally:
        harness.client.remove_container(made["Id"], force=True)


async def test_a_running_server_is_adopted_by_a_new_backend(harness: DockerHarness) -> None:
    started = await harness.start(harness.backend(), harness.make_spec(server="lab"))
    backend = harness.backend()
    (owned,) = await backend.list_owned()
    assert owned.owner == Owner(HUB_ID, "alice", "lab")
    assert owned.handle == started.handle
    assert (await backend.poll(owned.handle)).running
    assert (await backend.usage(owned.handle)).memory
    await backend.stop(owned.handle)
    assert await backend.list_owned() == []


async def test_what_a_killed_hub_left_half_started_is_found_and_replaced(
    harness: DockerHarness,
) -> None:
    """A hub process is killed -9 right after the container was made."""
    spec = harness.make_spec(("silent",))
    script = harness.folder / "hub.py"
    script.write_text(
        "import asyncio, os, pickle, signal, sys\n"
        f"sys.path[:0] = {sys.path!r}\n"
        "from docker_harness import with_env\n"
        "from workshop_hub.backends.docker import DockerBackend\n"
        "spec = pickle.loads(sys.stdin.buffer.read())\n"
        "async def main():\n"
        f"    backend = DockerBackend(hub_id={HUB_ID!r}, log_dir={str(harness.log_dir)!r})\n"
        "    address = await backend.prepare(spec)\n"
        "    async for event in backend.start(with_env(spec, address), address):\n"
        "        if event.handle: os.kill(os.getpid(), signal.SIGKILL)\n"
        "asyncio.run(main())\n"
    )
    import pickle

    result = await asyncio.to_thread(
        subprocess.run, [sys.executable, str(script)], input=pickle.dumps(spec), check=False
    )
    assert result.returncode == -signal.SIGKILL
    backend = harness.backend()
    (owned,) = await backend.list_owned()
    assert owned.owner == spec.owner
    assert not (await backend.poll(owned.handle)).running
    server = await harness.start(backend, harness.make_spec())
    assert server.handle != owned.handle
    assert harness.containers() == [NAME]


async def test_two_hubs_on_one_engine_do_not_see_each_other(harness: DockerHarness) -> None:
    ours, theirs = harness.backend(), harness.backend(OTHER_HUB_ID)
    first = await harness.start(ours, harness.make_spec())
    second = await harness.start(theirs, harness.make_spec(hub_id=OTHER_HUB_ID))
    assert [owned.handle for owned in await ours.list_owned()] == [first.handle]
    assert [owned.handle for owned in await theirs.list_owned()] == [second.handle]
    await ours.stop(first.handle)
    assert (await theirs.poll(second.handle)).running


async def test_six_starts_at_once(harness: DockerHarness, backend: DockerBackend) -> None:
    specs = [harness.make_spec(user=f"user{n}") for n in range(4)]
    specs += [harness.make_spec(user="user0", server=name) for name in ("a", "b")]
    servers = await asyncio.gather(*(harness.start(backend, spec) for spec in specs))
    assert len({server.ip for server in servers}) == 6
    assert len(await backend.list_owned()) == 6
    await asyncio.gather(*(backend.stop(server.handle) for server in servers))
    assert harness.containers() == []


async def test_a_server_costs_the_machine_no_process_besides_its_own(
    harness: DockerHarness, backend: DockerBackend
) -> None:
    server = await harness.start(backend, harness.make_spec())
    children = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()
    assert children == []
    _, output = await harness.run(server.id, "ps", "-e", "-o", "comm=")
    assert sorted(output.split()) == ["docker-init", "ps", "python3"]


# -- folders -------------------------------------------------------------------------------------


async def test_a_missing_home_is_refused_and_not_made_by_root(
    harness: DockerHarness, backend: DockerBackend
) -> None:
    spec = harness.make_spec()
    Path(spec.account.home).rmdir()
    with pytest.raises(DirectoryRefused, match=r"The home .* does not exist"):
        await backend.prepare(spec)
    assert not Path(spec.account.home).exists()


async def test_a_volume_through_the_users_link_is_refused(
    harness: DockerHarness, backend: DockerBackend
) -> None:
    link = Path(harness.account("alice").home) / "data"
    link.symlink_to("/root")
    with pytest.raises(DirectoryRefused, match="alice can replace"):
        await backend.prepare(harness.make_spec(container={"volumes": {str(link): "/data"}}))


async def test_a_home_behind_the_administrators_link_is_mounted(
    harness: DockerHarness, backend: DockerBackend
) -> None:
    home = Path(harness.account("alice").home)
    (home / "mine").write_text("yes")
    home.rename(home.with_name("disk2"))
    home.symlink_to("disk2")
    server = await harness.start(backend, harness.make_spec())
    assert (await harness.run(server.id, "cat", str(home / "mine"))) == (0, "yes")


# -- limits that the engine cannot enforce -------------------------------------------------------


async def test_a_limit_that_cannot_be_enforced_starts_nothing_unless_told_to_warn(
    harness: DockerHarness, backend: DockerBackend, caplog: pytest.LogCaptureFixture
) -> None:
    """With the engine's answer changed: this machine's own can enforce everything."""
    info = await backend.engine_info()
    backend._info = (time.monotonic(), replace(info, pids=False))
    spec = harness.make_spec(limits=Limits(pids_limit=100))
    with pytest.raises(LimitsNotEnforceable, match="pids_limit: the kernel has no pids controller"):
        await backend.prepare(spec)
    server = await harness.start(backend, replace(spec, limits_policy="warn"))
    assert (await backend.poll(server.handle)).running
    assert "pids_limit: the kernel has no pids controller" in caplog.text


# -- the way from the container to the hub -------------------------------------------------------


async def test_a_server_that_cannot_reach_the_hub_names_the_firewall(
    harness: DockerHarness, backend: DockerBackend
) -> None:
    """With the real server, and an address at which nothing listens in place of a firewall."""
    backend.hub_connect_ip = "127.0.0.1"
    env = {"JUPYTERHUB_API_TOKEN": "a" * 32, "JUPYTERHUB_CLIENT_ID": "jupyterhub-user-alice"}
    env |= {"JUPYTERHUB_USER": "alice", "JUPYTERHUB_SERVICE_PREFIX": "/user/x/"}
    env |= {"JUPYTERHUB_BASE_URL": "/", "JUPYTERHUB_OAUTH_CALLBACK_URL": "/user/x/oauth_callback"}
    cmd = ("/opt/jupyter/bin/jupyterhub-singleuser",)
    spec = harness.make_spec(cmd, env=env, start_timeout=6.0)
    with pytest.raises(HubUnreachable, match=f"http://127.0.0.1:{harness.hub.port}") as caught:
        await harness.start(backend, spec)
    assert "firewall" in caught.value.remedy
    assert "Failed to connect to my Hub" in caught.value.log
    assert harness.containers() == []
