"""Many small servers, embedded: a site's configuration as it is, and the kernel holds them to it.

The hub is root's, on a machine that has none of our units.
"""

from __future__ import annotations

import pwd
import secrets
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import guest
import pytest
from process.harness import processes_of, remove_group
from sites import EMBEDDING, Person, Site, SiteHub, embedded_small, made_site, server_of
from unit_hub import group_of

from workshop_hub.system import accounts

PAM = Path("/etc/pam.d/login")

DIRECTORY = """\
#!/bin/sh
# Stands for a directory service, which knows a person of whom this machine has no account.
[ "$PAM_USER" = "{name}" ] || exit 1
[ "$PAM_TYPE" != auth ] || [ "$(tr -d '\\0')" = "{password}" ]
"""
ASKED_FIRST = """\
auth sufficient pam_exec.so quiet expose_authtok {program}
account sufficient pam_exec.so quiet {program}
"""

# A tenth of a core is slow, and the guest's is slower than most.
TIME = """
c.Spawner.start_timeout = 400
c.Spawner.http_timeout = 400
"""
DEADLINE = 500

MEMORY = str(128 * 1024 * 1024)
LIMITS = {
    "cpu.max": "10000 100000",
    "cpu.weight": "10",
    "memory.max": MEMORY,
    "memory.low": MEMORY,
}


@pytest.fixture(scope="module")
def own_tree(units: None) -> Iterator[Path]:
    """The group that a root hub makes for itself where nobody has set one up."""
    guest.systemctl("stop", "workshop-users.service")
    tree = guest.CGROUPS / "workshop-hub"
    try:
        yield tree
        assert remove_group(tree) == set()
    finally:
        guest.systemctl("start", "workshop-users.service")


@pytest.fixture(scope="module")
def site(own_tree: Path) -> Iterator[Site[SiteHub]]:
    with made_site(SiteHub) as site:
        yield site


@pytest.fixture(scope="module")
def wheel(site: Site[SiteHub]) -> str:
    return site.group("wheel")


@pytest.fixture(scope="module")
def small_hub(site: Site[SiteHub], wheel: str) -> SiteHub:
    # JupyterLab would run it at its start, and 128M do not hold both of them
    assert shutil.which("node") is None
    return embedded_small(site, TIME).start()


@dataclass
class Newcomer:
    """Somebody whose password PAM can check, and whom this machine has no account of."""

    hub: SiteHub
    name: str
    password: str

    def log_in(self, password: str = "") -> Person:
        return Person(self.hub, self.name, password or self.password)


@pytest.fixture
def newcomer(site: Site[SiteHub], small_hub: SiteHub, tmp_path: Path) -> Iterator[Newcomer]:
    new = Newcomer(small_hub, site.name("ada"), secrets.token_urlsafe(12))
    program = tmp_path / "directory"
    program.write_text(DIRECTORY.format(name=new.name, password=new.password))
    program.chmod(0o700)
    rules = PAM.read_text()
    PAM.write_text(ASKED_FIRST.format(program=program) + rules)
    yield new
    PAM.write_text(rules)


def test_a_first_login_makes_the_account_and_only_who_is_in_wheel_administrates(
    site: Site[SiteHub], wheel: str, newcomer: Newcomer
) -> None:
    assert not newcomer.log_in("something else").is_in
    assert accounts.find_or_none(newcomer.name) is None
    person = newcomer.log_in()
    assert person.is_in
    account = pwd.getpwnam(newcomer.name)
    assert account.pw_gecos == "student"  # as add_user.sh has it
    assert Path(account.pw_dir).owner() == newcomer.name
    assert person.browser.open("/hub/admin").status == 403
    teacher = site.person(newcomer.hub, site.account("teacher", wheel).name)
    assert teacher.browser.open("/hub/admin").status == 200


def test_a_tenth_of_a_core_and_128m_are_held_and_hold_a_jupyterlab_in_a_frame(
    own_tree: Path, newcomer: Newcomer
) -> None:
    person = newcomer.log_in()
    for page in (person.browser.open("/hub/home"), person.lab(DEADLINE)):
        assert page.status == 200
        assert EMBEDDING in page.headers["Content-Security-Policy"]

    account = accounts.find(newcomer.name)
    group = group_of(server_of(account))
    assert group.parent == own_tree / "users"
    assert {file: guest.value(group, file) for file in LIMITS} == LIMITS
    assert guest.value(own_tree, "memory.low") == guest.value(group.parent, "memory.low") == MEMORY
    assert guest.table(group, "cpu.stat")["nr_throttled"] > 0
    events = guest.table(group, "memory.events")
    assert (events["oom"], events["oom_kill"]) == (0, 0)

    newcomer.hub.stop_server(newcomer.name)
    assert processes_of(account.uid) == []
    assert [entry for entry in group.parent.iterdir() if entry.is_dir()] == []
