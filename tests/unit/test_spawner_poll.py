"""A look at a server that takes longer than the server's own end."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

from workshop_hub.backends.base import Handle, Owner, ServerStatus
from workshop_hub.spawner import WorkshopSpawner


class SlowBackend:
    """A backend whose answers are held back until they are out of date."""

    def __init__(self) -> None:
        self.answer = asyncio.Event()

    async def poll(self, handle: Handle) -> ServerStatus:
        await self.answer.wait()
        return ServerStatus(running=False)

    async def stop(self, handle: Handle, *, now: bool = False) -> None:
        """There is nothing to end."""


async def test_a_late_look_does_not_take_a_stop_for_a_death() -> None:
    backend = SlowBackend()
    lock = asyncio.Lock()
    roster = SimpleNamespace(backend=lambda name: backend, lock=lambda owner: lock)

    class Spawner(WorkshopSpawner):
        _roster = roster  # type: ignore[assignment]
        _owner = Owner("c0ffee", "alice")  # type: ignore[assignment]

    spawner = Spawner()
    spawner.load_state({"version": 1, "backend": "docker", "handle": {"id": "1"}})
    look = asyncio.ensure_future(spawner.poll())
    await asyncio.sleep(0)
    await spawner.stop()
    backend.answer.set()
    assert await look is None
    assert await spawner.poll() == 0
    assert spawner.get_state()["ended"]["expected"]
