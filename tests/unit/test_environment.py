"""What of a PAM session's variables a server is given."""

from __future__ import annotations

import pytest

from workshop_hub.policy import environment


@pytest.mark.parametrize("name", ["KRB5CCNAME", "XDG_RUNTIME_DIR", "MAIL", "HOMEPAGE", "PATHS"])
def test_what_a_session_is_for_is_handed_on(name: str) -> None:
    assert environment.of_session({name: "x"}) == {name: "x"}


@pytest.mark.parametrize(
    "name",
    [
        *("PATH", "LD_PRELOAD", "LD_LIBRARY_PATH", "PYTHONPATH", "PYTHONSTARTUP"),
        *("JUPYTERHUB_API_TOKEN", "JPY_API_TOKEN", "HOME", "USER", "WORKSHOP_HUB_SERVER"),
        *("", "A B", "1A", "A=B"),
    ],
)
def test_what_decides_what_runs_and_what_the_hub_sets_is_not(name: str) -> None:
    assert environment.of_session({name: "x", "KEPT": "y"}) == {"KEPT": "y"}


def test_what_no_process_can_be_given_is_left_out() -> None:
    assert environment.of_session({"A": "x\0y"}) == {}
