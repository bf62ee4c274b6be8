"""People make themselves accounts with a code: real accounts, a real hub, a real browser."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import urllib.parse
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from http.cookiejar import CookieJar
from pathlib import Path

import pytest
from accounts.browser import PHONE, Chromium, picture, too_wide
from accounts.conftest import PASSWORD, Hubs, Machine
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from selenium.common.exceptions import WebDriverException
from selenium.webdriver.common.by import By

from hubs import Answer, Browser, Hub, _send, words
from support import eventually_sync
from workshop_hub.policy.joining import FIELDS
from workshop_hub.system import join_account

CODE = "seven-green-bottles"
GROUP = "wsacct-j-course"

CONFIG = f"""
c.WorkshopAuthenticator.join_code = "{CODE}"
c.WorkshopAuthenticator.join_group = "{GROUP}"
"""

SITE = """
c.Authenticator.admin_users = {"wsacct-j-boss"}
c.Authenticator.allowed_users = {"wsacct-j-listed"}
c.Authenticator.blocked_users = {"wsacct-j-pest"}
c.Authenticator.username_map = {"wsacct-j-alias": "wsacct-j-real"}
c.WorkshopAuthenticator.join_max = 40
c.WorkshopAuthenticator.join_names = "wsacct-j-[a-z0-9]+"
c.WorkshopAuthenticator.add_user_hooks = {
    "after": [["sh", "-c", 'echo "$1" >>joined; [ ! -e broken ]', "-", "{username} {uid}"]]}
c.JupyterHub.template_paths = ["templates"]
"""

LOGIN_PAGE = """
{% extends "templates/login.html" %}
{% block login_container %}
  {% if join_url %}<a id="join" href="{{ join_url }}">Make yourself an account</a>{% endif %}
  {{ super() }}
{% endblock %}
"""


@pytest.fixture(scope="module")
def course(machine: Machine) -> Machine:
    machine.run("groupadd", GROUP)
    machine.run("groupadd", "wsacct-j-group")
    machine.run("mkdir", "/home/wsacct-j-leftover")
    machine.add("wsacct-j-there")
    return machine


@pytest.fixture(scope="module")
def hub(course: Machine, hubs: Hubs) -> Hub:
    hub = hubs.prepare(CONFIG + SITE)
    (hub.folder / "templates").mkdir()
    (hub.folder / "templates" / "login.html").write_text(LOGIN_PAGE)
    hub.start()
    course.add("wsacct-j-known")
    assert hub.api("POST", "/users/wsacct-j-known").status == 201
    course.run("userdel", "--force", "--remove", "wsacct-j-known")
    return hub


def join(
    hub: Hub, name: str, password: str = PASSWORD, again: str = "", code: str = CODE
) -> Answer:
    browser = Browser(hub.root)
    assert browser.open("/hub/join").status == 200
    form = {"username": name, "password": password, "password2": again or password, "code": code}
    return browser.open("/hub/join", form)


def enters(hub: Hub, name: str, password: str = PASSWORD) -> bool:
    return Browser(hub.root).login(name, password).status == 200


def test_who_has_the_code_gets_an_account_and_logs_in(hub: Hub, machine: Machine) -> None:
    answer = join(hub, " Wsacct-J-Ada ")  # as a telephone writes it
    assert answer.status == 200
    assert "Your account is ready. Its name is wsacct-j-ada ." in words(answer.text)
    assert re.search(r'href="/hub/login\?username=wsacct-j-ada"', answer.text)
    entry = machine.entry("wsacct-j-ada")
    assert entry
    assert entry.uid >= 1000
    assert machine.run("id", "--name", "--groups", entry.name).split() == [entry.name, GROUP]
    assert machine.run("stat", "-c", "%a %u", entry.home) == f"700 {entry.uid}\n"
    assert enters(hub, entry.name)
    assert not enters(hub, entry.name, "something else")
    assert f"{entry.name} {entry.uid}\n" in (hub.folder / "joined").read_text()
    assert not hub.api("GET", f"/users/{entry.name}").json["admin"]


def test_the_password_is_in_no_log_and_no_page(hub: Hub) -> None:
    secret = "correct horse battery"
    assert join(hub, "wsacct-j-secret", secret).status == 200
    again = join(hub, "wsacct-j-secret", secret)
    assert again.status == 409
    assert secret not in again.text
    assert 'value="wsacct-j-secret"' in again.text
    assert secret not in hub.log
    assert CODE not in hub.log
    assert again.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize(
    ("name", "status", "told"),
    [
        ("wsacct-j-there", 409, "is taken"),
        ("wsacct-j-group", 409, "is taken"),
        ("wsacct-j-leftover", 409, "is taken"),
        ("wsacct-j-known", 409, "is taken"),
        ("wsacct-j-boss", 409, "is taken"),
        ("wsacct-j-listed", 409, "is taken"),
        ("wsacct-j-pest", 409, "is taken"),
        ("wsacct-j-alias", 409, "is taken"),
        ("wsacct-j-real", 409, "is taken"),
        ("other", 400, "cannot be used"),
        ("root", 400, "cannot be used"),
        ("", 400, "Please choose a name"),
    ],
)
def test_names_that_are_somebody_elses(
    hub: Hub, machine: Machine, name: str, status: int, told: str
) -> None:
    before = machine.entries()
    answer = join(hub, name)
    assert answer.status == status
    assert told in words(answer.text)
    assert machine.entries() == before


@pytest.mark.parametrize(
    ("password", "again", "told"),
    [
        ("short", "", "at least 8 characters"),
        ("wsacct-j-pw", "", "neither your name nor the code"),
        (CODE.upper(), "", "neither your name nor the code"),
        ("aaaaaaaaaaaa", "", "3 different"),
        ("long enough", "long enougH", "are not the same"),
        ("tab\tin the middle", "", "cannot be seen"),
        ("new\nroot:line", "", "cannot be seen"),
        ("x" * 150 + "ab" * 40, "", "at most 200"),
    ],
)
def test_passwords_that_are_none(
    hub: Hub, machine: Machine, password: str, again: str, told: str
) -> None:
    answer = join(hub, "wsacct-j-pw", password, again)
    assert answer.status == 400
    assert told in words(answer.text)
    assert machine.entry("wsacct-j-pw") is None


def test_letters_of_all_alphabets(hub: Hub) -> None:
    password = 'пароль: ключ \\ "$(id)" \'ß'
    assert join(hub, "wsacct-j-alpha", password).status == 200
    assert enters(hub, "wsacct-j-alpha", password)


def test_a_form_without_its_token_is_asked_for_once_more(hub: Hub, machine: Machine) -> None:
    form = {"username": "wsacct-j-forged", "password": PASSWORD, "password2": PASSWORD}
    answer = Browser(hub.root).open("/hub/join", {**form, "code": CODE})
    assert answer.status == 403
    assert "once more" in words(answer.text)
    assert machine.entry("wsacct-j-forged") is None


@pytest.fixture
def rules(machine: Machine) -> Iterator[Machine]:
    """Have PAM refuse a new password as pam_pwquality does for root with enforce_for_root."""
    machine.write(
        "/etc/wsacct-rules-j",
        "#!/bin/sh\n[ -e /home/dragon ] || exit 0\n"
        "echo 'BAD PASSWORD: it is <b>based</b> on a beast'\nexit 1\n",
        "755",
    )
    before = machine.run("cat", "/etc/pam.d/chpasswd")
    rule = "password requisite pam_exec.so stdout quiet /etc/wsacct-rules-j\n"
    machine.write("/etc/pam.d/chpasswd", rule + before)
    yield machine
    machine.write("/etc/pam.d/chpasswd", before)


def test_the_machines_own_rules_are_told_and_nothing_is_left(hub: Hub, rules: Machine) -> None:
    rules.run("touch", "/home/dragon")
    answer = join(hub, "wsacct-j-fire", "a dragon it is")
    assert answer.status == 400
    assert "&lt;b&gt;based&lt;/b&gt; on a beast" in answer.text
    assert rules.entry("wsacct-j-fire") is None
    assert rules.run("ls", "/home").find("wsacct-j-fire") < 0
    rules.run("rm", "/home/dragon")
    assert join(hub, "wsacct-j-fire", "a lamb it is").status == 200
    assert enters(hub, "wsacct-j-fire", "a lamb it is")


def test_two_who_want_one_name_at_the_same_time(hub: Hub) -> None:
    with ThreadPoolExecutor() as pool:
        secrets = [f"the secret {number}" for number in range(4)]
        answers = list(pool.map(lambda secret: join(hub, "wsacct-j-twins", secret), secrets))
    assert sorted(answer.status for answer in answers) == [200, 409, 409, 409]
    winner = next(s for s, answer in zip(secrets, answers, strict=True) if answer.status == 200)
    assert [enters(hub, "wsacct-j-twins", secret) for secret in secrets] == [
        secret == winner for secret in secrets
    ]


def test_a_hook_that_fails_is_no_matter_of_the_one_who_registers(hub: Hub) -> None:
    (hub.folder / "broken").touch()
    assert join(hub, "wsacct-j-half").status == 200
    assert Browser(hub.root).login("wsacct-j-half", PASSWORD).status == 500
    assert join(hub, "wsacct-j-half", "another's password").status == 409
    (hub.folder / "broken").unlink()
    assert enters(hub, "wsacct-j-half")


class Address:
    """Somebody with an address of its own, as the hub's proxy tells it."""

    def __init__(self, hub: Hub, address: str) -> None:
        self.url = f"{hub.root}/hub/join"
        self.headers = {"X-Forwarded-For": address, "Accept": "text/html"}
        self.jar = CookieJar()
        self.token = ""
        self.ask()
        self.token = next(cookie.value or "" for cookie in self.jar if cookie.name == "_xsrf")

    def ask(self, body: bytes | None = None, kind: str = "") -> Answer:
        opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(self.jar))
        headers = {**self.headers, "X-Xsrftoken": self.token}
        if kind:
            headers["Content-Type"] = kind
        return _send(opener.open, urllib.request.Request(self.url, body, headers), 60)

    def post(self, **form: str) -> Answer:
        whole = {"username": "wsacct-j-x", "password": "12", "password2": "1", "code": CODE, **form}
        return self.ask(urllib.parse.urlencode(whole).encode())


def test_who_guesses_codes_has_to_wait_and_others_do_not(hub: Hub) -> None:
    guesser = Address(hub, "2001:db8:1:2::1")
    seen = [guesser.post(code=f"guess {number}") for number in range(20)]
    assert {answer.status for answer in seen} == {403}
    assert all("not the code of the workshop" in words(answer.text) for answer in seen)
    for again in (guesser, Address(hub, "2001:db8:1:2:3::4")):
        answer = again.post()
        assert answer.status == 429
        assert 0 < int(answer.headers["Retry-After"]) <= 10
        assert f"Please wait {answer.headers['Retry-After']} seconds" in words(answer.text)
    assert Address(hub, "2001:db8:1:3::1").post().status == 400
    assert Address(hub, "192.0.2.1").post(code="wrong").status == 403


texts = st.text(max_size=60) | st.sampled_from(
    ["", CODE, "wsacct-j-fuzz", PASSWORD, "root", "a" * 5000, "\0", "\ud7ff", "-rf", "{{7*7}}"]
)
bodies = (
    st.fixed_dictionaries({}, optional=dict.fromkeys((*FIELDS, "_xsrf", "x"), texts)).map(
        lambda form: (urllib.parse.urlencode(form).encode(), "")
    )
    | st.tuples(st.binary(max_size=300), st.sampled_from(["", "application/json", "text/plain"]))
    | st.tuples(
        st.binary(max_size=200).map(lambda raw: b"--b\r\n" + raw + b"\r\n--b--\r\n"),
        st.sampled_from(["multipart/form-data; boundary=b", "multipart/form-data"]),
    )
    | st.binary(max_size=60).map(lambda raw: (b"username=%ff&code=" + raw + b"&password=%00", ""))
)


@settings(
    max_examples=120,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
@given(body=bodies, address=st.ip_addresses(), token=st.booleans())
def test_no_form_makes_the_hub_fail(hub: Hub, body: tuple, address: object, token: bool) -> None:
    somebody = Address(hub, str(address))
    if not token:
        somebody.token = ""
    answer = somebody.ask(*body)
    assert answer.status in (200, 400, 403, 409, 429), answer.text
    assert "49" not in re.findall(r'name="username"\s+value="([^"]*)"', answer.text)


def test_when_it_is_full(course: Machine, hubs: Hubs) -> None:
    course.run("groupadd", "wsacct-j-small")
    course.add("wsacct-j-primary", "--gid", "wsacct-j-small")
    hub = hubs.start(
        CONFIG
        + "c.WorkshopAuthenticator.join_group = 'wsacct-j-small'\n"
        + "c.WorkshopAuthenticator.join_max = 2\n"
    )
    assert join(hub, "wsacct-j-last").status == 200
    answer = join(hub, "wsacct-j-late")
    assert answer.status == 403
    assert "All places of the workshop are taken" in words(answer.text)
    assert course.entry("wsacct-j-late") is None


@pytest.mark.parametrize(
    ("start", "end", "told"),
    [(1, None, "Registration opens on"), (-2, -1, "Registration has been closed since")],
)
def test_outside_of_its_hours(
    course: Machine, hubs: Hubs, start: int, end: int | None, told: str
) -> None:
    def date(hours: int | None) -> str:
        now = datetime.now(timezone(timedelta(hours=1)))
        return "" if hours is None else (now + timedelta(hours=hours)).isoformat()

    hub = hubs.start(
        CONFIG
        + f"c.WorkshopAuthenticator.join_from = '{date(start)}'\n"
        + f"c.WorkshopAuthenticator.join_until = '{date(end)}'\n"
    )
    assert told in words(Browser(hub.root).open("/hub/join").text)
    answer = join(hub, "wsacct-j-early")
    assert answer.status == 403
    assert told in words(answer.text)
    assert "(UTC+0100)" in answer.text
    assert course.entry("wsacct-j-early") is None


def test_without_a_code_there_is_no_such_page(hubs: Hubs) -> None:
    hub = hubs.start("c.Authenticator.allow_all = True\n")
    assert Browser(hub.root).open("/hub/join").status == 404


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ("join_code = 'short'", "join_code has 5 characters"),
        ("join_names = '('", "which is no regular expression"),
        ("join_from = '2027-03-01'", "it has no zone"),
        ("join_from = 'soon'", "no date with time and zone"),
        ("join_group = 'wsacct-j-nowhere'", "groupadd wsacct-j-nowhere"),
        ("join_group = 'shadow'", "below GID_MIN (1000)"),
        (
            "join_from = '2027-03-01T08:00Z'; "  # noqa: ISC004
            "c.WorkshopAuthenticator.join_until = '2027-03-01T09:00+01:00'",
            "is not before join_until",
        ),
    ],
)
def test_options_that_cannot_work_keep_the_hub_from_starting(
    course: Machine, hubs: Hubs, more: str, reason: str
) -> None:
    hub = hubs.prepare(f"{CONFIG}c.WorkshopAuthenticator.{more}\n")
    assert hub.launch().wait(120) != 0
    assert reason in hub.log


def run_program(machine: Machine, order: object, *, group: str = GROUP, most: int = 99) -> str:
    program = [sys.executable, "-I", "-m", join_account.__name__]
    text = order if isinstance(order, str) else json.dumps(order)
    return machine.run(*program, "--group", group, "--most", str(most), text=text)


def test_the_program_for_root_asks_nobody_whether_it_is_narrow(course: Machine) -> None:
    """What the hub refuses before, it refuses itself."""
    before = course.run("cat", "/etc/shadow")
    for name, outcome in {
        "root": "name",
        "docker": "name",
        "_chrony": "name",
        "-rf": "name",
        "A": "name",
        "x\n": "name",
        "wsacct-j-there": "taken",
        "wsacct-j-group": "taken",
        "wsacct-j-leftover": "taken",
    }.items():
        order = {"name": name, "password": "a password"}
        assert json.loads(run_program(course, order)) == {"outcome": outcome}
    for password in ("two\nroot:lines", "", "\0"):
        order = {"name": "wsacct-j-none", "password": password}
        assert json.loads(run_program(course, order))["outcome"] == "password"
    for group in ("shadow", "root", "wsacct-j-nowhere"):
        with pytest.raises(AssertionError, match="join_group"):
            run_program(course, {"name": "wsacct-j-none", "password": PASSWORD}, group=group)
    for order in ("", "[]", "{}", '"x"', "null", "\\", '{"name": "wsacct-j-none"}'):
        with pytest.raises(AssertionError, match="join_account: "):
            run_program(course, order)
    assert course.run("cat", "/etc/shadow") == before


class Stall:
    """PAM waits for ever when a password is set; until it is ended with those who wait for it."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.usual = machine.run("cat", "/etc/pam.d/chpasswd")
        machine.run("rm", "-f", "/home/stalled")
        script = "#!/bin/sh\necho $$ >/home/stalled\nexec sleep 600\n"
        machine.write("/etc/wsacct-stall", script, "755")
        rule = "password requisite pam_exec.so quiet /etc/wsacct-stall\n"
        machine.write("/etc/pam.d/chpasswd", rule)

    def pid(self) -> int:
        with suppress(AssertionError, ValueError):  # not yet, or not yet written
            return int(self.machine.run("cat", "/home/stalled"))
        return 0

    def kill(self) -> None:
        pid = eventually_sync(self.pid, "it waits for PAM")
        for each in (*ancestors(pid, join_account.__name__), pid):
            with suppress(ProcessLookupError):
                os.kill(each, signal.SIGKILL)

    def mend(self) -> None:
        self.machine.write("/etc/pam.d/chpasswd", self.usual)


@pytest.fixture
def stall(course: Machine) -> Iterator[Stall]:
    stall = Stall(course)
    yield stall
    stall.mend()


def test_killed_in_the_middle_and_called_again(course: Machine, stall: Stall) -> None:
    name = "wsacct-j-killed"
    order = {"name": name, "password": PASSWORD}
    with ThreadPoolExecutor() as pool:
        call = pool.submit(run_program, course, order)
        stall.kill()
        with pytest.raises(AssertionError):
            call.result()
    stall.mend()
    assert course.entry(name)
    assert json.loads(run_program(course, order)) == {"outcome": "made"}
    assert json.loads(run_program(course, order)) == {"outcome": "taken"}
    entry = course.entry(name)
    assert entry
    assert course.run("stat", "-c", "%u", entry.home) == f"{entry.uid}\n"


def test_the_hub_is_killed_in_the_middle(course: Machine, hubs: Hubs, stall: Stall) -> None:
    hub = hubs.start(CONFIG)
    with ThreadPoolExecutor() as pool:
        call = pool.submit(join, hub, "wsacct-j-again")
        eventually_sync(stall.pid, "it waits for PAM")
        hub.kill(signal.SIGKILL)
        stall.kill()
        with pytest.raises(OSError):
            call.result()
    stall.mend()
    hub.start()
    assert not enters(hub, "wsacct-j-again")
    assert join(hub, "wsacct-j-again", "another password").status == 200
    assert enters(hub, "wsacct-j-again", "another password")


def ancestors(pid: int, command: str) -> list[int]:
    """Return the processes above one, down from the one that runs this command."""
    found: list[int] = []
    while pid > 1:
        pid = int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])
        found.insert(0, pid)
        if command in Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " "):
            return found
    raise AssertionError("no such process")


def test_a_hub_that_is_not_root_needs_one_line_of_sudoers(course: Machine, hubs: Hubs) -> None:
    course.add("wsacct-j-hub", "--groups", "shadow")
    hub = hubs.prepare(CONFIG, as_user="wsacct-j-hub")
    assert hub.launch().wait(120) != 0
    rule = re.search(r"wsacct-j-hub ALL=\(root\) NOPASSWD: .*", hub.log)
    assert rule, hub.log
    assert "*" not in rule[0]
    course.write("/etc/sudoers.d/wsacct-j", rule[0] + "\n", mode="440")
    course.run("visudo", "--check", "--file=/etc/sudoers.d/wsacct-j")
    hub.start()
    assert join(hub, "wsacct-j-viasudo").status == 200
    assert enters(hub, "wsacct-j-viasudo")
    command = rule[0].partition("NOPASSWD: ")[2].replace("\\", "").split()
    me = ["setpriv", "--reuid=wsacct-j-hub", "--regid=wsacct-j-hub", "--init-groups"]
    order = json.dumps({"name": "wsacct-j-toor", "password": PASSWORD})
    for wider in (
        [*command[:-3], "sudo", *command[-2:]],
        [*command[:-1], "1000"],
        [*command, "--group", "sudo"],
        command[:-2],
    ):
        with pytest.raises(AssertionError, match="sudo:"):
            course.run(*me, "sudo", "-n", *wider, text=order)
    assert course.entry("wsacct-j-toor") is None


# --- in a browser


@pytest.mark.parametrize("javascript", [False, True])
@pytest.mark.parametrize("width", [PHONE, 1280])
def test_in_a_browser(hub: Hub, chromium: Chromium, width: int, javascript: bool) -> None:
    browser = chromium(width, javascript)
    shot = f"join-{width}-{'script' if javascript else 'plain'}"
    name = f"wsacct-j-b{width}{'js' if javascript else ''}"
    password = "a sentence of three words"

    def fill(**values: str) -> None:
        for field, value in values.items():
            place = browser.find_element(By.NAME, field)
            place.clear()
            place.send_keys(value)
        browser.find_element(By.ID, "join_submit").click()

    def reads(text: str) -> bool:
        with suppress(WebDriverException):  # the next page has just come
            return text in browser.find_element(By.TAG_NAME, "body").text
        return False

    browser.get(f"{hub.root}/hub/login")
    browser.find_element(By.ID, "join").click()
    eventually_sync(lambda: reads("Code of the workshop"), "the page")
    eventually_sync(lambda: too_wide(browser) <= 0, "a page that fits")
    picture(browser, f"{shot}-1-empty")
    fill(username=name.upper(), password=password, password2="another", code="seven-red-bottles")
    eventually_sync(lambda: reads("This is not the code"), "the page says what is wrong")
    assert reads("The two passwords are not the same.")
    assert browser.find_element(By.NAME, "username").get_attribute("value") == name
    assert browser.find_element(By.NAME, "password").get_attribute("value") == ""
    eventually_sync(lambda: too_wide(browser) <= 0, "a page that fits")
    picture(browser, f"{shot}-2-wrong")
    fill(password=password, password2=password, code=CODE)
    eventually_sync(lambda: reads("Your account is ready"), "the account is made")
    eventually_sync(lambda: too_wide(browser) <= 0, "a page that fits")
    picture(browser, f"{shot}-3-made")
    browser.find_element(By.ID, "log_in").click()
    eventually_sync(lambda: browser.find_elements(By.NAME, "password"), "the login page")
    assert browser.find_element(By.NAME, "username").get_attribute("value") == name
    browser.find_element(By.NAME, "password").send_keys(password)
    browser.find_element(By.ID, "login_submit").click()
    eventually_sync(lambda: "/hub/login" not in browser.current_url, "logged in")
    assert hub.api("GET", f"/users/{name}").status == 200
