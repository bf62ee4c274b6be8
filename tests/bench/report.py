"""The results for people: tables in Markdown, the chart's bars, and files. Pure but for `write`."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.bounds import Verdict
from bench.chart import Bar, Panel, chart, short
from bench.contenders import CONTENDERS, Contender
from bench.figures import Summary, ratio
from bench.logins import AUTHENTICATORS, BAD, GOOD

NUMBERS = {
    "ready_p50_s": "ready, half of them (s)",
    "ready_p95_s": "ready, 95 % (s)",
    "ready_max_s": "ready, last (s)",
    "lab_p50_s": "lab page, half (s)",
    "lab_p95_s": "lab page, 95 % (s)",
    "total_s": "all lab pages (s)",
    "machine_cpu_s": "CPU, machine (s)",
    "hub_cpu_s": "CPU, hub (s)",
    "client_cpu_s": "CPU, the class's browsers (s)",
    "user_mb": "memory per user (MB)",
    "used_mb": "the same after use (MB)",
    "helpers_mb": "hub, proxy and helpers (MB)",
    "machine_mb": "machine's memory per user (MB)",
    "stop_s": "stop all (s)",
    "lost": "lost",
    "useless": "not usable",
    "left": "left behind",
    "noise": "share of a core that something else used before",
}
"""What a storm measures, and the heads of its columns."""

SHOWN = ("total_s", "lab_p50_s", "machine_cpu_s", "hub_cpu_s", "user_mb", "used_mb", "stop_s")
COUNTS = ("lost", "useless", "left")

IDLE = {
    "hub_cpu": "hub",
    "helpers_cpu": "helpers",
    "proxy_cpu": "proxy",
    "engine_cpu": "engine",
    "servers_cpu": "servers",
    "machine_cpu": "whole machine",
}

LOGINS = {
    "login_p50_s": "logged in, half of them (s)",
    "login_max_s": "logged in, last (s)",
    "refused_max_s": "refused, last (s)",
    "lost": "wrong answers",
}

BASE = "local"
"""Whom the ratios in the table are to: what JupyterHub does by default."""

WAYS = {
    "direct": "fork and exec by a hub that is root",
    "sudo": "our launcher, through sudo",
    "sudospawner": "sudospawner's mediator, through sudo",
}


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table in Markdown that can be read as it stands, too."""
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]

    def line(cells: Sequence[str]) -> str:
        first, *rest = (
            cell.rjust(width) if number else cell.ljust(width)
            for number, (cell, width) in enumerate(zip(cells, widths, strict=True))
        )
        return "| " + " | ".join([first, *rest]) + " |"

    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    return "\n".join([line(head), "| " + " | ".join(rule) + " |", *map(line, rows)]) + "\n"


def storm_table(summary: Summary, users: int) -> str:
    """Return the table of one number of users: medians, and how many times sooner."""
    head = ["spawner", *(NUMBERS[name] for name in SHOWN), "times sooner"]
    head += [NUMBERS[name] for name in COUNTS]
    base = summary.get((BASE, users), {}).get("total_s")
    rows = []
    for each in CONTENDERS:
        numbers = summary.get((each.name, users))
        if numbers is None:
            continue
        sooner = ratio(base, numbers.get("total_s"))
        row = [each.title, *(figure(numbers.get(name)) for name in SHOWN), figure(sooner)]
        rows.append([*row, *(count(numbers.get(name)) for name in COUNTS)])
    return table(head, rows)


def idle_table(summary: Summary) -> str:
    """Return what idle servers cost, in CPU seconds a minute."""
    rows = [
        [each.title, *(figure(numbers.get(name)) for name in IDLE), count(numbers.get("lost"))]
        for each in CONTENDERS
        for (name, _), numbers in summary.items()
        if name == each.name
    ]
    return table(["spawner", *IDLE.values(), "lost"], rows)


def start_table(costs: Mapping[str, Mapping[str, float]]) -> str:
    """Return what a start costs beyond a direct one, in milliseconds of CPU."""
    base = costs["direct"]
    rows = [
        [WAYS[way], *(figure(1000 * (cost[side] - base[side])) for side in ("hub", "rest"))]
        for way, cost in costs.items()
        if way != "direct"
    ]
    return table(["a start through", "hub (ms)", "all else (ms)"], rows)


def login_table(summary: Summary) -> str:
    """Return how long a class waits that logs in at once: medians, and the worst of `lost`."""
    rows = [
        [AUTHENTICATORS[name], *(figure(numbers.get(each)) for each in LOGINS)]
        for (name, _), numbers in summary.items()
    ]
    return table(["authenticator", *LOGINS.values()], rows)


def figure(value: float | None) -> str:
    """Return a figure for a cell; a dash for none."""
    return "-" if value is None else short(value)


def count(value: float | None) -> str:
    """Return a count for a cell; a dash for none."""
    return "-" if value is None else f"{value:.0f}"


def panels(summary: Summary, users: Collection[int]) -> list[Panel]:
    """Return what the chart shows: for each number of users, the time and the memory."""
    found = []
    for number in sorted(users):
        found.append(
            Panel(
                f"{number} users at once: until every JupyterLab page is served",
                "s",
                _bars(summary, number, "total_s"),
            )
        )
        found.append(
            Panel(
                f"{number} users: memory of each", "MB", _bars(summary, number, "user_mb", "floor")
            )
        )
    return found


def _bars(summary: Summary, users: int, number: str, without: str = "") -> tuple[Bar, ...]:
    bars = []
    for each in CONTENDERS:
        value = summary.get((each.name, users), {}).get(number)
        if value is not None and each.name != without:
            bars.append(Bar(each.title, value, kind(each)))
    return tuple(bars)


def kind(contender: Contender) -> str:
    """Return what the colour of a bar depends on."""
    if not contender.serves:
        return "floor"
    return "ours" if contender.ours else "peer"


def page(
    machine: Mapping[str, str],
    storms: Summary,
    idle: Summary,
    costs: Mapping[str, Any],
    logins: Summary,
) -> str:
    """Return all tables, each below a heading."""
    facts = "; ".join(f"{name} {value}" for name, value in machine.items())
    parts = [f"Measured on: {facts}."]
    for users in sorted({users for _, users in storms}):
        parts.append(f"### {users} users at once\n\n{storm_table(storms, users)}")
    if idle:
        (users,) = {users for _, users in idle}
        title = f"### {users} idle servers: CPU seconds in a minute"
        parts.append(f"{title}\n\n{idle_table(idle)}")
    if costs:
        parts.append(f"### CPU of a start beyond a direct one\n\n{start_table(costs)}")
    if logins:
        title = f"### {GOOD} logins at once, with {BAD} wrong passwords among them"
        parts.append(f"{title}\n\n{login_table(logins)}")
    return "\n\n".join(part.strip() for part in parts) + "\n"


def verdict_lines(verdicts: Sequence[Verdict]) -> str:
    """Return one line for each bound."""
    return "\n".join(verdict.line for verdict in verdicts)


def write(folder: Path, results: Mapping[str, Any], text: str, storms: Summary) -> None:
    """Write results.json, table.md and chart.svg into the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    data = json.dumps(results, indent=1, sort_keys=True)
    (folder / "results.json").write_text(data + "\n", encoding="utf-8")
    (folder / "table.md").write_text(text, encoding="utf-8")
    drawn = chart(panels(storms, {users for _, users in storms}), "workshop-hub and its peers")
    (folder / "chart.svg").write_text(drawn, encoding="utf-8")
