"""The end of a container is told, however late its engine hears of it."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator

import pytest
from fake_engine import container

from workshop_hub.backends.docker import container_watch
from workshop_hub.errors import EngineUnavailable
from workshop_hub.system.engine_replies import Container


@pytest.fixture
def process() -> Iterator[subprocess.Popen[bytes]]:
    """A process that ends when its standard input does."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as started:
        yield started
        started.kill()


class Watched:
    """A container as its engine tells of it; the last reply is repeated."""

    def __init__(self, *replies: dict[str, object] | Exception | None) -> None:
        self.replies = list(replies)
        self.told = asyncio.Event()
        self.looked = asyncio.Event()

    async def inspect(self) -> Container | None:
        self.looked.set()
        reply = self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]
        if isinstance(reply, Exception):
            raise reply
        return None if reply is None else Container.read(container("c", **reply))

    async def watch(self, *, here: bool) -> None:
        await container_watch.until_ended(self.inspect, lambda _: here, self.told.set)


ENDED: dict[str, object] = {"Running": False}


async def test_one_that_the_kernel_has_lost_already_is_told_when_its_engine_knows() -> None:
    watched = Watched({"Pid": 1}, {"Pid": 1}, {"Pid": 1}, ENDED)
    await asyncio.wait_for(watched.watch(here=False), 20)
    assert watched.told.is_set()


async def test_one_that_is_removed_has_ended() -> None:
    watched = Watched(None)
    await asyncio.wait_for(watched.watch(here=True), 20)
    assert watched.told.is_set()


async def test_the_engine_is_left_alone_until_the_kernel_tells(
    process: subprocess.Popen[bytes],
) -> None:
    running: dict[str, object] = {"Pid": process.pid}
    watched = Watched(running, running, ENDED)
    watching = asyncio.ensure_future(watched.watch(here=True))
    await asyncio.wait_for(watched.looked.wait(), 20)
    assert len(watched.replies) == 2
    process.communicate(b"\n")
    await asyncio.wait_for(watching, 20)
    assert watched.told.is_set()
    assert len(watched.replies) == 1


async def test_another_machines_is_given_up_without_a_word(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(container_watch, "SETTLES_WITHIN", 0.1)
    watched = Watched({"Pid": 1})
    await asyncio.wait_for(watched.watch(here=False), 20)
    assert not watched.told.is_set()


async def test_without_its_engine_nothing_is_said() -> None:
    watched = Watched(EngineUnavailable("It is down."))
    await asyncio.wait_for(watched.watch(here=True), 20)
    assert not watched.told.is_set()


async def test_one_without_a_pidfd_is_looked_at_now_and_then(
    monkeypatch: pytest.MonkeyPatch, process: subprocess.Popen[bytes]
) -> None:
    def no_pidfd(_: int) -> int:
        raise OSError

    monkeypatch.setattr("os.pidfd_open", no_pidfd)
    monkeypatch.setattr(container_watch, "LOOK_SELDOM", 0.01)
    running: dict[str, object] = {"Pid": process.pid}
    watched = Watched(running, running, running, ENDED)
    await asyncio.wait_for(watched.watch(here=True), 20)
    assert watched.told.is_set()
