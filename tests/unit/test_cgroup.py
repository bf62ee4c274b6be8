"""cgroup v2 as files; what only a kernel does is tried in tests/process and tests/vm."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from workshop_hub.errors import LimitsNotEnforceable, WorkshopError
from workshop_hub.system import cgroup, delegation
from workshop_hub.system.cgroup import Mount, Setting
from workshop_hub.system.delegation import Tree

HYBRID = """\
25 30 0:23 / /sys rw,nosuid - sysfs sysfs rw
30 25 0:26 / /sys/fs/cgroup/memory rw shared:9 - cgroup cgroup rw,memory
31 25 0:27 / /sys/fs/cgroup/uni\\040fied rw shared:10 - cgroup2 cgroup2 rw
"""


@pytest.fixture
def group(tmp_path: Path) -> Path:
    """A folder with the files that the kernel would put into a group."""
    folder = tmp_path / "group"
    folder.mkdir()
    files = {
        "cgroup.procs": "12\n7\n",
        "cgroup.events": "populated 1\nfrozen 0\n",
        "memory.events": "low 0\nhigh 0\nmax 12\noom 3\noom_kill 2\noom_group_kill 0\n",
        "memory.current": "1048576\n",
        "memory.max": "max\n",
        "cpu.stat": "usage_usec 1500000\nuser_usec 1000000\n",
    }
    for name, text in files.items():
        (folder / name).write_text(text)
    return folder


def test_the_mount_is_found_on_a_hybrid_host(tmp_path: Path) -> None:
    (tmp_path / "mountinfo").write_text(HYBRID)
    assert cgroup.find_mount(tmp_path / "mountinfo") == Mount(Path("/sys/fs/cgroup/uni fied"))


def test_no_mount_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "mountinfo").write_text(HYBRID.replace("cgroup2", "cgroup"))
    assert cgroup.find_mount(tmp_path / "mountinfo") is None


@pytest.mark.parametrize(
    ("root", "group", "name"),
    [
        ("/", "/m/a/b", "/a/b"),
        ("/", "/m", "/"),
        ("/docker/x", "/m/a", "/docker/x/a"),
    ],
)
def test_the_name_is_the_one_that_proc_has(root: str, group: str, name: str) -> None:
    assert Mount(Path("/m"), root).name_of(Path(group)) == name


def test_what_the_files_say(group: Path) -> None:
    assert cgroup.pids(group) == {7, 12}
    assert cgroup.populated(group)
    assert cgroup.oom_kills(group) == 2
    assert cgroup.cpu_seconds(group) == 1.5
    assert cgroup.number(group, "memory.current") == 1048576
    assert cgroup.number(group, "memory.max") is None
    assert cgroup.texts(group, ["memory.max", "absent"]) == {"memory.max": "max"}


def test_a_group_that_is_gone_is_empty(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    assert cgroup.pids(gone) == set()
    assert not cgroup.populated(gone)
    assert cgroup.oom_kills(gone) == 0
    assert cgroup.cpu_seconds(gone) is None
    assert cgroup.number(gone, "pids.current") is None
    assert cgroup.names(gone) == []
    assert cgroup.remove(gone)


def test_a_file_that_cannot_be_written_is_named_with_its_option(tmp_path: Path) -> None:
    with pytest.raises(LimitsNotEnforceable) as caught:
        cgroup.create(tmp_path / "new", [Setting("memory.max", "1", "mem_limit")])
    assert "mem_limit cannot be enforced" in caught.value.message
    assert "memory.max" in caught.value.message
    assert "ENOENT" in caught.value.message


def test_a_group_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    with pytest.raises(LimitsNotEnforceable, match="no/group"):
        cgroup.create(tmp_path / "no" / "group", [])


def test_swap_that_is_not_counted_must_not_be_in_use(tmp_path: Path) -> None:
    swaps = tmp_path / "swaps"
    swaps.write_text("Filename Type Size Used Priority\n")
    cgroup.refuse_uncounted_swap(swaps)
    swaps.write_text("Filename Type Size Used Priority\n/dev/sda2 partition 1 0 -2\n")
    with pytest.raises(LimitsNotEnforceable, match="does not count swap"):
        cgroup.refuse_uncounted_swap(swaps)


@pytest.mark.parametrize(
    ("number", "said", "remedy"),
    [
        (errno.EROFS, "EROFS", "ProtectControlGroups"),
        (errno.EACCES, "EACCES", "User="),
        (errno.EBUSY, "EBUSY", "Move them"),
        (errno.ENOENT, "ENOENT", "Delegate="),
        (errno.EOPNOTSUPP, "EOPNOTSUPP", "cgroup_parent"),
        (errno.EIO, "errno 5", "kernel's log"),
    ],
)
def test_each_refusal_of_the_kernel_has_its_cure(number: int, said: str, remedy: str) -> None:
    error = cgroup.explain(OSError(number, "what the kernel said"), Path("/x"), "cpu_limit")
    assert error.message.startswith("cpu_limit cannot be enforced: /x: ")
    assert said in error.message
    assert remedy in error.remedy


async def test_processes_that_do_not_die_are_told_of(group: Path) -> None:
    (group / "cgroup.kill").touch()
    with pytest.raises(WorkshopError, match="did not end within"):
        await cgroup.end(group, timeout=0.05)
    assert (group / "cgroup.kill").read_text() == "1"


def tree(mount: Path, holder: str, **controls: str) -> Tree:
    users = mount / holder / "users"
    users.mkdir(parents=True)
    for path, text in controls.items():
        (mount / path.replace("__", "/") / "memory.low").write_text(text)
    return Tree(Mount(mount), users, frozenset(cgroup.CONTROLLERS))


def test_groups_without_memory_protection_are_found(tmp_path: Path) -> None:
    found = tree(tmp_path, "slice/unit", slice="0\n", slice__unit="8\n", slice__unit__users="8\n")
    assert found.unprotected() == [tmp_path / "slice"]


def test_a_root_hub_claims_what_its_servers_are_guaranteed(tmp_path: Path) -> None:
    zero = {"__".join(path.split("/")): "0" for path in ("workshop-hub", "workshop-hub/users")}
    found = tree(tmp_path, delegation.ROOT_HOLDER, **zero)
    for name, low in (("a", "100"), ("b", "23"), ("c", "max")):
        (found.users / name).mkdir()
        (found.users / name / "memory.low").write_text(low)
    found.protect()
    assert (found.users / "memory.low").read_text() == "123"
    assert (found.users.parent / "memory.low").read_text() == "123"
    assert found.unprotected() == []


def test_a_delegated_groups_protection_is_the_administrators(tmp_path: Path) -> None:
    found = tree(tmp_path, "slice/unit", slice__unit__users="7")
    found.protect()
    assert (found.users / "memory.low").read_text() == "7"


def test_without_a_mount_there_is_no_tree() -> None:
    with pytest.raises(LimitsNotEnforceable, match="No cgroup v2 is mounted"):
        delegation.open_tree("", None)
