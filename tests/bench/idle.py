"""What servers cost that nobody uses: CPU of the hub, of its helpers, of the machine."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping

from bench import machine
from bench.accounts import User
from bench.client import start_all, stop_all
from bench.contenders import Contender
from bench.hub import BenchHub, HubFailed
from bench.machine import Process
from bench.stage import SETTLE, Stage
from bench.storm import BASE_TIMEOUT, USER_TIMEOUT, Storm

USERS = 50

ENGINE = ("dockerd", "containerd", "containerd-shim", "docker-proxy")
"""Programs that keep containers; their names as the kernel has them begin so."""

PROXY = "configurable-http-proxy"


def run(contender: Contender, seconds: float, stage: Stage, number: int = USERS) -> Storm:
    """Start a class, leave it alone for some seconds, measure. Raises LeftOut."""
    stage.check(contender, number)
    users = stage.accounts.users(number)
    found = Storm(contender.name, number, 1, {"lost": number})
    timeout = BASE_TIMEOUT + USER_TIMEOUT * number
    names = [user.name for user in users]
    try:
        with stage.hub(contender, users) as hub:
            visits = start_all(hub.client, names, lab=contender.serves, timeout=timeout)
            errors = [f"{visit.name}: {visit.error}" for visit in visits if visit.error]
            found.numbers["lost"] = len(errors)
            machine.wait_quiet(SETTLE)
            found.numbers |= measure(hub, users, seconds)
            errors += stop_all(hub.client, names, timeout=timeout)
            found.error = next(iter(errors), "")
    except HubFailed as exc:
        found.error = str(exc)
    return found


def measure(hub: BenchHub, users: Iterable[User], seconds: float) -> Mapping[str, float]:
    """Return CPU seconds in a minute, by whose they are."""
    uids = {user.uid for user in users}
    before, busy, began = machine.processes(), machine.busy_seconds(), time.monotonic()
    parties = divided(before, hub.descendants(before), hub.pid, uids)
    time.sleep(seconds)
    after, minutes = machine.processes(), (time.monotonic() - began) / 60
    used = {name: machine.cpu_gone(members, after) / minutes for name, members in parties.items()}
    return {**used, "machine_cpu": (machine.busy_seconds() - busy) / minutes}


def divided(
    everything: Mapping[int, Process], of_hub: Iterable[Process], hub: int, uids: set[int]
) -> dict[str, list[Process]]:
    """Say of every process that has to do with the servers whose it is.

    of_hub: what the hub has started. What belongs to a user counts as a server's.
    """
    parties: dict[str, list[Process]] = {
        "hub_cpu": [],
        "helpers_cpu": [],
        "proxy_cpu": [],
        "engine_cpu": [],
        "servers_cpu": machine.owned_by(uids, everything),
    }
    for each in of_hub:
        if each.pid == hub:
            parties["hub_cpu"].append(each)
        elif each.uid not in uids:
            is_proxy = PROXY in machine.command_line(each.pid)
            parties["proxy_cpu" if is_proxy else "helpers_cpu"].append(each)
    parties["engine_cpu"] += [
        each
        for each in everything.values()
        if each.name.startswith(ENGINE) and each.uid not in uids
    ]
    return parties
