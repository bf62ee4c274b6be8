"""The account that a demo's servers run as: never root, and gone afterwards if it was ours."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pwd
import secrets
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from workshop_hub.errors import AccountCreationFailed, UsersFailed
from workshop_hub.people import running
from workshop_hub.system import pam

NAME = "workshop-demo"
COMMENT = "made by workshop-hub demo"
"""GECOS field by which an account that a killed demo left is known to be ours."""

LOCKS = Path("/run")
SBIN = "/usr/local/sbin:/usr/sbin:/sbin"


@dataclass(frozen=True)
class DemoAccount:
    """Who logs in. has_pam: whether the machine itself knows the password."""

    name: str
    home: Path
    password: str
    has_pam: bool


@contextlib.contextmanager
def demo_account() -> Iterator[DemoAccount]:
    """Give the demo an account: one of its own where we are root, else the caller's.

    Raises AccountCreationFailed.
    """
    password = secrets.token_urlsafe(9)
    if os.geteuid() != 0:
        own = pwd.getpwuid(os.geteuid())
        yield DemoAccount(own.pw_name, Path(own.pw_dir), password, has_pam=False)
        return
    with _reserved_name() as name:
        made = _make(name)
        has_pam = made and _set_password(name, password)
        try:
            yield DemoAccount(name, Path(pwd.getpwnam(name).pw_dir), password, has_pam)
        finally:
            if made:
                _remove(name)


@contextlib.contextmanager
def _reserved_name() -> Iterator[str]:
    """Hold a name that no other demo of this machine uses now."""
    for number in range(1, 100):
        name = NAME if number == 1 else f"{NAME}-{number}"
        lock = LOCKS / f"{name}.lock"
        with lock.open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            try:
                yield name
            finally:
                lock.unlink(missing_ok=True)
            return
    raise AccountCreationFailed("A hundred demos run already.", remedy="End some of them.")


def _make(name: str) -> bool:
    """Make the account; False where one exists that is not ours to remove.

    One that a killed demo has left is made anew.
    """
    try:
        if pwd.getpwnam(name).pw_gecos != COMMENT:
            return False
        _remove(name)
    except KeyError:
        pass
    shell = "/bin/bash" if Path("/bin/bash").exists() else "/bin/sh"
    options = ["--create-home", "--key", "HOME_MODE=0700", "--comment", COMMENT, "--shell", shell]
    done = _run(["useradd", *options, "--", name])
    if done.returncode:
        raise AccountCreationFailed(
            f'The demo\'s account "{name}" could not be made.',
            remedy="Mend what the line below says, or run the demo as a user who is not root.",
            log=done.stderr,
        )
    return True


def _set_password(name: str, password: str) -> bool:
    """Give the account a password; say whether PAM lets it log in with that."""
    if _run(["chpasswd"], stdin=f"{name}:{password}\n").returncode:
        return False
    return pam.check(name, (password,), service="login", encoding="utf8", account=True).granted


def _remove(name: str) -> None:
    """End what the account still runs, and remove it with its home."""
    with contextlib.suppress(UsersFailed):  # userdel says it, too
        running.end_all(pwd.getpwnam(name).pw_uid)
    done = _run(["userdel", "--remove", name])
    if done.returncode:
        raise AccountCreationFailed(
            f'The demo\'s account "{name}" could not be removed.',
            remedy=f"Remove it: userdel --remove {name}",
            log=done.stderr,
        )


def _run(words: Sequence[str], *, stdin: str = "") -> subprocess.CompletedProcess[str]:
    program = shutil.which(words[0], path=f"{os.environ.get('PATH', '')}:{SBIN}")
    if program is None:
        raise AccountCreationFailed(
            f"The program {words[0]} is missing.", remedy="On Debian: apt-get install passwd"
        )
    return subprocess.run(
        [program, *words[1:]], input=stdin, capture_output=True, text=True, timeout=60, check=False
    )
