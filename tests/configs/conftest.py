"""Sites whose machine has an engine."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest
from docker_harness import IMAGE, URL, require_engine
from sites import Site, SiteHub, made_site

from workshop_hub.roster import hub_id


class EngineHub(SiteHub):
    """A hub that may use the engine, and whose containers end with it."""

    def __init__(self, config: str, more: str = "", *, as_user: str = "") -> None:
        super().__init__(config, more, as_user=as_user)
        self.env["DOCKER_HOST"] = URL

    @property
    def hub_id(self) -> str:
        """What the hub's containers are labelled with."""
        secret = (self.folder / "jupyterhub_cookie_secret").read_text().strip()
        return hub_id(bytes.fromhex(secret))

    def containers(self) -> list[str]:
        """Return the ids of the hub's containers, as the engine has them."""
        with contextlib.closing(docker.APIClient(base_url=URL)) as client:
            label = f"workshop-hub.hub={self.hub_id}"
            return [each["Id"] for each in client.containers(all=True, filters={"label": label})]

    def clear_away(self) -> None:
        """Remove the hub's containers."""
        if not (self.folder / "jupyterhub_cookie_secret").exists() or not engine_listens():
            return
        with contextlib.closing(docker.APIClient(base_url=URL)) as client:
            for each in self.containers():
                with contextlib.suppress(docker.errors.NotFound):
                    client.remove_container(each, v=True, force=True)


EngineSite = Site[EngineHub]


@pytest.fixture
def site() -> Iterator[EngineSite]:
    with made_site(EngineHub) as site:
        yield site


@pytest.fixture(scope="session")
def gateway() -> str:
    """This machine's address in the network of the containers."""
    return require_engine()


@pytest.fixture(scope="session")
def image(gateway: str) -> str:
    return IMAGE


def engine_listens() -> bool:
    return not URL.startswith("unix://") or Path(URL.removeprefix("unix://")).exists()
