"""The engine hangs, or is restarted, at the worst moments."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from docker_harness import DockerHarness, EngineProxy, ask, with_env

from support import eventually
from workshop_hub.backends.base import Progress
from workshop_hub.backends.docker import DockerBackend
from workshop_hub.errors import EngineUnavailable

pytestmark = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
"""The Docker library leaves a socket open when the engine goes away."""


@pytest.fixture
async def proxy(harness: DockerHarness) -> AsyncIterator[EngineProxy]:
    made = EngineProxy(harness.folder)
    await made.up()
    yield made
    made.recover()
    await made.down()


@pytest.fixture
def behind(harness: DockerHarness, proxy: EngineProxy) -> DockerBackend:
    """A backend that reaches the engine through the proxy."""
    return harness.backend(base_url=proxy.url, poll_timeout=0.5, call_timeout=0.5)


async def test_a_server_outlives_an_outage_of_its_engine(
    harness: DockerHarness, proxy: EngineProxy, behind: DockerBackend
) -> None:
    behind.call_timeout = 10.0
    server = await harness.start(behind, harness.make_spec())
    proxy.hang()
    status = await behind.poll(server.handle)
    assert status.running
    assert "did not answer" in status.unknown
    await proxy.down()
    status = await behind.poll(server.handle)
    assert status.running
    assert "No container engine runs" in status.unknown
    assert (await ask(server.url))["uid"]
    proxy.recover()
    await proxy.up()

    async def known() -> bool:
        return not (await behind.poll(server.handle)).unknown

    await eventually(known, "the engine is asked again")
    await behind.stop(server.handle)
    assert harness.containers() == []


@pytest.mark.parametrize("step", ["Creating", "Starting", "Waiting"])
async def test_an_engine_restarted_mid_start_fails_the_start_in_words(
    harness: DockerHarness, proxy: EngineProxy, behind: DockerBackend, step: str
) -> None:
    spec = harness.make_spec(("silent",))
    address = await behind.prepare(spec)

    async def start() -> None:
        async for event in behind.start(with_env(spec, address), address):
            if isinstance(event, Progress) and event.message.startswith(step):
                await proxy.down()
                if step == "Waiting":  # which an outage does not end
                    raise EngineUnavailable("enough")

    with pytest.raises(EngineUnavailable):
        await start()
    await proxy.up()
    # What could not be removed while the engine was away is found, and replaced by the next start.
    for owned in await behind.list_owned():
        assert owned.owner == spec.owner
    server = await harness.start(behind, harness.make_spec())
    assert (await ask(server.url))["uid"]
    assert len(harness.containers()) == 1


async def test_a_start_that_hangs_delays_no_poll_of_others(
    harness: DockerHarness, proxy: EngineProxy
) -> None:
    direct = harness.backend()
    server = await harness.start(direct, harness.make_spec(user="bob"))
    behind = harness.backend(base_url=proxy.url)
    spec = harness.make_spec()
    address = await behind.prepare(spec)
    proxy.hang()
    start = asyncio.ensure_future(harness.launch(behind, spec, address))
    for _ in range(20):
        assert not (await direct.poll(server.handle)).unknown
    assert not start.done()
    proxy.recover()
    started = await start
    assert (await ask(started.url))["uid"]
