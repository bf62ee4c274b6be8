"""Accounts that are there: listed, given new passwords, locked, expired; ours alone."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from accounts.conftest import Machine
from accounts.users_command import Users

CLASS = "wsacct-c{1..2}"
NAMES = {"wsacct-c1", "wsacct-c2"}


@pytest.fixture
def users(machine: Machine, tmp_path: Path) -> Iterator[Users]:
    users = Users(machine, tmp_path)
    users.good("add", CLASS, "--url", "https://hub.example.org/")
    yield users
    users.remove_all()


def test_the_list_for_people_has_the_same_as_the_one_for_programs(users: Users) -> None:
    lines = users.good("list").splitlines()
    assert lines[0].split() == ["name", "uid", "full", "name", "groups", "state", "expires"]
    assert [line.split()[0] for line in lines[1:]] == sorted(users.list())


def test_a_new_password(users: Users) -> None:
    before = users.passwords()
    said = users.good("passwd", "wsacct-c1")
    after = users.passwords()
    assert before["wsacct-c1"] != after["wsacct-c1"]
    assert before["wsacct-c2"] == after["wsacct-c2"]
    assert after["wsacct-c1"] not in said
    assert after["wsacct-c1"] in (users.folder / "workshop-accounts.html").read_text()
    assert users.sheet()["wsacct-c1"]["address"] == "https://hub.example.org/"
    assert users.who_can_log_in(after) == NAMES
    assert users.who_can_log_in({"wsacct-c1": before["wsacct-c1"]}) == set()


def test_a_new_password_on_a_sheet_of_its_own(users: Users) -> None:
    words = ("--sheet", "lost.html", "--url", "http://hub.example.org")
    said = users.run("passwd", "wsacct-c2", *words)
    assert said.code == 0
    assert "1 of them is not on this sheet, lost.csv: wsacct-c2." in said.err
    assert "--sheet names it" in said.err
    assert users.run("passwd", "wsacct-c2", *words).err == ""
    assert list(users.sheet("lost")) == ["wsacct-c2"]
    assert users.who_can_log_in(users.passwords("lost")) == {"wsacct-c2"}
    assert users.who_can_log_in(users.passwords()) == {"wsacct-c1"}
    users.good("add", CLASS)
    assert users.passwords()["wsacct-c2"] == ""


def test_locked_and_unlocked(users: Users) -> None:
    assert "2 locked" in users.good("lock", CLASS)
    assert {each["state"] for each in users.list().values()} == {"locked"}
    assert users.who_can_log_in(users.passwords()) == set()
    before = users.state()
    said = users.good("add", CLASS)
    assert "wsacct-c1 is locked, and stays so." in said
    assert users.state() == before
    users.good("unlock", "wsacct-c1")
    assert users.who_can_log_in(users.passwords()) == {"wsacct-c1"}


def test_a_new_password_opens_no_lock(users: Users) -> None:
    users.good("lock", "wsacct-c1")
    said = users.good("passwd", CLASS).splitlines()
    assert "wsacct-c1: got a new password; it is locked, and stays so" in said
    assert "wsacct-c2: got a new password" in said
    assert "2 got a new password" in said
    assert users.list()["wsacct-c1"]["state"] == "locked"
    assert users.who_can_log_in(users.passwords()) == {"wsacct-c2"}
    before = users.state()
    users.good("add", CLASS)
    assert users.state() == before
    users.good("unlock", "wsacct-c1")
    assert users.who_can_log_in(users.passwords()) == NAMES


def test_expired_and_not(users: Users) -> None:
    users.good("expire", "wsacct-c1", "--on", "2001-02-03")
    users.good("expire", "wsacct-c2", "--on", "2199-02-03")
    found = {name: (each["state"], each["expires"]) for name, each in users.list().items()}
    assert found == {"wsacct-c1": ("expired", "2001-02-03"), "wsacct-c2": ("ready", "2199-02-03")}
    assert "expired" in users.good("list").splitlines()[1].split()
    assert users.who_can_log_in(users.passwords()) == {"wsacct-c2"}
    users.good("expire", "wsacct-c1", "--on", "never")
    assert users.list()["wsacct-c1"]["expires"] is None
    assert users.list()["wsacct-c1"]["state"] == "ready"
    assert users.who_can_log_in(users.passwords()) == NAMES


def test_nothing_but_expire_opens_what_has_expired(users: Users) -> None:
    users.good("expire", "wsacct-c1", "--on", "2001-02-03")
    users.good("lock", "wsacct-c1")
    users.good("expire", "wsacct-c2", "--on", "2199-02-03")
    before = users.state()
    for _ in range(2):
        said = users.good("add", CLASS, "--expires", "2199-12-31").splitlines()
        stays = "has expired on 2001-02-03, and stays so"
        command = "`workshop-hub users expire wsacct-c1 --on 2199-12-31` opens it"
        assert f"wsacct-c1 {stays}: {command}." in said
        keeps = "expires on 2199-02-03, and keeps that"
        command = "`workshop-hub users expire wsacct-c2 --on 2199-12-31` changes it"
        assert f"wsacct-c2 {keeps}: {command}." in said
        assert "2 there already" in said
        assert users.state() == before
    assert f"wsacct-c1 {stays}" in users.good("add", CLASS)
    said = users.good("add", CLASS, "--expires", "2199-12-31", "--dry-run")
    assert f"wsacct-c1 {stays}" in said
    assert "let it expire" not in said
    said = users.good("passwd", "wsacct-c1")
    assert "it is locked and it has expired on 2001-02-03, and stays so" in said
    said = users.good("unlock", "wsacct-c1")
    assert "wsacct-c1: unlocked; it has expired on 2001-02-03, and stays so" in said
    assert users.who_can_log_in(users.passwords()) == {"wsacct-c2"}
    users.good("expire", "wsacct-c1", "--on", "2199-12-31")
    assert users.who_can_log_in(users.passwords()) == NAMES


@pytest.mark.parametrize(
    "command",
    [("passwd",), ("lock",), ("unlock",), ("expire", "--on", "never"), ("archive",), ("remove",)],
)
def test_only_ours_and_never_the_systems(users: Users, command: tuple[str, ...]) -> None:
    users.machine.add("wsacct-theirs")
    said = users.refused(*command, "wsacct-c1", "wsacct-theirs", "daemon", "wsacct-theirs9", "root")
    assert "wsacct-theirs is not in the group workshop-hub" in said
    assert "daemon is an account of the system's (uid 1)" in said
    assert "root is an account of the system's (uid 0)" in said
    if command != ("remove",):
        assert "The machine has no account 'wsacct-theirs9'" in said
    said = users.refused(*command, "--force", "root", "daemon")
    assert "2 things are wrong" in said
    users.machine.run("userdel", "--remove", "wsacct-theirs")


def test_others_with_force(users: Users) -> None:
    users.machine.add("wsacct-theirs", password="one that they know")
    users.good("lock", "--force", "wsacct-theirs")
    assert users.who_can_log_in({"wsacct-theirs": "one that they know"}) == set()
    users.good("remove", "--yes", "--force", "wsacct-theirs")
    assert users.machine.entry("wsacct-theirs") is None


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (("passwd",), "give it a new password"),
        (("lock",), "lock its password"),
        (("unlock",), "unlock its password"),
        (("expire", "--on", "never"), "let it expire: never"),
        (("remove",), "remove the account and /home/wsacct-c1"),
        (("archive",), "pack /home/wsacct-c1 into /var/lib/workshop-hub/archive"),
    ],
)
def test_a_dry_run_does_nothing(users: Users, command: tuple[str, ...], said: str) -> None:
    before = users.state()
    assert f"wsacct-c1: would {said}\n" in users.good(*command, "wsacct-c1", "--dry-run")
    assert users.state() == before


def test_an_account_of_the_systems_in_our_group_is_none_of_ours(users: Users) -> None:
    users.machine.run("gpasswd", "--add", "daemon", "workshop-hub")
    assert "daemon" not in users.list()
    assert "an account of the system's" in users.refused("remove", "--yes", "--force", "daemon")
    users.machine.run("gpasswd", "--delete", "daemon", "workshop-hub")


# --- the end of accounts


def test_removing_asks_first(users: Users) -> None:
    before = users.state()
    done = users.run("remove", CLASS, text="n\n")
    assert (done.code, users.state()) == (1, before)
    assert "2 accounts are to be removed, with all files in their homes" in done.out
    assert "delete them on its admin page" not in done.out
    done = users.run("remove", CLASS, text="y\n")
    assert done.code == 0, done.err
    assert "delete them on its admin page before the names are used again" in done.out
    for name in NAMES:
        assert users.machine.entry(name) is None
        users.machine.run("test", "!", "-e", f"/home/{name}")
    assert "The machine does not have: wsacct-c1, wsacct-c2" in users.good("remove", "--yes", CLASS)


def start_sleeping(users: Users, name: str) -> int:
    """Start a process of an account's in the namespace; return its pid."""
    account = users.machine.entry(name)
    assert account
    ids = [f"--reuid={account.uid}", f"--regid={account.gid}", "--clear-groups"]
    text = 'setsid setpriv "$@" sleep 7777 >/dev/null 2>&1 & echo $!'
    return int(users.machine.run("sh", "-c", text, "sh", *ids))


@pytest.mark.parametrize("command", [("remove",), ("archive", "--remove")])
def test_nobody_is_removed_who_has_processes_unless_told_to(
    users: Users, tmp_path: Path, command: tuple[str, ...]
) -> None:
    pid = start_sleeping(users, "wsacct-c1")
    to = ["--to", str(tmp_path / "archive")] if command[0] == "archive" else []
    before = users.state()
    done = users.run(*command, "--yes", "wsacct-c1", *to)
    assert done.code == 1
    assert f"wsacct-c1: It has 1 running processes ({pid})" in done.err
    assert users.state() == before
    users.good(*command, "--yes", "--end-processes", "wsacct-c1", *to)
    assert users.machine.entry("wsacct-c1") is None
    assert not Path(f"/proc/{pid}").exists() or b"sleep" not in _command_line(pid)


def _command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def test_an_archive_is_roots_and_has_links_as_links(users: Users, tmp_path: Path) -> None:
    users.machine.run("sh", "-ec", "cd /home/wsacct-c1; echo text >file; ln -s /etc/shadow link")
    users.machine.run(
        "sh", "-ec", "cd /home/wsacct-c1; mkfifo pipe; echo no >closed; chmod 0 closed"
    )
    users.machine.run("chown", "-hR", "wsacct-c1:", "/home/wsacct-c1")
    folder = tmp_path / "archive"
    said = users.good("archive", "wsacct-c1", "--to", str(folder))
    assert "1 archived" in said
    assert "admin page" not in said
    (file,) = folder.iterdir()
    assert (file.stat().st_mode & 0o777, file.stat().st_uid) == (0o600, 0)
    assert folder.stat().st_mode & 0o777 == 0o700
    listed = users.machine.run("tar", "--list", "--verbose", f"--file={file}").splitlines()
    kinds = {line.split()[5].removeprefix("wsacct-c1/"): line[0] for line in listed}
    assert {name: kinds[name] for name in ("file", "link", "pipe", "closed")} == {
        "file": "-",
        "link": "l",
        "pipe": "p",
        "closed": "-",
    }
    assert users.machine.entry("wsacct-c1")


def test_archived_and_removed(users: Users, tmp_path: Path) -> None:
    folder = tmp_path / "archive"
    users.machine.write("/home/wsacct-c2/file", "text")
    said = users.good("archive", "--remove", "--yes", CLASS, "--to", str(folder))
    assert "2 archived and removed" in said
    assert "delete them on its admin page before the names are used again" in said
    assert not NAMES & set(users.list())
    (file,) = folder.glob("wsacct-c2-*")
    assert users.machine.run("tar", "-xOf", str(file), "wsacct-c2/file") == "text"


def test_what_could_not_be_archived_is_not_removed(users: Users, tmp_path: Path) -> None:
    """A disk that fills up; and another home than the account's own."""
    folder = tmp_path / "archive"
    folder.mkdir(mode=0o700)
    users.machine.run("mount", "-t", "tmpfs", "-o", "size=16k,mode=700", "full", str(folder))
    users.machine.run("sh", "-c", 'head -c 200000 /dev/urandom >"/home/wsacct-c1/large"')
    users.machine.run("sh", "-ec", "cd /home; mv wsacct-c2 wsacct-was; ln -s /etc wsacct-c2")
    done = users.run("archive", "--remove", "--yes", CLASS, "--to", str(folder))
    assert done.code == 1
    assert "wsacct-c1: tar failed" in done.err
    assert "wsacct-c2: Its home /home/wsacct-c2 is no folder of its own" in done.err
    assert set(users.list()) >= NAMES
    for name in NAMES:  # and can still log in
        assert users.machine.run("getent", "shadow", name).split(":")[7] != "1"
    assert users.machine.run("ls", "-A", str(folder)) == ""
    users.machine.run("umount", str(folder))
    users.machine.run("sh", "-ec", "cd /home; rm wsacct-c2; mv wsacct-was wsacct-c2")


def test_an_archive_does_not_go_where_others_may_write(users: Users, tmp_path: Path) -> None:
    folder = tmp_path / "archive"
    folder.mkdir()
    os.chmod(folder, 0o777)  # noqa: PTH101 -- whatever the umask is
    said = users.refused("archive", "wsacct-c1", "--to", str(folder))
    assert "can be changed by others" in said
