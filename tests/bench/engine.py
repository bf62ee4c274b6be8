"""The Docker engine for the contenders that want one: its images, what is left in it."""

from __future__ import annotations

import ipaddress
import json
import os
import socket
import subprocess
import sys
from collections.abc import Collection, Mapping
from pathlib import Path

from bench.contenders import PREFIX

MACHINE = Path(__file__).parents[1] / "machine"
PLAIN = Path(__file__).with_name("image")
PLAIN_TAG = "workshop-hub/bench:plain"

TIMEOUT = 120.0
"""Seconds for one command of the engine."""


class NoEngine(Exception):
    """There is no engine, or no image; the message says why."""


class Engine:
    """A running engine. images: names by kind; see Contender.image."""

    def __init__(self, env: Mapping[str, str], images: Mapping[str, str], *, started: bool) -> None:
        self.env = dict(env)
        self.images = dict(images)
        self._started = started
        self.gateway = self._gateway()

    @classmethod
    def prepared(cls, kinds: Collection[str]) -> Engine:
        """Start an engine where none runs, and build the images. Raises NoEngine."""
        ran_before = _answers()
        host = _script("engine.sh")
        env = {"DOCKER_HOST": host} if host else {}
        try:
            images = {}
            if "ours" in kinds:
                images["ours"] = _script("image.sh", env=env)
            if "plain" in kinds:
                images["plain"] = _script("image.sh", str(PLAIN), PLAIN_TAG, env=env)
            return cls(env, images, started=bool(host) and not ran_before)
        except BaseException:
            if host and not ran_before:
                _script("engine.sh", "stop")
            raise

    def containers(self) -> list[str]:
        """Return the names of the benchmark's containers, running or not."""
        listed = self._docker("ps", "--all", "--filter", f"name=^/?{PREFIX}", "--format={{.Names}}")
        return listed.split()

    def remove_containers(self) -> None:
        """Remove the benchmark's containers."""
        if names := self.containers():
            self._docker("rm", "--force", "--volumes", *names)

    def close(self) -> None:
        """End the engine if it was started here."""
        if self._started:
            _script("engine.sh", "stop")

    def _gateway(self) -> str:
        """Return this machine's address in the containers' network.

        Old engines do not tell it; they take the first one of the subnet.
        """
        (network,) = json.loads(self._docker("network", "inspect", "bridge"))
        config = network["IPAM"]["Config"][0]
        first = next(ipaddress.ip_network(config["Subnet"]).hosts())
        return str(config.get("Gateway") or first)

    def _docker(self, *words: str) -> str:
        done = subprocess.run(
            ["docker", *words],
            env={**os.environ, **self.env},
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=False,
        )
        if done.returncode:
            raise NoEngine(f"docker {words[0]}: {done.stderr.strip()}")
        return done.stdout


def _answers() -> bool:
    """Say whether the engine that engine.sh starts runs already."""
    cache = os.environ.get("WORKSHOP_CACHE", "/var/cache/workshop-hub")
    with socket.socket(socket.AF_UNIX) as trial:
        return trial.connect_ex(f"{cache}/engine/run/docker.sock") == 0


def _script(name: str, *words: str, env: Mapping[str, str] | None = None) -> str:
    """Run one of the scripts that prepare the machine; return what it prints."""
    done = subprocess.run(
        [MACHINE / name, *words],
        env={**os.environ, "PYTHON": sys.executable, **(env or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise NoEngine((done.stderr.strip().splitlines() or [f"{name} failed"])[-1])
    return done.stdout.strip()
