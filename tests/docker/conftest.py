"""Fixtures of the tests against a real engine."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pytest
from docker_harness import DockerHarness, FakeHub, require_engine

from workshop_hub.backends.docker import DockerBackend


@pytest.fixture(scope="session")
def hub_ip() -> str:
    return require_engine()


@pytest.fixture(scope="session")
def hub(hub_ip: str) -> Iterator[FakeHub]:
    made = FakeHub(hub_ip, version("jupyterhub"))
    yield made
    made.close()


@pytest.fixture
def harness(tmp_path: Path, hub: FakeHub, hub_ip: str) -> Iterator[DockerHarness]:
    made = DockerHarness(tmp_path, hub, hub_ip)
    yield made
    made.close()


@pytest.fixture
def backend(harness: DockerHarness) -> DockerBackend:
    return harness.backend()
