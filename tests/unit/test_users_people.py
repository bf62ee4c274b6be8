"""What is decided about people before any account is looked at: names, lists, passwords, plans."""

from __future__ import annotations

import datetime
import math
import re
import tarfile
from pathlib import Path

import pytest
from click.testing import CliRunner

from workshop_hub.cli import main
from workshop_hub.errors import UsersRefused
from workshop_hub.people import (
    checks,
    hashes,
    names,
    ours,
    passwords,
    quota,
    slips,
    starter,
    wanted,
)
from workshop_hub.people.ours import GROUP, Found, Secret
from workshop_hub.people.plan import Settings, plan
from workshop_hub.people.sheet import Row, Sheet
from workshop_hub.people.wanted import Wanted


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("ada", ["ada"]),
        ("t{08..11}", ["t08", "t09", "t10", "t11"]),
        ("t{8..11}", ["t8", "t9", "t10", "t11"]),
        ("t{1..002}", ["t001", "t002"]),
        ("team-{a,b}{1..2}", ["team-a1", "team-a2", "team-b1", "team-b2"]),
        ("{x,}y", ["xy", "y"]),
    ],
)
def test_patterns(pattern: str, expected: list[str]) -> None:
    assert names.expand(pattern) == expected


@pytest.mark.parametrize(
    "pattern",
    ["t{1..3", "t1..3}", "t{}", "t{a}", "t{3..1}", "t{{1,2},3}", "t{1..2000}", "t{1..99}{1..99}"],
)
def test_patterns_that_mean_nothing(pattern: str) -> None:
    with pytest.raises(UsersRefused, match=re.escape(pattern)):
        names.expand(pattern)


def test_all_that_is_wrong_with_names_is_said_at_once() -> None:
    with pytest.raises(UsersRefused) as error:
        names.expand_all(["t{1..3", "t{a}", "ada", "ada"])
    assert error.value.message == "3 things are wrong; nothing was done."
    assert "'ada' is named twice." in error.value.log


def csv_file(folder: Path, text: str | bytes) -> Path:
    file = folder / "people.csv"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return file


def test_a_list_of_people(tmp_path: Path) -> None:
    text = 'name,password,full_name,GROUPS\n ada ," a, b ","A"" L",x  y x\r\n\n,,,\nbob,,,\n'
    ada, bob = wanted.from_csv(csv_file(tmp_path, text))
    assert ada == Wanted("ada", " a, b ", 'A" L', ("x", "y"), "line 2: 'ada'")
    assert bob == Wanted("bob", where="line 5: 'bob'")
    assert " a, b " not in repr(ada)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "names no column `name`"),
        ("login\nada\n", "names no column `name`"),
        ("name,shell\nada,x\n", "the column 'shell' is unknown"),
        ("name,name\nada,x\n", "is there twice"),
        ("name\n", "names nobody"),
        ('\nname,"password\nada,\n', "line 2: a quote is opened in it, and not closed"),
        (b"name\nbj\xf6rn\n", "line 2 is not UTF-8"),
        ("name\n" + "x" * (1 << 20), "is larger than"),
        ("name\n" + "".join(f"u{n}\n" for n in range(1001)), "it has 1001 people"),
    ],
)
def test_lists_that_are_refused(tmp_path: Path, text: str | bytes, said: str) -> None:
    with pytest.raises(UsersRefused) as error:
        wanted.from_csv(csv_file(tmp_path, text))
    assert said in str(error.value)


def test_what_is_wrong_with_lines_is_said_of_each_of_them(tmp_path: Path) -> None:
    text = 'name,password\nada\n"bob,one\ncyd,"two"x\neve,,,\nfay,three\n,four\n,\nfay,five\n,six\n'
    people = wanted.from_csv(csv_file(tmp_path, text))
    assert [each.problem for each in people] == [
        "line 2 has 1 field; the first has 2.",
        "line 3: a quote is opened in it, and not closed.",
        "line 4: ',' expected after '\"'.",
        "line 5 has 4 fields; the first has 2.",
        "",
        "",
        "line 9: 'fay' is in line 6 already.",
        "",
    ]
    assert [each.name for each in people] == ["", "", "", "", "fay", "", "fay", ""]


def test_what_is_wrong_with_names_on_the_command_line_is_said_of_each_of_them() -> None:
    people = wanted.by_name(["t{1..3", "ada", "{ada,bob}"])
    assert [(each.name, each.problem) for each in people][1:] == [
        ("ada", ""),
        ("ada", "'ada' is named twice."),
        ("bob", ""),
    ]
    assert "'t{1..3' has a brace without its other one" in people[0].problem
    with pytest.raises(UsersRefused, match="These are 1001 names"):
        wanted.by_name(["t{1..1000}", "ada"])


def test_a_list_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsersRefused, match="No such file"):
        wanted.from_csv(tmp_path / "nowhere.csv")


def test_passwords_have_the_bits_that_they_are_said_to_have() -> None:
    words = passwords.words()
    assert len(set(words)) == len(words) == 1024
    assert all(re.fullmatch("[a-z]{3,6}", word) for word in words)
    made = {passwords.generate() for _ in range(200)}
    assert len(made) == 200
    for each in made:
        parts = each.split("-")
        assert len(parts) * math.log2(len(words)) == 40
        assert set(parts) <= set(words)
        assert not passwords.problem(each)


@pytest.mark.parametrize("password", ["", "short", "with\nnewline", "tab\there!", "x" * 501])
def test_passwords_that_cannot_be_given(password: str) -> None:
    assert passwords.problem(password)


def test_hashes_are_those_of_the_machine() -> None:
    # openssl passwd -5 -salt saltstring "Hello world!"
    hashed = "$5$saltstring$5B8vYYiY.CVt1RlTTf8KbXBH3hsxY/GNooZaBBGWEc5"
    assert hashes.fits("Hello world!", hashed)
    assert not hashes.fits("Hello world", hashed)
    for none in ("", "*", "x"):
        assert not hashes.fits("", none)


def test_a_hash_that_is_made_is_that_passwords_alone() -> None:
    first, second = hashes.make("Hello world! ü"), hashes.make("Hello world! ü")
    assert first != second
    for hashed in (first, second):
        assert hashes.fits("Hello world! ü", hashed)
        assert not hashes.fits("Hello world!", hashed)
        assert ":" not in hashed


def test_slips_say_everything_and_run_nothing() -> None:
    rows = [
        Row("ada", "<b>&amp;\"'", "Ada <script>", "https://hub.example.org/?a=1&b=2", 1),
        Row("bob", "", "", "", 2),
    ]
    page = slips.page(rows)
    assert slips.MARK in page[:1000]
    assert "<script" not in page
    assert "&lt;b&gt;&amp;amp;&quot;&#x27;" in page
    assert page.count("<svg") == 1
    assert slips.UNKNOWN in page


def test_a_sheet_comes_back_as_it_was(tmp_path: Path) -> None:
    sheet = Sheet(tmp_path / "class.html")
    row = Row("ada", ' "a", b; ü', "Ada", "http://x", 1001)
    sheet.put(row)
    sheet.print()
    again = Sheet(tmp_path / "class")
    again.read()
    assert again.rows == {"ada": row}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["class.csv", "class.html"]
    assert row.password not in repr(row)


def test_a_draft_that_a_killed_run_left_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / ".class.csv.new").symlink_to("elsewhere")
    sheet = Sheet(tmp_path / "class")
    sheet.put(Row("ada", "x", "", "", 1))
    assert not (tmp_path / "elsewhere").exists()
    assert (tmp_path / "class.csv").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("/srv/course", "course"),
        ("/srv/course/", "course"),
        ("https://example.org/a/lessons.git", "lessons"),
        ("https://example.org/a/lessons/", "lessons"),
        ("git@example.org:a/lessons.git", "lessons"),
        ("git@example.org:lessons", "lessons"),
    ],
)
def test_what_files_are_called(source: str, name: str) -> None:
    assert starter.name_of(source) == name


@pytest.mark.parametrize("source", ["https://example.org", "https://example.org/.git", "/"])
def test_files_without_a_name(source: str) -> None:
    with pytest.raises(UsersRefused, match="has no name"):
        starter.name_of(source)


def test_what_is_neither_file_nor_folder_is_refused(tmp_path: Path) -> None:
    import os

    (tmp_path / "course").mkdir()
    os.mkfifo(tmp_path / "course" / "pipe")
    with pytest.raises(UsersRefused, match="pipe is neither a file"):
        starter.pack(tmp_path, {"course": tmp_path / "course"})


def test_an_archive_has_no_owners_and_no_special_rights(tmp_path: Path) -> None:
    (tmp_path / "course").mkdir()
    (tmp_path / "course" / "run").write_text("x")
    (tmp_path / "course" / "run").chmod(0o6777)
    made = starter.pack(tmp_path, {"course": tmp_path / "course"})
    with tarfile.open(made.file) as archive:
        found = {each.name: (each.mode, each.uid, each.uname) for each in archive}
    assert found["course/run"] == (0o755, 0, "")


NEVER = Secret("$y$x", locked=False, expires=None)


def found(secret: Secret | None = NEVER, groups: frozenset[str] = frozenset({GROUP})) -> Found:
    return Found("ada", 1001, 1001, "/home/ada", "/bin/bash", "", True, groups, secret)


def test_who_is_half_made(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not found().half_made
    assert found(None).half_made
    assert found(None, frozenset()).half_made
    assert found(ours._secret("!", "")).half_made
    assert found(ours._secret("!!", "")).half_made
    assert not found(ours._secret("!$y$x", "")).half_made


def test_what_is_left_to_do() -> None:
    day = datetime.date(2199, 1, 1)
    settings = Settings(groups=("course",), expires=day, quota=5, files=("a",))
    new = plan(Wanted("ada"), None, settings, ["a"], "")
    assert (new.make, new.set_password, new.groups) == (True, True, (GROUP, "course"))
    assert len(new.steps) == 6
    half = plan(Wanted("ada", "given one"), found(None), settings, [], "")
    assert (half.make, half.mend, half.set_password) == (False, True, True)
    whole = found(Secret("$y$x", locked=False, expires=day), frozenset({GROUP, "course"}))
    done = plan(Wanted("ada"), whole, Settings(("course",), day), [], "known")
    assert (done.steps, done.password, done.notes) == ([], "known", ())
    for of_before in (whole, found(Secret("", locked=True, expires=day))):
        later = plan(
            Wanted("ada"), of_before, Settings(expires=day + datetime.timedelta(1)), [], ""
        )
        assert later.expires is None
        assert "expires on 2199-01-01, and keeps that" in later.notes[0]
    other = plan(Wanted("ada", "given one"), whole, Settings(), [], "")
    assert other.notes == ("has another password than the given one, and keeps it",)


@pytest.mark.parametrize("text", ["tomorrow", "2026-1-1", "20260101", "2026-02-30", "1970-01-01"])
def test_days_that_are_none(text: str) -> None:
    with pytest.raises(UsersRefused):
        checks.day(text)


@pytest.mark.parametrize("name", ["Lovelace, Ada", "a:b", "=1+1", "@x", "a\nb", "x" * 201])
def test_full_names_that_cannot_be(name: str) -> None:
    assert checks.full_name_problem(name)


def test_the_command_asks_for_names_or_a_list(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 0)
    said = CliRunner().invoke(main, ["users", "add"])
    assert said.exit_code == 1
    assert "Give either NAMES or --csv FILE." in said.output
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    said = CliRunner().invoke(main, ["users", "list"])
    assert "Only root can look after accounts" in said.output


def test_what_a_folder_lies_on() -> None:
    assert quota.mounted_on(Path("/proc/self")) == ("proc", Path("/proc"))
    with pytest.raises(UsersRefused, match=r"/proc/self \(proc at /proc\) keeps no quotas"):
        quota.require(Path("/proc/self"))


def test_a_quota_is_told_in_whole_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "setquota"
    program.write_text(f'#!/bin/sh\necho "$@" >{tmp_path}/said\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    quota.set_limit("ada", 1025, Path("/home"))
    assert (tmp_path / "said").read_text() == "-u ada 2 2 0 0 /home\n"
