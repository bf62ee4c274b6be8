"""Accounts that the hub makes: with the distribution's command, and with a site's own script."""

from __future__ import annotations

import re
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote

import pytest
from accounts.conftest import PASSWORD, Hubs, Machine

from hubs import Answer, Browser, Hub, words
from support import eventually_sync

DEFAULTS = """
c.LocalAuthenticator.create_system_users = True
c.PAMAuthenticator.admin_groups = {"wsacct-wheel", "wsacct-nowhere"}
c.LocalAuthenticator.allowed_groups = {"wsacct-wheel"}
c.LocalAuthenticator.uids = {"wsacct-numbered": 4321}
c.Authenticator.allowed_users = {"wsacct-start"}
"""

SCRIPTED = """
c.LocalAuthenticator.create_system_users = True
c.LocalAuthenticator.add_user_cmd = ["./add_user.sh", "--home=/home/USERNAME"]
c.WorkshopAuthenticator.add_user_timeout = 2
"""

SCRIPT = """
echo "asked for: $*"
case $2 in
*-hang) echo waiting; sleep 600;;
*-flood) seq 1 200000; exit 4;;
*-fail) echo "the quota is used up" >&2; exit 5;;
*-lie) exit 0;;
*-low) useradd --system --create-home --shell /bin/bash -- "$2";;
*-nohome) useradd --no-create-home --shell /bin/bash -- "$2";;
*-theirs) useradd --create-home --shell /bin/bash -- "$2"; chown root "/home/$2";;
*-late) useradd --create-home --shell /bin/bash -- "$2"; exit 6;;
*-slow) mkdir busy || exit 7; touch waiting
    while [ ! -e go ]; do sleep 0.05; done; rmdir busy
    useradd --create-home --shell /bin/bash -- "$2";;
*) mkdir busy || exit 7; sleep 0.1; useradd --create-home --shell /bin/bash -- "$2"; rmdir busy;;
esac
"""


@pytest.fixture(scope="module")
def hub(machine: Machine, hubs: Hubs) -> Hub:
    machine.run("groupadd", "wsacct-wheel")
    machine.add("wsacct-lowly", "--uid", "902")
    return hubs.start(DEFAULTS)


@pytest.fixture(scope="module")
def scripted(hubs: Hubs) -> Hub:
    return hubs.start(SCRIPTED, files={"add_user.sh": SCRIPT})


def add(hub: Hub, *names: str) -> Answer:
    """Add users as the admin page does; its answer carries the reason of a failure."""
    return hub.api("POST", "/users", {"usernames": list(names)})


def known(hub: Hub, name: str) -> bool:
    return hub.api("GET", f"/users/{quote(name, safe='')}").status == 200


def assert_made(machine: Machine, name: str) -> None:
    entry = machine.entry(name)
    assert entry
    assert entry.uid >= 1000
    assert machine.run("stat", "-c", "%F %u", entry.home) == f"directory {entry.uid}\n"


def test_a_missing_account_is_made_with_admin_groups_set(hub: Hub, machine: Machine) -> None:
    assert hub.api("POST", "/users/wsacct-new").status == 201
    assert_made(machine, "wsacct-new")
    assert machine.run("stat", "-c", "%a", "/home/wsacct-new") == "700\n"
    assert "wsacct-new:!:" in machine.run("grep", "wsacct-new", "/etc/shadow")
    assert hub.api("POST", "/users/wsacct-new").status == 409


def test_who_was_made_logs_in_once_there_is_a_password(hub: Hub, machine: Machine) -> None:
    assert add(hub, "wsacct-guest").status == 201
    assert Browser(hub.root).login("wsacct-guest", PASSWORD).status == 403
    machine.set_password("wsacct-guest")
    assert Browser(hub.root).login("wsacct-guest", PASSWORD).status == 200


def test_an_allowed_user_is_made_when_the_hub_starts(hub: Hub, machine: Machine) -> None:
    assert_made(machine, "wsacct-start")
    assert known(hub, "wsacct-start")


def test_the_uid_of_the_option_uids(hub: Hub, machine: Machine) -> None:
    assert add(hub, "wsacct-numbered").status == 201
    entry = machine.entry("wsacct-numbered")
    assert entry
    assert entry.uid == 4321


def test_an_existing_account_is_taken_as_it_is(hub: Hub, machine: Machine) -> None:
    before = machine.add("wsacct-there")
    assert add(hub, "wsacct-there").status == 201
    assert machine.entry("wsacct-there") == before


@pytest.mark.parametrize("name", ["root", "daemon", "nobody", "wsacct-lowly"])
def test_system_accounts_are_not_taken_in(hub: Hub, name: str) -> None:
    answer = add(hub, name)
    assert answer.status == 400
    assert "may not use the hub" in answer.text
    assert hub.api("POST", f"/users/{name}").status == 400
    assert not known(hub, name)


@pytest.mark.parametrize(
    "name",
    ["-rf", "a b", "..", "WSACCT-Big", "wsacct-٣", "a\nb", "#1000", "1000", "x" * 300, "a:b"],
)
def test_hostile_names_make_nothing(hub: Hub, machine: Machine, name: str) -> None:
    before = machine.entries()
    assert hub.api("POST", f"/users/{quote(name, safe='')}").status == 400
    assert not known(hub, name)
    if name.lower() == name:
        assert add(hub, name).status == 400
    assert machine.entries() == before


@pytest.mark.parametrize("names", [[None], [1], [["wsacct-x"]]])
def test_names_that_are_no_texts(hub: Hub, names: list[object]) -> None:
    assert hub.api("POST", "/users", {"usernames": names}).status == 400


ANYONE = """
c.PAMAuthenticator.service = "workshop-anyone"
c.Authenticator.allow_all = True
c.PAMAuthenticator.admin_groups = {"wsacct-wheel"}
"""


def test_whom_only_pam_knows_gets_an_account_at_the_first_login(
    hubs: Hubs, machine: Machine
) -> None:
    eager = hubs.start(ANYONE + SCRIPTED, files={"add_user.sh": SCRIPT})
    assert Browser(eager.root).login("wsacct-walkin", PASSWORD).status == 200
    assert_made(machine, "wsacct-walkin")
    for _ in range(2):
        answer = Browser(eager.root).login("wsacct-walkin-fail", PASSWORD)
        assert answer.status == 500
        assert "was not created" in words(answer.text)
        assert not known(eager, "wsacct-walkin-fail")


def test_whom_only_pam_knows_is_told_so_where_no_accounts_are_made(hubs: Hubs) -> None:
    strict = hubs.start(ANYONE)
    answer = Browser(strict.root).login("wsacct-passer-by", PASSWORD)
    assert answer.status == 403
    assert "has no account" in words(answer.text)
    assert not known(strict, "wsacct-passer-by")


def test_deleting_a_user_leaves_the_account(hub: Hub, machine: Machine) -> None:
    assert add(hub, "wsacct-leaver").status == 201
    assert hub.api("DELETE", "/users/wsacct-leaver").status == 204
    assert_made(machine, "wsacct-leaver")


@pytest.mark.parametrize(
    ("name", "reason", "last"),
    [
        ("wsacct-hang", "did not end within 2 seconds", "waiting"),
        ("wsacct-flood", "exit code 4", "200000"),
        ("wsacct-fail", "exit code 5", "the quota is used up"),
        ("wsacct-lie", "the account is not there", "asked for: --home=/home/{0} {0}"),
    ],
)
def test_a_script_that_fails(
    scripted: Hub, machine: Machine, name: str, reason: str, last: str
) -> None:
    for _ in range(2):  # the second time is like the first
        answer = add(scripted, name)
        assert answer.status == 400
        message = answer.json["message"]
        assert reason in message
        assert message.splitlines()[-1] == last.format(name)
        assert not known(scripted, name)
    assert machine.entry(name) is None


@pytest.mark.parametrize(
    ("name", "problem", "cure"),
    [
        ("wsacct-low", "below min_uid", ["usermod", "--uid", "4500"]),
        ("wsacct-nohome", "No such file", ["mkhomedir_helper"]),
        ("wsacct-theirs", "belongs to uid 0", ["sh", "-c", 'chown "$0" "/home/$0"']),
    ],
)
def test_a_half_made_account_is_reported_until_it_is_mended(
    scripted: Hub, machine: Machine, name: str, problem: str, cure: list[str]
) -> None:
    for _ in range(2):
        answer = add(scripted, name)
        assert answer.status == 400
        assert problem in answer.json["message"]
        assert not known(scripted, name)
    machine.run(*cure, name)
    assert add(scripted, name).status == 201


def test_what_a_failing_script_made_after_all_is_taken_at_the_next_try(
    scripted: Hub, machine: Machine
) -> None:
    assert "exit code 6" in add(scripted, "wsacct-late").json["message"]
    assert add(scripted, "wsacct-late").status == 201
    assert_made(machine, "wsacct-late")


def test_the_hub_answers_while_an_account_is_made_and_makes_one_at_a_time(
    scripted: Hub, machine: Machine
) -> None:
    with ThreadPoolExecutor() as pool:
        slow = pool.submit(add, scripted, "wsacct-slow")
        eventually_sync((scripted.folder / "waiting").exists, "the script runs", every=0.01)
        others = [pool.submit(add, scripted, f"wsacct-many{i}") for i in range(3)]
        assert scripted.api("GET", "/info").status == 200
        assert not slow.done()
        (scripted.folder / "go").touch()
        assert [each.result().status for each in (slow, *others)] == [201] * 4
    for name in ("wsacct-slow", *(f"wsacct-many{i}" for i in range(3))):
        assert_made(machine, name)


def test_an_unprivileged_hub_says_which_line_of_sudoers_it_needs_and_works_with_it(
    hubs: Hubs, machine: Machine
) -> None:
    machine.add("wsacct-hub")
    hub = hubs.start("c.LocalAuthenticator.create_system_users = True\n", as_user="wsacct-hub")
    refused = add(hub, "wsacct-viasudo").json["message"]
    rule = re.search(r"wsacct-hub ALL=\(root\) NOPASSWD: .*", refused)
    assert rule, refused
    assert machine.entry("wsacct-viasudo") is None
    machine.write("/etc/sudoers.d/wsacct", rule[0] + "\n", mode="440")
    assert add(hub, "wsacct-viasudo").status == 201
    assert_made(machine, "wsacct-viasudo")
    command = rule[0].partition("NOPASSWD: ")[2].replace("\\", "").removesuffix(" *").split()
    ask = ["setpriv", "--reuid=wsacct-hub", "--regid=wsacct-hub", "--init-groups", "sudo", "-n"]
    for more in (["wsacct-toor", "-o", "-u", "0"], ["-o", "-u", "0", "wsacct-toor"]):
        done = subprocess.run([*machine.enter, *ask, *command, *more], capture_output=True)
        assert done.returncode != 0
    assert machine.entry("wsacct-toor") is None
    assert machine.run("stat", "-c", "%a", "/home/wsacct-viasudo") == "700\n"


def test_an_unprivileged_hub_ends_a_command_that_hangs_under_sudo(
    hubs: Hubs, machine: Machine
) -> None:
    machine.add("wsacct-hub4")
    machine.write("/home/hang", "#!/bin/sh\necho $$ >/home/hanging\nexec sleep 600\n", mode="755")
    machine.write("/etc/sudoers.d/wsacct4", "wsacct-hub4 ALL=(root) NOPASSWD: /home/hang *\n")
    hub = hubs.start(
        "c.LocalAuthenticator.create_system_users = True\n"
        "c.LocalAuthenticator.add_user_cmd = ['sudo', '-n', '/home/hang']\n"
        "c.WorkshopAuthenticator.add_user_timeout = 2\n",
        as_user="wsacct-hub4",
    )
    for _ in range(2):
        assert "did not end within 2 seconds" in add(hub, "wsacct-stuck").json["message"]
        pid = machine.run("cat", "/home/hanging").strip()
        assert not Path(f"/proc/{pid}").exists()


def test_an_unprivileged_hub_in_the_group_that_may_read_shadow_checks_passwords(
    hubs: Hubs, machine: Machine
) -> None:
    machine.add("wsacct-hub3", "--groups", "shadow")
    machine.add("wsacct-visitor")
    hub = hubs.start("c.Authenticator.allow_all = True\n", as_user="wsacct-hub3")
    assert Browser(hub.root).login("wsacct-visitor", PASSWORD).status == 200
    assert Browser(hub.root).login("wsacct-visitor", "something else").status == 403


def test_an_unprivileged_hub_with_a_command_for_root(hubs: Hubs, machine: Machine) -> None:
    machine.add("wsacct-hub2")
    hub = hubs.start(
        "c.LocalAuthenticator.create_system_users = True\n"
        "c.LocalAuthenticator.add_user_cmd = ['/usr/sbin/useradd', '-m', '--']\n",
        as_user="wsacct-hub2",
    )
    message = add(hub, "wsacct-noway").json["message"]
    assert "The hub runs as wsacct-hub2, who may not create accounts" in message
    assert machine.entry("wsacct-noway") is None
