"""A hub that is not root has passwords checked by a broker that is, and gets no more than that."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

import pytest
from accounts.conftest import PASSWORD, Machine
from accounts.test_broker import processes_of

from support import eventually
from workshop_hub.errors import WorkshopError
from workshop_hub.system import pam
from workshop_hub.system.broker import Attempt, Broker

MODULE = "workshop_hub.system.pam_broker"
PYTHON = str(Path(sys.prefix) / "bin" / "python3")
RULES = ("--service", "workshop-test")


@pytest.fixture(scope="module")
def prepared(machine: Machine) -> Machine:
    machine.write(
        "/etc/pam.d/wsacct-slow", "auth required pam_unix.so\naccount required pam_unix.so\n"
    )
    machine.add("wsacct-rita")
    machine.add("wsacct-ruth")
    machine.add("wsacct-rsys", "--uid", "903")
    machine.add("wsacct-rno", "--shell", "/usr/sbin/nologin")
    machine.set_password("root")
    machine.run("groupadd", "wsacct-rhubs")
    machine.add("wsacct-rhub", "--gid", "wsacct-rhubs")
    return machine


def command(machine: Machine, *rules: str) -> list[str]:
    return [*machine.enter, PYTHON, "-I", "-m", MODULE, *rules]


@pytest.fixture
async def broker(prepared: Machine) -> AsyncIterator[Broker]:
    made = Broker(command(prepared, *RULES, "--service", "wsacct-slow"))
    yield made
    await made.close()


async def ask(
    broker: Broker, name: str, password: str = PASSWORD, service: str = "workshop-test", **more: str
) -> pam.Verdict:
    answers = pam.answers((password,))

    async def converse(prompts: list[pam.Prompt]) -> Sequence[str | None] | None:
        return answers(prompts)

    return await broker.ask(Attempt(name, service, **more), converse)


async def test_people_of_its_services(broker: Broker) -> None:
    assert (await ask(broker, "wsacct-rita")).granted
    assert not (await ask(broker, "wsacct-rita", "something else")).granted
    assert not (await ask(broker, "wsacct-nobody")).granted


@pytest.mark.parametrize(
    ("name", "service", "reason"),
    [
        ("root", "workshop-test", "it is root's"),
        ("wsacct-rsys", "workshop-test", "uid 903 is below min_uid"),
        ("wsacct-rno", "workshop-test", "lets nobody log in"),
        ("nobody", "workshop-test", "account of nobody"),
        ("#0", "workshop-test", "begins with"),
        ("wsacct-rita", "su", "'su' is not among its services"),
        ("wsacct-rita", "../../home/x", "is not among its services"),
        ("wsacct-rita", "workshop-anyone", "is not among its services"),
    ],
)
async def test_it_refuses_what_it_was_not_started_for(
    broker: Broker, name: str, service: str, reason: str
) -> None:
    verdict = await ask(broker, name, service=service)
    assert (verdict.granted, verdict.phase) == (False, "authentication")
    assert reason in verdict.message


async def test_other_rules_where_the_administrator_wants_them(prepared: Machine) -> None:
    broker = Broker(command(prepared, *RULES, "--min-uid", "900", "--any-shell"))
    assert (await ask(broker, "wsacct-rsys")).granted
    assert (await ask(broker, "wsacct-rno")).granted
    assert "root's" in (await ask(broker, "root")).message
    await broker.close()


async def test_a_name_is_the_same_for_the_rules_and_for_pam(broker: Broker) -> None:
    """With another encoding, letters that name nobody would be the bytes of root's name."""
    for encoding in ("cp037", "no-such-encoding", "rot13", "idna"):
        typed = {"name": "root", "password": PASSWORD}
        if encoding == "cp037":
            typed = {key: text.encode().decode(encoding) for key, text in typed.items()}
        if encoding == "idna":
            typed["name"] = "\uff52oot"
        verdict = await ask(broker, **typed, encoding=encoding)
        assert not verdict.granted
        assert "did not ask it" in verdict.message


async def test_an_address_that_is_none_does_not_reach_the_machines_log(broker: Broker) -> None:
    verdict = await ask(broker, "wsacct-rita", rhost="192.0.2.7\nlogin: root logged in")
    assert "address" in verdict.message


async def test_guesses_at_one_name_take_the_time_that_pam_wants(broker: Broker) -> None:
    """However many are asked at once: at most one begins in each delay, and others' names do."""
    clock = asyncio.get_running_loop().time
    began = clock()
    guesses = [
        asyncio.ensure_future(ask(broker, name, f"guess {number}", "wsacct-slow"))
        for number, name in enumerate(["wsacct-rita", "WSACCT-Rita", "wsacct-rita"])
    ]
    other = asyncio.ensure_future(ask(broker, "wsacct-ruth", service="wsacct-slow"))
    first, _ = await asyncio.wait([*guesses, other], return_when=asyncio.FIRST_COMPLETED)
    assert not first.issuperset(guesses)
    assert (await other).granted
    delays = [(await guess).delay for guess in guesses]
    assert clock() - began >= sum(sorted(delays)[:2])


async def test_too_many_guesses_at_one_name_are_sent_away(broker: Broker) -> None:
    guesses = [ask(broker, "wsacct-rita", "wrong", "wsacct-slow") for _ in range(12)]
    ended = asyncio.gather(*guesses, return_exceptions=True)
    assert (await ask(broker, "wsacct-ruth", service="wsacct-slow")).granted
    await broker.close()
    errors = [each for each in await ended if isinstance(each, WorkshopError)]
    assert len(errors) >= 3


class Line:
    """A connection to a broker, over which anything can be said. uid: whose it is."""

    def __init__(self, machine: Machine, *rules: str, uid: int = 0) -> None:
        os.seteuid(uid)
        self.control, stdin = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        os.seteuid(0)
        self.process = subprocess.Popen(
            command(machine, *rules), stdin=stdin, stderr=subprocess.PIPE, text=True
        )
        stdin.close()
        self.control.settimeout(60)

    def hand_over(self, told: bytes, order: bytes | None = None, uid: int = 0) -> bytes:
        """Hand a conversation over, say this in it, and return what is said to it.

        uid: whose it is.
        """
        os.seteuid(uid)
        ours, theirs = socket.socketpair()
        os.seteuid(0)
        with ours:
            ours.settimeout(60)
            with theirs:
                socket.send_fds(self.control, [told], [theirs.fileno()])
            try:
                if order is not None:
                    ours.sendall(order + b"\n")
                return ours.recv(65536)
            except ConnectionError:
                return b""

    def close(self) -> None:
        self.control.close()
        assert self.process.wait(60) == 0
        assert self.process.stderr
        self.process.stderr.close()


@pytest.fixture
def line(prepared: Machine) -> Iterator[Line]:
    made = Line(prepared, *RULES)
    yield made
    made.close()


def order(name: str) -> bytes:
    known = {"service": "workshop-test", "encoding": "utf8", "account": True, "rhost": ""}
    return json.dumps({"name": name, **known}).encode()


@pytest.mark.parametrize(
    "told", [b".", b"\xff", b"[" * 4000, b"{}", b'{"name": 1}', b'{"name": "' + b"x" * 300 + b'"}']
)
def test_what_makes_no_sense_ends_that_conversation_alone(line: Line, told: bytes) -> None:
    assert line.hand_over(told) == b""
    assert b"prompts" in line.hand_over(b'{"name": "wsacct-rita"}', order("wsacct-rita"))


def test_another_name_than_was_announced_is_refused(line: Line) -> None:
    """The one that is announced keeps the pace."""
    heard = line.hand_over(b'{"name": "wsacct-ruth"}', order("wsacct-rita"))
    assert "another name" in json.loads(heard)["verdict"]["message"]


@pytest.mark.parametrize("words", [b"", b"null", b"[]", b"{", b"[" * 60000, b"\0" * 70000])
def test_orders_that_make_no_sense_end_that_conversation_alone(line: Line, words: bytes) -> None:
    assert line.hand_over(b'{"name": "wsacct-rita"}', words) == b""
    assert b"prompts" in line.hand_over(b'{"name": "wsacct-ruth"}', order("wsacct-ruth"))


def test_what_is_handed_over_must_be_a_socket_of_the_right_kind(line: Line) -> None:
    with Path("/dev/null").open() as nothing, socket.socket() as other:
        for file in (nothing, other):
            socket.send_fds(line.control, [b'{"name": "wsacct-rita"}'], [file.fileno()])
        line.control.send(b'{"name": "wsacct-rita"}')  # without any
    assert b"prompts" in line.hand_over(b'{"name": "wsacct-ruth"}', order("wsacct-ruth"))


def test_a_conversation_with_somebody_elses_program_is_none(line: Line) -> None:
    """That program would take what the broker says for root's word."""
    told = b'{"name": "wsacct-rita"}'
    assert line.hand_over(told, order("wsacct-rita"), uid=65534) == b""
    assert b"prompts" in line.hand_over(told, order("wsacct-rita"))


# --- sessions -----------------------------------------------------------------------------------


def session(what: str, name: str, **more: str) -> dict[str, str]:
    asked = {"session": what, "service": "wsacct-kept", "encoding": "utf8", "hub": "0123"}
    return {**asked, "name": name, "server": "", "rhost": "", **more}


@pytest.fixture
async def keeper(prepared: Machine) -> AsyncIterator[Broker]:
    prepared.write("/etc/pam.d/wsacct-kept", "session required pam_permit.so\n")
    made = Broker(command(prepared, "--service", "wsacct-kept", "--service", "wsacct-slow"))
    yield made
    await made.close()


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        (session("open", "root"), "it is root's"),
        (session("open", "wsacct-rsys"), "uid 903 is below min_uid"),
        (session("open", "wsacct-rno"), "lets nobody log in"),
        (session("open", "wsacct-nobody"), "no such account"),
        (session("open", "wsacct-rita", service="su"), "is not among its services"),
        (session("close", "wsacct-rita", service="su"), "is not among its services"),
        (session("open", "wsacct-rita", encoding="cp037"), "the name is another one"),
        (session("open", "wsacct-rita", rhost="a\nb"), "address"),
    ],
)
async def test_sessions_are_opened_by_the_same_rules(
    keeper: Broker, asked: dict[str, str], reason: str
) -> None:
    answer = await keeper.carry_out(asked, timeout=60)
    assert reason in answer["message"]
    assert answer["code"] != 0
    listed = await keeper.carry_out(session("list", ""), timeout=60)
    assert listed["sessions"] == []


async def test_a_session_of_who_is_no_person_any_more_can_be_closed(
    keeper: Broker, prepared: Machine
) -> None:
    prepared.add("wsacct-rgone")
    opened = await keeper.carry_out(session("open", "wsacct-rgone"), timeout=60)
    assert opened["code"] == 0, opened
    prepared.run("userdel", "--remove", "wsacct-rgone")
    assert (await keeper.carry_out(session("list", ""), timeout=60))["sessions"]
    assert (await keeper.carry_out(session("close", "wsacct-rgone"), timeout=60))["code"] == 0
    assert not (await keeper.carry_out(session("list", ""), timeout=60))["sessions"]


async def test_orders_about_sessions_make_no_guess_come_earlier(keeper: Broker) -> None:
    """They neither wait for the pace of logins nor change it."""
    clock = asyncio.get_running_loop().time
    began = clock()
    first = await ask(keeper, "wsacct-rita", "wrong", "wsacct-slow")
    for what in ("open", "close"):
        assert (await keeper.carry_out(session(what, "wsacct-rita"), timeout=60))["code"] == 0
    assert not (await ask(keeper, "wsacct-rita", "wrong", "wsacct-slow")).granted
    assert clock() - began >= first.delay


async def test_guesses_at_a_name_neither_keep_its_owner_out_nor_his_session_open(
    prepared: Machine,
) -> None:
    """Nor do guesses that were given up keep the owner from logging in."""
    prepared.write("/etc/pam.d/wsacct-kept", "session required pam_permit.so\n")
    rules = ("--service", "wsacct-kept", "--service", "wsacct-slow")
    broker = Broker(command(prepared, *rules), at_once=16)
    guesses = [
        asyncio.ensure_future(ask(broker, "wsacct-rita", "wrong", "wsacct-slow")) for _ in range(12)
    ]
    sent_away, waiting = await asyncio.wait(guesses, return_when=asyncio.FIRST_COMPLETED)
    assert all(isinstance(each.exception(), WorkshopError) for each in sent_away)
    for what in ("open", "close"):
        assert (await broker.carry_out(session(what, "wsacct-rita"), timeout=60))["code"] == 0
    for each in waiting:
        each.cancel()
    await asyncio.wait(waiting)
    assert (await ask(broker, "wsacct-rita", service="wsacct-slow")).granted
    await broker.close()


KEPT = ("--service", "wsacct-kept", "--hub-user", "wsacct-rhub")


def test_another_accounts_hub_neither_sees_nor_closes_a_session(prepared: Machine) -> None:
    """Whose the other end is, the kernel says, and no hub."""
    rhub = prepared.entry("wsacct-rhub")
    assert rhub
    prepared.write("/etc/pam.d/wsacct-kept", "session required pam_permit.so\n")
    theirs, ours = Line(prepared, *KEPT, uid=rhub.uid), Line(prepared, *KEPT)
    about = b'{"name": "wsacct-ruth", "session": true}'
    every = b'{"name": "", "session": true}'

    def told(asked: dict[str, str]) -> bytes:
        return json.dumps(asked).encode()

    assert b'"code": 0' in ours.hand_over(about, told(session("open", "wsacct-ruth")))
    rows = json.loads(ours.hand_over(every, told(session("list", ""))))["sessions"]
    assert rows == [["wsacct-ruth", ""]]
    rows = json.loads(theirs.hand_over(every, told(session("list", "")), rhub.uid))["sessions"]
    assert rows == []
    nothing = theirs.hand_over(about, told(session("close", "wsacct-ruth")), rhub.uid)
    assert b'"code": 0' in nothing
    rows = json.loads(ours.hand_over(every, told(session("list", ""))))["sessions"]
    assert rows == [["wsacct-ruth", ""]]
    assert b'"code": 0' in ours.hand_over(about, told(session("close", "wsacct-ruth")))
    theirs.close()
    ours.close()


async def test_who_gives_up_an_order_leaves_no_word_in_the_log(
    prepared: Machine, keeper: Broker
) -> None:
    slow = "/bin/sleep 3.14"
    rule = f"session required pam_exec.so quiet type=open_session {slow}\n"
    prepared.write("/etc/pam.d/wsacct-kept", f"session required pam_permit.so\n{rule}")
    line = Line(prepared, "--service", "wsacct-kept")
    ours, theirs = socket.socketpair()
    with ours, theirs:
        told = b'{"name": "wsacct-rita", "session": true}'
        socket.send_fds(line.control, [told], [theirs.fileno()])
        ours.sendall(json.dumps(session("open", "wsacct-rita")).encode() + b"\n")

        async def begun() -> bool:
            return bool(processes_of(slow))

        await eventually(begun, "the session is being opened")
    line.control.close()
    assert line.process.stderr
    assert await asyncio.to_thread(line.process.stderr.read) == ""
    line.close()
    assert (await keeper.carry_out(session("close", "wsacct-rita"), timeout=60))["code"] == 0


@pytest.mark.parametrize(
    "asked",
    [
        b"{}",
        b'{"session": "open", "name": "wsacct-rita", "service": "workshop-test"}',
        b'{"session": "steal", "name": "wsacct-rita", "service": "workshop-test"}',
        order("wsacct-rita"),
    ],
)
def test_orders_about_sessions_that_make_no_sense_end_alone(line: Line, asked: bytes) -> None:
    told = b'{"name": "wsacct-rita", "session": true}'
    assert b'"code": 0' not in line.hand_over(told, asked)
    assert b"prompts" in line.hand_over(b'{"name": "wsacct-ruth"}', order("wsacct-ruth"))


def test_a_login_is_not_smuggled_in_as_an_order_about_a_session(line: Line) -> None:
    """It would be taken out of its turn, and not be refused for whose account it is."""
    smuggled = json.dumps({**json.loads(order("root")), "session": "close"}).encode()
    heard = line.hand_over(b'{"name": "root"}', smuggled)
    assert "something else than was announced" in json.loads(heard)["verdict"]["message"]
