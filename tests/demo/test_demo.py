"""`make demo` as people run it: as root, as a user, with an engine, and ended with Ctrl-C."""

from __future__ import annotations

import os
import pwd
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from support import eventually_sync, require

PROGRAM = Path(sys.executable).with_name("workshop-hub")
DEADLINE = 240


def run_demo(*words: str, as_user: str = "") -> subprocess.CompletedProcess[str]:
    """Run the demo with a port of its own."""
    command = [*become(as_user), str(PROGRAM), "demo", "--port", "0", *words]
    return subprocess.run(
        command, cwd="/", capture_output=True, text=True, timeout=DEADLINE, check=False
    )


def become(name: str) -> list[str]:
    """Return the start of a command that runs the rest as another account."""
    kept = [f"{key}={text}" for key, text in os.environ.items() if key.startswith("COVERAGE")]
    home = f"HOME={pwd.getpwnam(name).pw_dir}" if name else ""
    return ["runuser", "-u", name, "--", "env", home, *kept] if name else []


def demo_accounts() -> set[str]:
    return {entry.pw_name for entry in pwd.getpwall() if entry.pw_name.startswith("workshop-demo")}


def demo_folders() -> set[str]:
    return {path.name for path in Path(tempfile.gettempdir()).glob("workshop-demo-*")}


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    accounts, folders = demo_accounts(), demo_folders()
    yield
    assert demo_accounts() <= accounts
    assert demo_folders() <= folders


@pytest.fixture
def person() -> Iterator[str]:
    """An account of somebody who is not root."""
    require(os.geteuid() == 0, "only root can be somebody else")
    name = f"person-{uuid.uuid4().hex[:8]}"
    subprocess.run(["useradd", "--create-home", "--key", "HOME_MODE=0700", name], check=True)
    yield name
    subprocess.run(["userdel", "--remove", name], check=True, capture_output=True)


def test_root_checks_the_demo_with_an_account_made_for_it() -> None:
    require(os.geteuid() == 0, "needs root")
    require(shutil.which("sudo"), "needs sudo")
    done = run_demo("--check")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "The demo works." in done.stdout
    uid = re.search(r"a cell in a kernel of uid (\d+), .*: 6 \* 7 = 42", done.stdout)
    assert uid, done.stdout
    assert int(uid[1]) >= 1000


def test_a_user_checks_the_demo_in_a_home_that_stays_clean(person: str) -> None:
    home = Path(pwd.getpwnam(person).pw_dir)
    before = sorted(home.rglob("*"))
    done = run_demo("--check", as_user=person)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"a cell in a kernel of uid {pwd.getpwnam(person).pw_uid}," in done.stdout
    assert sorted(home.rglob("*")) == before


def test_the_demo_checks_limits_in_containers() -> None:
    image = os.environ.get("WORKSHOP_TEST_IMAGE")
    require(image, "needs a Docker engine and the image: tests/machine/engine.sh and image.sh")
    done = run_demo("--check", "--backend", "docker", "--image", str(image))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "in force, as the kernel's files say: cpu_limit 1" in done.stdout
    assert "in force, as the kernel's files say: mem_limit 1G" in done.stdout


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_demo_and_all_that_it_started(number: int, tmp_path: Path) -> None:
    require(os.geteuid() != 0 or shutil.which("sudo"), "needs sudo")
    output = tmp_path / "output"
    with output.open("w") as file:
        demo = subprocess.Popen([PROGRAM, "demo", "--port", "0"], cwd="/", stdout=file, stderr=file)
    try:
        eventually_sync(lambda: "Ctrl-C ends the hub" in output.read_text(), "the demo's address")
        folder = re.search(r"The hub's log: (\S+)/jupyterhub.log", output.read_text())
        assert folder, output.read_text()
        assert processes_with(folder[1])
        assert Path(folder[1]).stat().st_mode & 0o077 == 0
        demo.send_signal(number)
        assert demo.wait(60) == 0, output.read_text()
        assert not processes_with(folder[1])
    finally:
        if demo.poll() is None:
            demo.terminate()
            demo.wait(60)


def processes_with(text: str) -> list[str]:
    """Return the command lines of the processes, other than zombies, that mention `text`."""
    lines = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                lines.append((entry / "cmdline").read_bytes().replace(b"\0", b" ").decode())
            except OSError:
                continue
    return [line for line in lines if text in line]


def test_an_image_that_is_absent_is_named_with_the_way_to_get_it() -> None:
    require(os.environ.get("WORKSHOP_TEST_IMAGE"), "needs a Docker engine")
    done = run_demo("--backend", "docker", "--image", "no-such-image:at-all")
    assert done.returncode == 1
    assert "no-such-image:at-all" in done.stdout
    assert "docker build" in done.stdout
