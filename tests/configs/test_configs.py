"""Configurations as sites have them run as they are: only class names, names and ports differ."""

from __future__ import annotations

import html
import pwd
import secrets
import signal
import socket
import ssl
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import docker
import pytest
from configs.conftest import EngineHub, EngineSite
from docker_harness import URL, cgroup_file
from process.harness import PREFIX, command_line, processes_of, remove_group
from sites import EMBEDDING, Person, configuration, embedded_small, run, server_of

from hubs import words
from workshop_hub.system import accounts
from workshop_hub.system.accounts import Account
from workshop_hub.system.cgroup import find_mount

EXAMPLE = Path(__file__).parents[2] / "jupyterhub_config.example.py"
HERE_INSTEAD = """
c.JupyterHub.hub_ip = "{gateway}"
c.WorkshopSpawner.image = "{image}"
c.ProcessBackend.cgroup_parent = "{cgroup}"
# Processes cannot be limited on a machine that still has cgroup v1.
statistics = c.WorkshopSpawner.group_overrides["10-statistics"]["spawner_override"]
statistics["limits_policy"] = "warn"
"""


def environment_of(pid: int) -> Mapping[str, str]:
    text = Path(f"/proc/{pid}/environ").read_text()
    return dict(each.split("=", 1) for each in text.split("\0") if "=" in each)


def identity_of(pid: int) -> tuple[set[int], set[int]]:
    """Return all uids and all gids, with the additional groups, that a process has."""
    fields = dict(
        line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines()
    )
    uids = {int(each) for each in fields["Uid"].split()}
    return uids, {int(each) for each in (fields["Gid"] + fields["Groups"]).split()}


def container_of(hub: EngineHub) -> dict:
    """Return what the engine says about the only container of a hub."""
    (one,) = hub.containers()
    client = docker.APIClient(base_url=URL)
    try:
        return client.inspect_container(one)
    finally:
        client.close()


def in_force(pid: int, controller: str, v1: str, v2: str) -> str:
    """Read one of the kernel's files about the control group of a process."""
    return cgroup_file(pid, controller, v1, v2).read_text().strip()


# --- a class on one machine: a hub that is not root, sudo ---------------------------------------


@pytest.fixture
def sudo_class(site: EngineSite) -> tuple[EngineHub, str]:
    """A hub that runs as an account of its own, and the name of a person without an account."""
    hub_account = site.account("hub", "shadow")
    alice, bob = site.name("alice"), site.name("bob")
    useradd = f"{hub_account.name} ALL=(root) NOPASSWD: /usr/sbin/useradd -m -s /bin/bash"
    site.allow(hub_account, [alice, bob], f"{useradd} {alice}", f"{useradd} {bob}")
    config = configuration("sudo_class.py", {"alice": alice, "bob": bob})
    return site.hub(config, as_user=hub_account.name).start(), alice


def test_a_class_on_one_machine(site: EngineSite, sudo_class: tuple[EngineHub, str]) -> None:
    hub, name = sudo_class
    account = accounts.find(name)
    site.set_password(name)
    notebooks = Path(account.home, "notebooks")
    run("install", "-d", "-o", name, "-g", name, str(notebooks))

    person = site.person(hub, name)
    person.lab()
    server = server_of(account)
    assert identity_of(server) == ({account.uid}, {account.gid})
    assert "jupyter-labhub" in command_line(server)
    environment = environment_of(server)
    assert environment["JUPYTERHUB_ROOT_DIR"] == str(notebooks)
    assert environment["OMP_NUM_THREADS"] == "1"
    assert environment["HOME"] == account.home
    Path(notebooks, "here.txt").touch()
    assert "here.txt" in person.get("api/contents").text
    assert person.get("", 60).url.endswith(f"/user/{name}/lab")
    assert person.browser.open("/hub/admin").status == 200
    assert hub.process
    assert 0 not in identity_of(hub.process.pid)[0]

    hub.stop_server(name)
    assert processes_of(account.uid) == []


def test_a_class_without_the_folder_is_told_so(
    site: EngineSite, sudo_class: tuple[EngineHub, str]
) -> None:
    hub, name = sudo_class
    site.set_password(name)
    account = accounts.find(name)
    page = site.person(hub, name).start()
    assert f"The notebook directory {account.home}/notebooks does not exist." in words(page.text)
    assert processes_of(account.uid) == []


# --- a workshop in containers -------------------------------------------------------------------


def test_a_workshop_in_containers(site: EngineSite, gateway: str, image: str) -> None:
    group = site.group(site.name("workshop"))
    account = site.account("ada", group)
    teacher = site.account("teacher", group)
    stranger = site.account("stranger")
    changes = {'{"workshop"}': f'{{"{group}"}}', '"teacher"': f'"{teacher.name}"'}
    hub = site.hub(configuration("docker_workshop.py", changes))
    hub.env |= {"DOCKER_JUPYTER_IMAGE": image, "HUB_CONNECT_IP": gateway}
    hub.start()

    assert not site.person(hub, stranger.name).is_in
    assert site.person(hub, teacher.name).browser.open("/hub/admin").status == 200
    person = site.person(hub, account.name)
    person.lab()
    server = server_of(account)
    gids = {account.gid, *account.groups}
    assert identity_of(server) == ({account.uid}, gids)
    assert container_of(hub)["Config"]["Image"] == image
    assert environment_of(server)["HOME"] == account.home
    assert in_force(server, "memory", "memory.limit_in_bytes", "memory.max") == str(1 << 30)
    cpu = in_force(server, "cpu", "cpu.cfs_quota_us", "cpu.max").split()[0]
    assert cpu == "100000"
    Path(account.home, "here.txt").touch()
    assert "here.txt" in person.get("api/contents").text

    hub.stop_server(account.name)
    assert hub.containers() == []


# --- many small servers, embedded ---------------------------------------------------------------


def test_many_small_servers_in_a_frame(site: EngineSite, image: str, gateway: str) -> None:
    """A tenth of a core is slow: the site's own start_timeout would be too, for JupyterLab."""
    group = site.group("wheel")
    name = site.name("ada")
    teacher = site.account("teacher", group)
    in_containers = {'spawner_class = "workshop"': 'spawner_class = "workshop-docker"'}
    here = f"""
c.JupyterHub.hub_ip = "{gateway}"
c.WorkshopSpawner.image = "{image}"
c.Spawner.start_timeout = 240
c.Spawner.http_timeout = 120
"""
    hub = embedded_small(site, here, in_containers).start()
    assert hub.api("POST", f"/users/{name}").status == 201
    account = accounts.find(name)
    assert pwd.getpwnam(name).pw_gecos == "student"
    site.set_password(name)

    assert site.person(hub, teacher.name).browser.open("/hub/admin").status == 200
    person = site.person(hub, name)
    assert person.browser.open("/hub/admin").status == 403
    assert EMBEDDING in person.browser.open("/hub/home").headers["Content-Security-Policy"]
    assert EMBEDDING in person.lab(240).headers["Content-Security-Policy"]
    server = server_of(account)
    assert in_force(server, "memory", "memory.limit_in_bytes", "memory.max") == str(128 << 20)
    assert in_force(server, "memory", "memory.soft_limit_in_bytes", "memory.low") == str(128 << 20)
    cpu = in_force(server, "cpu", "cpu.cfs_quota_us", "cpu.max").split()[0]
    assert cpu == "10000"


# --- the example, with both backends at once ----------------------------------------------------


@dataclass
class Course:
    """A hub of the example configuration, and a person of each of its groups."""

    hub: EngineHub
    ada: Person
    grace: Person
    ada_account: Account
    grace_account: Account

    def open_both(self) -> tuple[int, int]:
        """Start both servers, open JupyterLab in both, and return their processes."""
        self.ada.lab()
        self.grace.lab()
        return server_of(self.ada_account), server_of(self.grace_account)


def remove_cgroup(name: str) -> None:
    mount = find_mount()
    if mount and (mount.path / name).exists():
        assert remove_group(mount.path / name) == set()


@pytest.fixture
def make_course(site: EngineSite, image: str, gateway: str) -> Callable[[str], Course]:
    """Start a hub of the example configuration, as it is but for names, ports, and this machine."""
    cgroup = f"{PREFIX}{secrets.token_hex(6)}"
    site.at_the_end(remove_cgroup, cgroup)

    def make(more: str = "") -> Course:
        groups = [site.group(site.name(label)) for label in ("course", "teachers")]
        ada, grace = site.account("ada", groups[0]), site.account("grace", groups[0])
        names = {
            '"course"': groups[0],
            '"teachers"': groups[1],
            '"ada"': ada.name,
            '"grace"': grace.name,
        }
        changes = {old: f'"{new}"' for old, new in names.items()}
        of_this_machine = HERE_INSTEAD.format(image=image, gateway=gateway, cgroup=cgroup)
        hub = site.hub(configuration(str(EXAMPLE), changes), of_this_machine + more).start()
        people = (site.person(hub, account.name) for account in (ada, grace))
        return Course(hub, *people, ada, grace)

    return make


def test_both_backends_at_once(make_course: Callable[[str], Course]) -> None:
    course = make_course("")
    process, container = course.open_both()
    for account, pid in ((course.ada_account, process), (course.grace_account, container)):
        assert identity_of(pid) == ({account.uid}, {account.gid, *account.groups})
        notebooks = Path(account.home, "notebooks")
        assert environment_of(pid)["JUPYTERHUB_ROOT_DIR"] == str(notebooks)
        assert notebooks.owner() == account.name
    mounts = [Path(f"/proc/{pid}/ns/mnt").readlink() for pid in ("self", process, container)]
    assert mounts[0] == mounts[1] != mounts[2]
    assert in_force(container, "memory", "memory.limit_in_bytes", "memory.max") == str(1 << 30)
    assert in_force(container, "pids", "pids.max", "pids.max") == "1000"


def test_both_survive_the_hub_and_are_adopted(make_course: Callable[[str], Course]) -> None:
    course = make_course("")
    before = course.open_both()
    course.hub.kill(signal.SIGKILL)
    assert (server_of(course.ada_account), server_of(course.grace_account)) == before
    course.hub.start()
    for person in (course.ada, course.grace):
        assert person.server["ready"]
        assert "jupyter-config-data" in person.get("lab").text
    assert (server_of(course.ada_account), server_of(course.grace_account)) == before
    for account in (course.ada_account, course.grace_account):
        course.hub.stop_server(account.name)
        assert processes_of(account.uid) == []
    assert course.hub.containers() == []


INTERNAL_SSL = """
c.JupyterHub.internal_ssl = True
c.ConfigurableHTTPProxy.api_url = c.ConfigurableHTTPProxy.api_url.replace("http:", "https:")
"""


def test_certificates_on_both_backends(make_course: Callable[[str], Course], gateway: str) -> None:
    course = make_course(INTERNAL_SSL + f'c.JupyterHub.trusted_alt_names = ["IP:{gateway}"]')
    process, container = course.open_both()
    (published,) = container_of(course.hub)["NetworkSettings"]["Ports"].values()
    assert [each["HostIp"] for each in published] == ["127.0.0.1"]
    ports = {
        process: urlsplit(environment_of(process)["JUPYTERHUB_SERVICE_URL"]).port,
        container: int(published[0]["HostPort"]),
    }
    for account, pid in ((course.ada_account, process), (course.grace_account, container)):
        environment = environment_of(pid)
        for kind in ("KEYFILE", "CERTFILE", "CLIENT_CA"):
            file = Path(f"/proc/{pid}/root{environment[f'JUPYTERHUB_SSL_{kind}']}")
            assert file.stat().st_uid == account.uid
            assert stat.S_IMODE(file.stat().st_mode) in (0o400, 0o600)
        mine = Path(f"/proc/{pid}/root{environment['JUPYTERHUB_SSL_CERTFILE']}").read_text()
        shown = ssl.get_server_certificate(("127.0.0.1", ports[pid]))
        assert shown.strip() in mine


def test_a_hub_whose_certificate_does_not_name_it_is_told_the_line(
    make_course: Callable[[str], Course], gateway: str
) -> None:
    its_name = f'c.JupyterHub.trusted_alt_names = ["DNS:{socket.gethostname()}"]\n'
    # The server tries several times, longer and longer, before it gives up.
    more = 'c.JupyterHub.hub_ip = "0.0.0.0"\nc.Spawner.start_timeout = 150'
    course = make_course(INTERNAL_SSL + its_name + more)
    page = course.grace.start(deadline=240)
    assert f'c.JupyterHub.trusted_alt_names = ["IP:{gateway}"]' in html.unescape(words(page.text))
    assert course.hub.containers() == []
