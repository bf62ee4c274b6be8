"""Folders that may be mounted, and what is read from the kernel's files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from workshop_hub.errors import DirectoryRefused
from workshop_hub.system import container_cgroup, log_files
from workshop_hub.system.accounts import Account
from workshop_hub.system.binds import resolve

OTHER_UID = 54321


def account(uid: int = OTHER_UID, *groups: int) -> Account:
    return Account("alice", uid, uid, "/home/alice", "/bin/sh", (uid, *groups))


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A folder that alice cannot write to, nor to any above it."""
    return tmp_path.resolve()


def test_a_plain_folder_is_taken_as_it_is(base: Path) -> None:
    (base / "home").mkdir()
    assert resolve(f"{base}/./home/", account(), "The home") == f"{base}/home"
    assert resolve("/", account(), "The folder") == "/"


def test_a_missing_folder_is_refused(base: Path) -> None:
    with pytest.raises(DirectoryRefused, match=f"The home {base}/none does not exist"):
        resolve(f"{base}/none", account(), "The home")


def test_the_administrators_links_are_followed(base: Path) -> None:
    (base / "disk2" / "alice").mkdir(parents=True)
    (base / "home").symlink_to("disk2")
    (base / "abs").symlink_to(base / "home")
    (base / "up").symlink_to("disk2/../disk2")
    for name in ("home", "abs", "up"):
        assert resolve(f"{base}/{name}/alice", account(), "The home") == f"{base}/disk2/alice"


def test_links_in_a_circle_are_refused(base: Path) -> None:
    (base / "a").symlink_to("b")
    (base / "b").symlink_to("a")
    with pytest.raises(DirectoryRefused, match="Too many levels"):
        resolve(f"{base}/a", account(), "The folder")


def test_what_lies_in_the_users_own_folder_is_refused_link_or_not(base: Path) -> None:
    """She can put a link there between our look and the engine's."""
    home = base / "home"
    (home / "data").mkdir(parents=True)
    (home / "link").symlink_to("/root")
    me = account(os.getuid())
    for name in ("data", "link"):
        with pytest.raises(DirectoryRefused, match="alice can replace"):
            resolve(f"{home}/{name}", me, "The folder")


def test_a_link_of_the_administrator_into_the_users_folder_is_refused(base: Path) -> None:
    shared = base / "shared"
    (shared / "data").mkdir(parents=True)
    shared.chmod(0o777)
    (base / "link").symlink_to(shared / "data")
    with pytest.raises(DirectoryRefused, match="alice can replace"):
        resolve(f"{base}/link", account(), "The folder")


def test_folders_of_a_group_count_for_its_members_only(base: Path) -> None:
    course = base / "course"
    (course / "data").mkdir(parents=True)
    course.chmod(0o775)
    group = course.stat().st_gid
    assert resolve(f"{course}/data", account(), "The folder") == f"{course}/data"
    with pytest.raises(DirectoryRefused, match="alice can replace"):
        resolve(f"{course}/data", account(OTHER_UID, group), "The folder")


def test_in_a_sticky_folder_what_others_own_is_safe(base: Path) -> None:
    (base / "data").mkdir()
    base.chmod(0o1777)
    assert resolve(f"{base}/data", account(), "The folder") == f"{base}/data"
    with pytest.raises(DirectoryRefused, match="alice can replace"):
        resolve(f"{base}/data", account(os.getuid()), "The folder")


# -- control groups ------------------------------------------------------------------------------

ID = "0123456789abcdef" * 4


def tree(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root / "proc"


def version_2(root: Path, **files: str) -> Path:
    scope = f"sys/system.slice/docker-{ID}.scope"
    return tree(
        root,
        {
            "proc/42/cgroup": f"0::/system.slice/docker-{ID}.scope\n",
            "proc/self/mountinfo": f"30 25 0:26 / {root}/sys rw,nosuid - cgroup2 cgroup2 rw\n",
            f"{scope}/memory.current": "1000\n",
            **{f"{scope}/{name.replace('_', '.', 1)}": text for name, text in files.items()},
        },
    )


def test_version_2_is_read(tmp_path: Path) -> None:
    proc = version_2(
        tmp_path,
        memory_max="536870912\n",
        memory_low="134217728\n",
        memory_events="low 0\nmax 7\noom 3\noom_kill 2\n",
        cpu_max="50000 100000\n",
        cpu_stat="usage_usec 2500000\nnr_throttled 3\n",
        cpu_weight="4\n",
        pids_max="100\n",
        pids_current="7\n",
    )
    found = container_cgroup.find(42, ID, proc)
    assert found is not None
    assert (found.version, found.memory_used(), found.cpu_used()) == (2, 1000, 2.5)
    assert (found.memory_limit(), found.memory_guarantee()) == (536870912, 134217728)
    assert (found.cpu_limit(), found.pids_limit(), found.processes()) == (0.5, 100, 7)
    assert found.oom_kills() == 2
    assert found.cpu_weight_is(102)
    assert not found.cpu_weight_is(1024)


@pytest.mark.parametrize(
    ("shares", "weights"),
    [(2, (1, 1)), (102, (4, 17)), (1024, (39, 100)), (262144, (10000, 10000))],
)
def test_both_runtimes_scales_of_weights_are_known(
    tmp_path: Path, shares: int, weights: tuple[int, int]
) -> None:
    for number, weight in enumerate(weights):
        proc = version_2(tmp_path / str(number), cpu_weight=f"{weight}\n")
        found = container_cgroup.find(42, ID, proc)
        assert found is not None
        assert found.cpu_weight_is(shares)


def test_no_limits_are_none(tmp_path: Path) -> None:
    proc = version_2(
        tmp_path, memory_max="max\n", memory_low="0\n", cpu_max="max 100000\n", pids_max="max\n"
    )
    found = container_cgroup.find(42, ID, proc)
    assert found is not None
    assert found.memory_limit() is found.memory_guarantee() is None
    assert found.cpu_limit() is found.pids_limit() is None


def test_version_1_is_read_below_a_mount_of_a_part(tmp_path: Path) -> None:
    group = f"/engine/{ID}"
    mounts = "".join(
        f"3{n} 25 0:2{n} /engine {tmp_path}/sys/{name} rw - cgroup cgroup rw,{name}\n"
        for n, name in enumerate(["memory", "cpu,cpuacct", "pids"])
    )
    proc = tree(
        tmp_path,
        {
            "proc/42/cgroup": f"5:memory:{group}\n4:cpu,cpuacct:{group}\n3:pids:{group}\n"
            f"1:name=systemd:/x\n0::/\n",
            "proc/self/mountinfo": mounts,
            f"sys/memory/{ID}/memory.limit_in_bytes": "9223372036854771712\n",
            f"sys/memory/{ID}/memory.soft_limit_in_bytes": "134217728\n",
            f"sys/memory/{ID}/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 1\n",
            f"sys/cpu,cpuacct/{ID}/cpu.cfs_quota_us": "-1\n",
            f"sys/cpu,cpuacct/{ID}/cpu.cfs_period_us": "100000\n",
            f"sys/cpu,cpuacct/{ID}/cpu.shares": "102\n",
            f"sys/cpu,cpuacct/{ID}/cpuacct.usage": "2500000000\n",
            f"sys/pids/{ID}/pids.max": "max\n",
        },
    )
    found = container_cgroup.find(42, ID, proc)
    assert found is not None
    assert (found.version, found.cpu_used(), found.oom_kills()) == (1, 2.5, 1)
    assert found.memory_limit() is found.cpu_limit() is found.pids_limit() is None
    assert found.memory_guarantee() == 134217728
    assert found.cpu_weight_is(102)


def test_a_process_of_another_container_is_not_believed(tmp_path: Path) -> None:
    proc = version_2(tmp_path)
    assert container_cgroup.find(42, "f" * 64, proc) is None
    assert container_cgroup.find(43, ID, proc) is None


# -- logs that are kept --------------------------------------------------------------------------


def test_a_log_is_kept_for_the_hub_alone_and_bounded(tmp_path: Path) -> None:
    folder = tmp_path / "logs"
    (tmp_path / "trap").write_text("untouched")
    path = log_files.save(str(folder), "server", "first")
    assert path.stat().st_mode & 0o777 == 0o600
    assert folder.stat().st_mode & 0o777 == 0o700
    path.unlink()
    path.symlink_to(tmp_path / "trap")
    log_files.save(str(folder), "server", "x" * 2 * log_files.MAX_BYTES + "\none\ntwo\n")
    assert path.stat().st_size == log_files.MAX_BYTES
    assert log_files.tail(str(folder), "server", 2) == "one\ntwo"
    assert log_files.tail(str(folder), "other", 2) == ""
    assert (tmp_path / "trap").read_text() == "untouched"
