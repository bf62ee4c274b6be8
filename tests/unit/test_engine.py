"""The engine's calls, against a fake engine that hangs, refuses and dies."""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from fake_engine import FakeEngine

from workshop_hub.errors import EngineError, EngineUnavailable, ImageError
from workshop_hub.system.calls import CallPool
from workshop_hub.system.engine import Engine
from workshop_hub.system.engine_errors import EngineConflict
from workshop_hub.system.pulls import Pulls

THREADS = 6


@pytest.fixture
def fake(tmp_path: Path) -> Iterator[FakeEngine]:
    engine = FakeEngine(tmp_path)
    yield engine
    engine.close()


@pytest.fixture
async def engine(fake: FakeEngine) -> AsyncIterator[Engine]:
    client = Engine(fake.url, call_timeout=60.0, threads=THREADS)
    yield client
    client.close()


def unfinished(tasks: list[asyncio.Task[object]]) -> int:
    return sum(not task.done() for task in tasks)


async def give_up(tasks: list[asyncio.Task[object]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_container_is_read(engine: Engine) -> None:
    found = await engine.inspect("one")
    assert found is not None
    assert (found.name, found.running, found.addresses) == ("one", True, {"bridge": "172.17.0.9"})


async def test_what_does_not_exist_is_no_error(fake: FakeEngine, engine: Engine) -> None:
    fake.errors["gone"] = (404, "No such container: gone")
    assert await engine.inspect("gone") is None
    assert await engine.logs("gone", 5) == ""
    assert not await engine.has_image("anything")
    assert await engine.network("anything") is None


async def test_many_hung_calls_about_one_container_delay_nobody_else(
    fake: FakeEngine, engine: Engine
) -> None:
    fake.hung.add("hung")
    hung = [asyncio.ensure_future(engine.inspect("hung")) for _ in range(THREADS * 4)]
    found = await asyncio.gather(*(engine.inspect(f"healthy{n}") for n in range(THREADS * 4)))
    assert all(container and container.running for container in found)
    assert unfinished(hung) == len(hung)
    await give_up(hung)


async def test_containers_that_have_hung_once_cannot_take_the_others_threads(
    fake: FakeEngine, engine: Engine
) -> None:
    names = [f"hung{n}" for n in range(THREADS * 4)]
    fake.hung.update(names)
    for start in range(0, len(names), THREADS):
        with_deadline = (engine.inspect(n, timeout=0.3) for n in names[start : start + THREADS])
        first = await asyncio.gather(*with_deadline, return_exceptions=True)
        assert all(isinstance(answer, EngineUnavailable) for answer in first)
    hung = [asyncio.ensure_future(engine.inspect(name)) for name in names]
    await asyncio.sleep(0)
    found = await asyncio.gather(*(engine.inspect(f"healthy{n}") for n in range(THREADS * 4)))
    assert all(container and container.running for container in found)
    assert unfinished(hung) == len(hung)
    await give_up(hung)


async def test_what_only_waited_for_a_thread_is_not_taken_for_hung() -> None:
    pool = CallPool("pool", threads=1)
    release = threading.Event()
    hung = asyncio.ensure_future(pool.run(lambda _: release.wait(), about="hung", timeout=20))
    await asyncio.sleep(0)
    with pytest.raises(TimeoutError):
        await pool.run(lambda _: None, about="healthy", timeout=0.05)
    release.set()
    await hung
    thread = await pool.run(lambda _: threading.current_thread().name, about="healthy", timeout=20)
    assert not thread.startswith("pool-slow")
    pool.close()


async def test_a_hung_call_gives_its_thread_back_and_recovers(
    fake: FakeEngine, engine: Engine
) -> None:
    fake.hung.add("hung")
    for _ in range(THREADS * 2):
        with pytest.raises(EngineUnavailable, match=r"did not answer within 0\.1 seconds"):
            await engine.inspect("hung", timeout=0.1)
    fake.hung.clear()
    found = await engine.inspect("hung")
    assert found is not None
    assert found.running


async def test_an_engine_that_hangs_altogether_says_so(fake: FakeEngine, engine: Engine) -> None:
    fake.hung.add("*")
    with pytest.raises(EngineUnavailable, match="did not answer") as caught:
        await engine.inspect("one", timeout=0.2)
    assert "journalctl -u docker" in caught.value.remedy
    assert fake.url in caught.value.message


async def test_an_engine_that_is_down_names_its_socket(tmp_path: Path) -> None:
    engine = Engine(f"unix://{tmp_path}/none.sock")
    with pytest.raises(EngineUnavailable, match="No container engine runs") as caught:
        await engine.info()
    assert f"{tmp_path}/none.sock" in caught.value.message
    assert "systemctl start docker" in caught.value.remedy
    engine.close()


async def test_a_socket_that_nobody_listens_at_is_an_engine_that_is_down(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as left_over:
        left_over.bind(str(tmp_path / "old.sock"))
    engine = Engine(f"unix://{tmp_path}/old.sock")
    with pytest.raises(EngineUnavailable, match="No container engine runs"):
        await engine.inspect("one")
    engine.close()


def test_a_socket_of_others_names_the_group() -> None:
    """As another account, for root may use any socket."""
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as listener:
        Path(folder).chmod(0o755)
        path = Path(folder) / "engine.sock"
        listener.bind(str(path))
        listener.listen()
        path.chmod(0)
        script = (
            "import asyncio, os, sys\n"
            "from workshop_hub.system.engine import Engine\n"
            "import docker, docker.utils, pwd\n"
            "engine = Engine('unix://' + sys.argv[1])\n"
            "if os.getuid() == 0: os.setgid(65534); os.setuid(65534)\n"
            "try: asyncio.run(engine.info())\n"
            "except Exception as exc: print(exc)\n"
        )
        result = subprocess.run(
            [sys.executable, "-c", script, str(path)],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
    assert "permission denied" in result.stdout
    assert "usermod -aG docker" in result.stdout


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
async def test_an_engine_that_comes_back_is_used_again(tmp_path: Path) -> None:
    """The Docker library leaves a socket open when the engine goes away."""
    first = FakeEngine(tmp_path)
    engine = Engine(first.url, call_timeout=10.0)
    assert await engine.inspect("one")
    first.close()
    with pytest.raises(EngineUnavailable):
        await engine.inspect("one")
    second = FakeEngine(tmp_path)
    assert await engine.inspect("one")
    second.close()
    engine.close()
    gc.collect()


async def test_a_refusal_quotes_the_engine(fake: FakeEngine, engine: Engine) -> None:
    fake.errors["bad"] = (500, "the disk is full")
    with pytest.raises(EngineError, match="about bad: the disk is full"):
        await engine.inspect("bad")
    fake.errors["busy"] = (409, "it is being removed")
    with pytest.raises(EngineConflict):
        await engine.inspect("busy")


def layer(name: str, status: str, current: int = 0, total: int = 0) -> dict[str, object]:
    detail = {"current": current, "total": total} if total else {}
    return {"id": name, "status": status, "progressDetail": detail}


async def test_one_pull_serves_everybody_and_outlives_who_gives_up(
    fake: FakeEngine, engine: Engine
) -> None:
    fake.pull_lines = [
        {"status": "Pulling from course/py", "id": "latest"},
        layer("a", "Pulling fs layer"),
        layer("b", "Pulling fs layer"),
        layer("a", "Downloading", 50, 100),
        layer("a", "Pull complete"),
        layer("b", "Extracting", 100, 100),
        layer("b", "Pull complete"),
        {"status": "Status: Downloaded newer image"},
    ]
    fake.pull_gate.clear()
    pulls = Pulls(lambda image, report: engine.pull(image, report, timeout=60.0))

    async def follow() -> list[int]:
        return [percent async for percent in pulls.follow("course/py")]

    impatient = asyncio.ensure_future(follow())
    patient = [asyncio.ensure_future(follow()) for _ in range(5)]
    while not fake.asked["pull"]:
        await asyncio.sleep(0.01)
    impatient.cancel()
    fake.pull_gate.set()
    shown = await asyncio.gather(*patient)
    assert fake.asked["pull"] == 1
    assert all(percents == sorted(set(percents)) and percents[0] == 0 for percents in shown)
    await follow()
    assert fake.asked["pull"] == 2  # what has ended is begun anew


async def test_a_pull_that_fails_fails_for_everybody_with_the_registrys_words(
    fake: FakeEngine, engine: Engine
) -> None:
    fake.pull_lines = [{"error": "pull access denied for course/py"}]
    pulls = Pulls(lambda image, report: engine.pull(image, report, timeout=60.0))

    async def follow() -> None:
        async for _ in pulls.follow("course/py"):
            pass

    answers = await asyncio.gather(follow(), follow(), return_exceptions=True)
    for answer in answers:
        assert isinstance(answer, ImageError)
        assert "pull access denied" in answer.message
        assert "docker pull course/py" in answer.remedy


def test_importing_the_backend_does_not_import_the_docker_library() -> None:
    code = "import sys, workshop_hub.backends.docker; sys.exit('docker' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    assert (
        subprocess.run([sys.executable, "-c", code], check=False, env=environment).returncode == 0
    )
