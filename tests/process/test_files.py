"""Logs that stay bounded, and certificates that no link leads astray."""

from __future__ import annotations

import contextlib
import os
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import ProcessHarness, answer, made_account, processes_of, started

from support import eventually
from workshop_hub.backends.base import Certificates
from workshop_hub.backends.process import files as server_files
from workshop_hub.backends.process.names import key_of
from workshop_hub.errors import LauncherRefused, WorkshopError
from workshop_hub.system.accounts import Account

PEMS = Certificates(key="KEY\n", certificate="CERT\n", authority="CA\n")

CHATTER = 'while :; do seq -f "line %.0f" 1 2000; sleep 0.02; done & exec "$@"'


@pytest.fixture
def frank(machine: None) -> Iterator[Account]:
    with made_account("frank") as account:
        yield account


async def test_a_log_is_cut_while_its_server_writes(
    root_hub: ProcessHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_files, "LOOK_EVERY", 0.05)
    backend = root_hub.backend(log_max_bytes=8192)
    spec = root_hub.spec()
    at = await started(backend, root_hub.spec(cmd=("sh", "-c", CHATTER, "sh", *spec.cmd)))
    log = root_hub.folder / "logs" / f"{key_of(spec.owner)}.log"
    cuts = 0
    size = 0

    async def cut_thrice() -> bool:
        nonlocal cuts, size
        now = log.stat().st_size
        cuts += now < size
        size = now
        return cuts >= 3

    await eventually(cut_thrice, "the log is cut again and again", every=0.01)
    assert (await answer(at))["uid"] == root_hub.account.uid
    await backend.stop(at.handle, now=True)
    server_files.ServerFiles(log.parent, key_of(spec.owner)).trim(8192)
    assert log.stat().st_size <= 8192
    assert log.read_text().startswith("line ")
    assert log.read_text().count("\0") == 0


@pytest.mark.parametrize("root_hub", ["sudo"], indirect=True)  # by a shell
async def test_space_that_a_server_reserves_behind_its_log_is_taken_back(
    root_hub: ProcessHarness,
) -> None:
    backend = root_hub.backend(log_max_bytes=8192)
    reserve = (
        "import ctypes, os; "
        "ctypes.CDLL(None).fallocate(1, 1, ctypes.c_long(0), ctypes.c_long(%d)); "
        "print(os.fstat(1).st_blocks)"  # the hub may have taken it back before we look
    )
    spec = root_hub.spec()
    python, *rest = spec.cmd
    script = f"{python} -I -c '{reserve % (64 << 20)}'; exec \"$@\""
    at = await started(backend, root_hub.spec(cmd=("sh", "-c", script, "sh", python, *rest)))
    files = server_files.ServerFiles(root_hub.folder / "logs", key_of(spec.owner))
    files.trim(8192)
    assert files.log.stat().st_blocks * 512 <= 8192
    assert int(files.log.read_text()) * 512 >= 64 << 20
    await backend.stop(at.handle, now=True)


async def test_the_log_of_the_last_life_is_kept(root_hub: ProcessHarness) -> None:
    backend = root_hub.backend()
    for word in ("first", "second"):
        at = await started(backend, root_hub.spec(f"print:{word}"))
        await backend.stop(at.handle, now=True)
    key = key_of(root_hub.spec().owner)
    logs = root_hub.folder / "logs"
    assert (logs / f"{key}.log").read_text().startswith("second")
    assert (logs / f"{key}.log.old").read_text().startswith("first")


async def test_what_a_server_prints_cannot_garble_a_terminal(root_hub: ProcessHarness) -> None:
    backend = root_hub.backend()
    at = await started(backend, root_hub.spec("print:\x1b[31mred\x07"))
    assert await backend.log_tail(at.handle) == "[31mred"
    await backend.stop(at.handle, now=True)


async def test_a_lie_on_the_report_harms_nobody(root_hub: ProcessHarness) -> None:
    """The supervisor is the user's process, and what it may write to is the user's to fill."""
    backend = root_hub.backend()
    at = await started(backend, root_hub.spec())
    status = root_hub.folder / "logs" / f"{key_of(root_hub.spec().owner)}.status"
    with status.open("a") as report:
        report.write(
            "pid 1 1\nexit many\noom 9999999999999999999999\nerror x\n\0\n" + "x" * 200_000
        )
    assert (await backend.poll(at.handle)).running
    await backend.stop(at.handle)
    assert (await backend.poll(at.handle)).exit_code in (143, None)
    assert processes_of(root_hub.account.uid) == []


@contextlib.contextmanager
def mounted(folder: Path, *how: str, then: str = "rw") -> Iterator[None]:
    folder.mkdir(exist_ok=True)
    subprocess.run(["mount", *how, folder], check=True)
    try:
        subprocess.run(["mount", "-o", f"remount,bind,{then}", folder], check=True)
        yield
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


async def test_a_full_disk_of_the_hub_is_told(hub: ProcessHarness, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    backend = hub.backend(log_dir=str(disk / "logs"))
    with mounted(disk, "-t", "tmpfs", "-o", "size=64k,mode=0755", "none"):
        (disk / "logs").mkdir(mode=0o700)
        with contextlib.suppress(OSError), (disk / "full").open("wb", 0) as full:
            while True:
                full.write(bytes(4096))
        with pytest.raises(WorkshopError, match="logs: No space left on device"):
            await started(backend, hub.spec())
        assert processes_of(hub.account.uid) == []
        (disk / "full").unlink()
        at = await started(backend, hub.spec())
        await backend.stop(at.handle, now=True)


async def test_a_server_ends_whose_files_cannot_be_changed_any_more(
    hub: ProcessHarness,
) -> None:
    backend = hub.backend(port_range=(29010, 29010))
    at = await started(backend, hub.spec())
    logs = hub.folder / "logs"
    with mounted(logs, "--bind", str(logs), then="ro"):
        await backend.stop(at.handle, now=True)
        assert processes_of(hub.account.uid) == []
    at = await started(backend, hub.spec())
    await backend.stop(at.handle, now=True)


async def test_certificates_are_the_users_alone(root_hub: ProcessHarness, frank: Account) -> None:
    root_hub.account = frank
    backend = root_hub.backend()
    spec = root_hub.spec(certificates=PEMS)
    for _ in range(2):
        address = await backend.prepare(spec)
        paths = address.certificates
        assert paths
        at = await started(backend, spec, address)
        for name, text in (("keyfile", "KEY\n"), ("certfile", "CERT\n"), ("cafile", "CA\n")):
            file = Path(paths[name])  # type: ignore[literal-required]
            assert file.read_text() == text
            assert file.stat().st_uid == frank.uid
            assert stat.S_IMODE(file.stat().st_mode) == 0o600
            assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
            assert file.is_relative_to(frank.home)
        await backend.stop(at.handle, now=True)


async def test_certificates_follow_no_link_of_a_folder(
    root_hub: ProcessHarness, frank: Account, tmp_path: Path
) -> None:
    root_hub.account = frank
    trap = tmp_path / "trap"
    trap.mkdir()
    tmp_path.chmod(0o755)
    trap.chmod(0o777)
    Path(frank.home, ".workshop-hub").symlink_to(trap)
    backend = root_hub.backend()
    with pytest.raises(LauncherRefused, match="certificates cannot be written"):
        await started(backend, root_hub.spec(certificates=PEMS))
    assert list(trap.iterdir()) == []


async def test_certificates_follow_no_link_of_a_file(
    root_hub: ProcessHarness, frank: Account, tmp_path: Path
) -> None:
    root_hub.account = frank
    victim = tmp_path / "victim"
    victim.write_text("precious")
    backend = root_hub.backend()
    spec = root_hub.spec(certificates=PEMS)
    address = await backend.prepare(spec)
    assert address.certificates
    key = Path(address.certificates["keyfile"])
    key.parent.mkdir(parents=True)
    key.symlink_to(victim)
    for place in (key.parent, key.parent.parent):
        os.chown(place, frank.uid, frank.gid)
    at = await started(backend, spec, address)
    assert victim.read_text() == "precious"
    assert not key.is_symlink()
    await backend.stop(at.handle, now=True)
