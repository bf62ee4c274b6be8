"""`workshop-hub users add --quota` on a file system that has quotas: what the kernel says of it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import guest
import pytest

MADE = ("mkfs.ext4", "-q", "-O", "quota", "-E", "quotatype=usrquota")
"""ext4 that keeps quotas by itself."""

FILL = """
import errno, pathlib, sys
try:
    with pathlib.Path.home().joinpath("data").open("wb", buffering=0) as file:
        for _ in range(int(sys.argv[1])):
            file.write(bytes(1024))
except OSError as exc:
    print(errno.errorcode[exc.errno], pathlib.Path.home().joinpath("data").stat().st_size)
else:
    print("written")
"""

Inside = Callable[..., str]


@pytest.fixture
def homes(tmp_path: Path) -> Iterator[Callable[..., Inside]]:
    """Have /home on a file system of its own, for what is run inside; it ends with the test."""
    held: list[subprocess.Popen[str]] = []

    def mount(make: tuple[str, ...], options: str, then: str = ":") -> Inside:
        guest.run("modprobe", "--all", "loop", "quota_v2")
        disk = tmp_path / "disk"
        with disk.open("wb") as file:
            file.truncate(64 << 20)
        guest.run(*make, disk)
        script = f'mount -o "$2" "$1" /home; {then} >&2; echo; exec cat'
        holder = ["unshare", "--mount", "sh", "-ec", script, "sh", str(disk), f"loop,{options}"]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        held.append(subprocess.Popen(holder, **pipes))
        assert held[-1].stdout
        assert held[-1].stdout.readline() == "\n"
        enter = ["nsenter", f"--target={held[-1].pid}", "--mount", f"--wd={tmp_path}"]
        return lambda *command: guest.run(*enter, *command)

    yield mount
    for process in held:
        process.communicate()


def users(inside: Inside, *words: str) -> str:
    return inside(guest.BIN / "workshop-hub", "users", *words)


def fill(inside: Inside, name: str, kilobytes: int) -> str:
    """Have somebody write a file into the home; return what came out."""
    ids = [f"--reuid={name}", f"--regid={name}", "--init-groups"]
    words = ["env", f"HOME=/home/{name}", sys.executable, "-I", "-c", FILL, str(kilobytes)]
    return inside("setpriv", *ids, *words).strip()


def limits(inside: Inside) -> dict[str, list[int]]:
    """Return the blocks that each account may have, soft and hard, in KiB."""
    rows = (line.split() for line in inside("repquota", "--user", "/home").splitlines())
    return {
        row[0]: [int(row[3]), int(row[4])] for row in rows if len(row) == 8 and row[3].isdigit()
    }


@pytest.mark.parametrize(
    ("make", "then"),
    [
        (MADE, ":"),
        (("sh", "-ec", 'mkfs.ext4 -q "$0" && tune2fs -O quota "$0"'), ":"),
        (("mkfs.ext4", "-q"), "quotacheck -cum /home && quotaon -u /home"),
    ],
    ids=["made with quotas", "given quotas", "with files"],
)
def test_nobody_stores_more_than_the_quota(
    homes: Callable[..., Inside], make: tuple[str, ...], then: str
) -> None:
    inside = homes(make, "usrquota", then)
    users(inside, "add", "wsvm-quin", "wsvm-quil", "--quota", "2M")
    try:
        found = limits(inside)
        assert found["wsvm-quin"] == found["wsvm-quil"] == [2048, 2048]
        ids = ["--reuid=wsvm-quin", "--regid=wsvm-quin", "--clear-groups"]
        assert "2048" in inside("setpriv", *ids, "quota", "--no-wrap")
        said, size = fill(inside, "wsvm-quin", 4096).split()
        assert said == "EDQUOT"
        assert 1 << 20 < int(size) <= 2 << 20
        assert fill(inside, "wsvm-quil", 1024) == "written"
        users(inside, "add", "wsvm-quin", "--quota", "8M")
        assert limits(inside)["wsvm-quin"] == [8192, 8192]
        assert fill(inside, "wsvm-quin", 4096) == "written"
        uid = inside("id", "--user", "wsvm-quin").strip()
    finally:
        users(inside, "remove", "--yes", "wsvm-quin", "wsvm-quil")
    inside("useradd", "--create-home", "--uid", uid, "wsvm-next")
    try:
        assert limits(inside)["wsvm-next"] == [0, 0]
    finally:
        inside("userdel", "wsvm-next")


@pytest.mark.parametrize(
    ("make", "options", "then", "said"),
    [
        (MADE, "rw", ":", "space is counted, and no limit enforced"),
        (MADE, "usrquota", "quotaoff -u /home", "space is counted, and no limit enforced"),
        (("mkfs.ext4", "-q"), "usrquota", ":", "they are not turned on"),
        (("mkfs.ext4", "-q"), "rw", ":", "they are not turned on"),
    ],
)
def test_where_no_limit_would_hold_it_is_refused(
    homes: Callable[..., Inside], make: tuple[str, ...], options: str, then: str, said: str
) -> None:
    inside = homes(make, options, then)
    with pytest.raises(AssertionError) as caught:
        users(inside, "add", "wsvm-quid", "--quota", "2M")
    words = " ".join(str(caught.value).split())
    assert f"at /home) keeps no quotas: {said}" in words
    assert "Mount it with the option usrquota" in words
    assert "wsvm-quid" not in guest.run("getent", "passwd")
