"""Limits as cgroup settings and back, and names without collisions."""

from __future__ import annotations

import itertools

import pytest

from workshop_hub.backends.base import Owner
from workshop_hub.backends.process import cgroup_limits
from workshop_hub.backends.process.names import MAX_KEY, key_of, owner_of
from workshop_hub.errors import LimitError
from workshop_hub.policy.limits import DEFAULT_PIDS_LIMIT, Limits

GIB = 2**30


def written(limits: Limits) -> dict[str, str]:
    return {setting.file: setting.value for setting in cgroup_limits.settings_for(limits)}


def test_without_limits_only_the_defaults_are_written() -> None:
    assert written(Limits()) == {"cpu.weight": "1", "pids.max": str(DEFAULT_PIDS_LIMIT)}
    assert written(Limits(pids_limit=0)) == {"cpu.weight": "1"}


@pytest.mark.parametrize(
    ("limits", "files"),
    [
        (Limits(cpu_limit=0.1), {"cpu.max": "10000 100000"}),
        (Limits(cpu_limit=2), {"cpu.max": "200000 100000"}),
        (Limits(cpu_limit=0.005), {"cpu.max": "5000 1000000"}),
        (Limits(mem_limit=GIB), {"memory.max": str(GIB), "memory.swap.max": "0"}),
        (Limits(mem_guarantee=GIB), {"memory.low": str(GIB)}),
        (Limits(pids_limit=100), {"pids.max": "100"}),
        (Limits(cpu_guarantee=0.5), {"cpu.weight": "50"}),
    ],
)
def test_each_limit_has_its_file(limits: Limits, files: dict[str, str]) -> None:
    assert files.items() <= written(limits).items()


def test_a_limit_below_what_the_kernel_can_count_is_refused() -> None:
    with pytest.raises(LimitError, match="less than"):
        cgroup_limits.settings_for(Limits(cpu_limit=0.0001))


@pytest.mark.parametrize(
    "limits",
    [
        Limits(pids_limit=0),
        Limits(0.1, 128 * 2**20, 0.1, 128 * 2**20, 100),
        Limits(2, 4 * GIB, 1.5, GIB, 5000),
        Limits(cpu_limit=0.005, pids_limit=1),
    ],
)
def test_limits_are_read_back_as_they_were_written(limits: Limits) -> None:
    kernel = {"cpu.max": "max 100000", "memory.max": "max", "memory.low": "0", "pids.max": "max"}
    found = cgroup_limits.limits_in({**kernel, **written(limits)})
    assert found == (limits if limits.pids_limit else Limits())


def test_a_kernel_that_counts_nothing_has_no_limits() -> None:
    assert cgroup_limits.limits_in({}) == Limits()


@pytest.mark.parametrize(
    ("cores", "weight"), [(None, 1), (0, 1), (0.001, 2), (0.5, 50), (1, 100), (128, 10_000)]
)
def test_a_guarantee_is_worth_more_than_none(cores: float | None, weight: int) -> None:
    assert cgroup_limits.weight(cores) == weight


def test_what_cannot_be_held_is_told() -> None:
    limits = Limits(cpu_limit=1, mem_limit=GIB, mem_guarantee=GIB, pids_limit=10)
    settings, missed = cgroup_limits.split(limits, {"cpu", "pids"})
    assert {setting.controller for setting in settings} == {"cpu", "pids"}
    assert missed == ["mem_limit", "mem_guarantee"]
    assert cgroup_limits.split(Limits(), ()) == ([], [])


NAMES = ["", "a", "A", "a.b", "a%2Eb", "a/b", "ä", "..", "~", "a~", "-x", "a b", "a\nb", "*", "[a]"]


def test_keys_have_no_collisions_and_can_be_read_back() -> None:
    owners = [
        Owner(hub, user, server)
        for hub, user, server in itertools.product(["h", "k"], NAMES[1:], NAMES)
    ]
    keys = [key_of(owner) for owner in owners]
    assert len(set(keys)) == len(keys)
    assert [owner_of(key) for key in keys] == owners
    for key in keys:
        assert "/" not in key
        assert not key.startswith(".")
        assert key.isprintable()


def test_a_plain_name_stays_readable() -> None:
    assert key_of(Owner("0123456789ab", "alice", "two")) == "0123456789ab.alice.two"


def test_long_names_fit_a_file_and_differ() -> None:
    owners = [Owner("h", "ä" * 255, server) for server in ("a", "b")]
    keys = [key_of(owner) for owner in owners]
    assert len(set(keys)) == 2
    assert all(len(key) <= MAX_KEY for key in keys)
    assert [owner_of(key) for key in keys] == [None, None]


@pytest.mark.parametrize(
    "key", ["", "a", "a.b", "a.b.c.d", "a.%zz.c", "a.b%2e.c", ".b.c", "a.%ff."]
)
def test_other_names_are_nobodys(key: str) -> None:
    assert owner_of(key) is None
