"""Run the benchmark: storms in rounds, idle servers, the cost of a start; `make bench`.

Ends with 0 where every bound that the run could judge is held, with 1 where one is not, and with
2 where nothing can be measured.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from subprocess import SubprocessError

from bench import bounds, figures, idle, logins, machine, report, start_cost, storm
from bench.accounts import Accounts, NameTaken
from bench.contenders import CONTENDERS, Contender, UnknownContender, chosen, in_round
from bench.engine import Engine, NoEngine
from bench.hub import PATH
from bench.stage import LeftOut, Stage
from bench.storm import Storm

PUBLISHED = Path(__file__).parents[2] / "docs" / "bench"
CLASS = 12
"""Users of a class that every contender starts; more than these only some, unless --everyone."""

USERS = (CLASS, 100)
ROUNDS = 3
IDLE_SECONDS = 300.0
"""A server tells the hub of its activity every five minutes: the idle time has one of each."""

PARTS = ("storm", "idle", "start", "logins")
PACKAGES = ("jupyterhub", "jupyterlab", "sudospawner", "dockerspawner")


@dataclass
class Results:
    """All that a run has found so far. left_out: what did not run, and why."""

    storms: list[Storm] = field(default_factory=list)
    idle: list[Storm] = field(default_factory=list)
    start: dict[str, dict[str, float]] = field(default_factory=dict)
    logins: list[Storm] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)


def options(words: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="bench", description="Start whole classes, and compare.")
    names = ", ".join(each.name for each in CONTENDERS)
    add = parser.add_argument
    add("--only", nargs="*", default=[], metavar="NAME", help=f"contenders: {names}")
    add("--users", nargs="*", type=int, default=list(USERS), help="users of a storm")
    add("--rounds", type=int, default=ROUNDS, help="storms of each")
    add("--parts", nargs="*", choices=PARTS, default=list(PARTS), help="what to measure")
    add("--idle", type=float, default=IDLE_SECONDS, help="seconds without use")
    add("--idle-users", type=int, default=idle.USERS, help="servers without use")
    add("--cells", type=int, default=CLASS, help="users of a storm who run a cell")
    add("--everyone", action="store_true", help=f"all contenders at more than {CLASS} users, too")
    add("--out", type=Path, help=f"folder for the results; {PUBLISHED.name} for a whole run")
    found = parser.parse_args(words)
    if found.rounds < 1 or min(found.users, default=0) < 1:
        parser.error("there must be a round and a user")
    return found


class Run:
    """One run, as the options say. say: tells the one who waits."""

    def __init__(
        self, chosen_options: argparse.Namespace, say: Callable[[str], object] = print
    ) -> None:
        self.options = chosen_options
        self.contenders = chosen(chosen_options.only)
        self.results = Results()
        self.say = say

    def measure(self) -> None:
        """Measure everything that was asked for."""
        asked = self.options
        number = max(*asked.users, asked.idle_users if "idle" in asked.parts else 1)
        if "logins" in asked.parts:
            number = max(number, logins.GOOD + logins.BAD)
        with ExitStack() as stack:
            accounts = stack.enter_context(Accounts(number))
            stage = self._stage(accounts, stack)
            share = machine.wait_quiet(10)
            if share > machine.QUIET:
                self.say(f"Not a quiet machine: something else uses {share:.0%} of a core.")
            if "storm" in asked.parts:
                self._storms(stage)
            if "idle" in asked.parts:
                for each in self.contenders:
                    self._idle(each, stage)
            if "start" in asked.parts:
                self._start_cost(accounts)
            if "logins" in asked.parts:
                self._logins(accounts)

    def _stage(self, accounts: Accounts, stack: ExitStack) -> Stage:
        kinds = {each.image for each in self.contenders if each.image}
        cells: int = self.options.cells
        if not kinds or not {"storm", "idle"} & set(self.options.parts):
            return Stage(accounts, cells)
        self.say("Preparing the engine and its images ...")
        try:
            engine = Engine.prepared(kinds)
        except (NoEngine, OSError) as exc:
            return Stage(accounts, cells, None, f"no engine: {exc}")
        stack.callback(engine.close)
        return Stage(accounts, cells, engine)

    def _storms(self, stage: Stage) -> None:
        for round_ in range(self.options.rounds):
            for number in self.options.users:
                for each in in_round(self.contenders, round_):
                    if number > CLASS and not each.crowd and not self.options.everyone:
                        self._leave_out(each, number, "only with EVERYONE=1")
                        continue
                    self._storm(each, number, round_ + 1, stage)

    def _storm(self, contender: Contender, number: int, round_: int, stage: Stage) -> None:
        try:
            found = storm.run(contender, number, round_, stage)
        except LeftOut as exc:
            self._leave_out(contender, number, str(exc))
            return
        except (OSError, NoEngine, SubprocessError) as exc:
            found = failed(contender, number, round_, exc)
        self.results.storms.append(found)
        self.say(f"round {round_}  {progress_line(found)}")

    def _idle(self, contender: Contender, stage: Stage) -> None:
        number: int = self.options.idle_users
        try:
            found = idle.run(contender, self.options.idle, stage, number)
        except LeftOut as exc:
            self._leave_out(contender, number, f"idle: {exc}")
            return
        except (OSError, NoEngine, SubprocessError) as exc:
            found = failed(contender, number, 1, exc)
        self.results.idle.append(found)
        self.say(f"idle     {progress_line(found)}")

    def _start_cost(self, accounts: Accounts) -> None:
        try:
            self.results.start = start_cost.measure(accounts.names[0])
        except SubprocessError as exc:
            self.results.left_out.append(f"the cost of a start: {exc}")

    def _logins(self, accounts: Accounts) -> None:
        users = accounts.users(logins.GOOD + logins.BAD)
        for round_ in range(1, self.options.rounds + 1):
            for name in logins.AUTHENTICATORS:
                found = logins.run(name, round_, users)
                self.results.logins.append(found)
                self.say(f"round {round_}  logins, {name}: {found.error or found.numbers}")

    def _leave_out(self, contender: Contender, number: int, why: str) -> None:
        line = f"{contender.name} at {number} users: {why}"
        if line not in self.results.left_out:
            self.results.left_out.append(line)
            self.say(f"left out {line}")

    def report(self) -> int:
        """Print the tables and the bounds, write the files; return the exit code."""
        found, asked = self.results, self.options
        storms = figures.summarise(found.storms)
        of_logins = figures.summarise(found.logins)
        text = report.page(facts(), storms, figures.summarise(found.idle), found.start, of_logins)
        names = {each.name for each in self.contenders} if "storm" in asked.parts else set()
        judged = [
            *bounds.judge(bounds.asked_for(names, asked.users), storms),
            *bounds.judge(bounds.OF_LOGINS if found.logins else [], of_logins),
        ]
        self.say(f"\n{text}\n{report.verdict_lines(judged)}")
        if found.left_out:
            self.say("\nleft out:\n" + "\n".join(f"  {line}" for line in found.left_out))
        folder = asked.out or (PUBLISHED if self.is_whole else None)
        if folder:
            everything = {
                "date": datetime.now(timezone.utc).date().isoformat(),
                "machine": facts(),
                "bounds": [{"line": each.line, "held": each.held} for each in judged],
                **asdict(found),
            }
            report.write(folder, everything, text, storms)
            self.say(f"\nwritten to {folder}")
        return 0 if all(each.held for each in judged) else 1

    @property
    def is_whole(self) -> bool:
        """Whether nothing was left out on request: only such a run is published."""
        asked = self.options
        return (
            not asked.only
            and set(USERS) <= set(asked.users)
            and asked.rounds >= ROUNDS
            and set(asked.parts) == set(PARTS)
        )


def failed(contender: Contender, number: int, round_: int, exc: Exception) -> Storm:
    """Return what is known of a storm that broke off."""
    numbers = {"lost": float(number)}
    return Storm(contender.name, number, round_, numbers, error=traceback.format_exception(exc)[-1])


def progress_line(found: Storm) -> str:
    """Return a storm in one line, and below it what went wrong."""
    numbers = " ".join(
        f"{name}={value:.0f}" if name in report.COUNTS else f"{name}={value:.2f}"
        for name, value in found.numbers.items()
    )
    lines = [f"{found.users:3} users  {found.contender:12} {numbers}"]
    lines += [f"  left: {each}" for each in found.left]
    lines += [f"  {line}" for line in found.error.splitlines()]
    return "\n".join(lines)


def facts() -> dict[str, str]:
    """Return what the figures depend on."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "CPUs": str(os.cpu_count()),
        "memory": f"{total:.0f} GB",
        "Linux": platform.release(),
        "Python": platform.python_version(),
        "node on servers' PATH": "yes" if shutil.which("node", path=PATH) else "no",
        **{name: version(name) for name in PACKAGES},
    }


def main(words: Sequence[str]) -> int:
    """Run all of it; return the exit code."""
    if os.geteuid() != 0:
        print("The benchmark makes accounts and starts hubs as root: run it as root.")
        return 2
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        run = Run(options(words), lambda text: print(text, flush=True))
        run.measure()
    except (UnknownContender, NameTaken) as exc:
        print(exc)
        return 2
    return run.report()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
