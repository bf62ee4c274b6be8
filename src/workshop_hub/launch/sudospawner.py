"""The hub's side of sudospawner's mediator, for sites whose sudoers file allows that already.

Its protocol is one JSON object each way (sudospawner/mediator.py): `{"action": "spawn", "args",
"env"}` gives `{"ok": true, "pid"}`, `{"action": "kill", "pid", "signal"}` gives `{"ok": true,
"alive"}`. It starts the `jupyterhub-singleuser` beside it and nothing else, stays as the server's
parent, and tells nobody the exit code.
"""

from __future__ import annotations

import json
import os
import signal
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from workshop_hub.errors import AccountRefused, WorkshopError
from workshop_hub.launch import running, sudo
from workshop_hub.launch.become import MARKER
from workshop_hub.launch.message import Order, Target
from workshop_hub.launch.running import Launched
from workshop_hub.system import accounts, processes

SIGNAL_TIMEOUT = 20.0
"""Seconds; the mediator takes one and a half to begin."""


@dataclass(frozen=True)
class MediatorLauncher:
    """Starts servers through the mediator at `path`. sudo: the program and its first arguments."""

    sudo: tuple[str, ...]
    path: str

    async def start(
        self,
        order: Order,
        account: str,
        *,
        group: Path | None,
        status: int,
        log: int,
        timeout: float,
    ) -> Launched:
        """Have the server started; see `SudoLauncher.start`."""
        found = await accounts.lookup(account)
        env = {
            "HOME": found.home,
            "LOGNAME": found.name,
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "SHELL": found.shell,
            "USER": found.name,
            **order.env,
            MARKER: order.key,
        }
        asked = {"action": "spawn", "args": list(order.cmd[1:]), "env": env}
        argv = running.inside(group, self._argv(account))
        with tempfile.TemporaryFile() as words:
            code = await running.run(
                argv,
                json.dumps(asked).encode(),
                out=words.fileno(),
                err=log,
                timeout=min(timeout, running.LAUNCH_TIMEOUT),
            )
            words.seek(0)
            reply = _reply(words.read(65536).decode(errors="replace"))
        os.write(status, _report(reply).encode())
        return Launched(code)

    async def signal(
        self, target: Target, account: str | None, signals: Iterable[int], *, tree: bool
    ) -> None:
        """Signal the server's process, which is all that the mediator can reach."""
        if account is None:
            raise AccountRefused(
                f"The account with uid {target.uid} was deleted while its server was running.",
                remedy=f"Ask the administrator to end what is left: pkill -KILL -U {target.uid}",
            )
        for number in signals:
            stat = processes.stat(target.pid)
            if stat is None or stat.start_time != target.start_time:
                return
            if number == signal.SIGCONT and stat.state != "T":
                continue
            asked = {"action": "kill", "pid": target.pid, "signal": int(number)}
            code, words = await running.run_for_words(
                self._argv(account), json.dumps(asked).encode(), timeout=SIGNAL_TIMEOUT
            )
            if code:
                raise self.explain(code, words, account)

    def explain(self, code: int, words: str, account: str) -> WorkshopError:
        """Say why the mediator ended without an answer. words: what was printed."""
        return sudo.explain_refusal(code, words, account, (self.path,))

    def _argv(self, account: str) -> list[str]:
        return [*sudo.sudo_command(self.sudo), "-n", "-H", "-u", account, "--", self.path]


def _reply(words: str) -> dict[str, object]:
    """Find the JSON object in what was printed: a login shell's greeting may surround it."""
    try:
        reply = json.loads(words[words.index("{") : words.rindex("}") + 1])
    except ValueError:
        return {}
    return reply if isinstance(reply, dict) else {}


def _report(reply: dict[str, object]) -> str:
    """Put the mediator's answer into the words of `become`; empty where there was none."""
    pid, error = reply.get("pid"), reply.get("error")
    if isinstance(pid, int) and (stat := processes.stat(pid)):
        return f"pid {pid} {stat.start_time}\n"
    if error or pid:
        what = str(error or "Ended at once").replace("\n", " ").replace("\t", " ")
        return f"error mediator\tThe server could not be started: {what}.\n"
    return ""
