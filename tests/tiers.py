"""Run tiers of tests one after the other; say what ran, what could not, and why.

    tests/tiers.py TIER... [-- PYTEST ARGUMENTS]

To be started by the Python of the project's environment: `make test` does it. Coverage is
collected over all tiers that run here on the newest JupyterHub, with the processes they start.
With WORKSHOP_REQUIRE_ALL set, what could not run counts as a failure.

The guest is a machine of one core: where this one has more, it begins at once, beside the other
tiers, and what it prints is shown when its turn comes.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue

ROOT = Path(__file__).resolve().parents[1]
MACHINE = ROOT / "tests" / "machine"
REQUIRE_ALL = bool(os.environ.get("WORKSHOP_REQUIRE_ALL"))

LINT = ("ruff check .", "ruff format --check .", "mypy", "lint-imports")

CLOSING = re.compile(r"=+ .*(?:passed|failed|error|skipped|no tests ran).* in .*=+")

IN_GUEST = """\
umask 022
pip install -qq --no-deps --no-index --no-build-isolation . || exit 1
env {variables} python -m pytest {arguments} --junitxml=$RESULTS/report.xml"""


@dataclass
class Outcome:
    """What one tier came to. missing: why some of it, or all, could not run."""

    tier: str
    passed: bool
    closing: str = ""
    counts: Counter[str] = field(default_factory=Counter)
    missing: list[str] = field(default_factory=list)


class Unavailable(Exception):
    """This machine cannot run a tier; the message says why."""


Show = Callable[[str], object]
"""Is given each line that a command prints, with its end."""


def show(line: str) -> None:
    """Print a line of a command's."""
    print(line, end="", flush=True)


class Beside:
    """A tier that runs beside others; its lines are kept until somebody wants its outcome."""

    def __init__(self, tier: Callable[[Show], Outcome]) -> None:
        self._lines: SimpleQueue[str | None] = SimpleQueue()
        self._outcome = ThreadPoolExecutor(1).submit(tier, self._lines.put)
        self._outcome.add_done_callback(lambda _: self._lines.put(None))

    def outcome(self) -> Outcome:
        """Show the tier's lines until it has ended. Raises what it raised."""
        for line in iter(self._lines.get, None):
            show(line)
        return self._outcome.result()


class Run:
    """Runs tiers. folder: where every process, of every user, leaves its coverage data."""

    def __init__(self, folder: Path, arguments: list[str]) -> None:
        self.folder = folder
        self.tree = readable_tree(folder)
        self.arguments = arguments
        self.env = {
            **os.environ,
            "COVERAGE_FILE": str(folder / "data"),
            "COVERAGE_RCFILE": str(folder / "pyproject.toml"),
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        self._beside: Beside | None = None

    def tiers(self, names: list[str]) -> list[Outcome]:
        """Run these tiers, in this order."""
        if "vm" in names and len(names) > 1 and len(os.sched_getaffinity(0)) > 1:
            self._beside = Beside(self.guest)
        return [self.tier(name) for name in names]

    def tier(self, name: str) -> Outcome:
        print(f"\n##### {name}", flush=True)
        special: dict[str, Callable[[], Outcome]] = {
            "lint": self.lint,
            "hub5": self.hub5,
            "configs": lambda: self.with_engine("configs"),
            "contract": lambda: self.with_engine("contract"),
            "docker": lambda: self.with_engine("docker"),
            "demo": lambda: self.with_engine("demo"),
            "vm": self._beside.outcome if self._beside else self.guest,
        }
        try:
            return special[name]() if name in special else self.pytest(name, f"tests/{name}")
        except Unavailable as exc:
            return Outcome(name, passed=not REQUIRE_ALL, missing=[f"all of it: {exc}"])

    def lint(self) -> Outcome:
        failed = [
            command
            for command in LINT
            if subprocess.run(shlex.split(command), cwd=ROOT, check=False).returncode
        ]
        verdict = "failed: " + ", ".join(failed) if failed else "nothing found"
        return Outcome("lint", not failed, f"{len(LINT)} checks, {verdict}")

    def hub5(self) -> Outcome:
        """Run the hub's tier once more, on the older JupyterHub that we support.

        Without coverage, which the other run has: it doubles the time that a hub takes to start.
        """
        made = subprocess.run([ROOT / "tools/env.sh", "hub5"], stdout=subprocess.PIPE, check=True)
        prefix = Path(os.fsdecode(made.stdout).strip())
        path = f"{prefix / 'bin'}{os.pathsep}{os.environ['PATH']}"
        return self.pytest(
            "hub5", "tests/hub", prefix=prefix, variables={"PATH": path}, measured=False
        )

    def with_engine(self, name: str) -> Outcome:
        """Run a tier that wants an engine, and runs less of it where there is none."""
        variables = {}
        missing = []
        try:
            host = script_output("engine.sh", self.env)
            variables = {"DOCKER_HOST": host} if host else {}
            variables["WORKSHOP_TEST_IMAGE"] = script_output("image.sh", {**self.env, **variables})
        except Unavailable as exc:
            missing.append(f"what needs the Docker engine: {exc}")
            if name == "docker":
                raise
        outcome = self.pytest(name, f"tests/{name}", variables=variables)
        outcome.missing += missing
        return outcome

    def guest(self, show: Show = show) -> Outcome:
        """Run a tier in the guest, which has systemd and cgroup v2.

        Without coverage: it doubles the time that a hub takes to start, on a slow machine.
        """
        if os.getuid() != 0:
            raise Unavailable("only root can make and start the guest")
        arguments = shlex.join(["tests/vm", *self.arguments])
        variables = "WORKSHOP_REQUIRE_ALL=1" if REQUIRE_ALL else ""
        results = self.folder / "guest"
        command = [
            str(MACHINE / "guest" / "run"),
            f"--results={results}",
            "--deadline=2400",
            IN_GUEST.format(arguments=arguments, variables=variables),
        ]
        status, closing = echo(command, self.env, show=show)
        return outcome_of("vm", status, closing, results / "report.xml")

    def pytest(
        self,
        name: str,
        tests: str,
        *,
        prefix: Path = Path(sys.prefix),
        variables: Mapping[str, str] | None = None,
        measured: bool = True,
    ) -> Outcome:
        report = self.folder / f"{name}.xml"
        python = prefix / "bin" / "python"
        runner = "-m coverage run" if measured else ""
        command = f"{python} {runner} -m pytest {tests} --junitxml={report}".split()
        env = {**self.env, **(variables or {})}
        status, closing = echo([*command, *self.arguments], env, self.tree)
        return outcome_of(name, status, closing, report)

    def combine(self) -> None:
        """Print one table of the lines that any process of any tier has run."""
        files = sorted(self.folder.glob("data.*"))
        if not files:
            return
        coverage = [sys.executable, "-m", "coverage"]
        subprocess.run([*coverage, "combine", "-q", *files], cwd=ROOT, check=False)
        print("\n##### coverage", flush=True)
        subprocess.run([*coverage, "report", "--skip-empty"], cwd=ROOT, check=False)


def script_output(name: str, env: Mapping[str, str]) -> str:
    """Run one of the scripts that prepare the machine; return its last line."""
    done = subprocess.run(
        [MACHINE / name],
        env={"PYTHON": sys.executable, "EXTRA_CA": os.environ.get("PIP_CERT", ""), **env},
        capture_output=True,
        stdin=subprocess.DEVNULL,
        text=True,
        check=False,
    )
    sys.stderr.write(done.stderr)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"{name} failed"]
        raise Unavailable(lines[-1])
    return done.stdout.strip()


def readable_tree(folder: Path) -> Path:
    """Return where tests run: the checkout, or a copy in `folder` if others cannot read it.

    Root's tests start servers as other users, from files that lie beside the tests.
    """
    places = (ROOT / "tests", ROOT, *ROOT.parents)
    if os.getuid() != 0 or all(place.stat().st_mode & 0o001 for place in places):
        return ROOT
    tree = folder / "checkout"
    left_out = shutil.ignore_patterns(".git", ".venv*", "__pycache__", ".*_cache")
    shutil.copytree(ROOT, tree, symlinks=True, ignore=left_out)
    subprocess.run(["chmod", "-R", "a+rX", tree], check=True)
    return tree


def echo(
    command: list[str], env: Mapping[str, str], folder: Path = ROOT, show: Show = show
) -> tuple[int, str]:
    """Run `command`, showing what it prints; return its status and pytest's closing line."""
    closing = ""
    with subprocess.Popen(
        command, cwd=folder, env=env, stdout=subprocess.PIPE, text=True, errors="replace"
    ) as process:
        assert process.stdout
        for line in process.stdout:
            show(line)
            if CLOSING.fullmatch(line.strip()):
                closing = line.strip(" =\n")
    return process.returncode, closing


def outcome_of(tier: str, status: int, closing: str, report: Path) -> Outcome:
    """Read pytest's report. status: 5 where no test was found."""
    counts: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    for case in ET.parse(report).getroot().iter("testcase") if report.exists() else ():
        kinds = {child.tag: child.get("message", "") for child in case}
        kind = next((k for k in ("error", "failure", "skipped") if k in kinds), "passed")
        counts[kind] += 1
        if kind == "skipped":
            reasons[kinds["skipped"] or "no reason given"] += 1
    missing = [f"{number} tests: {reason}" for reason, number in sorted(reasons.items())]
    passed = status == 0 and not (REQUIRE_ALL and missing)
    return Outcome(tier, passed, closing or f"ended with status {status}", counts, missing)


def report(outcomes: list[Outcome], seconds: float) -> int:
    """Print the summary; its last line is of the form in which pytest closes."""
    missing = [(o.tier, reason) for o in outcomes for reason in o.missing]
    print("\n##### what could not run here" if missing else "\nEverything could run here.")
    for tier, reason in missing:
        print(f"{tier:10}{reason}")
    print("\n##### tiers")
    for outcome in outcomes:
        print(f"{outcome.tier:10}{'ok    ' if outcome.passed else 'FAILED'}  {outcome.closing}")
    total = sum((outcome.counts for outcome in outcomes), Counter())
    words = {"failure": "failed", "passed": "passed", "skipped": "skipped", "error": "errors"}
    numbers = [f"{total[kind]} {word}" for kind, word in words.items() if total[kind]]
    broken = [outcome.tier for outcome in outcomes if not outcome.passed]
    if broken:
        numbers.append("not ok: " + " ".join(broken))
    print(f"===== {', '.join(numbers) or 'no tests ran'} in {seconds:.2f}s =====", flush=True)
    return 1 if broken else 0


def main(words: list[str]) -> int:
    split = words.index("--") if "--" in words else len(words)
    started = time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix="workshop-tests-"))
    folder.chmod(0o1777)
    shutil.copy(ROOT / "pyproject.toml", folder)
    run = Run(folder, words[split + 1 :])
    try:
        outcomes = run.tiers(words[:split])
        run.combine()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return report(outcomes, time.monotonic() - started)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
