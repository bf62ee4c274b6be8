"""A whole class at once, through a real hub, on a machine where ports are contested."""

from __future__ import annotations

import os
import random
import socket
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from harness import processes_of

from hubs import TINY_SERVER, Hub
from support import eventually_sync
from workshop_hub.system.accounts import Account

CLASS = [f"s{number}" for number in range(100)]
PORTS = (21000, 21199)


@pytest.fixture
def hub(tmp_path: Path, alice: Account) -> Iterator[Hub]:
    hub = Hub(
        tmp_path,
        "c.JupyterHub.spawner_class = 'workshop'\n"
        f"c.Spawner.cmd = [{sys.executable!r}, '-I', '-S', {str(TINY_SERVER)!r}]\n"
        "c.JupyterHub.concurrent_spawn_limit = 0\n"
        f"c.ProcessBackend.port_range = {PORTS}\n",
    ).start()
    yield hub
    if hub.process is not None:
        with ThreadPoolExecutor(20) as pool:
            list(pool.map(lambda name: hub.stop_server(alice.name, name), hub.servers(alice.name)))
        hub.kill()


@contextmanager
def strangers() -> Iterator[None]:
    """Take ports of the range now and then, as other programs of the machine do."""
    over = threading.Event()

    def flap() -> None:
        held: list[socket.socket] = []
        while not over.wait(0.002):
            stranger = socket.socket()
            try:
                stranger.bind(("127.0.0.1", random.randint(*PORTS)))
                stranger.listen()
            except OSError:
                stranger.close()
                continue
            held.append(stranger)
            while len(held) > 30:
                held.pop(random.randrange(len(held))).close()
        for each in held:
            each.close()

    thread = threading.Thread(target=flap)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def test_a_hundred_starts_at_once_lose_none(hub: Hub, alice: Account) -> None:
    hub.api("POST", f"/users/{alice.name}")
    with strangers(), ThreadPoolExecutor(len(CLASS)) as pool:
        ends = list(pool.map(lambda name: hub.start_server(alice.name, name)[-1], CLASS))
    assert [end for end in ends if not end.get("ready")] == []
    told = [hub.server_json(alice.name, name) for name in CLASS]
    assert {each["uid"] for each in told} == {alice.uid}
    assert len({each["pid"] for each in told}) == len(CLASS)


def test_a_running_server_costs_the_hub_no_process_and_no_thread(hub: Hub, alice: Account) -> None:
    assert hub.process is not None
    task = Path(f"/proc/{hub.process.pid}/task")

    def cost() -> tuple[int, int]:
        children = [
            child for each in task.iterdir() for child in (each / "children").read_text().split()
        ]
        return len(children), len(list(task.iterdir()))

    hub.start_server(alice.name, "first")
    hub.stop_server(alice.name, "first")
    eventually_sync(lambda: not processes_of(alice.uid), "the end of all the user's processes")
    before = cost()
    for name in CLASS[:5]:
        assert hub.start_server(alice.name, name)[-1]["ready"]
    children, threads = cost()
    assert children <= before[0]
    assert threads <= max(before[1], os.cpu_count() or 1) + 4  # pools are bounded, not per server
    for name in CLASS[:5]:
        hub.stop_server(alice.name, name)
    eventually_sync(lambda: cost()[0] <= before[0], "the end of what stopping took")
