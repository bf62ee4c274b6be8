"""What a site has done before and after an account is made, and what a failure leaves behind."""

from __future__ import annotations

import signal
import sqlite3
from concurrent.futures import ThreadPoolExecutor

import pytest
from accounts.conftest import Hubs, Machine

from hubs import Answer, Hub
from support import eventually_sync

CONFIG = """
import asyncio, pathlib, threading

def say(text):
    with open("said", "a") as file:
        file.write(text + chr(10))

def plain(name):
    assert threading.current_thread() is not threading.main_thread()
    say("plain " + name)
    if name.endswith("-unwanted"):
        raise ValueError("nobody of this name, please")

async def later(account):
    await asyncio.sleep(0)
    say(f"later {account.name} {account.uid} {account.gid} {account.home}")
    if account.name.endswith("-broken") and not pathlib.Path("mended").exists():
        raise TimeoutError("the quota server is away")

def hangs(account):
    if account.name.endswith("-hang"):
        say("hangs")
        while not pathlib.Path("go").exists():
            threading.Event().wait(0.05)

c.LocalAuthenticator.create_system_users = True
c.WorkshopAuthenticator.add_user_timeout = 5
c.WorkshopAuthenticator.add_user_hooks = {
    "before": [plain, ["sh", "-c", 'echo "words $1" >>said; [ "$1" != wsacct-hk-refused ]', "-",
                       "{username}"]],
    "after": [later, hangs, ["./after.sh", "{username} {uid} {home}", "{other}"]],
}
"""

AFTER = """
echo "command $1 $2" >>said
case $1 in wsacct-hk-crash*) touch waiting; while [ ! -e go-on ]; do sleep 0.05; done;; esac
case $1 in wsacct-hk-flood*) seq 1 100000; echo "no room for $1"; exit 3;; esac
"""

MADE_BY_FUNCTION = """
import subprocess

async def make(name, uid):
    if name.endswith("-not"):
        raise OSError("no more accounts")
    if not name.endswith("-lie"):
        subprocess.run(["useradd", "-m", "-s", "/bin/bash", "-u", str(uid), "--", name], check=True)

c.LocalAuthenticator.create_system_users = True
c.LocalAuthenticator.add_user_cmd = make
c.LocalAuthenticator.uids = {
    "wsacct-hk-func": 4711, "wsacct-hk-func-not": 1, "wsacct-hk-func-lie": 1}
"""


@pytest.fixture(scope="module")
def hub(hubs: Hubs) -> Hub:
    return hubs.start(CONFIG, files={"after.sh": AFTER})


def add(hub: Hub, name: str) -> Answer:
    return hub.api("POST", "/users", {"usernames": [name]})


def said(hub: Hub, name: str) -> list[str]:
    lines = (hub.folder / "said").read_text().splitlines()
    return [line for line in lines if name in line.split()]


def traces(hub: Hub, name: str) -> int:
    """Count what the hub's database has of a user."""
    with sqlite3.connect(f"file:{hub.folder / 'jupyterhub.sqlite'}?mode=ro", uri=True) as database:
        rows = database.execute("select id from users where name = ?", (name,)).fetchall()
        known = "select count(*) from {} where user_id not in (select id from users)"
        orphans = [
            database.execute(known.format(table)).fetchone()[0]
            for table in ("user_role_map", "spawners", "api_tokens", "user_group_map")
        ]
    database.close()
    return len(rows) + sum(orphans)


def test_all_hooks_run_in_their_order_once(hub: Hub, machine: Machine) -> None:
    assert add(hub, "wsacct-hk-hooked").status == 201
    entry = machine.entry("wsacct-hk-hooked")
    assert entry
    assert said(hub, entry.name) == [
        f"plain {entry.name}",
        f"words {entry.name}",
        f"later {entry.name} {entry.uid} {entry.gid} {entry.home}",
        f"command {entry.name} {entry.uid} {entry.home} {{other}}",
    ]
    assert hub.api("DELETE", f"/users/{entry.name}").status == 204
    assert add(hub, entry.name).status == 201
    assert len(said(hub, entry.name)) == 4  # the account was there


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("wsacct-hk-unwanted", "the function plain (add_user_hooks) raised ValueError: nobody of"),
        ("wsacct-hk-refused", "(add_user_hooks) failed with exit code 1"),
    ],
)
def test_a_hook_that_fails_before_leaves_nothing(
    hub: Hub, machine: Machine, name: str, reason: str
) -> None:
    for _ in range(2):
        answer = add(hub, name)
        assert answer.status == 400
        assert "was not created" in answer.json["message"]
        assert reason in answer.json["message"]
        assert traces(hub, name) == 0
        assert machine.entry(name) is None
    assert said(hub, name).count(f"plain {name}") == 2


def test_a_hook_that_fails_afterwards_is_run_again_until_it_works(
    hub: Hub, machine: Machine
) -> None:
    name = "wsacct-hk-broken"
    for _ in range(2):
        answer = add(hub, name)
        assert answer.status == 400
        assert "exists and is half-made" in answer.json["message"]
        assert "raised TimeoutError: the quota server is away" in answer.json["message"]
        assert traces(hub, name) == 0
    assert hub.api("POST", f"/users/{name}").status == 400
    assert traces(hub, name) == 0
    before = machine.entry(name)
    (hub.folder / "mended").touch()
    assert add(hub, name).status == 201
    assert machine.entry(name) == before
    assert said(hub, name).count(f"plain {name}") == 1
    assert said(hub, name)[-1].startswith("command")


def test_the_last_lines_of_a_command_are_shown(hub: Hub) -> None:
    message = add(hub, "wsacct-hk-flood").json["message"]
    assert "failed with exit code 3" in message
    assert message.splitlines()[-2:][0] == "100000"
    assert len(message) < 2000


def test_a_function_that_hangs_holds_up_accounts_and_not_the_hub(hub: Hub) -> None:
    with ThreadPoolExecutor() as pool:
        slow = pool.submit(add, hub, "wsacct-hk-hang")
        eventually_sync(lambda: "hangs" in (hub.folder / "said").read_text(), "it hangs")
        assert hub.api("GET", "/info").status == 200
        assert "did not end within 5 seconds" in slow.result().json["message"]
    assert "an earlier function (hangs) still runs" in add(hub, "wsacct-hk-later").json["message"]
    (hub.folder / "go").touch()
    eventually_sync(lambda: add(hub, "wsacct-hk-later").status == 201, "the function has ended")
    assert add(hub, "wsacct-hk-hang").status == 201


def test_a_hub_that_is_killed_between_two_steps_finishes_later(hub: Hub, machine: Machine) -> None:
    name = "wsacct-hk-crash"
    with ThreadPoolExecutor() as pool:
        slow = pool.submit(add, hub, name)
        eventually_sync((hub.folder / "waiting").exists, "the last hook runs")
        hub.kill(signal.SIGKILL)
        with pytest.raises(OSError):
            slow.result()
    (hub.folder / "go-on").touch()
    before = machine.entry(name)
    assert before
    count = len(said(hub, name))
    hub.start()  # it finds the user in its database, and ends what it had begun
    again = said(hub, name)[count:]
    assert [line.split()[0] for line in again] == ["later", "command"]
    assert machine.entry(name) == before
    assert hub.api("GET", f"/users/{name}").status == 200
    assert name not in (hub.folder / "workshop-unfinished-accounts").read_text()
    (hub.folder / "said").write_text("")
    assert add(hub, "wsacct-hk-flood").status == 400  # remembered, too
    assert [line.split()[0] for line in said(hub, "wsacct-hk-flood")] == ["later", "command"]


def test_the_disk_is_full(hubs: Hubs, machine: Machine) -> None:
    full = hubs.start(CONFIG + "c.WorkshopAuthenticator.unfinished_accounts_file = '/dev/full/x'\n")
    message = add(full, "wsacct-hk-nodisk").json["message"]
    assert "cannot note in /dev/full/x which accounts are half-made" in message
    assert machine.entry("wsacct-hk-nodisk") is None


def test_a_function_makes_accounts(hubs: Hubs, machine: Machine) -> None:
    hub = hubs.start(MADE_BY_FUNCTION)
    assert add(hub, "wsacct-hk-func").status == 201
    entry = machine.entry("wsacct-hk-func")
    assert entry
    assert entry.uid == 4711
    assert "raised OSError: no more accounts" in add(hub, "wsacct-hk-func-not").json["message"]
    assert "the account is not there" in add(hub, "wsacct-hk-func-lie").json["message"]
    assert traces(hub, "wsacct-hk-func-not") == traces(hub, "wsacct-hk-func-lie") == 0


@pytest.mark.parametrize(
    ("hooks", "problem"),
    [
        ({"first": []}, "'first' is neither"),
        ({"after": "chmod"}, '"after" is no list'),
        ({"after": ["chmod"]}, "'chmod' is neither a function nor a list of words"),
    ],
)
def test_hooks_that_cannot_work_keep_the_hub_from_starting(
    hubs: Hubs, hooks: object, problem: str
) -> None:
    hub = hubs.prepare(f"c.WorkshopAuthenticator.add_user_hooks = {hooks!r}\n")
    assert hub.launch().wait(120) != 0
    assert f"add_user_hooks: {problem}" in hub.log
