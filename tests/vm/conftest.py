"""These tests run as root in the guest that tests/machine/guest/build makes: `make test-vm`."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

IN_GUEST = "WORKSHOP_GUEST" in os.environ

# On any other machine nothing of this is even imported: it would change the machine's units.
collect_ignore_glob = [] if IN_GUEST else ["test_*.py"]


@pytest.fixture(scope="session", autouse=True)
def units() -> Iterator[None]:
    """The project's units, installed; the one that holds the servers runs."""
    import guest

    guest.install()
    guest.systemctl("start", "workshop-users.service")
    yield
    guest.systemctl("stop", "workshop-hub.service", "workshop-users.service")
