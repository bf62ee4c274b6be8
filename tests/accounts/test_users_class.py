"""A class of thirty, from one command to thirty servers."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from accounts.conftest import Hubs, Machine
from accounts.users_command import Users

from hubs import TINY_SERVER, Hub, words
from support import eventually_sync

CLASS = "wsacct-t{01..30}"

CONFIG = f"""
c.JupyterHub.spawner_class = "workshop"
c.LocalAuthenticator.allowed_groups = {{"workshop-hub"}}
c.Spawner.cmd = [{sys.executable!r}, "-S", {str(TINY_SERVER)!r}]
c.Spawner.start_timeout = c.Spawner.http_timeout = 120
c.JupyterHub.concurrent_spawn_limit = 0
c.JupyterHub.load_roles = [dict(name="tests", services=["tests"], scopes=[
    "admin:users", "admin:servers", "list:users", "read:hub", "access:servers"])]
"""


@pytest.fixture
def users(machine: Machine, tmp_path: Path) -> Iterator[Users]:
    users = Users(machine, tmp_path)
    yield users
    users.remove_all()


def test_every_one_of_thirty_logs_in_and_gets_a_server(users: Users, hubs: Hubs) -> None:
    assert "30 made" in users.good("add", CLASS)
    hub = hubs.start(CONFIG)
    passwords = users.passwords()
    assert len(passwords) == 30
    for name, password in passwords.items():
        answer = hub.browser(name, password).open("/hub/home")
        assert f'user: "{name}"' in answer.text, words(answer.text)
    try:
        for name in passwords:
            assert hub.api("POST", f"/users/{name}/server", {}).status in (201, 202)
        eventually_sync(lambda: ready(hub) == set(passwords), "thirty servers", deadline=180)
    finally:
        for name in passwords:
            hub.api("DELETE", f"/users/{name}/server")
        eventually_sync(lambda: not ready(hub), "all have ended", deadline=120)


def ready(hub: Hub) -> set[str]:
    """Return who has a server that answers."""
    return {
        user["name"]
        for user in hub.api("GET", "/users?limit=100").json
        if any(server["ready"] for server in user.get("servers", {}).values())
    }
