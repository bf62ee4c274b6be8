"""PAM sessions are kept by processes of their own, which outlive the broker and close in order."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from accounts.conftest import Machine
from accounts.test_broker import ask as log_in
from accounts.test_broker import processes_of

from support import eventually
from workshop_hub.errors import WorkshopError
from workshop_hub.system import pam_broker, processes
from workshop_hub.system.broker import Broker

HUB = "0123456789ab"
NOTES = "/home/wsacct-notes"
FOLDER = "/run/workshop-hub/sessions"
HANGS = "/bin/sleep 8642"
GO_ON = "/home/wsacct-go-on"

WITNESS = f"""#!/bin/sh
echo "$PAM_TYPE $PAM_USER $PPID $PAM_RHOST" >>{NOTES}
"""

WAITS = f"""#!/bin/sh
until [ -e {GO_ON} ]; do sleep 0.1; done
"""

SERVICES = {
    "session": "session required pam_exec.so /etc/wsacct-witness\n"
    "session required pam_env.so envfile=/etc/wsacct-variables\n",
    "picky": "session required pam_exec.so /etc/wsacct-witness\n"
    "session required pam_echo.so Not today.\n"
    "session required pam_succeed_if.so quiet user != wsacct-kit\n",
    "hangs": "session required pam_permit.so\n"
    f"session required pam_exec.so quiet type=close_session {HANGS}\n",
    "dies": "session required pam_permit.so\n"
    "session required pam_exec.so quiet type=close_session /etc/wsacct-killer\n",
    "shouts": "session required pam_echo.so file=/etc/wsacct-shout\nsession required pam_deny.so\n",
    "stuck": f"session required pam_exec.so quiet type=open_session {HANGS}\n",
    "open": "session required pam_permit.so\n",
    "waits": "session required pam_permit.so\n"
    "session required pam_exec.so quiet type=close_session /etc/wsacct-waits\n",
    "hasty": "auth required pam_unix.so nodelay\naccount required pam_unix.so\n",
}


@pytest.fixture(scope="module")
def prepared(machine: Machine) -> Machine:
    for name, text in SERVICES.items():
        rest = "auth required pam_permit.so\naccount required pam_permit.so\n"
        machine.write(f"/etc/pam.d/wsacct-{name}", text if name == "hasty" else rest + text)
    machine.write("/etc/wsacct-witness", WITNESS, "755")
    machine.write("/etc/wsacct-waits", WAITS, "755")
    machine.write("/etc/wsacct-shout", "Not\x1b[31m\ntoday.\n")
    machine.write("/etc/wsacct-killer", "#!/bin/sh\nkill -KILL $PPID\n", "755")
    machine.write("/etc/wsacct-variables", "KRB5CCNAME=FILE:/tmp/wsacct-cc\n")
    for name in ("wsacct-kim", "wsacct-kit"):
        machine.add(name)
    return machine


def new_broker(machine: Machine, **more: int) -> Broker:
    return Broker([*machine.enter, sys.executable, "-I", "-m", pam_broker.__name__], **more)


@pytest.fixture
async def broker(prepared: Machine) -> AsyncIterator[Broker]:
    prepared.write(NOTES, "")
    made = new_broker(prepared)
    yield made
    for name, server in (await order(made, "list", ""))["sessions"]:
        await order(made, "close", name, server)
    await made.close()


async def order(
    broker: Broker,
    what: str,
    name: str = "wsacct-kim",
    server: str = "",
    *,
    service: str = "session",
    hub: str = HUB,
    timeout: float = 90.0,
    **more: str,
) -> dict[str, Any]:
    asked = {"session": what, "service": f"wsacct-{service}", "encoding": "utf8", "hub": hub}
    asked |= {"name": name, "server": server, "rhost": "", **more}
    return await broker.carry_out(asked, timeout=timeout)


def notes(machine: Machine) -> list[list[str]]:
    """Return what PAM's modules have seen: what was done, for whom, and in which process."""
    return [line.split() for line in machine.run("cat", NOTES).splitlines()]


async def listed(broker: Broker, hub: str = HUB) -> list[list[str]]:
    return sorted((await order(broker, "list", "", hub=hub))["sessions"])


def is_there(pid: str) -> bool:
    found = processes.stat(int(pid))
    return found is not None and not found.ended


async def test_the_process_that_opened_a_session_keeps_and_closes_it(
    broker: Broker, prepared: Machine
) -> None:
    opened = await order(broker, "open", rhost="192.0.2.7")
    assert opened["code"] == 0, opened
    assert opened["variables"]["KRB5CCNAME"] == "FILE:/tmp/wsacct-cc"
    assert await listed(broker) == [["wsacct-kim", ""]]
    ((did, who, keeper, origin),) = notes(prepared)
    assert (did, who, origin) == ("open_session", "wsacct-kim", "192.0.2.7")
    assert is_there(keeper)
    assert await order(broker, "close") == {"code": 0, "message": "", "said": [], "variables": {}}
    assert notes(prepared)[1][:3] == ["close_session", "wsacct-kim", keeper]
    assert not is_there(keeper)
    assert await listed(broker) == []
    assert prepared.run("ls", "-A", FOLDER) == ""


async def test_it_is_kept_when_the_broker_has_ended_and_another_one_finds_it(
    broker: Broker, prepared: Machine
) -> None:
    await order(broker, "open")
    keeper = notes(prepared)[0][2]
    brokers = set(processes_of(pam_broker.__name__))
    await broker.close()
    assert is_there(keeper)
    assert Path(f"/proc/{keeper}/stat").read_text().rpartition(")")[2].split()[3] not in map(
        str, brokers - {int(keeper)}
    )
    other = new_broker(prepared)
    assert await listed(other) == [["wsacct-kim", ""]]
    assert (await order(other, "close"))["code"] == 0
    assert notes(prepared)[1][2] == keeper
    await other.close()


async def test_it_holds_nothing_of_whoever_asked_for_it(broker: Broker, prepared: Machine) -> None:
    """Else a log, or a connection, would not end before the session does."""
    await order(broker, "open")
    files = Path(f"/proc/{notes(prepared)[0][2]}/fd")
    leads = sorted(str(each.readlink()) for each in files.iterdir())
    assert leads[:3] == ["/dev/null"] * 3
    assert len(leads) == 4  # the last is its own, which is not to be seen from here


async def test_a_session_that_is_open_already_is_closed_first(
    broker: Broker, prepared: Machine
) -> None:
    for _ in range(2):
        assert (await order(broker, "open"))["code"] == 0
    (first, closed, second) = notes(prepared)
    assert [each[0] for each in (first, closed, second)] == [
        "open_session",
        "close_session",
        "open_session",
    ]
    assert first[2] == closed[2] != second[2]
    assert await listed(broker) == [["wsacct-kim", ""]]


async def test_opened_many_times_at_once_one_is_kept(broker: Broker, prepared: Machine) -> None:
    answers = await asyncio.gather(*(order(broker, "open") for _ in range(6)))
    assert 0 in {answer["code"] for answer in answers}
    kept = await listed(broker)
    done = [note[0] for note in notes(prepared)]
    assert len(kept) <= 1
    assert done.count("open_session") - done.count("close_session") == len(kept)


async def test_to_close_what_is_not_open_is_nothing(broker: Broker) -> None:
    assert (await order(broker, "close"))["code"] == 0


async def test_two_servers_of_one_user_have_one_session_each(
    broker: Broker, prepared: Machine
) -> None:
    long = "x" * 255
    for server in ("", "two", long):
        await order(broker, "open", server=server)
    assert [each[1] for each in await listed(broker)] == ["", "two", long]
    await order(broker, "close", server="two")
    assert [each[1] for each in await listed(broker)] == ["", long]
    assert notes(prepared)[-1][2] == notes(prepared)[1][2]


async def test_a_hub_finds_its_own_sessions_only(broker: Broker) -> None:
    await order(broker, "open")
    await order(broker, "close", hub="other")
    assert await listed(broker, "other") == []
    assert await listed(broker) == [["wsacct-kim", ""]]


async def test_who_is_refused_reads_why_and_nobody_else_is(
    broker: Broker, prepared: Machine
) -> None:
    refused = await order(broker, "open", "wsacct-kit", service="picky")
    assert refused["code"] != 0
    assert refused["message"]
    assert refused["said"] == ["Not today."]
    assert await listed(broker) == []
    await eventually_gone(notes(prepared)[0][2])
    assert (await order(broker, "open", service="picky"))["code"] == 0


async def test_what_modules_say_is_one_line_that_can_be_shown(broker: Broker) -> None:
    refused = await order(broker, "open", service="shouts")
    assert refused["said"] == ["Not?[31m today."]


async def eventually_gone(pid: str) -> None:
    async def gone() -> bool:
        return not is_there(pid)

    await eventually(gone, f"process {pid} ends")


async def test_what_there_is_no_service_for_is_refused_in_words(broker: Broker) -> None:
    refused = await order(broker, "open", encoding="no-such-encoding")
    assert "the name cannot be given to PAM" in refused["message"]
    assert await listed(broker) == []


async def test_sigterm_closes_a_session_in_order(broker: Broker, prepared: Machine) -> None:
    await order(broker, "open")
    keeper = notes(prepared)[0][2]
    os.kill(int(keeper), signal.SIGHUP)  # means nothing
    os.kill(int(keeper), signal.SIGTERM)
    os.kill(int(keeper), signal.SIGHUP)
    await eventually_gone(keeper)
    assert [note[0] for note in notes(prepared)] == ["open_session", "close_session"]
    assert await listed(broker) == []
    assert prepared.run("ls", "-A", FOLDER) == ""


async def test_when_the_machine_stops_all_are_closed(broker: Broker, prepared: Machine) -> None:
    for hub, server in ((HUB, ""), (HUB, "two"), ("other", "")):
        assert (await order(broker, "open", server=server, hub=hub))["code"] == 0
    prepared.run(sys.executable, "-I", "-m", "workshop_hub.system.pam_sessions")
    assert [note[0] for note in notes(prepared)] == ["open_session"] * 3 + ["close_session"] * 3
    assert await listed(broker) == await listed(broker, "other") == []


async def test_what_a_killed_keeper_leaves_is_in_nobodys_way(
    broker: Broker, prepared: Machine
) -> None:
    await order(broker, "open")
    os.kill(int(notes(prepared)[0][2]), signal.SIGKILL)
    await eventually_gone(notes(prepared)[0][2])
    assert await listed(broker) == []
    assert (await order(broker, "open"))["code"] == 0
    assert (await order(broker, "close"))["code"] == 0
    assert [note[0] for note in notes(prepared)] == [
        "open_session",
        "open_session",
        "close_session",
    ]


async def test_a_close_that_hangs_is_ended_with_what_it_started(broker: Broker) -> None:
    assert (await order(broker, "open", service="hangs"))["code"] == 0
    answer = await order(broker, "close", service="hangs")
    assert "PAM did not close it in" in answer["message"]
    assert processes_of(HANGS) == []
    assert await listed(broker) == []


async def test_a_keeper_that_dies_while_it_closes_has_not_closed(broker: Broker) -> None:
    assert (await order(broker, "open", service="dies"))["code"] == 0
    answer = await order(broker, "close", service="dies")
    assert answer["code"] != 0
    assert "its process ended before it was closed" in answer["message"]
    assert await listed(broker) == []


async def test_more_sessions_than_files_can_be_open_are_closed_when_the_machine_stops(
    broker: Broker, prepared: Machine
) -> None:
    servers = map(str, range(30))
    opened = await asyncio.gather(*(order(broker, "open", server=each) for each in servers))
    assert {answer["code"] for answer in opened} == {0}
    command = f"ulimit -n 30; exec {sys.executable} -I -m workshop_hub.system.pam_sessions"
    prepared.run("sh", "-c", command)
    assert await listed(broker) == []
    assert [note[0] for note in notes(prepared)].count("close_session") == 30


async def test_sessions_with_a_python_that_lacks_pidfd_open(prepared: Machine) -> None:
    prepared.write(NOTES, "")
    program = (
        "import os; del os.pidfd_open\nfrom workshop_hub.system.pam_broker import main; main([])"
    )
    broker = Broker([*prepared.enter, sys.executable, "-I", "-c", program])
    for what in ("open", "open", "close"):
        assert (await order(broker, what))["code"] == 0
    opened, closed, again, last = notes(prepared)
    assert (opened[2], again[2]) == (closed[2], last[2])
    assert not is_there(last[2])
    await broker.close()


async def test_an_open_that_hangs_is_given_up_and_closed_by_the_next_order(
    broker: Broker,
) -> None:
    with pytest.raises(WorkshopError, match="did not open a session within 5 seconds"):
        await order(broker, "open", service="stuck", timeout=5)
    assert await listed(broker) == [["wsacct-kim", ""]]
    opened = await order(broker, "open")
    assert opened["code"] == 0, opened
    assert processes_of(HANGS) == []


async def test_logins_go_on_beside_sessions(broker: Broker) -> None:
    await order(broker, "open")
    assert (await log_in(broker, "hasty", name="wsacct-kim")).granted
    assert not (await log_in(broker, "hasty", "something else", name="wsacct-kim")).granted


async def test_a_login_does_not_wait_for_sessions_that_close_slowly(prepared: Machine) -> None:
    """And all of them are closed, however many there are."""
    broker = new_broker(prepared, at_once=1)
    prepared.run("rm", "-f", GO_ON)
    servers = [str(number) for number in range(40)]
    opened = [order(broker, "open", server=each, service="waits") for each in servers]
    assert {answer["code"] for answer in await asyncio.gather(*opened)} == {0}
    closes = [
        asyncio.ensure_future(order(broker, "close", server=each, service="waits"))
        for each in servers
    ]

    async def begun() -> bool:
        return bool(processes_of("/etc/wsacct-waits"))

    await eventually(begun, "a session is being closed")
    assert (await log_in(broker, "hasty", name="wsacct-kim")).granted
    assert not any(each.done() for each in closes)
    prepared.write(GO_ON, "")
    assert {answer["code"] for answer in await asyncio.gather(*closes)} == {0}
    assert await listed(broker) == []
    await broker.close()


async def test_a_hub_that_is_not_root_may_keep_what_pam_lets_it(prepared: Machine) -> None:
    """Its folder is in /tmp, where others may be first; what they made is not believed."""
    kit = prepared.entry("wsacct-kit")
    assert kit
    ids = [f"--reuid={kit.uid}", f"--regid={kit.gid}", "--clear-groups"]
    python = [sys.executable, "-I", "-m", pam_broker.__name__]
    broker = Broker([*prepared.enter, "setpriv", *ids, *python])
    folder = f"/tmp/workshop-hub-sessions-{kit.uid}"
    try:
        prepared.run("install", "-d", "-m", "777", "-o", "wsacct-kim", folder)
        refused = await order(broker, "open", "wsacct-kit", service="hangs")
        assert "not this account's alone" in refused["message"]
        prepared.run("rmdir", folder)
        assert (await order(broker, "open", "wsacct-kit", service="open"))["code"] == 0
        assert prepared.run("stat", "--format=%u %a", folder) == f"{kit.uid} 700\n"
        assert await listed(broker) == [["wsacct-kit", ""]]
        assert (await order(broker, "close", "wsacct-kit", service="open"))["code"] == 0
        assert await listed(broker) == []
    finally:
        await broker.close()
        prepared.run("rm", "-rf", folder)


async def test_the_folder_is_roots_alone(broker: Broker, prepared: Machine) -> None:
    await order(broker, "open")
    assert prepared.run("stat", "--format=%U %a", FOLDER) == "root 700\n"
    prepared.run("chmod", "755", FOLDER)
    refused = await order(broker, "open", server="two")
    assert "not this account's alone" in refused["message"]
    prepared.run("chmod", "700", FOLDER)


def test_others_reach_what_is_beside_the_folder_whatever_the_umask_was(prepared: Machine) -> None:
    program = "from workshop_hub.system.session_files import prepared; prepared()"
    script = (
        f'mount -t tmpfs none /run; umask 077; "$@"; stat --format="%U %a" {FOLDER}/.. {FOLDER}'
    )
    new = ["unshare", "--mount", "sh", "-ec", script, "sh"]
    found = prepared.run(*new, sys.executable, "-I", "-c", program)
    assert found == "root 755\nroot 700\n"


def test_a_hub_that_may_not_look_there_finds_no_sessions_of_roots(prepared: Machine) -> None:
    kit = prepared.entry("wsacct-kit")
    assert kit
    beside = str(Path(FOLDER).parent)
    prepared.run("install", "-d", "-m", "700", beside)
    ids = [f"--reuid={kit.uid}", f"--regid={kit.gid}", "--clear-groups"]
    program = "from workshop_hub.system.session_files import are_used; print(are_used())"
    assert prepared.run("setpriv", *ids, sys.executable, "-I", "-c", program) == "False\n"
    prepared.run("chmod", "755", beside)
