"""Accounts in bulk: made once, whatever happens meanwhile, and all that is wrong said before."""

from __future__ import annotations

import signal
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from accounts.conftest import Machine
from accounts.users_command import COMMAND, Users

CLASS = "wsacct-u{1..4}"
NAMES = {f"wsacct-u{number}" for number in range(1, 5)}
URL = "https://hub.example.org/"


@pytest.fixture
def users(machine: Machine, tmp_path: Path) -> Iterator[Users]:
    users = Users(machine, tmp_path)
    machine.run("groupadd", "--force", "wsacct-course")
    yield users
    users.remove_all()


def test_made_with_homes_groups_expiry_and_passwords(users: Users) -> None:
    said = users.good("add", CLASS, "--groups", "wsacct-course", "--expires", "2199-12-31")
    assert "4 made" in said
    assert set(users.list()) == NAMES
    for each in users.list().values():
        assert (each["groups"], each["expires"], each["state"]) == (
            ["wsacct-course"],
            "2199-12-31",
            "ready",
        )
        entry = users.machine.entry(each["name"])
        assert entry
        home = users.machine.run("stat", "--format=%a %U %G", entry.home).split()
        assert home == ["700", entry.name, entry.name]
        assert entry.shell == "/bin/bash"
        skeleton = users.machine.run("ls", "-A", "/etc/skel").split()
        assert users.machine.run("ls", "-A", entry.home).split() == skeleton
    passwords = users.passwords()
    assert len(set(passwords.values())) == 4
    assert users.who_can_log_in(passwords) == NAMES


def test_the_sheet_is_for_root_alone_and_no_output_has_a_password(users: Users) -> None:
    said = users.run("add", CLASS, "--url", URL)
    for name in ("workshop-accounts.csv", "workshop-accounts.html"):
        assert stat.S_IMODE((users.folder / name).stat().st_mode) == 0o600
    page = (users.folder / "workshop-accounts.html").read_text()
    for name, password in users.passwords().items():
        assert page.count(f">{name}<") == page.count(f">{password}<") == 1
        assert password not in said.out + said.err
    assert page.count("<svg") == 4
    assert {row["address"] for row in users.sheet().values()} == {URL}


def test_twice_is_the_same_as_once(users: Users, tmp_path: Path) -> None:
    (tmp_path / "course").mkdir()
    (tmp_path / "course" / "intro.txt").write_text("hello")
    words = ("add", CLASS, "--groups", "wsacct-course", "--files", "course", "--url", URL)
    users.good(*words)
    before = users.state()
    page = (users.folder / "workshop-accounts.html").read_text()
    assert "4 there already" in users.good(*words)
    assert users.state() == before
    assert (users.folder / "workshop-accounts.html").read_text() == page


def test_a_later_run_adds_what_is_new(users: Users) -> None:
    users.good("add", "wsacct-u{1..2}")
    first = users.passwords()
    said = users.good("add", CLASS, "--groups", "wsacct-course", "--expires", "2199-01-01")
    assert "2 made" in said
    assert "2 changed" in said
    assert "wsacct-u1: changed; it expires on 2199-01-01, and did not before" in said
    assert {name: users.passwords()[name] for name in first} == first
    assert all(each["groups"] == ["wsacct-course"] for each in users.list().values())
    assert users.who_can_log_in(users.passwords()) == NAMES


def test_a_password_that_was_changed_is_left_and_is_not_on_the_sheet(users: Users) -> None:
    users.good("add", CLASS)
    users.machine.set_password("wsacct-u2", "a password of her own")
    users.good("add", "wsacct-u{1..3}")
    assert users.passwords()["wsacct-u2"] == ""
    users.good("add", "wsacct-u1")
    assert set(users.sheet()) == NAMES
    assert users.who_can_log_in({"wsacct-u2": "a password of her own"}) == {"wsacct-u2"}
    assert (
        "the one you were given, or have chosen"
        in (users.folder / "workshop-accounts.html").read_text()
    )


def test_what_another_sheet_knows_is_said_and_gets_no_slip_here(
    users: Users, tmp_path: Path
) -> None:
    users.good("add", "wsacct-u{1..3}")
    (tmp_path / "elsewhere").mkdir()
    here, users.folder = users.folder, tmp_path / "elsewhere"
    not_known = "2 of them are not on this sheet, workshop-accounts.csv: wsacct-u1, wsacct-u2."
    said = users.run("add", "wsacct-u{1..2}")
    assert said.code == 0
    assert not_known in said.err
    assert "Was a sheet made in another folder? --sheet names it." in said.err
    assert list(users.folder.iterdir()) == []
    users.good("passwd", "wsacct-u3")
    said = users.run("add", CLASS)
    assert not_known in said.err
    assert set(users.sheet()) == {"wsacct-u3", "wsacct-u4"}
    assert users.who_can_log_in(users.passwords()) == {"wsacct-u3", "wsacct-u4"}
    users.folder = here
    said = users.run("add", "wsacct-u{1..3}")
    assert (said.code, said.err) == (0, "")
    assert users.passwords()["wsacct-u3"] == ""
    page = (users.folder / "workshop-accounts.html").read_text()
    assert page.count("the one you were given, or have chosen") == 1


def test_a_name_that_comes_back_does_not_have_the_old_password(users: Users) -> None:
    users.good("add", CLASS)
    before = users.passwords()
    users.remove_all()
    users.good("add", CLASS)
    after = users.passwords()
    assert not set(before.values()) & set(after.values())
    assert users.who_can_log_in(before) == set()
    assert users.who_can_log_in(after) == NAMES


def test_a_list_of_people(users: Users, tmp_path: Path) -> None:
    (tmp_path / "people.csv").write_text(
        "\ufeffName;Full name;Password;Groups\r\n"
        "wsacct-ua;Ada Łovelace;correct: horse ü;\r\n"
        "\r\n"
        "wsacct-ub;<b>Bob</b>;;wsacct-course\r\n"
    )
    users.good("add", "--csv", "people.csv")
    found = users.list()
    assert found["wsacct-ua"]["full_name"] == "Ada Łovelace"
    assert found["wsacct-ub"]["groups"] == ["wsacct-course"]
    passwords = users.passwords()
    assert passwords["wsacct-ua"] == "correct: horse ü"
    assert users.who_can_log_in(passwords) == {"wsacct-ua", "wsacct-ub"}
    page = (users.folder / "workshop-accounts.html").read_text()
    assert "&lt;b&gt;Bob&lt;/b&gt;" in page
    before = users.state()
    assert "2 there already" in users.good("add", "--csv", "people.csv")
    assert users.state() == before


def test_a_given_password_does_not_replace_one_that_is_set(users: Users, tmp_path: Path) -> None:
    users.good("add", "wsacct-u1")
    (tmp_path / "people.csv").write_text("name,password\nwsacct-u1,another long one\n")
    assert "has another password than the given one" in users.good("add", "--csv", "people.csv")
    assert users.who_can_log_in(users.passwords()) == {"wsacct-u1"}


def test_all_that_is_wrong_is_said_before_anything_is_done(users: Users, tmp_path: Path) -> None:
    users.machine.add("wsacct-other")
    users.machine.run("groupadd", "--force", "wsacct-taken")
    users.machine.run("mkdir", "-p", "/home/wsacct-left")
    (tmp_path / "people.csv").write_text(
        "name,password,full name,groups\n"
        "wsacct-fine,,,\n"
        "wsacct-other,,,\n"
        "-rf,,,\n"
        "Capital,,,\n"
        "wsacct-short,abc,,\n"
        'wsacct-name,,"Lovelace, Ada",\n'
        "wsacct-group,,,nowhere sudo\n"
        "wsacct-taken,,,\n"
        "wsacct-left,,,\n"
        "root,,,\n"
        "wsacct-fine,tiny,,\n"
        ",,Nobody,nowhere\n"
        '"wsacct-open,,,\n'
        "wsacct-few,\n"
    )
    said = users.refused("add", "--csv", "people.csv", "--expires", "2001-01-01")
    for words in (
        "line 3: 'wsacct-other': the machine has that account already",
        "line 4: '-rf' can be no name: it begins with '-'",
        "line 5: 'Capital' can be no name",
        "line 6: 'wsacct-short': the password has 3 characters",
        "line 7: 'wsacct-name': the full name has a comma",
        "line 8: 'wsacct-group': The machine has no group 'nowhere'",
        "line 8: 'wsacct-group': The group 'sudo' gives its members root's rights",
        "line 9: 'wsacct-taken': the machine has a group of that name",
        "line 10: 'wsacct-left': /home/wsacct-left is there already, of uid 0",
        "line 11: 'root': the machine has that account already",
        "line 12: 'wsacct-fine' is in line 2 already",
        "line 12: 'wsacct-fine': the password has 4 characters",
        "line 13: the name is missing",
        "line 13: The machine has no group 'nowhere'",
        "line 14: a quote is opened in it, and not closed",
        "line 15 has 2 fields; the first has 4",
        "2001-01-01 is not in the future",
        "17 things are wrong; nothing was done",
    ):
        assert words in said
    assert "line 2: " not in said


def test_who_has_an_account_already_is_told_what_to_do_instead(users: Users) -> None:
    users.machine.add("wsacct-ada")
    said = users.refused("add", "wsacct-ada", "wsacct-ada", "daemon", "--groups", "nowhere")
    assert "4 things are wrong" in said
    assert "'wsacct-ada' is named twice" in said
    assert "Choose another name; or, if it is this person's, let them log in with it" in said
    assert "usermod --append --groups GROUP wsacct-ada" in said
    assert "'daemon': the machine has that account already" in said
    assert "GROUP daemon" not in said
    users.machine.run("userdel", "--remove", "wsacct-ada")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--groups", "nowhere,wheel"), "no group 'nowhere'"),
        (("--expires", "2001-01-01"), "not in the future"),
        (("--expires", "31.12.2199"), "is no date"),
        (("--quota", "much"), "is no size"),
        (("--quota", "5G"), "keeps no quotas"),
        (("--files", "/nowhere"), "/nowhere is no folder"),
        (("--files", "file:///nowhere.git"), "cannot be fetched"),
        (("--files", "https://ada:secret@example.org/x.git"), "has a password in it"),
        (("--url", "hub.example.org"), "is no address"),
        (("--sheet", "/nowhere/sheet"), "cannot be written"),
    ],
)
def test_refused_with_a_reason(users: Users, words: tuple[str, ...], said: str) -> None:
    assert said in users.refused("add", CLASS, *words)


def test_a_file_that_is_no_sheet_is_not_overwritten(users: Users, tmp_path: Path) -> None:
    for name, text in (("one.csv", "my,table\n1,2\n"), ("two.html", "<p>my page</p>")):
        (tmp_path / name).write_text(text)
        assert "is no sheet of accounts" in users.refused("add", CLASS, "--sheet", name)
        assert (tmp_path / name).read_text() == text


def test_a_sheet_that_others_may_write_is_not_believed(users: Users, tmp_path: Path) -> None:
    users.good("add", CLASS)
    sheet = tmp_path / "workshop-accounts.csv"
    sheet.chmod(0o666)
    assert "can be changed by others" in users.refused("add", CLASS)
    sheet.chmod(0o600)
    sheet.rename(tmp_path / "elsewhere")
    sheet.symlink_to("elsewhere")
    assert "cannot be read" in users.refused("add", CLASS)


def test_a_dry_run_says_all_and_does_nothing(users: Users, tmp_path: Path) -> None:
    (tmp_path / "course").mkdir()
    users.good("add", "wsacct-u1")
    before = users.state()
    words = ("--groups", "wsacct-course", "--files", "course", "--expires", "2199-12-31")
    said = users.good("add", "wsacct-u{1..2}", *words, "--dry-run").splitlines()
    make = "make the account, put it into workshop-hub, wsacct-course"
    rest = "let it expire on 2199-12-31, copy course into its home"
    assert said == [
        f"wsacct-u1: would put it into wsacct-course, {rest}",
        f"wsacct-u2: would {make}, {rest}, give it a new password",
        "Nothing was done (--dry-run).",
    ]
    assert users.state() == before


def test_nobody_but_root(users: Users) -> None:
    entry = users.machine.add("wsacct-plain")
    ids = [f"--reuid={entry.uid}", f"--regid={entry.gid}", "--clear-groups"]
    command = [*users.machine.enter, "setpriv", *ids, COMMAND, "users", "list"]
    done = subprocess.run(command, cwd="/", capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "Only root can look after accounts" in done.stderr


# --- starter files


def test_a_folder_is_copied_as_the_user_and_nothing_is_overwritten(
    users: Users, tmp_path: Path
) -> None:
    course = tmp_path / "course"
    (course / "data").mkdir(parents=True)
    (course / "data" / "run.sh").write_text("#!/bin/sh\n")
    (course / "data" / "run.sh").chmod(0o4755)
    (course / "link").symlink_to("data/run.sh")
    course.chmod(0o700)
    users.good("add", "wsacct-u{1..2}", "--files", "course")
    found = users.machine.run(
        "find", "/home/wsacct-u1/course", "-printf", "%P %u %g %m %l\\n"
    ).splitlines()
    assert sorted(found) == [
        " wsacct-u1 wsacct-u1 700 ",
        "data wsacct-u1 wsacct-u1 755 ",
        "data/run.sh wsacct-u1 wsacct-u1 755 ",
        "link wsacct-u1 wsacct-u1 777 data/run.sh",
    ]
    users.machine.run("rm", "-r", "/home/wsacct-u1/course", "/home/wsacct-u2/course/data")
    users.machine.write("/home/wsacct-u1/course", "mine")
    users.machine.write("/home/wsacct-u2/course/mine", "mine")
    assert "2 there already" in users.good("add", "wsacct-u{1..2}", "--files", "course")
    assert users.machine.run("cat", "/home/wsacct-u1/course") == "mine"
    assert users.machine.run("ls", "/home/wsacct-u2/course").split() == ["link", "mine"]


@pytest.mark.parametrize(
    "trap",
    [
        "ln -s /home/wsacct-target course",  # in the place of what comes
        "ln -s /home/wsacct-target .workshop-hub.new",  # in the place of where it is unpacked
        "mkdir .workshop-hub.new && ln -s /home/wsacct-target .workshop-hub.new/course",
    ],
)
def test_links_in_a_home_lead_nowhere(users: Users, tmp_path: Path, trap: str) -> None:
    (tmp_path / "course").mkdir()
    (tmp_path / "course" / "new").write_text("new")
    users.good("add", "wsacct-u1")
    users.machine.run(
        "sh", "-c", "mkdir -p /home/wsacct-target && echo kept >/home/wsacct-target/f"
    )
    users.machine.run("chmod", "777", "/home/wsacct-target")
    users.machine.run("sh", "-ec", f"cd /home/wsacct-u1 && {trap} && chown -hR wsacct-u1 .")
    users.good("add", "wsacct-u1", "--files", "course")
    assert users.machine.run("ls", "-A", "/home/wsacct-target").split() == ["f"]


def test_a_home_that_is_a_link_by_now_is_not_followed(users: Users, tmp_path: Path) -> None:
    (tmp_path / "course").mkdir()
    users.good("add", "wsacct-u1", "wsacct-u2")
    users.machine.run("mv", "/home/wsacct-u1", "/home/wsacct-moved")
    users.machine.run("ln", "-s", "/home/wsacct-u2", "/home/wsacct-u1")
    done = users.run("add", "wsacct-u1", "wsacct-u2", "--files", "course")
    users.machine.run("sh", "-c", "rm /home/wsacct-u1 && mv /home/wsacct-moved /home/wsacct-u1")
    assert done.code == 1
    assert "wsacct-u1: the files could not be copied" in done.err
    assert "1 changed, 1 failed" in done.out
    assert users.machine.run("ls", "/home/wsacct-u2").split() == ["course"]


def test_a_repository_is_cloned_once_for_all(users: Users, tmp_path: Path) -> None:
    git = ["git", "-c", "user.name=x", "-c", "user.email=x@example.org", "-C", str(tmp_path / "r")]
    subprocess.run(["git", "init", "--quiet", str(tmp_path / "r")], check=True)
    (tmp_path / "r" / "intro.txt").write_text("hello")
    subprocess.run([*git, "add", "."], check=True)
    subprocess.run([*git, "commit", "--quiet", "-m", "first"], check=True)
    (tmp_path / "r").rename(tmp_path / "lessons.git")
    users.good("add", "wsacct-u{1..2}", "--files", f"file://{tmp_path}/lessons.git")
    for name in ("wsacct-u1", "wsacct-u2"):
        home = f"/home/{name}/lessons"
        assert users.machine.run("cat", f"{home}/intro.txt") == "hello"
        as_user = ["setpriv", f"--reuid={name}", f"--regid={name}", "--init-groups"]
        seen = ["env", f"HOME=/home/{name}", "git", "-C", home]
        assert users.machine.run(*as_user, *seen, "status", "--porcelain") == ""
        assert users.machine.run(*as_user, *seen, "log", "--format=%s").strip() == "first"


# --- crashes

ONLY_PASSWD = r"""
REAL "$@"; eval "name=\${$#}"
sed -i "/^$name:/d" /etc/shadow /etc/group /etc/gshadow
sed -i "s/,$name\b//; s/\b$name\b,\?//" /etc/group /etc/gshadow
rm -r "/home/$name"; kill -9 $PPID; exit 0"""

ROOTS_HOME = r"""
REAL "$@"; eval "name=\${$#}"
rm -r "/home/$name"; mkdir "/home/$name"; kill -9 $PPID; exit 0"""

KILLS = {
    "before an account is made": ("useradd", "kill -9 $PPID; exit 1"),
    "after an account is made": ("useradd", 'REAL "$@"; kill -9 $PPID; exit 0'),
    "while an account is made": ("useradd", 'kill -9 $PPID; sleep 1; exec REAL "$@"'),
    "before a password is set": ("chpasswd", "kill -9 $PPID; exit 1"),
    "after a password is set": ("chpasswd", 'REAL "$@"; kill -9 $PPID; exit 0'),
    "while a password is set": ("chpasswd", 'kill -9 $PPID; sleep 1; exec REAL "$@"'),
    "when the power fails: only passwd(5) is written": ("useradd", ONLY_PASSWD),
    "when the power fails: the home is root's still": ("useradd", ROOTS_HOME),
}


def trap(folder: Path, program: str, act: str) -> str:
    """Put a program in front of the system's, which kills who calls it the third time."""
    place = folder / "bin"
    place.mkdir()
    real = f"/usr/sbin/{program}"
    (place / program).write_text(
        "#!/bin/sh\n"
        f'[ "$1" != -D ] || exec {real} "$@"\n'
        f"echo x >>{folder}/calls\n"
        f'[ "$(wc -l <{folder}/calls)" = 3 ] || exec {real} "$@"\n' + act.replace("REAL", real)
    )
    (place / program).chmod(0o755)
    return str(place)


@pytest.mark.parametrize("moment", list(KILLS))
def test_killed_and_run_again(users: Users, tmp_path: Path, moment: str) -> None:
    (tmp_path / "course").mkdir()
    (tmp_path / "course" / "intro.txt").write_text("hello")
    words = ("add", CLASS, "--groups", "wsacct-course", "--files", "course", "--url", URL)
    killed = users.run(*words, path=trap(tmp_path, *KILLS[moment]))
    assert killed.code == -signal.SIGKILL
    given = users.who_can_log_in(users.passwords())
    known = {name: users.passwords()[name] for name in given}
    users.good(*words)
    passwords = users.passwords()
    assert {name: passwords[name] for name in known} == known
    assert {"wsacct-u1", "wsacct-u2"} <= set(known)
    assert set(passwords) == NAMES
    assert users.who_can_log_in(passwords) == NAMES
    skeleton = set(users.machine.run("ls", "-A", "/etc/skel").split())
    for name, each in users.list().items():
        assert (each["groups"], each["state"]) == (["wsacct-course"], "ready")
        owners = users.machine.run("find", each["home"], "-printf", r"%u %g\n").splitlines()
        assert set(owners) == {f"{name} {name}"}
        assert users.machine.run("stat", "--format=%a", each["home"]).strip() == "700"
        assert set(users.machine.run("ls", "-A", each["home"]).split()) == skeleton | {"course"}
    before = users.state()
    assert "4 there already" in users.good(*words)
    assert users.state() == before
    users.machine.run("sh", "-ec", "pwck --read-only --quiet; grpck --read-only")


def test_one_that_fails_does_not_keep_it_from_the_others(users: Users, tmp_path: Path) -> None:
    path = trap(tmp_path, "useradd", "echo 'no space left on device' >&2; exit 12")
    done = users.run("add", CLASS, path=path)
    assert done.code == 1
    assert "3 made, 1 failed" in done.out
    assert "wsacct-u3: useradd failed (exit code 12): no space left on device" in done.err
    assert set(users.list()) == NAMES - {"wsacct-u3"}
    assert users.who_can_log_in(users.passwords()) == NAMES - {"wsacct-u3"}
    assert "3 there already, 1 made" in users.good("add", CLASS)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_between_two_people(
    users: Users, tmp_path: Path, number: signal.Signals
) -> None:
    path = trap(tmp_path, "useradd", f'kill -{number.value} $PPID; exec REAL "$@"')
    done = users.run("add", CLASS, path=path)
    assert done.code == 1
    assert "3 made, 1 left, because a signal ended this" in done.out
    assert done.err.splitlines() == ["Run the same command again to go on."]
    assert users.who_can_log_in(users.passwords()) == NAMES - {"wsacct-u4"}


def test_a_disk_that_fills_up(users: Users, tmp_path: Path) -> None:
    """Where the sheet cannot be written, no password is set that nobody knows."""
    full = tmp_path / "full"
    full.mkdir()
    users.machine.run("mount", "-t", "tmpfs", "-o", "size=64k", "full", str(full))
    path = trap(tmp_path, "useradd", f'REAL "$@"; cat /dev/zero >{full}/filler; exit 0')
    words = ("add", CLASS, "--sheet", str(full / "sheet"))
    done = users.run(*words, path=path)
    assert done.code == 1
    assert "2 made, 3 failed" in done.out
    assert "sheet.csv cannot be written: No space left on device" in done.err
    assert "sheet.html cannot be written: No space left on device" in done.err
    states = {name: each["state"] for name, each in users.list().items()}
    assert [states[name] for name in sorted(NAMES)] == ["ready", "ready", "half made", "half made"]
    users.machine.run("rm", f"{full}/filler")
    assert "2 there already, 2 completed" in users.good(*words)
    users.machine.run("cp", str(full / "sheet.csv"), str(tmp_path / "workshop-accounts.csv"))
    assert users.who_can_log_in(users.passwords()) == NAMES
    users.machine.run("umount", str(full))
