"""`workshop-hub users` in the namespace, and what its accounts and sheets are then."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accounts.conftest import Machine

COMMAND = str(Path(sys.executable).with_name("workshop-hub"))

FLOOR = "wsacct-floor"
"""Account with a high uid: useradd counts on from it."""

ASK_PAM = """
import json, sys
from workshop_hub.system import pam
for name, password in json.load(sys.stdin).items():
    verdict = pam.check(
        name, (password,), service="workshop-test", encoding="utf8", account=True)
    print(name, verdict.granted)
"""


@dataclass
class Result:
    code: int
    out: str
    err: str


class Users:
    """Runs the command. folder: where it runs, and where its sheets are by default."""

    def __init__(self, machine: Machine, folder: Path) -> None:
        self.machine = machine
        self.folder = folder
        self._begin_high()

    def _begin_high(self) -> None:
        """Have accounts get uids that none of the machine's own has, nor another test's.

        The namespace has its own accounts, and not its own processes: what is ended by uid must
        be ours.
        """
        if not self.machine.entry(FLOOR):
            uid = str(40000 + os.getpid() % 20000)
            self.machine.run("useradd", "--no-create-home", "--uid", uid, FLOOR)

    def command(self, *words: str, path: str = "") -> list[str]:
        """Return what runs it in the namespace. path: a folder of programs that come first."""
        places = f"{path}:/usr/sbin:/usr/bin:/sbin:/bin"
        here = ["sh", "-c", 'cd "$0" && exec "$@"', str(self.folder), "env", f"PATH={places}"]
        return [*self.machine.enter, *here, COMMAND, "users", *words]

    def run(self, *words: str, path: str = "", text: str = "") -> Result:
        done = subprocess.run(
            self.command(*words, path=path), input=text, text=True, capture_output=True, check=False
        )
        return Result(done.returncode, done.stdout, done.stderr)

    def good(self, *words: str) -> str:
        """Run it; return what it says. It has to succeed."""
        done = self.run(*words)
        assert done.code == 0, done.err + done.out
        return done.out

    def refused(self, *words: str) -> str:
        """Run it; return what it says is wrong. It has to change nothing."""
        before = self.state()
        done = self.run(*words)
        assert done.code == 1, done.out
        assert "Traceback" not in done.err
        assert self.state() == before
        return done.err

    def state(self) -> str:
        """Return all that there is of accounts, homes and sheets, to compare it."""
        files = self.machine.run("sh", "-c", "cat /etc/passwd /etc/shadow /etc/group /etc/gshadow")
        homes = self.machine.run("find", "/home", "-printf", r"%p %u %g %m %s %l %T@\n")
        sheets = [path.read_text() for path in sorted(self.folder.glob("*.csv"))]
        return "\n".join([files, homes, *sheets])

    def list(self) -> dict[str, dict[str, Any]]:
        return {each["name"]: each for each in json.loads(self.good("list", "--json"))}

    def sheet(self, name: str = "workshop-accounts") -> dict[str, dict[str, str]]:
        with (self.folder / f"{name}.csv").open(newline="") as opened:
            return {row["name"]: row for row in csv.DictReader(opened)}

    def passwords(self, name: str = "workshop-accounts") -> dict[str, str]:
        return {each: row["password"] for each, row in self.sheet(name).items()}

    def who_can_log_in(self, passwords: dict[str, str]) -> set[str]:
        """Return for whom the machine's own PAM takes the password."""
        env = ["env", f"PYTHONPATH={os.environ.get('PYTHONPATH', '')}"]
        said = self.machine.run(*env, sys.executable, "-c", ASK_PAM, text=json.dumps(passwords))
        return {line.split()[0] for line in said.splitlines() if line.endswith("True")}

    def remove_all(self) -> None:
        names = list(self.list())
        if names:
            self.good("remove", "--yes", *names)
