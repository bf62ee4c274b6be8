"""A whole class at once, through a real hub, on a machine where ports are contested."""

from __future__ import annotations

import os
import shutil
import socket
import sys
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from harness import processes_of

from hubs import TINY_SERVER, Hub
from support import eventually_sync
from workshop_hub.system.accounts import Account

CLASS = [f"s{number}" for number in range(100)]
PORTS = (21000, 21199)


LOSE_FIRST = """
import os, sys, time
from urllib.parse import urlparse

folder, *command = sys.argv[1:]
name = os.environ["JUPYTERHUB_SERVER_NAME"]
request = os.path.join(folder, name)
if name.endswith(("0", "3", "6")) and not os.path.exists(request):
    with open(request + ".new", "w") as file:
        file.write(str(urlparse(os.environ["JUPYTERHUB_SERVICE_URL"]).port))
    os.rename(request + ".new", request)
    while not os.path.exists(request + ".taken"):
        time.sleep(0.01)
os.execv(command[0], command)
"""
"""A server that waits, at its first start, until a stranger has taken its port."""


class Strangers:
    """Another account's program that takes the ports which servers name in `folder`, and stays."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(dir="/var/tmp"))
        self.folder.chmod(0o1777)
        self._held: list[socket.socket] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._take)
        self._thread.start()

    @property
    def ports(self) -> int:
        return len(self._held)

    def _take(self) -> None:
        while not self._over.wait(0.01):
            for request in self.folder.iterdir():
                taken = request.with_name(f"{request.name}.taken")
                if request.suffix or taken.exists():
                    continue
                self._held.append(socket.create_server(("127.0.0.1", int(request.read_text()))))
                taken.touch()

    def close(self) -> None:
        self._over.set()
        self._thread.join()
        for each in self._held:
            each.close()
        shutil.rmtree(self.folder)


@pytest.fixture
def strangers() -> Iterator[Strangers]:
    made = Strangers()
    yield made
    made.close()


@pytest.fixture
def hub(tmp_path: Path, alice: Account, strangers: Strangers) -> Iterator[Hub]:
    tiny = [sys.executable, "-I", "-S", str(TINY_SERVER)]
    cmd = [sys.executable, "-I", "-S", "-c", LOSE_FIRST, str(strangers.folder), *tiny]
    hub = Hub(
        tmp_path,
        "c.JupyterHub.spawner_class = 'workshop'\n"
        f"c.Spawner.cmd = {cmd!r}\n"
        "c.JupyterHub.concurrent_spawn_limit = 0\n"
        f"c.ProcessBackend.port_range = {PORTS}\n",
    ).start()
    yield hub
    if hub.process is not None:
        with ThreadPoolExecutor(20) as pool:
            list(pool.map(lambda name: hub.stop_server(alice.name, name), hub.servers(alice.name)))
        hub.kill()


def test_a_hundred_starts_at_once_lose_none(hub: Hub, alice: Account, strangers: Strangers) -> None:
    hub.api("POST", f"/users/{alice.name}")
    with ThreadPoolExecutor(len(CLASS)) as pool:
        ends = list(pool.map(lambda name: hub.start_server(alice.name, name)[-1], CLASS))
    assert [end for end in ends if not end.get("ready")] == []
    told = [hub.server_json(alice.name, name) for name in CLASS]
    assert {each["uid"] for each in told} == {alice.uid}
    assert len({each["pid"] for each in told}) == len(CLASS)
    assert strangers.ports == 30


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
    for name in ("s1", "s2", "s4", "s5", "s7"):
        assert hub.start_server(alice.name, name)[-1]["ready"]
    children, threads = cost()
    assert children <= before[0]
    assert threads <= max(before[1], os.cpu_count() or 1) + 4  # pools are bounded, not per server
    for name in ("s1", "s2", "s4", "s5", "s7"):
        hub.stop_server(alice.name, name)
    eventually_sync(lambda: cost()[0] <= before[0], "the end of what stopping took")
