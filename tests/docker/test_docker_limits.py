"""Limits of containers: read from the kernel's files, and broken by programs."""

from __future__ import annotations

import asyncio

import pytest
from docker_harness import DockerHarness, ask

from support import eventually
from workshop_hub.backends.docker import DockerBackend
from workshop_hub.errors import ServerExited
from workshop_hub.policy.limits import Limits

MB = 1 << 20
EVERYTHING = Limits(
    cpu_limit=0.25, mem_limit=128 * MB, cpu_guarantee=0.1, mem_guarantee=64 * MB, pids_limit=60
)
HOG = "data = []\nwhile True: data.append(bytearray(1 << 20))"

GREEDY_SERVER = """
import http.server
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        data = []
        while True: data.append(bytearray(1 << 20))
http.server.HTTPServer(("", 8888), Handler).serve_forever()
"""


async def test_the_kernel_has_every_limit(harness: DockerHarness, backend: DockerBackend) -> None:
    server = await harness.start(backend, harness.make_spec(limits=EVERYTHING))

    def value(controller: str, v1: str, v2: str) -> str:
        return harness.kernel_value(server.id, controller, v1, v2)

    assert value("memory", "memory.limit_in_bytes", "memory.max") == str(128 * MB)
    soft = value("memory", "memory.soft_limit_in_bytes", "memory.low")
    assert soft == str(64 * MB)
    if harness.kernel_file(server.id, "memory", "v1", "v2").name == "v1":
        assert value("memory", "memory.memsw.limit_in_bytes", "") == str(128 * MB)
        assert value("cpu", "cpu.cfs_quota_us", "") == "25000"
        assert value("cpu", "cpu.cfs_period_us", "") == "100000"
        assert value("cpu", "cpu.shares", "") == "102"
    else:
        assert value("memory", "", "memory.swap.max") == "0"
        assert value("cpu", "", "cpu.max") == "25000 100000"
    assert value("pids", "pids.max", "pids.max") == "60"

    usage = await backend.usage(server.handle)
    assert usage.limits == EVERYTHING
    assert usage.memory
    assert usage.memory < 128 * MB
    assert usage.cpu
    assert usage.pids
    assert usage.oom_kills == 0


async def test_no_limit_means_none_at_all(harness: DockerHarness, backend: DockerBackend) -> None:
    server = await harness.start(backend, harness.make_spec(limits=Limits(pids_limit=0)))
    assert (await backend.usage(server.handle)).limits == Limits()


async def test_processes_are_bounded_where_nobody_says_otherwise(
    harness: DockerHarness, backend: DockerBackend
) -> None:
    server = await harness.start(backend, harness.make_spec())
    assert harness.kernel_value(server.id, "pids", "pids.max", "pids.max") == "4096"


async def test_a_limit_above_the_machines_cores_is_possible(
    harness: DockerHarness, backend: DockerBackend
) -> None:
    server = await harness.start(backend, harness.make_spec(limits=Limits(cpu_limit=1000.0)))
    assert (await backend.usage(server.handle)).limits.cpu_limit == 1000.0


async def test_the_kernel_ends_the_hog_and_not_the_server(
    harness: DockerHarness, backend: DockerBackend
) -> None:
    server = await harness.start(backend, harness.make_spec(limits=Limits(mem_limit=64 * MB)))
    before = (await ask(server.url))["pid"]
    code, _ = await harness.run(server.id, "python3", "-c", HOG)
    assert code == 137
    assert (await ask(server.url))["pid"] == before
    status = await backend.poll(server.handle)
    assert status.running
    assert status.oom_kills == 1
    assert (await backend.usage(server.handle)).oom_kills == 1


async def test_a_server_that_is_itself_the_hog_is_told_from_one_that_exits(
    harness: DockerHarness, backend: DockerBackend
) -> None:
    spec = harness.make_spec(
        ("/usr/bin/python3", "-c", GREEDY_SERVER), limits=Limits(mem_limit=64 * MB)
    )
    server = await harness.start(backend, spec)
    with pytest.raises(OSError):
        await ask(server.url)

    async def ended() -> bool:
        return not (await backend.poll(server.handle)).running

    await eventually(ended, "the server is ended for want of memory")
    status = await backend.poll(server.handle)
    assert status.exit_code == 137
    assert status.oom_kills >= 1
    assert await backend.engine.saw_oom(server.id)


async def test_too_little_memory_to_start_says_so(
    harness: DockerHarness, backend: DockerBackend
) -> None:
    spec = harness.make_spec(("/usr/bin/python3", "-c", HOG), limits=Limits(mem_limit=32 * MB))
    with pytest.raises(ServerExited, match="needed more memory than its limit") as caught:
        await harness.start(backend, spec)
    assert caught.value.exit_code == 137
    assert harness.containers() == []


async def test_a_busy_server_is_throttled(harness: DockerHarness, backend: DockerBackend) -> None:
    server = await harness.start(backend, harness.make_spec(limits=Limits(cpu_limit=0.1)))
    burn = asyncio.ensure_future(
        harness.run(server.id, "timeout", "20", "python3", "-c", "while True: pass")
    )

    async def throttled() -> int:
        return harness.kernel_field(server.id, "cpu", "cpu.stat", "cpu.stat", "nr_throttled")

    await eventually(throttled, "the kernel throttles it")
    await backend.stop(server.handle, now=True)
    await asyncio.wait({burn})  # its end may be asked for when its container is gone
    burn.exception()


async def test_a_fork_bomb_ends_at_its_limit(
    harness: DockerHarness, backend: DockerBackend
) -> None:
    server = await harness.start(backend, harness.make_spec(limits=Limits(pids_limit=20)))
    bomb = (
        "import os, time\nmade = 0\n"
        "try:\n"
        "  while made < 500:\n"
        "    if os.fork() == 0: time.sleep(60); os._exit(0)\n"
        "    made += 1\n"
        "except BlockingIOError: print('refused after', made)"
    )
    _, output = await harness.run(server.id, "timeout", "-k", "1", "5", "python3", "-c", bomb)
    assert "refused after" in output
    assert int(harness.kernel_value(server.id, "pids", "pids.current", "pids.current")) <= 20
    assert (await ask(server.url))["uid"]
