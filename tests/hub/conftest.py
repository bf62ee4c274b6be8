"""A real hub whose servers are the fake backend's."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hubs import Hub, fake_config


@pytest.fixture
def make_hub(tmp_path: Path) -> Iterator[Callable[..., Hub]]:
    """Make hubs that end with the test, and their servers with them."""
    made: list[Hub] = []

    def make(config: str = "", **options: object) -> Hub:
        folder = tmp_path / f"hub{len(made)}"
        folder.mkdir()
        made.append(Hub(folder, fake_config(config), **options))
        return made[-1]

    yield make
    for hub in made:
        if hub.process is not None and hub.process.poll() is None:
            for user in hub.api("GET", "/users").json:
                for server in user.get("servers", {}):
                    hub.stop_server(user["name"], server)
            hub.kill()


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    """One hub for the tests of a module that do not change it."""
    hub = Hub(tmp_path_factory.mktemp("hub"), fake_config()).start()
    yield hub
    for user in hub.api("GET", "/users").json:
        for server in user.get("servers", {}):
            hub.stop_server(user["name"], server)
    hub.kill()


@pytest.fixture
def user() -> str:
    """A user name that no other test has."""
    return f"user-{secrets.token_hex(4)}"
