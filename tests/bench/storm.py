"""One storm: a whole class asks at once, works, and is stopped."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from bench import machine, usable
from bench.accounts import User
from bench.client import Visit, start_all, stop_all
from bench.contenders import Contender
from bench.figures import percentile
from bench.hub import BenchHub, HubFailed
from bench.machine import Process
from bench.stage import SETTLE, Groups, Stage

BASE_TIMEOUT = 120.0
USER_TIMEOUT = 8.0
"""Seconds after which a storm is given up: the first, and more for every user."""


@dataclass
class Storm:
    """What came out. numbers: by the names that `figures` lists. error: the first that went wrong.

    left: what was there after all servers had been stopped, and the hub had ended.
    """

    contender: str
    users: int
    round: int
    numbers: dict[str, float] = field(default_factory=dict)
    left: list[str] = field(default_factory=list)
    error: str = ""


def run(contender: Contender, number: int, round_: int, stage: Stage) -> Storm:
    """Run one storm of so many users to its end. Raises LeftOut."""
    stage.check(contender, number)
    users = stage.accounts.users(number)
    storm = Storm(contender.name, number, round_, {"lost": number})
    if contender.serves:
        storm.numbers["useless"] = number
    groups = Groups()
    try:
        with stage.hub(contender, users) as hub:
            Course(contender, users, stage, hub, storm, groups).run()
            if storm.error:
                storm.error += f"\n{hub.log_tail}"
            storm.left += stage.leftovers(users, groups)
            storm.left += [f"helper {command}" for command in hub.close()]
    except HubFailed as exc:
        storm.error = str(exc)
    storm.numbers["left"] = len(storm.left)
    return storm


class Course:
    """The course of one storm, on a hub that waits for it."""

    def __init__(
        self,
        contender: Contender,
        users: Sequence[User],
        stage: Stage,
        hub: BenchHub,
        storm: Storm,
        groups: Groups,
    ) -> None:
        self.contender = contender
        self.users = users
        self.names = [user.name for user in users]
        self.uids = {user.uid for user in users}
        self.stage = stage
        self.hub = hub
        self.storm = storm
        self.groups = groups
        self.timeout = BASE_TIMEOUT + USER_TIMEOUT * len(users)

    def run(self) -> None:
        """Go through all of it."""
        self._start()
        machine.wait_quiet(SETTLE)
        servers = self._weigh()
        if self.contender.serves:
            self._use()
            pids = [each.pid for each in servers]
            self.storm.numbers["used_mb"] = machine.pss_mb(pids) / len(self.users)
        self._stop()

    def _start(self) -> None:
        self.storm.numbers["noise"] = self.hub.noise
        self._available = machine.available_mb()
        hub_before = machine.process(self.hub.pid)
        busy, own, began = machine.busy_seconds(), time.process_time(), time.monotonic()
        visits = start_all(
            self.hub.client, self.names, lab=self.contender.serves, timeout=self.timeout
        )
        self.storm.numbers |= {
            "total_s": time.monotonic() - began,
            "machine_cpu_s": machine.busy_seconds() - busy,
            "client_cpu_s": time.process_time() - own,
        }
        hub_after = machine.process(self.hub.pid)
        if hub_before and hub_after:
            self.storm.numbers["hub_cpu_s"] = hub_after.cpu - hub_before.cpu
        self._count(visits)

    def _count(self, visits: Sequence[Visit]) -> None:
        """Take down how the starts went."""
        self.storm.numbers |= times(visits)
        lost = [visit for visit in visits if visit.error]
        self.storm.numbers["lost"] = len(lost)
        if lost:
            self.storm.error = f"{lost[0].name}: {lost[0].error}"

    def _weigh(self) -> list[Process]:
        """Measure the memory of the users' servers, and of what the hub runs for them."""
        found = machine.processes()
        servers = machine.owned_by(self.uids, found)
        self.groups.note(each.pid for each in servers)
        helpers = [each for each in self.hub.descendants(found) if each.uid not in self.uids]
        number = len(self.users)
        self.storm.numbers |= {
            "user_mb": machine.pss_mb(each.pid for each in servers) / number,
            "helpers_mb": machine.pss_mb(each.pid for each in helpers),
            "machine_mb": (self._available - machine.available_mb()) / number,
        }
        return servers

    def _use(self) -> None:
        failed = usable.failures(self.hub.client, self.users, cells=self.stage.cells)
        self.storm.numbers["useless"] = len(failed)
        if failed:
            self.storm.error = self.storm.error or next(iter(failed.values()))

    def _stop(self) -> None:
        began = time.monotonic()
        failed = stop_all(self.hub.client, self.names, timeout=self.timeout)
        self.storm.numbers["stop_s"] = time.monotonic() - began
        if failed:
            self.storm.error = self.storm.error or failed[0]


def times(visits: Sequence[Visit]) -> Mapping[str, float]:
    """Return how long those waited who got what they asked for."""
    ready = sorted(visit.ready for visit in visits if visit.ready is not None)
    lab = sorted(visit.lab for visit in visits if visit.lab is not None)
    found: dict[str, float] = {}
    if ready:
        found |= {
            "ready_p50_s": statistics.median(ready),
            "ready_p95_s": percentile(ready, 95),
            "ready_max_s": ready[-1],
        }
    if lab:
        found |= {"lab_p50_s": statistics.median(lab), "lab_p95_s": percentile(lab, 95)}
    return found
