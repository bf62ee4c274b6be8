"""Names, shells and uids: who is a person."""

from __future__ import annotations

import grp
import pwd
from pathlib import Path

import pytest

from workshop_hub.system import accounts
from workshop_hub.system.accounts import Account

SHELLS = frozenset({"/bin/sh", "/bin/bash"})


def account(**changes: object) -> Account:
    fields = {
        "name": "ada",
        "uid": 1000,
        "gid": 1000,
        "home": "/home/ada",
        "shell": "/bin/bash",
        "groups": (1000,),
    }
    return Account(**{**fields, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "name", ["ada", "a.b", "CORP\\ada", "ada@example.org", "_svc", "Ärger", "a b", "x" * 255]
)
def test_names_that_a_site_may_allow(name: str) -> None:
    assert accounts.unsafe_name(name) == ""


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("", "empty"),
        ("x" * 256, "256 characters"),
        ("-rf", "begins with"),
        ("#1000", "begins with"),
        ("+ada", "begins with"),
        ("~ada", "begins with"),
        ("%wheel", "begins with"),
        ("1000", "number"),
        ("١٢٣", "number"),
        ("../x", "path"),
        ("a/b", "path"),
        (".", "path"),
        ("..", "path"),
        ("a:b", "field"),
        ("a,b", "field"),
        ("a\nb", "field"),
        (" ada", "space"),
        ("ada ", "space"),
        ("a\0b", "seen"),
        ("a\tb", "seen"),
        ("a\x7fb", "seen"),
        ("a\u202eb", "seen"),
        ("a\u200bb", "seen"),
        ("a\u2028b", "seen"),
        ("a\ud800b", "seen"),
    ],
)
def test_names_that_programs_would_misread(name: str, reason: str) -> None:
    assert reason in accounts.unsafe_name(name)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, ""),
        ({"shell": ""}, ""),
        ({"uid": 0}, "root"),
        ({"uid": 999}, "below min_uid (1000)"),
        ({"uid": 65534}, "nobody"),
        ({"uid": 65534, "name": "ada"}, "nobody"),
        ({"uid": 1001, "name": "nobody"}, "nobody"),
        ({"uid": 2**32 - 1}, "nobody"),
        ({"uid": 1_800_000_000}, ""),
        ({"shell": "/usr/sbin/nologin"}, "lets nobody log in"),
        ({"shell": "/sbin/nologin"}, "lets nobody log in"),
        ({"shell": "/bin/false"}, "lets nobody log in"),
        ({"shell": "/opt/odd/shell"}, "not in /etc/shells"),
    ],
)
def test_who_is_a_person(changes: dict[str, object], reason: str) -> None:
    found = accounts.not_a_person(account(**changes), min_uid=1000, shells=SHELLS)
    assert (reason in found) if reason else found == ""


def test_a_listed_nologin_still_lets_nobody_in() -> None:
    nologin = account(shell="/usr/sbin/nologin")
    assert accounts.not_a_person(nologin, min_uid=1000, shells=SHELLS | {"/usr/sbin/nologin"})


def test_any_shell_where_the_site_says_so_but_never_root() -> None:
    assert accounts.not_a_person(account(shell="/bin/false"), min_uid=500, shells=None) == ""
    assert accounts.not_a_person(account(uid=0), min_uid=0, shells=None)


def test_shells_are_read_as_shells_5_writes_them(tmp_path: Path) -> None:
    listed = tmp_path / "shells"
    listed.write_text("# valid shells\n/bin/sh\n\n/bin/bash  \nrelative\n")
    assert accounts.login_shells([tmp_path / "absent", listed]) == {"/bin/sh", "/bin/bash"}
    assert "/bin/sh" in accounts.login_shells([tmp_path / "absent"])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("UID_MIN 500\n", 500),
        ("# UID_MIN 500\n", 1000),
        ("UID_MIN\t\t 2000 # people\n", 2000),
        ("UID_MIN x\n", 1000),
        ("", 1000),
    ],
)
def test_uid_min(tmp_path: Path, text: str, expected: int) -> None:
    defs = tmp_path / "login.defs"
    defs.write_text(text)
    assert accounts.uid_min(defs) == expected


def test_primary_and_supplementary_groups_count_and_missing_ones_are_named() -> None:
    root = accounts.find("root")
    other = next(group.gr_name for group in grp.getgrall() if group.gr_gid not in root.groups)
    found = accounts.membership(root, ["root", other, "no-such-group", "a\0b"])
    assert found.groups == {"root"}
    assert found.missing == {"no-such-group", "a\0b"}
    assert accounts.membership(None, ["root"]).groups == frozenset()


def test_an_empty_field_in_shadow_is_an_empty_password(tmp_path: Path) -> None:
    name = pwd.getpwuid(0).pw_name
    shadow = tmp_path / "shadow"
    shadow.write_text(f"other::1::::::\n{name}::19000:0:99999:7:::\n")
    assert accounts.has_empty_password(name, shadow)
    shadow.write_text(f"other::1::::::\n{name}:*:19000:0:99999:7:::\n")
    assert not accounts.has_empty_password(name, shadow)
    assert not accounts.has_empty_password(name, tmp_path / "absent")
    assert not accounts.has_empty_password("no-such-account", shadow)


def test_what_the_machines_own_file_has_is_known_without_a_directory(tmp_path: Path) -> None:
    file = tmp_path / "passwd"
    file.write_bytes(
        b"root:x:0:0::/root:/bin/sh\nada:x:1001:1001::/home/ada:/bin/sh\n\xff:x:7:7:::\n"
    )
    assert accounts.in_passwd("root", file)
    assert accounts.in_passwd("ada", file)
    assert accounts.in_passwd("\udcff", file)
    for name in ("ad", "da", "Ada", "x", "", "\ud800"):
        assert not accounts.in_passwd(name, file)
    assert not accounts.in_passwd("ada", tmp_path / "missing")
