"""The benchmark's arithmetic, tables and chart; the benchmark itself is `make bench`."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from bench import bounds, chart, contenders, figures, idle, machine, report, storm, usable
from bench.accounts import User, user_names
from bench.bounds import Bound, Kind, Verdict
from bench.client import Visit
from bench.machine import Process
from bench.storm import Storm

SVG = "{http://www.w3.org/2000/svg}"


def storms(name: str, *totals: float, users: int = 12, **numbers: float) -> list[Storm]:
    return [
        Storm(name, users, round_, {"total_s": total, **numbers})
        for round_, total in enumerate(totals)
    ]


# --- figures --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "percent", "expected"),
    [([7], 95, 7), ([1, 2], 50, 1), ([1, 2], 51, 2), (list(range(1, 101)), 95, 95), ([3, 4], 0, 3)],
)
def test_a_percentile_is_a_value_that_was_measured(
    values: list[float], percent: float, expected: float
) -> None:
    assert figures.percentile(values, percent) == expected


def test_rounds_become_medians_and_what_must_not_happen_counts_in_its_worst_round() -> None:
    rounds = storms("warm", 1.0, 9.0, 2.0)
    for each, lost in zip(rounds, (0, 0, 1), strict=True):
        each.numbers["lost"] = lost
    assert figures.summarise(rounds) == {("warm", 12): {"total_s": 2.0, "lost": 1}}


def test_numbers_of_users_are_kept_apart_and_missing_numbers_are_passed_over() -> None:
    results = [*storms("warm", 1.0, 3.0), *storms("warm", 8.0, users=100), Storm("sudo", 12, 1)]
    results[1].numbers["stop_s"] = 0.5
    assert figures.summarise(results) == {
        ("warm", 12): {"total_s": 2.0, "stop_s": 0.5},
        ("warm", 100): {"total_s": 8.0},
        ("sudo", 12): {},
    }


@pytest.mark.parametrize(
    ("over", "under", "expected"),
    [(10.0, 4.0, 2.5), (None, 4.0, None), (10.0, None, None), (10.0, 0.0, None), (0.0, 4.0, 0.0)],
)
def test_a_ratio_is_unknown_where_a_side_is(
    over: float | None, under: float | None, expected: float | None
) -> None:
    assert figures.ratio(over, under) == expected


def test_those_who_got_nothing_have_no_time() -> None:
    visits = [
        Visit("a", 1.0, 1.5),
        Visit("b", 3.0, error="/lab answered 500"),
        Visit("c", error=""),
    ]
    assert storm.times(visits) == {
        "ready_p50_s": 2.0,
        "ready_p95_s": 3.0,
        "ready_max_s": 3.0,
        "lab_p50_s": 1.5,
        "lab_p95_s": 1.5,
    }
    assert storm.times([Visit("a", error="no")]) == {}


# --- bounds ---------------------------------------------------------------------------------------

SOONER = Bound("warm", 12, "total_s", Kind.SOONER, 10, "local")
WITHIN = Bound("warm", 12, "total_s", Kind.WITHIN, 5, "floor")
AT_MOST = Bound("warm", 12, "user_mb", Kind.AT_MOST, 30)


@pytest.mark.parametrize(
    ("bound", "own", "peer", "figure", "held"),
    [
        (SOONER, 2.0, 20.0, 10.0, True),
        (SOONER, 2.0, 19.9, 9.95, False),
        (SOONER, 2.0, None, None, False),
        (SOONER, None, 20.0, None, False),
        (WITHIN, 5.0, 1.0, 5.0, True),
        (WITHIN, 5.1, 1.0, 5.1, False),
        (AT_MOST, 30.0, None, 30.0, True),
        (AT_MOST, 30.1, None, 30.1, False),
        (AT_MOST, None, None, None, False),
    ],
)
def test_a_bound_is_held_by_what_was_measured_and_never_by_what_was_not(
    bound: Bound, own: float | None, peer: float | None, figure: float | None, held: bool
) -> None:
    summary = {
        (name, 12): {bound.number: value}
        for name, value in (("warm", own), (bound.peer, peer))
        if value is not None
    }
    (verdict,) = bounds.judge([bound], summary)
    assert verdict.figure == (pytest.approx(figure) if figure is not None else None)
    assert verdict.held is held


def test_a_verdict_says_what_was_promised_and_what_was_measured() -> None:
    assert Verdict(SOONER, 12.34).line == (
        "held      warm, 12 users: total_s at least 10 times less than local: 12.3"
    )
    assert Verdict(WITHIN, 6.0).line == (
        "NOT held  warm, 12 users: total_s at most 5 times that of floor: 6"
    )
    assert (
        Verdict(AT_MOST, None).line == "NOT held  warm, 12 users: user_mb at most 30: not measured"
    )


def test_only_bounds_are_judged_whose_contenders_and_users_were_asked_for() -> None:
    asked = bounds.asked_for({"sudo", "local"}, {12})
    assert {(each.of, each.peer) for each in asked} == {("sudo", "local"), ("sudo", "")}
    assert bounds.asked_for({each.name for each in contenders.CONTENDERS}, {12, 100}) == list(
        bounds.BOUNDS
    )


def test_every_bound_is_about_contenders_and_numbers_that_exist() -> None:
    names = {each.name for each in contenders.CONTENDERS}
    for bound in bounds.BOUNDS:
        assert bound.of in names
        assert (bound.peer in names) == (bound.kind is not Kind.AT_MOST)
        assert bound.number in report.NUMBERS


# --- contenders -----------------------------------------------------------------------------------


def test_contenders_are_chosen_by_name_and_an_unknown_name_lists_them() -> None:
    assert contenders.chosen([]) == contenders.CONTENDERS
    assert [each.name for each in contenders.chosen(["sudo", "floor"])] == ["floor", "sudo"]
    with pytest.raises(contenders.UnknownContender, match=r"hot.*there are: floor, warm"):
        contenders.chosen(["hot"])


def test_each_round_begins_with_another_contender() -> None:
    three = contenders.CONTENDERS[:3]
    rounds = [contenders.in_round(three, number) for number in range(4)]
    assert [each[0] for each in rounds] == [three[0], three[1], three[2], three[0]]
    assert all(sorted(each, key=three.index) == list(three) for each in rounds)


@pytest.mark.parametrize("contender", contenders.CONTENDERS, ids=lambda each: each.name)
def test_every_configuration_is_python_once_it_is_filled_in(
    contender: contenders.Contender,
) -> None:
    fields = dict.fromkeys(("tests", "prefix", "cgroup", "image", "gateway"), "x")
    text = contender.config.format(**fields)
    compile(text, contender.name, "exec")
    assert "{" not in text


# --- tables and chart -----------------------------------------------------------------------------

SUMMARY = figures.summarise(
    [
        *storms("floor", 0.3),
        *storms("warm", 2.0, user_mb=27.6, lost=0, left=0),
        *storms("local", 20.0, user_mb=106.0, lost=1, left=3),
        *storms("warm", 16.0, users=100, user_mb=25.0),
    ]
)


def cells(table: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]


def test_the_table_has_a_row_for_each_that_ran_and_how_many_times_sooner_it_was() -> None:
    head, rule, *rows = cells(report.storm_table(SUMMARY, 12))
    assert {len(row) for row in (head, rule, *rows)} == {len(head)}
    assert [row[0] for row in rows] == [
        contenders.FLOOR.title,
        contenders.WARM.title,
        contenders.LOCAL.title,
    ]
    at = {name: [row[head.index(name)] for row in rows] for name in head}
    assert at["all lab pages (s)"] == ["0.30", "2.0", "20"]
    assert at["times sooner"] == ["67", "10", "1.0"]
    assert at["lost"] == ["-", "0", "1"]
    assert at["left behind"] == ["-", "0", "3"]


def test_a_table_lines_up_for_those_who_read_it_as_it_stands() -> None:
    lines = report.table(["who", "s"], [["a", "1.0"], ["long name", "12"]]).splitlines()
    assert len({len(line) for line in lines}) == 1


def test_the_cost_of_a_start_is_what_it_takes_beyond_a_direct_one() -> None:
    costs = {"direct": {"hub": 0.001, "rest": 0.002}, "sudo": {"hub": 0.0015, "rest": 0.022}}
    _, _, row = cells(report.start_table(costs))
    assert row[1:] == ["0.50", "20"]


def test_the_chart_is_an_svg_with_a_bar_for_every_figure_in_proportion() -> None:
    drawn = ET.fromstring(chart.chart(report.panels(SUMMARY, {12, 100}), "A <test> & more"))
    bars = drawn.findall(f"{SVG}rect")
    texts = ["".join(each.itertext()) for each in drawn.findall(f"{SVG}text")]
    assert [bar.get("class") for bar in bars] == ["floor", *["ours", "peer"] * 2, "ours", "ours"]
    lengths = [float(bar.get("width", "0")) for bar in bars]
    widths = dict(zip(values(texts), lengths, strict=True))
    assert widths["20 s"] == pytest.approx(10 * widths["2.0 s"], rel=0.01)
    assert sum("users" in text for text in texts) == 4
    assert drawn.findtext(f"{SVG}title") == "A <test> & more"
    assert "prefers-color-scheme: dark" in (drawn.findtext(f"{SVG}style") or "")


def values(texts: list[str]) -> list[str]:
    return [text for text in texts if text.endswith((" s", " MB")) and text[0].isdigit()]


def test_a_chart_of_nothing_is_an_svg_too() -> None:
    drawn = ET.fromstring(chart.chart([chart.Panel("empty", "s", ())], "nothing"))
    assert drawn.findall(f"{SVG}rect") == []


def test_bars_stay_inside_the_chart() -> None:
    bars = tuple(chart.Bar(f"{value}", value) for value in (0.0, 0.001, 5.0, 1e6))
    drawn = ET.fromstring(chart.chart([chart.Panel("wide", "s", bars)], "wide"))
    for bar in drawn.findall(f"{SVG}rect"):
        right = float(bar.get("x", "0")) + float(bar.get("width", "0"))
        assert 0 < right <= float(drawn.get("width", "0"))


@pytest.mark.parametrize(
    ("value", "expected"), [(0.321, "0.32"), (2.14, "2.1"), (9.96, "10"), (19.4, "19"), (0, "0")]
)
def test_a_value_is_shown_with_the_digits_that_mean_something(value: float, expected: str) -> None:
    assert chart.short(value) == expected


def test_what_is_written_can_be_read_again(tmp_path: Path) -> None:
    report.write(tmp_path / "new", {"storms": [1]}, "a table\n", SUMMARY)
    assert json.loads((tmp_path / "new/results.json").read_text()) == {"storms": [1]}
    assert (tmp_path / "new/table.md").read_text() == "a table\n"
    ET.parse(tmp_path / "new/chart.svg")


# --- what the kernel tells ------------------------------------------------------------------------

STAT = "42 (a (b) c) S 7 42 42 0 -1 4194560 1 2 3 4 150 50 30 20 20 0 1 0 9876 1 2 3\n"


def test_a_process_is_read_whatever_its_name_is() -> None:
    read = machine.parse_process(STAT, 1001)
    ticks = machine.TICKS
    assert read == Process(42, 7, 1001, "a (b) c", 9876, 200 / ticks, 50 / ticks)
    assert machine.parse_process(STAT.replace(") S ", ") Z "), 1001) is None


def test_cpu_counts_only_for_the_same_process_and_with_the_children_it_reaped() -> None:
    before = [Process(1, 0, 0, "a", 5, 1.0, 0.5), Process(2, 0, 0, "b", 5, 1.0, 0.0)]
    after = {1: Process(1, 0, 0, "a", 5, 1.5, 1.0), 2: Process(2, 0, 0, "other", 9, 8.0, 0.0)}
    assert machine.cpu_gone(before, after) == pytest.approx(1.0)


def test_descendants_are_found_at_every_depth() -> None:
    parents = {2: 1, 3: 2, 4: 3, 5: 9}
    found = {pid: Process(pid, parent, 0, "p", 0, 0, 0) for pid, parent in parents.items()}
    assert {each.pid for each in machine.below(1, found)} == {2, 3, 4}


def test_a_machine_that_waits_for_its_disk_is_not_busy() -> None:
    ticks = machine.TICKS
    line = f"cpu {ticks} {ticks} {ticks} 99999 99999 {ticks} {ticks} 0 0 0"
    assert machine.parse_busy(line) == 5.0


def test_only_listening_sockets_of_these_users_are_found() -> None:
    table = "head\n" + "".join(
        f" 0: 0100007F:{port:04X} 00000000:0000 {state} 0:0 00:0 0 {uid} 0 1\n"
        for port, state, uid in ((20001, "0A", 1001), (20002, "0A", 0), (20003, "01", 1001))
    )
    assert machine.parse_listeners(table, {1001}) == ["port 20001"]


def test_idle_processes_are_divided_by_whose_they_are() -> None:
    everything = {
        pid: Process(pid, 1, uid, name, 0, 0, 0)
        for pid, uid, name in (
            (10, 0, "jupyterhub"),
            (11, 0, "launcher"),
            (12, 1001, "jupyter-singleu"),
            (13, 0, "containerd-shim"),
            (14, 0, "stranger"),
        )
    }
    of_hub = [everything[pid] for pid in (10, 11, 12)]
    parties = idle.divided(everything, of_hub, 10, {1001})
    assert {name: [each.pid for each in found] for name, found in parties.items()} == {
        "hub_cpu": [10],
        "helpers_cpu": [11],
        "proxy_cpu": [],
        "engine_cpu": [13],
        "servers_cpu": [12],
    }


@pytest.mark.parametrize(("number", "expected"), [(0, 0), (3, 3), (12, 12), (200, 100)])
def test_a_sample_is_spread_over_the_whole_class(number: int, expected: int) -> None:
    users = [User(name, 1, 1, Path("/")) for name in user_names(100)]
    found = usable.sample(users, number)
    assert len({each.name for each in found}) == expected
    if number == 3:
        assert [users.index(each) for each in found] == [0, 33, 66]
