"""Limits: which values there are, and how they are written."""

from __future__ import annotations

import pytest

from workshop_hub.errors import LimitError
from workshop_hub.policy.limits import Limits, format_bytes, small_memory_warning

G = 1024**3


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"mem_limit": -G}, "mem_limit is -1.07374e+09"),
        ({"mem_limit": 0}, "mem_limit is 0"),
        ({"mem_limit": 512}, "16M"),
        ({"cpu_limit": 0}, "cpu_limit is 0"),
        ({"cpu_limit": -1}, "cpu_limit is -1"),
        ({"cpu_limit": float("nan")}, "cpu_limit is nan"),
        ({"cpu_limit": float("inf")}, "cpu_limit is inf"),
        ({"cpu_limit": "2"}, "cpu_limit is '2'"),
        ({"cpu_limit": True}, "cpu_limit is True"),
        ({"cpu_guarantee": -0.5}, "cpu_guarantee is -0.5"),
        ({"pids_limit": -1}, "pids_limit is -1"),
        ({"mem_limit": G, "mem_guarantee": 2 * G}, "mem_guarantee (2G) is above mem_limit (1G)"),
        ({"cpu_limit": 1, "cpu_guarantee": 2}, "cpu_guarantee (2) is above cpu_limit (1)"),
    ],
)
def test_a_value_that_means_nothing_is_refused_by_name(values: dict, said: str) -> None:
    with pytest.raises(LimitError) as caught:
        Limits(**values)
    assert said in caught.value.message
    assert caught.value.remedy


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"cpu_limit": 0.1, "cpu_guarantee": 0.1},
        {"mem_limit": 128 * 1024**2, "mem_guarantee": 128 * 1024**2},
        {"mem_guarantee": 0, "cpu_guarantee": 0},
        {"pids_limit": 0},
    ],
)
def test_values_that_mean_something_are_taken(values: dict) -> None:
    Limits(**values)


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0"), (512, "512"), (1536, "1.5K"), (512 * 1024**2, "512M"), (G, "1G")]
)
def test_bytes_are_written_as_the_configuration_takes_them(size: int, text: str) -> None:
    assert format_bytes(size) == text


def test_limits_say_what_is_set() -> None:
    assert str(Limits()) == "no limits"
    assert str(Limits(cpu_limit=0.5, mem_limit=G)) == "cpu_limit 0.5, mem_limit 1G"


def test_a_small_memory_limit_is_warned_of() -> None:
    assert "128M" in small_memory_warning(Limits(mem_limit=128 * 1024**2))
    assert small_memory_warning(Limits(mem_limit=G)) == ""
