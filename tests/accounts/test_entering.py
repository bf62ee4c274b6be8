"""Who may enter, and who may stay: what changes on the machine reaches the hub."""

from __future__ import annotations

import http.client
import json
import re
import signal
import sys
from urllib.parse import urlencode

import pytest
from accounts.conftest import PASSWORD, Hubs, Machine
from accounts.test_logins import login

from hubs import TINY_SERVER, Answer, Browser, Hub, words
from support import eventually_sync

CONFIG = f"""
c.LocalAuthenticator.allowed_groups = {{"wsacct-may"}}
c.PAMAuthenticator.admin_groups = {{"wsacct-chiefs"}}
c.Authenticator.manage_groups = True
c.Authenticator.auth_refresh_age = 1
c.WorkshopAuthenticator.slow_guessing = False
c.WorkshopAuthenticator.synced_groups = ["wsacct-*", "wsacct-daemons"]
c.JupyterHub.spawner_class = "workshop"
c.Spawner.cmd = [{sys.executable!r}, "-I", "-S", {str(TINY_SERVER)!r}]
c.WorkshopSpawner.pids_limit = None
c.WorkshopSpawner.group_overrides = {{"statistics": {{
    "groups": ["wsacct-statistics"],
    "spawner_override": {{"environment": {{"COURSE": "statistics"}}}},
}}}}
c.JupyterHub.load_roles[0]["scopes"] += ["tokens", "admin:groups"]
"""


@pytest.fixture(scope="module")
def hub(machine: Machine, hubs: Hubs) -> Hub:
    for group in ("wsacct-may", "wsacct-chiefs", "wsacct-statistics", "unsynced"):
        machine.run("groupadd", group)
    machine.run("groupadd", "--system", "wsacct-daemons")
    machine.run("groupadd", "--system", "wsacct-system")
    return hubs.start(CONFIG, proxy=True)


def add(machine: Machine, name: str, *groups: str, uid: int = 0) -> str:
    """Make an account that may enter; return its name."""
    numbered = ("--uid", str(uid)) if uid else ()
    machine.add(name, "--groups", ",".join(["wsacct-may", *groups]), *numbered)
    return name


def enter(hub: Hub, name: str, password: str = PASSWORD) -> Browser:
    status, who, browser = login(hub, {"username": name, "password": password})
    assert (status, who) == (200, name)
    return browser


def is_in(browser: Browser) -> bool:
    return "/hub/login" not in browser.open("/hub/home").url


def answers_to(hub: Hub, token: str) -> bool:
    own, hub.token = hub.token, token
    answer = hub.api("GET", "/user")
    hub.token = own
    assert answer.status in (200, 403)
    return answer.status == 200


def of(hub: Hub, name: str) -> dict:
    answer = hub.api("GET", f"/users/{name}")
    assert answer.status == 200
    return answer.json


# --- those who have left ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "leave", "why"),
    [
        ("wsacct-left", "gpasswd --delete {} wsacct-may", "not allowed to enter any more"),
        ("wsacct-lock", "usermod --lock {}", "it is locked"),
        ("wsacct-late", "usermod --expiredate 2001-01-01 {}", "it has expired"),
        ("wsacct-gone", "userdel {}", "no such account any more"),
        ("wsacct-shut", "usermod --shell /usr/sbin/nologin {}", "no person's account"),
    ],
)
def test_the_session_ends_of_who_could_not_log_in_again(
    hub: Hub, machine: Machine, name: str, leave: str, why: str
) -> None:
    stays = enter(hub, add(machine, f"{name}-2"))
    leaves = enter(hub, add(machine, name))
    token = hub.api("POST", f"/users/{name}/tokens").json["token"]
    assert answers_to(hub, token)
    machine.run(*leave.format(name).split())
    eventually_sync(lambda: not is_in(leaves), "the session has ended")
    assert re.search(f"The session of '{name}' ends: .*{why}", hub.log)
    assert not is_in(leaves)
    assert not answers_to(hub, token)
    assert is_in(stays)


# --- groups -------------------------------------------------------------------------------------


def test_groups_of_the_machine_become_groups_of_the_hub(hub: Hub, machine: Machine) -> None:
    name = add(
        machine,
        "wsacct-joan",
        "wsacct-statistics",
        "wsacct-daemons",  # of the system, and named in full
        "wsacct-system",  # of the system, and covered by the pattern alone
        "unsynced",
    )
    browser = enter(hub, name)
    assert set(of(hub, name)["groups"]) == {"wsacct-may", "wsacct-statistics", "wsacct-daemons"}
    machine.run("gpasswd", "--delete", name, "wsacct-statistics")

    def groups() -> set[str]:
        assert is_in(browser)
        return set(of(hub, name)["groups"])

    eventually_sync(lambda: groups() == {"wsacct-may", "wsacct-daemons"}, "she has left a group")
    machine.run("gpasswd", "--add", name, "wsacct-statistics")
    eventually_sync(lambda: "wsacct-statistics" in groups(), "she is back")


def test_servers_differ_by_the_groups_of_the_machine(hub: Hub, machine: Machine) -> None:
    for name, groups, course in (
        ("wsacct-stan", ("wsacct-statistics",), "statistics"),
        ("wsacct-otto", (), None),
    ):
        enter(hub, add(machine, name, *groups))
        events = hub.start_server(name)
        assert events[-1].get("ready"), events
        found = hub.server_json(name)
        account = machine.entry(name)
        assert account
        assert found["uid"] == account.uid
        assert found["env"].get("COURSE") == course
        hub.stop_server(name)


def test_who_joins_or_leaves_the_administrators_is_one_or_is_none_without_a_new_login(
    hub: Hub, machine: Machine
) -> None:
    name = add(machine, "wsacct-rise")
    browser = enter(hub, name)
    assert of(hub, name)["admin"] is False
    for command, is_admin in (("--add", True), ("--delete", False)):
        machine.run("gpasswd", command, name, "wsacct-chiefs")
        eventually_sync(
            lambda wanted=is_admin: is_in(browser) and of(hub, name)["admin"] is wanted,
            f"{name} is {'' if is_admin else 'not '}an administrator",
        )
        assert (browser.open("/hub/admin").status == 200) is is_admin


def test_without_manage_groups_the_hubs_groups_are_its_own(hubs: Hubs, hub: Hub) -> None:
    own = hubs.start(
        CONFIG + "c.Authenticator.manage_groups = False\n"
        "c.JupyterHub.load_groups = {'ours': {'users': ['wsacct-joan']}}\n"
    )
    enter(own, "wsacct-joan")
    assert of(own, "wsacct-joan")["groups"] == ["ours"]


# --- a name that is used again ------------------------------------------------------------------


def refused(hub: Hub, name: str) -> Answer:
    browser = Browser(hub.root)
    answer = browser.login(name, PASSWORD)
    assert answer.status == 403
    assert not is_in(browser)
    return answer


def test_a_name_that_is_used_again_is_refused_until_an_administrator_deletes_the_user(
    hub: Hub, machine: Machine
) -> None:
    name = add(machine, "wsacct-reus", uid=41001)
    former = enter(hub, name)
    token = hub.api("POST", f"/users/{name}/tokens").json["token"]
    machine.run("userdel", "--remove", name)
    add(machine, name, uid=41002)

    told = "its uid is 41002, and was 41001. Ask the administrator."
    assert told in words(refused(hub, name).text)
    eventually_sync(lambda: not is_in(former), "the session of the former one has ended")
    assert told in json.dumps(hub.start_server(name))
    assert not of(hub, name)["servers"]

    hub.kill(signal.SIGKILL)
    hub.start()
    assert told in hub.log  # the hub says so when it starts
    assert told in words(refused(hub, name).text)

    assert hub.api("DELETE", f"/users/{name}").status == 204
    enter(hub, name)
    assert hub.start_server(name)[-1].get("ready")
    assert hub.server_json(name)["uid"] == 41002
    hub.stop_server(name)
    assert not answers_to(hub, token)  # the former one's


def test_a_name_without_an_account_is_refused_as_before(hub: Hub, machine: Machine) -> None:
    name = add(machine, "wsacct-brief")
    enter(hub, name)
    machine.run("userdel", "--remove", name)
    assert "no account" in json.dumps(hub.start_server(name))


# --- refused before PAM is asked ----------------------------------------------------------------


def test_nobody_is_refused_with_the_right_password(hub: Hub, machine: Machine) -> None:
    machine.run("usermod", "--shell", "/bin/bash", "--append", "--groups", "wsacct-may", "nobody")
    machine.set_password("nobody")
    refused(hub, "nobody")
    assert "it is the account of nobody" in hub.log


@pytest.mark.parametrize("field", ["username", "password", "otp", "something else"])
def test_a_megabyte_in_a_field_is_a_failed_login(hub: Hub, machine: Machine, field: str) -> None:
    if machine.entry("wsacct-mega") is None:
        add(machine, "wsacct-mega")
    form = {"username": "wsacct-mega", "password": "wrong", field: "x" * 1_000_000}
    assert login(hub, form)[:2] == (403, "")


@pytest.mark.parametrize("character", ["\0", "\a", "\x1b[2J", "\x7f", "\x85", "\u202e", "\u2028"])
def test_control_characters_are_a_failed_login_and_stay_out_of_the_log(
    hub: Hub, machine: Machine, character: str
) -> None:
    if machine.entry("wsacct-ctrl") is None:
        add(machine, "wsacct-ctrl")
    for name, password in ((f"wsacct-{character}ctrl", PASSWORD), ("wsacct-ctrl", character)):
        assert login(hub, {"username": name, "password": password})[:2] == (403, "")
    assert character not in hub.log


# --- where a login comes from -------------------------------------------------------------------


@pytest.mark.parametrize("source", ["127.0.0.5", "127.0.0.6"])
def test_no_forged_address_passes_the_proxy(hub: Hub, source: str) -> None:
    """With the headers that clients and proxies use, and in other spellings."""
    forged = {
        "X-Real-Ip": "6.6.6.6",
        "x-REAL-ip": "6.6.6.6",
        "X-Forwarded-For": "6.6.6.6, 6.6.6.6",
        "X_Forwarded_For": "6.6.6.6",
        "Forwarded": "for=6.6.6.6",
        "X-Client-Ip": "6.6.6.6",
        "X-Forwarded-Host": "6.6.6.6",
    }
    name = f"wsacct-forged-{source[-1]}"
    asked = http.client.HTTPConnection("127.0.0.1", hub.port, source_address=(source, 0))
    asked.request("GET", "/hub/login", headers=forged)
    answer = asked.getresponse()
    answer.read()
    cookies = [value.split(";")[0] for key, value in answer.getheaders() if key == "set-cookie"]
    xsrf = next(each.partition("=")[2] for each in cookies if each.startswith("_xsrf="))
    form = urlencode({"username": name, "password": "wrong", "_xsrf": xsrf})
    kind = {"Content-Type": "application/x-www-form-urlencoded", "Cookie": "; ".join(cookies)}
    asked.request("POST", "/hub/login", form, {**forged, **kind})
    assert asked.getresponse().status == 403
    asked.close()
    (line,) = (line for line in hub.log.splitlines() if f"Login of '{name}'" in line)
    assert f"'{name}'@{source} refused" in line
