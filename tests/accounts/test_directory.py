"""docs/howto/directory-services.md: people whom only a directory knows, under the names it has.

The directory is libnss-extrausers: a module of glibc's name service as sssd's is, so that the hub,
PAM and sudo ask for these names in the way that they ask for any.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

import pytest
from accounts.conftest import PASSWORD, Hubs, Machine
from accounts.test_logins import login

from hubs import TINY_SERVER, Browser, Hub
from support import eventually_sync, require

TEXT = (Path(__file__).parents[2] / "docs/howto/directory-services.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)


CONFIG = (
    "\n".join(blocks("python"))
    + f"""
c.JupyterHub.spawner_class = "workshop"
c.Authenticator.auth_refresh_age = 1
c.PAMAuthenticator.service = "workshop-test"
c.Spawner.cmd = [{sys.executable!r}, "-I", "-S", {str(TINY_SERVER)!r}]
c.WorkshopSpawner.notebook_dir = "~/notebooks"
c.WorkshopSpawner.create_notebook_dir = True
c.WorkshopSpawner.pids_limit = None
c.WorkshopSpawner.group_overrides = {{"teachers": {{
    "groups": ["corp\\\\teachers"], "spawner_override": {{"environment": {{"ROLE": "teacher"}}}},
}}}}
"""
)

PEOPLE = {
    r"corp\ada.lovelace": 71001,
    "grace.hopper@corp.example": 71002,
    "Alan.Turing": 71003,
    "katherine johnson@corp.example": 71004,
    "zoë.müller@corp.example": 71005,
    "a-name-that-is-longer-than-useradd-allows@students.faculty.university.example": 71006,
    "71007x": 71007,
    r"corp\workstation$": 71008,
    "71009": 71009,
    r"corp\guest": 71010,
    r"corp\new": 71011,
}
"""Accounts as sssd serves them, by the name that it calls the right one."""

ALIASES = {
    r"CORP\Ada.Lovelace": r"corp\ada.lovelace",
    "ada.lovelace@corp.example": r"corp\ada.lovelace",
    "Ada.Lovelace": r"corp\ada.lovelace",
    "Grace.Hopper@CORP.EXAMPLE": "grace.hopper@corp.example",
}
"""What people type as well; sssd answers to all of these."""

ADA = r"corp\ada.lovelace"
STUDENTS, TEACHERS = "domain users@corp.example", r"corp\teachers"


MACHINE, NUMBER, GUEST, NEW = r"corp\workstation$", "71009", r"corp\guest", r"corp\new"
"""A machine's account, a name that programs take for a uid, one in no group, one without a home."""


def serve(machine: Machine, people: dict[str, int], teachers: tuple[str, ...]) -> None:
    """Write the files of the module."""
    uids = {**people, **{alias: people[name] for alias, name in ALIASES.items() if name in people}}
    lines = [
        f"{name}:x:{uid}:{72003 if name == GUEST else 72001}::/home/u{uid}:/bin/bash\n"
        for name, uid in uids.items()
    ]
    groups = f"{STUDENTS}:x:72001:\n{TEACHERS}:x:72002:{','.join(teachers)}\nguests:x:72003:\n"
    hashed = machine.run("openssl", "passwd", "-6", "-stdin", text=PASSWORD).strip()
    hashes = "".join(f"{name}:{hashed}:19000:0:99999:7:::\n" for name in uids)
    for file, text in (("passwd", "".join(lines)), ("group", groups), ("shadow", hashes)):
        machine.write(f"/var/lib/extrausers/{file}", text)


@pytest.fixture(scope="module")
def served(machine: Machine) -> Iterator[Machine]:
    """Serve PEOPLE; nobody of them is in /etc/passwd."""
    require(Path("/var/lib/extrausers").is_dir(), "the package libnss-extrausers is needed")
    serve(machine, PEOPLE, (ADA,))
    before = machine.run("cat", "/etc/nsswitch.conf")
    lines = re.sub(r"(?m)^(passwd|group|shadow):.*$", r"\1: files extrausers", before)
    machine.write("/etc/nsswitch.conf", lines)
    for name, uid in PEOPLE.items():
        if name != NEW:
            home = f"/home/u{uid}"
            machine.run("install", "-d", "-m", "700", "-o", str(uid), "-g", "72001", home)
    yield machine
    machine.write("/etc/nsswitch.conf", before)


@pytest.fixture(scope="module")
def hub(served: Machine, hubs: Hubs) -> Hub:
    return hubs.start(CONFIG, proxy=True)


def enter(hub: Hub, typed: str, password: str = PASSWORD) -> tuple[str, Browser]:
    """Log in; return the hub's name of who is logged in then, or ""."""
    _, _, browser = login(hub, {"username": typed, "password": password})
    return who(browser), browser


def who(browser: Browser) -> str:
    answer = browser.open("/hub/api/user")
    return answer.json["name"] if answer.status == 200 else ""


@pytest.mark.parametrize("name", [each for each in PEOPLE if PEOPLE[each] < 71008])
def test_people_of_the_directory_log_in_and_get_a_server(
    hub: Hub, served: Machine, name: str
) -> None:
    entered, browser = enter(hub, name)
    assert entered == name, hub.log[-3000:]
    assert enter(hub, name, "wrong")[0] == ""
    path = quote(name, safe="")
    events = hub.start_server(path)
    assert events[-1].get("ready"), events
    found = hub.server_json(path)
    uid = PEOPLE[name]
    assert (found["uid"], found["gid"], found["cwd"]) == (uid, 72001, f"/home/u{uid}")
    assert found["env"]["JUPYTERHUB_ROOT_DIR"] == f"/home/u{uid}/notebooks"
    assert found["env"].get("ROLE") == ("teacher" if name == ADA else None)
    assert browser.open(f"/user/{path}/").status == 200
    sent = urlsplit(browser.open("/hub/user-redirect/").url)
    assert unquote(sent.path) == f"/user/{name}/"
    hub.stop_server(path)


@pytest.mark.parametrize(("typed", "name"), ALIASES.items())
def test_all_forms_of_a_name_are_one_person(hub: Hub, typed: str, name: str) -> None:
    assert enter(hub, typed)[0] == name
    assert typed not in {user["name"] for user in hub.api("GET", "/users").json}


@pytest.mark.parametrize(
    ("name", "why"),
    [
        (MACHINE, "username_pattern"),
        (NUMBER, "username_pattern"),
        (GUEST, "not allowed"),
        (r"corp\\nobody-of-this-name", "PAM"),
        (r"corp\..\..\root", "PAM"),
        ("../../root", "username_pattern"),
        ("-rf", "username_pattern"),
        ("#71001", "username_pattern"),
        ("a; id", "username_pattern"),
        ("corp/ada.lovelace", "username_pattern"),
        ("ada@corp.example:x", "username_pattern"),
        ("x" * 129, "username_pattern"),
        ("root", "root"),
    ],
)
def test_the_wide_pattern_lets_in_nobody_else(hub: Hub, name: str, why: str) -> None:
    before = len(hub.log)
    status, entered, _ = login(hub, {"username": name, "password": PASSWORD})
    assert (status, entered) == (403, "")
    assert why in hub.log[before:]


def test_groups_of_the_directory_count(hub: Hub, served: Machine) -> None:
    def told(name: str) -> tuple[bool, set[str]]:
        found = hub.api("GET", f"/users/{quote(name)}").json
        return found["admin"], set(found["groups"])

    _, ada = enter(hub, ADA)
    assert told(ADA) == (True, {TEACHERS})
    enter(hub, "Alan.Turing")
    assert told("Alan.Turing") == (False, set())
    serve(served, PEOPLE, ())
    eventually_sync(lambda: who(ada) and told(ADA) == (False, set()), "she is a teacher no more")
    serve(served, PEOPLE, (ADA,))


def test_the_session_ends_of_who_is_gone_from_the_directory(hub: Hub, served: Machine) -> None:
    _, grace = enter(hub, "grace.hopper@corp.example")
    _, alan = enter(hub, "Alan.Turing")
    others = {name: uid for name, uid in PEOPLE.items() if uid != 71002}
    serve(served, others, (ADA,))
    eventually_sync(lambda: not who(grace), "her session has ended")
    assert who(alan) == "Alan.Turing"
    serve(served, PEOPLE, (ADA,))


def test_the_commands_run_and_make_home_folders(hub: Hub, served: Machine) -> None:
    look_up, make_homes = blocks("sh")
    served.run("sh", "-ec", look_up)
    assert enter(hub, NEW)[0] == NEW
    path = quote(NEW, safe="")
    assert "home" in str(hub.start_server(path)[-1])
    served.run("sh", "-ec", make_homes)
    assert hub.start_server(path)[-1].get("ready"), hub.log[-3000:]
    assert hub.server_json(path)["cwd"] == "/home/u71011"
    assert served.run("stat", "--format=%u %a", "/home/u71011").split() == ["71011", "700"]
    hub.stop_server(path)


def test_without_the_settings_these_names_are_a_failed_login(hubs: Hubs, served: Machine) -> None:
    plain = hubs.start("c.Authenticator.allow_all = True")
    for name in (*PEOPLE, *ALIASES):
        assert login(plain, {"username": name, "password": PASSWORD})[:2] == (403, "")


def test_the_single_user_server_itself_takes_these_names(hubs: Hubs, served: Machine) -> None:
    """With the warm launcher, which must be told of uids as large as a directory's."""
    server = str(Path(sys.executable).parent / "jupyterhub-singleuser")
    hub = hubs.start(
        CONFIG
        + f"c.Spawner.cmd = [{server!r}]\n"
        + "c.Spawner.http_timeout = 120\n"
        + "c.Spawner.start_timeout = 120\n"
        + "c.ProcessBackend.launcher = 'warm'\n"
        + "c.ProcessBackend.warm_uids = (1000, 79999)\n"
        + "c.Spawner.args = ['--HubOAuth.cache_max_age=1']\n",
        proxy=True,
    )
    for name in (ADA, "katherine johnson@corp.example", "zoë.müller@corp.example"):
        _, browser = enter(hub, name)
        path = quote(name, safe="@")
        events = hub.start_server(quote(name, safe=""))
        assert events[-1].get("ready"), (events, hub.log[-3000:])
        browser.open(f"/user/{path}/")
        answer = browser.open(f"/user/{path}/api/contents")
        assert answer.status == 200, answer.text
        assert answer.json["type"] == "directory"
    serve(served, {other: uid for other, uid in PEOPLE.items() if other != name}, (ADA,))
    eventually_sync(
        lambda: browser.open(f"/user/{path}/api/contents").status != 200,
        "who is gone has no access",
    )
    serve(served, PEOPLE, (ADA,))
