"""The locked versions fit pyproject.toml, on every Python that we support."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
PYTHONS = ("3.10", "3.11", "3.12", "3.13")


def pinned(name: str) -> list[tuple[Requirement, str]]:
    """Return each pin of a lock with the lines below it."""
    text = (ROOT / "requirements" / name).read_text()
    entries = re.findall(r"^(\w[^\n]*?) ?\\?\n((?:[ ]+[^\n]*\n?)*)", text, re.MULTILINE)
    return [(Requirement(head), rest) for head, rest in entries]


def wanted() -> list[Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    texts = [*project["project"]["dependencies"], *project["build-system"]["requires"]]
    for extra in project["project"]["optional-dependencies"].values():
        texts += extra
    return [Requirement(text) for text in texts]


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


@pytest.mark.parametrize("python", PYTHONS)
def test_every_requirement_is_locked_once_in_a_version_that_fits(python: str) -> None:
    environment = {
        "python_version": python,
        "python_full_version": f"{python}.5",
        "sys_platform": "linux",
        "platform_machine": "x86_64",
        "platform_python_implementation": "CPython",
        "implementation_name": "cpython",
        "os_name": "posix",
    }
    locked: dict[str, str] = {}
    for pin, _ in pinned("lock.txt"):
        if pin.marker is None or pin.marker.evaluate(environment):
            assert canonical(pin.name) not in locked, pin
            locked[canonical(pin.name)] = str(pin.specifier).removeprefix("==")
    for requirement in wanted():
        if requirement.marker is not None and not requirement.marker.evaluate(environment):
            continue
        version = locked.get(canonical(requirement.name))
        assert version, f"{requirement} is not locked; run: make lock"
        assert requirement.specifier.contains(version, prereleases=True), (requirement, version)


@pytest.mark.parametrize("name", ["lock.txt", "hub5.txt", "bench.txt"])
def test_every_locked_version_has_hashes(name: str) -> None:
    pins = pinned(name)
    assert pins
    for pin, rest in pins:
        assert re.fullmatch(r"==[^,*]+", str(pin.specifier)), pin
        assert rest.count("--hash=sha256:") >= 1, pin


def test_the_benchmark_compares_with_what_is_locked() -> None:
    """What it needs beyond lock.txt changes no version that is locked there."""
    locked = {canonical(pin.name) for pin, _ in pinned("lock.txt")}
    beyond = {canonical(pin.name) for pin, _ in pinned("bench.txt")}
    assert "dockerspawner" in beyond
    assert not beyond & locked


def test_nothing_is_locked_that_nobody_wants_any_more() -> None:
    direct = {
        canonical(pin.name)
        for pin, rest in pinned("lock.txt")
        if "workshop-hub (pyproject.toml)" in rest
    }
    assert direct
    assert direct <= {canonical(requirement.name) for requirement in wanted()}


def test_the_older_hub_is_the_one_that_pyproject_allows_below_6() -> None:
    (pin, _), *_ = pinned("hub5.txt")
    hub = next(each for each in wanted() if each.name == "jupyterhub")
    version = str(pin.specifier).removeprefix("==")
    assert version.startswith("5.")
    assert hub.specifier.contains(version)
