"""These tests run as root in the guest that tests/machine/guest/build makes: `make test-vm`."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from unit_hub import Server, UnitHub

pytest.register_assert_rewrite("guest", "unit_hub")

IN_GUEST = "WORKSHOP_GUEST" in os.environ

# On any other machine nothing of this is even imported: it would change the machine's units.
collect_ignore_glob = [] if IN_GUEST else ["test_*.py"]


@pytest.fixture(scope="session")
def launcher(request: pytest.FixtureRequest) -> str:
    """What starts servers; a module says which it is run with (`WITH_BOTH` in unit_hub.py)."""
    return getattr(request, "param", "sudo")


@pytest.fixture(scope="session", autouse=True)
def units(launcher: str) -> Iterator[None]:
    """The project's units, installed; the one that holds the servers runs."""
    import guest

    guest.install(launcher)
    guest.start_holder()
    yield
    guest.systemctl("stop", "workshop-hub.service", "workshop-users.*")
    guest.LAUNCHER.unlink(missing_ok=True)


@pytest.fixture(scope="session")
def hub(units: None, launcher: str) -> Iterator[UnitHub]:
    """The hub's unit, running."""
    from unit_hub import UnitHub

    hub = UnitHub(launcher).start()
    yield hub
    hub.end()


@pytest.fixture
def start(hub: UnitHub) -> Iterator[Callable[..., Server]]:
    """Start a user's server with these options; it ends with the test."""
    started: list[str] = []

    def start(user: str, **options: object) -> Server:
        started.append(user)
        return hub.run_server(user, **options)

    yield start
    for user in started:
        hub.stop_server(user)
