"""Which groups the hub gets, who is out of use, and which uid a user has."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import pytest
from jupyterhub import orm
from traitlets.config import Config

from workshop_hub.authenticator import WorkshopAuthenticator
from workshop_hub.errors import WorkshopError
from workshop_hub.kept_uids import KeptUids
from workshop_hub.system import accounts, shadow
from workshop_hub.system.accounts import Account, Membership
from workshop_hub.who import STANDING, Standing, synced

ADA = Account("ada", 1001, 1001, "/home/ada", "/bin/sh", (1001, 27, 998, 1100, 1101))
GROUPS = [("ada", 1001), ("sudo", 27), ("docker", 998), ("course-1", 1100), ("staff [new]", 1101)]


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        (["*"], {"course-1", "staff [new]"}),
        ([], set()),
        (["course-*"], {"course-1"}),
        (["COURSE-*"], set()),
        (["docker"], {"docker"}),
        (["d*", "sud?"], set()),
        (["*", "docker", "ada"], {"course-1", "staff [new]", "docker", "ada"}),
        (["staff [new]"], {"staff [new]"}),
        (["not-hers"], set()),
    ],
)
def test_groups_of_people_by_pattern_and_of_the_system_by_name(
    patterns: list[str], expected: set[str]
) -> None:
    assert synced(GROUPS, patterns, account=ADA, min_gid=1000) == expected


@pytest.mark.parametrize(
    ("name", "machines", "enters"),
    [
        ("ada", "ada", True),
        ("ada", "Ada", True),
        ("Ada", "Ada", True),
        ("ada@corp.example", r"corp\ada", False),
        ("ada", "ada@corp.example", False),
    ],
)
def test_another_form_of_an_accounts_name_does_not_get_past_the_options(
    name: str, machines: str, enters: bool, caplog: pytest.LogCaptureFixture
) -> None:
    person = WorkshopAuthenticator(config=Config(), log=logging.getLogger("workshop-test"))
    known = Standing(name, replace(ADA, name=machines), Membership())
    assert person.check_blocked_users(name, {"name": name, STANDING: known}) is enters
    assert ("pam_normalize_username" in caplog.text) is not enters


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("ada:$y$j9T$hash:19000:0:99999:7:::", ""),
        ("ada:!$y$j9T$hash:19000:0:99999:7:::", "it is locked"),
        ("ada:!!$6$hash:19000:0:99999:7:::", "it is locked"),
        ("ada:!:19000:0:99999:7:::", ""),
        ("ada:!!:19000:0:99999:7:::", ""),
        ("ada:!*:19000:0:99999:7:::", ""),
        ("ada:*:19000:0:99999:7:::", ""),
        ("ada:*LK*:19000:0:99999:7:::", ""),
        ("ada:!*NP*:19000:0:99999:7:::", ""),
        ("ada:!x:19000:0:99999:7:::", ""),
        ("ada:!KERBEROS:19000:0:99999:7:::", ""),
        ("ada:!ab123456789/.:19000:0:99999:7:::", "it is locked"),
        ("ada:!_J9..rasmBYk8r9AiWNc:19000:0:99999:7:::", "it is locked"),
        ("ada:$y$j9T$hash:19000:0:99999:7::19999:", "it has expired"),
        ("ada:$y$j9T$hash:19000:0:99999:7::20000:", "it has expired"),
        ("ada:$y$j9T$hash:19000:0:99999:7::20001:", ""),
        ("ada:$y$j9T$hash:19000:0:99999:7::-1:", ""),
        ("ada:broken", ""),
        ("adam:!$6$hash:19000:0:99999:7::1:", ""),
        ("", ""),
    ],
)
def test_locked_and_expired_accounts_are_out_of_use(tmp_path: Path, line: str, reason: str) -> None:
    file = tmp_path / "shadow"
    file.write_text(f"root:*:19000:0:99999:7:::\n{line}\n")
    assert shadow.out_of_use("ada", file, now=20000 * 86400 + 5) == reason


def test_where_shadow_cannot_be_read_nobody_is_out_of_use(tmp_path: Path) -> None:
    assert shadow.out_of_use("ada", tmp_path / "missing") == ""


def test_a_users_uid_is_kept_as_long_as_the_user(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'hub.sqlite'}"
    for _ in range(2):  # a hub, and the hub restarted
        db = orm.new_session_factory(url)()
        uids = KeptUids()
        assert uids.of(db, "nobody-of-this-name") is None
        if orm.User.find(db, "ada") is None:
            db.add(orm.User(name="ada"))
            db.commit()
            assert uids.of(db, "ada") is None
        assert uids.keep(db, "ada", 2**32 - 3) == 2**32 - 3
        assert uids.keep(db, "ada", 1002) == 2**32 - 3
        db.close()
    db = orm.new_session_factory(url)()
    db.delete(orm.User.find(db, "ada"))
    db.commit()
    db.add(orm.User(name="ada"))
    db.commit()
    assert KeptUids().keep(db, "ada", 1002) == 1002
    db.close()


async def test_who_cannot_be_looked_up_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory service that is down logs nobody out."""

    async def silent(*args: object, **options: object) -> None:
        raise WorkshopError("The machine's user database did not answer within 10 seconds.")

    monkeypatch.setattr(accounts, "off_loop", silent)
    person = WorkshopAuthenticator(config=Config())
    assert await person.refresh_user(orm.User(name="ada")) is True
