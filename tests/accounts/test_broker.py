"""PAM is asked in processes that are none of the hub's, whatever its modules do there."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from pathlib import Path

import pytest
from accounts.conftest import PASSWORD, Machine

from support import eventually
from workshop_hub.errors import WorkshopError
from workshop_hub.system import pam, pam_broker
from workshop_hub.system.broker import Attempt, Broker

HANGS = "/bin/sleep 7531"

UNIX = "auth required pam_unix.so\naccount required pam_unix.so\n"

SERVICES = {
    "patient": UNIX,
    "hasty": UNIX.replace(".so", ".so nodelay", 1),
    "asks": "auth required pam_unix.so nodelay\nauth required pam_echo.so Mind the gap\n",
    "access": f"{UNIX}account required pam_access.so accessfile=/etc/wsacct-rules\n",
    "group": f"{UNIX.replace('.so', '.so nodelay', 1)}auth required pam_group.so\n",
    "hangs": f"auth required pam_exec.so quiet {HANGS}\n",
    "dies": "auth required pam_exec.so quiet /etc/wsacct-die\n",
}


@pytest.fixture(scope="module")
def prepared(machine: Machine) -> Machine:
    for name, text in SERVICES.items():
        machine.write(f"/etc/pam.d/wsacct-{name}", text)
    machine.write("/etc/wsacct-die", '#!/bin/sh\nkill -9 "$PPID"\n', "755")
    machine.write("/etc/wsacct-rules", "-:ALL:192.0.2.7\n")
    machine.add("wsacct-bea")
    machine.add("wsacct-bold", "--expiredate", "2001-01-01")
    machine.add("wsacct-bdue")
    machine.run("chage", "--lastday", "0", "wsacct-bdue")
    return machine


@pytest.fixture
async def broker(prepared: Machine) -> AsyncIterator[Broker]:
    made = Broker([*prepared.enter, sys.executable, "-I", "-m", pam_broker.__name__])
    yield made
    await made.close()


async def ask(
    broker: Broker,
    service: str,
    *secrets: str,
    name: str = "wsacct-bea",
    rhost: str = "",
    timeout: float = 60.0,
) -> pam.Verdict:
    answers = pam.answers(secrets or (PASSWORD,))

    async def converse(prompts: list[pam.Prompt]) -> Sequence[str | None] | None:
        return answers(prompts)

    attempt = Attempt(name, f"wsacct-{service}", rhost=rhost)
    return await broker.ask(attempt, converse, timeout=timeout)


async def test_yes_and_no(broker: Broker) -> None:
    assert (await ask(broker, "hasty")).granted
    refused = await ask(broker, "hasty", "something else")
    assert (refused.granted, refused.phase) == (False, "authentication")
    assert refused.message
    assert not (await ask(broker, "hasty", name="wsacct-nobody")).granted


async def test_the_delay_is_the_askers_to_wait_for(broker: Broker) -> None:
    refused = await ask(broker, "patient", "something else")
    assert 0.5 < refused.delay < 5
    assert (await ask(broker, "patient")).delay == 0


@pytest.mark.parametrize(
    ("name", "code"), [("wsacct-bold", pam.ACCOUNT_EXPIRED), ("wsacct-bdue", pam.MUST_CHANGE)]
)
async def test_an_account_that_may_not_be_used(broker: Broker, name: str, code: int) -> None:
    verdict = await ask(broker, "hasty", name=name)
    assert (verdict.phase, verdict.code) == ("account", code)
    verdict = await ask(broker, "hasty", "something else", name=name)
    assert verdict.phase == "authentication"


async def test_the_machines_rules_know_where_the_login_comes_from(broker: Broker) -> None:
    assert (await ask(broker, "access", rhost="192.0.2.8")).granted
    verdict = await ask(broker, "access", rhost="192.0.2.7")
    assert (verdict.phase, verdict.code) == ("account", pam.DENIED)


async def test_messages_come_along_and_want_no_answer(broker: Broker) -> None:
    seen = []

    async def converse(prompts: list[pam.Prompt]) -> list[str | None]:
        seen.extend(prompts)
        return [PASSWORD if prompt.style == pam.HIDDEN else None for prompt in prompts]

    assert (await broker.ask(Attempt("wsacct-bea", "wsacct-asks", account=False), converse)).granted
    assert pam.Prompt(pam.INFO, "Mind the gap") in [
        each._replace(text=each.text.strip()) for each in seen
    ]


async def test_one_who_thinks_holds_nobody_up(prepared: Machine) -> None:
    command = [*prepared.enter, sys.executable, "-I", "-m", pam_broker.__name__]
    broker = Broker(command, at_once=1)
    asked, thought = asyncio.Event(), asyncio.Event()

    async def converse(prompts: list[pam.Prompt]) -> list[str | None]:
        asked.set()
        await thought.wait()
        return [PASSWORD] * len(prompts)

    slow = asyncio.ensure_future(broker.ask(Attempt("wsacct-bea", "wsacct-hasty"), converse))
    await asyncio.wait_for(asked.wait(), 30)
    assert (await ask(broker, "hasty")).granted
    thought.set()
    assert (await slow).granted
    await broker.close()


async def test_what_a_module_starts_cannot_answer_for_pam(broker: Broker) -> None:
    """It inherits none of the files over which PAM's word goes to the hub."""
    inherited = []

    async def converse(prompts: list[pam.Prompt]) -> None:
        brokers = set(processes_of(pam_broker.__name__))
        asker = max(brokers & {*pam_broker.descendants(os.getpid())})
        for file in Path(f"/proc/{asker}/fd").iterdir():
            flags = Path(f"/proc/{asker}/fdinfo/{file.name}").read_text().split()[3]
            if not int(flags, 8) & os.O_CLOEXEC:
                inherited.append(file.name)

    verdict = await broker.ask(Attempt("wsacct-bea", "wsacct-hasty"), converse)
    assert not verdict.granted
    assert sorted(inherited) == ["0", "1", "2"]


def processes_of(command: str) -> list[int]:
    """Return the processes whose command line has this in it."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended
            if command in (place / "cmdline").read_bytes().replace(b"\0", b" ").decode():
                found.append(int(place.name))
    return found


async def test_a_module_that_hangs_is_ended_with_what_it_started(prepared: Machine) -> None:
    broker = Broker([*prepared.enter, sys.executable, "-I", "-m", pam_broker.__name__], at_once=1)
    hangs = asyncio.ensure_future(ask(broker, "hangs", timeout=5))

    async def sleepers() -> list[int]:
        return processes_of(HANGS)

    async def are_gone() -> bool:
        return not await sleepers()

    await eventually(sleepers, "the module hangs")
    assert (await ask(broker, "hasty")).granted  # it does not have the only turn for ever
    with pytest.raises(WorkshopError, match="did not check the password within"):
        await hangs
    await eventually(are_gone, "what the module started is ended")
    await broker.close()


async def test_too_many_at_once_are_sent_away(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workshop_hub.system.broker.MOST", 1)

    async def converse(prompts: list[pam.Prompt]) -> list[str | None]:
        with pytest.raises(WorkshopError, match="logins are being checked already"):
            await ask(broker, "hasty")
        return [PASSWORD]

    assert (await broker.ask(Attempt("wsacct-bea", "wsacct-hasty"), converse)).granted
    assert (await ask(broker, "hasty")).granted


async def test_a_module_that_kills_its_process_harms_nobody_else(broker: Broker) -> None:
    with pytest.raises(WorkshopError, match="could not check the password"):
        await ask(broker, "dies")
    assert (await ask(broker, "hasty")).granted


async def test_a_broker_that_was_killed_is_started_again(broker: Broker) -> None:
    before = children()
    assert (await ask(broker, "hasty")).granted
    (first,) = children() - before
    os.kill(first, signal.SIGKILL)

    async def is_gone() -> bool:
        return first not in children()

    await eventually(is_gone, "the broker is gone")
    assert (await ask(broker, "hasty")).granted


async def test_a_broker_that_cannot_run_is_an_error_with_a_reason() -> None:
    with pytest.raises(WorkshopError, match="could not check the password"):
        await ask(Broker(["/no/such/program"]), "hasty")
    broker = Broker(["/bin/false"])
    with pytest.raises(WorkshopError, match="could not check the password"):
        await ask(broker, "hasty")
    await broker.close()


async def test_the_asker_stays_as_it_was(broker: Broker, prepared: Machine) -> None:
    """With modules that change the groups and start processes."""
    prepared.write("/etc/security/group.conf", "*;*;wsacct-bea;Al0000-2400;audio, video\n")
    assert (await ask(broker, "group")).granted
    before = facts()
    logins = [ask(broker, "group") for _ in range(40)]
    logins += [ask(broker, "group", "something else") for _ in range(40)]
    logins += [ask(broker, "group", name="wsacct-nobody") for _ in range(20)]
    verdicts = await asyncio.gather(*logins)
    assert [verdict.granted for verdict in verdicts] == [True] * 40 + [False] * 60
    assert facts() == before


def facts() -> dict[str, object]:
    """Return what a PAM module could change of this process."""
    status = Path("/proc/self/status").read_text()
    names = ("Umask", "Uid", "Gid", "Groups", "SigBlk", "SigIgn", "SigCgt", "Threads")
    lines = (line for line in status.splitlines() if line.startswith(names))
    files = len([*Path("/proc/self/fd").iterdir()])
    return {"status": [*lines], "files": files, "children": children()}


def children() -> set[int]:
    """Return the processes whose parent this process is."""
    tasks = Path("/proc/self/task").glob("*/children")
    return {int(pid) for file in tasks for pid in file.read_text().split()}
