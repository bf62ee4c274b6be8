"""The accounts of a benchmark's users: made, given fresh homes, removed."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from bench import machine

PREFIX = "wshbench"
COMMENT = "workshop-hub benchmark"
"""In the account's entry: what a benchmark that was killed has left is taken over by the next."""

END_DEADLINE = 10.0
"""Seconds for killed processes to be gone."""


class NameTaken(Exception):
    """An account of that name exists and is not ours."""


@dataclass(frozen=True)
class User:
    """One of them, as the machine knows it."""

    name: str
    uid: int
    gid: int
    home: Path


def user_names(number: int) -> list[str]:
    """Return the names of so many users."""
    return [f"{PREFIX}{each:03d}" for each in range(1, number + 1)]


class Accounts:
    """Real accounts of this machine, while the context lasts."""

    def __init__(self, number: int) -> None:
        self.names = user_names(number)

    def __enter__(self) -> Accounts:
        for name in self.names:
            with suppress(KeyError):
                if pwd.getpwnam(name).pw_gecos != COMMENT:
                    raise NameTaken(f"There is an account {name} that no benchmark has made.")
        try:
            for name in self.names:
                _make(name)
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, at: TracebackType | None
    ) -> None:
        self._remove()

    def users(self, number: int) -> list[User]:
        """Return the first so many users."""
        return [_user(name) for name in self.names[:number]]

    def freshen(self) -> None:
        """End all processes of the users and give them the homes of new accounts."""
        users = self.users(len(self.names))
        end_processes({each.uid for each in users})
        for user in users:
            shutil.rmtree(user.home, ignore_errors=True)
            shutil.copytree("/etc/skel", user.home, symlinks=True)
            for path in (user.home, *user.home.rglob("*")):
                os.chown(path, user.uid, user.gid, follow_symlinks=False)
            user.home.chmod(0o700)

    def _remove(self) -> None:
        there = [_user(name) for name in self.names if _exists(name)]
        end_processes({each.uid for each in there})
        for user in there:
            command = ["userdel", "--force", "--remove", user.name]
            subprocess.run(command, check=False, capture_output=True)


def end_processes(uids: set[int]) -> None:
    """Kill all processes of users whom nobody but the benchmark has made."""
    end = time.monotonic() + END_DEADLINE
    while left := machine.owned_by(uids, machine.processes()):
        for each in left:
            with suppress(ProcessLookupError):
                os.kill(each.pid, 9)
        if time.monotonic() > end:
            raise TimeoutError(f"These processes do not end: {[each.pid for each in left]}")
        time.sleep(0.05)


def _make(name: str) -> None:
    if not _exists(name):
        command = ["useradd", "--create-home", "--shell", "/bin/bash", "--comment", COMMENT, name]
        subprocess.run(command, check=True)


def _user(name: str) -> User:
    account = pwd.getpwnam(name)
    return User(name, account.pw_uid, account.pw_gid, Path(account.pw_dir))


def _exists(name: str) -> bool:
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True
