"""What the engine is asked to make, without an engine."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any

import pytest

from workshop_hub.backends.base import Address, Certificates, ContainerOptions, LaunchSpec, Owner
from workshop_hub.backends.docker import (
    container,
    container_accounts,
    container_failure,
    enforcement,
    extras,
    hub_address,
)
from workshop_hub.backends.docker.container import Machine, Mount
from workshop_hub.errors import (
    ConfigError,
    DirectoryRefused,
    EngineError,
    HubUnreachable,
    ImageError,
    PortTaken,
    ServerExited,
    StartTimeout,
    WorkshopError,
)
from workshop_hub.policy.limits import Limits
from workshop_hub.system.accounts import Account
from workshop_hub.system.engine_replies import EngineInfo, Network

ALICE = Account("alice", 1234, 1234, "/home/alice", "/bin/bash", (1234, 27, 100))
ADDRESS = Address("0.0.0.0", 8888, "http://172.17.0.1:8081")
MACHINE = Machine(prefix="workshop", network="bridge")
SPEC = LaunchSpec(
    owner=Owner("0123456789ab", "alice"),
    account=ALICE,
    limits=Limits(),
    limits_policy="enforce",
    cmd=("jupyterhub-singleuser",),
    notebook_dir="",
    create_notebook_dir=False,
    allowed_roots=("/home/alice",),
    start_timeout=60.0,
    container=ContainerOptions(image="course/py"),
)


def request(spec: LaunchSpec = SPEC, machine: Machine = MACHINE) -> container.Request:
    return container.request(spec, ADDRESS, machine, container.mounts_of(spec))


def with_options(**options: Any) -> LaunchSpec:
    return replace(SPEC, container=replace(SPEC.container, **options))


# -- names and labels ----------------------------------------------------------------------------

TRICKY = [
    Owner("0123456789ab", "a", "b"),
    Owner("0123456789ab", "a--b"),
    Owner("0123456789ab", "a-", "b"),
    Owner("0123456789ab", "a", "-b"),
    Owner("0123456789ab", "a_2d", "b"),
    Owner("0123456789ab", "a-b"),
    Owner("0123456789ab", "A"),
    Owner("0123456789ab", "a"),
    Owner("0123456789ab", "ä@x.org"),
    Owner("0123456789ab", "_c3_a4@x.org"),
    Owner("0123456789ab", "x" * 300),
    Owner("0123456789ab", "x" * 301),
    Owner("0123456789ac", "a"),
]


def test_no_two_owners_share_a_name_and_the_engine_takes_every_name() -> None:
    names = [container.name_of(owner, "workshop") for owner in TRICKY]
    assert len(set(names)) == len(TRICKY)
    for name in names:
        assert re.fullmatch(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+", name)
        assert len(name) <= container.NAME_MAX


def test_plain_names_stay_readable() -> None:
    owner = Owner("0123456789ab", "alice", "lab")
    assert container.name_of(owner, "workshop") == "workshop-0123456789ab-alice--lab"


@pytest.mark.parametrize("owner", TRICKY)
def test_the_labels_give_the_owner_and_port_back(owner: Owner) -> None:
    labels = container.labels_of(replace(SPEC, owner=owner), ADDRESS)
    assert container.owner_from(labels) == owner
    assert container.port_from(labels) == 8888
    assert container.owner_from({}) is None
    assert container.port_from({}) == 0


# -- the request ---------------------------------------------------------------------------------


def test_the_container_runs_as_the_user_with_all_her_groups() -> None:
    made = request()
    assert made.create["user"] == "1234:1234"
    assert made.host["group_add"] == ["27", "100"]
    environment = made.create["environment"]
    assert isinstance(environment, dict)
    assert environment == {
        "HOME": "/home/alice",
        "USER": "alice",
        "LOGNAME": "alice",
        "NB_USER": "alice",
        "NB_UID": "1234",
        "NB_GID": "1234",
    }


def test_it_is_hardened_unless_asked_otherwise() -> None:
    host = request().host
    assert host["cap_drop"] == ["ALL"]
    assert host["security_opt"] == ["no-new-privileges"]
    assert host["init"] is True
    assert "privileged" not in host
    assert "read_only" not in host
    assert host["tmpfs"] == {"/tmp": "rw,exec,nosuid,nodev,mode=1777"}
    assert "port_bindings" not in host


def test_limits_become_the_engines_resources() -> None:
    limits = Limits(0.5, 512 << 20, 0.1, 128 << 20, 100)
    assert container.limits_config(limits) == {
        "mem_limit": 512 << 20,
        "memswap_limit": 512 << 20,
        "mem_reservation": 128 << 20,
        "cpu_period": 100_000,
        "cpu_quota": 50_000,
        "cpu_shares": 102,
        "pids_limit": 100,
    }
    assert container.limits_config(Limits()) == {"cpu_shares": 2, "pids_limit": 4096}
    assert container.limits_config(Limits(pids_limit=0))["pids_limit"] == -1
    tiny = container.limits_config(Limits(cpu_limit=0.001, cpu_guarantee=0.001))
    assert tiny["cpu_quota"] == 1000
    assert tiny["cpu_shares"] == 2


def test_limits_are_in_the_labels() -> None:
    labels = request(replace(SPEC, limits=Limits(cpu_limit=2.0))).create["labels"]
    assert isinstance(labels, dict)
    assert json.loads(labels["workshop-hub.limits"])["cpu_limit"] == 2.0


def test_the_home_is_mounted_at_its_own_path_and_never_made_by_the_engine() -> None:
    spec = with_options(
        volumes={"/srv/data": "/data", "cache": "/cache"}, read_only_volumes={"/srv/course": "/c"}
    )
    assert request(spec).host["mounts"] == [
        {"Type": "bind", "Source": "/home/alice", "Target": "/home/alice", "ReadOnly": False},
        {"Type": "bind", "Source": "/srv/data", "Target": "/data", "ReadOnly": False},
        {"Type": "volume", "Source": "cache", "Target": "/cache", "ReadOnly": False},
        {"Type": "bind", "Source": "/srv/course", "Target": "/c", "ReadOnly": True},
    ]


def test_a_volume_at_the_homes_place_replaces_it() -> None:
    mounts = container.mounts_of(with_options(volumes={"/data/alice": "/home/alice/"}))
    assert mounts == (Mount("/data/alice", "/home/alice/"),)


def test_read_only_keeps_what_servers_write_to_writable() -> None:
    host = request(machine=replace(MACHINE, read_only=True)).host
    assert host["read_only"] is True
    assert sorted(host["tmpfs"]) == ["/run", "/tmp", "/var/tmp"]  # type: ignore[call-overload]


def test_publishing_binds_the_loopback_only() -> None:
    made = request(machine=replace(MACHINE, publish=True))
    assert made.host["port_bindings"] == {8888: ("127.0.0.1",)}


def test_the_server_is_started_directly_where_nothing_must_be_done_before() -> None:
    assert request().create["command"] == ["jupyterhub-singleuser"]


def test_certificates_go_to_a_place_of_the_users_own() -> None:
    spec = replace(SPEC, certificates=Certificates("KEY", "CERT", "CA"))
    made = request(spec)
    assert made.host["tmpfs"]["/run/workshop-hub"].endswith("mode=0700,uid=1234,gid=1234")  # type: ignore[index]
    assert container.certificate_paths(spec) == {
        "keyfile": "/run/workshop-hub/key.pem",
        "certfile": "/run/workshop-hub/cert.pem",
        "cafile": "/run/workshop-hub/ca.pem",
    }
    assert container.certificate_paths(SPEC) is None


# -- the administrator's extras ------------------------------------------------------------------


def merged(create: dict[str, object] | None = None, host: dict[str, object] | None = None) -> Any:
    return extras.merge(request(), create or {}, host or {})


def test_extras_are_added_to_lists_and_dictionaries_and_replace_values() -> None:
    made = merged(
        {"hostname": "lab", "environment": {"A": "b"}, "labels": {"mine": "1"}},
        {"group_add": [100, "33"], "tmpfs": {"/scratch": ""}, "shm_size": "256m", "init": False},
    )
    assert made.create["hostname"] == "lab"
    assert made.create["environment"]["A"] == "b"
    assert made.create["environment"]["HOME"] == "/home/alice"
    assert made.create["labels"]["mine"] == "1"
    assert made.create["labels"]["workshop-hub.user"] == "alice"
    assert made.host["group_add"] == ["27", "100", 100, "33"]
    assert set(made.host["tmpfs"]) == {"/tmp", "/scratch"}
    assert made.host["shm_size"] == "256m"
    assert made.host["init"] is False


def test_capabilities_dropped_are_the_administrators_choice() -> None:
    assert merged(host={"cap_drop": ["NET_RAW"]}).host["cap_drop"] == ["NET_RAW"]


@pytest.mark.parametrize("key", extras.REFUSED_HOST)
def test_host_options_that_would_undo_something_are_refused_by_name(key: str) -> None:
    with pytest.raises(ConfigError, match=f"extra_host_config sets {key}, which is not possible"):
        merged(host={key: "something"})
    merged(host={key: None})


@pytest.mark.parametrize("key", extras.REFUSED_CREATE)
def test_create_options_that_would_undo_something_are_refused_by_name(key: str) -> None:
    with pytest.raises(ConfigError, match=f"extra_create_kwargs sets {key}"):
        merged({key: "something"})


@pytest.mark.parametrize(
    "option",
    ["no-new-privileges:false", f"no-new-privileges={False}", "no-new-privileges:0"],
)
def test_new_privileges_are_never_allowed(option: str) -> None:
    with pytest.raises(ConfigError, match="become root"):
        merged(host={"security_opt": [option]})
    kept = merged(host={"security_opt": ["seccomp=unconfined"]}).host["security_opt"]
    assert kept == ["no-new-privileges", "seccomp=unconfined"]


def test_our_labels_cannot_be_forged() -> None:
    with pytest.raises(ConfigError, match=r"label workshop-hub\.hub"):
        merged({"labels": {"workshop-hub.hub": "ffffffffffff"}})


def test_a_list_in_place_of_a_dictionary_is_refused() -> None:
    with pytest.raises(ConfigError, match="must be a dictionary"):
        merged({"environment": ["A=b"]})


@pytest.mark.parametrize("user", ["0", "root", "0:0", "", None])
def test_root_with_a_writable_folder_of_the_host_is_refused(user: object) -> None:
    made = merged({"user": user})
    with pytest.raises(ConfigError, match="as root with the folder /home/alice"):
        extras.check_identity(made, container.mounts_of(SPEC), 1234)


@pytest.mark.parametrize("user", ["4321", "4321:1234", "jovyan"])
def test_another_user_than_the_account_is_refused(user: str) -> None:
    with pytest.raises(ConfigError, match="belongs to uid 1234"):
        extras.check_identity(merged({"user": user}), container.mounts_of(SPEC), 1234)


def test_another_group_is_possible() -> None:
    extras.check_identity(merged({"user": "1234:100"}), container.mounts_of(SPEC), 1234)


# -- limits that can and cannot be enforced ------------------------------------------------------

ABLE = EngineInfo("20.10.0", (1, 41), "2", "systemd", True, True, True, True, True, False, False)


def test_an_engine_that_can_do_everything_has_no_gaps() -> None:
    everything = Limits(1.0, 1 << 30, 0.5, 1 << 28, 100)
    assert enforcement.gaps(everything, ABLE, swap_in_use=True) == []


@pytest.mark.parametrize(
    ("missing", "limits", "option"),
    [
        ("memory", Limits(mem_limit=1 << 30), "mem_limit"),
        ("memory", Limits(mem_guarantee=1 << 30), "mem_guarantee"),
        ("swap", Limits(mem_limit=1 << 30), "mem_limit"),
        ("cpu_quota", Limits(cpu_limit=1.0), "cpu_limit"),
        ("pids", Limits(pids_limit=10), "pids_limit"),
    ],
)
def test_a_limit_that_the_kernel_lacks_is_named(missing: str, limits: Limits, option: str) -> None:
    info = replace(ABLE, **{missing: False})
    (problem,) = enforcement.gaps(limits, info, swap_in_use=True)
    assert problem.startswith(f"{option}: ")
    assert enforcement.gaps(Limits(), info, swap_in_use=True) == []
    error = enforcement.refusal([problem])
    assert option in error.message
    assert "limits_policy" in error.remedy


def test_without_swap_it_need_not_be_counted() -> None:
    info = replace(ABLE, swap=False)
    assert enforcement.gaps(Limits(mem_limit=1 << 30), info, swap_in_use=False) == []


def test_a_difference_from_the_kernel_is_found() -> None:
    wanted = Limits(cpu_limit=0.5, mem_limit=(512 << 20) + 5, pids_limit=100)
    kernel = Limits(cpu_limit=0.5, mem_limit=512 << 20, pids_limit=100)
    assert enforcement.differences(wanted, kernel) == []
    assert len(enforcement.differences(wanted, Limits())) == 3


def test_the_engines_word_is_read_where_the_kernels_files_are_not_ours() -> None:
    limits = Limits(0.5, 512 << 20, 0.1, 128 << 20, 100)
    kept = {
        "Memory": 512 << 20,
        "MemoryReservation": 128 << 20,
        "CpuQuota": 50_000,
        "CpuPeriod": 100_000,
        "CpuShares": 102,
        "PidsLimit": 100,
    }
    assert enforcement.asked_for(kept) == limits
    assert enforcement.asked_for({"PidsLimit": None, "Memory": 0}) == Limits()


# -- the way to the hub --------------------------------------------------------------------------

BRIDGE = Network("bridge", "bridge", "172.17.0.0/16", "172.17.0.1")


@pytest.mark.parametrize("bound", ["", "0.0.0.0", "::", "*", "172.17.0.1"])
def test_a_hub_that_listens_everywhere_is_found_at_the_gateway(bound: str) -> None:
    assert hub_address.choose(replace(SPEC, hub_ip=bound), BRIDGE, "") == "172.17.0.1"


@pytest.mark.parametrize("bound", ["127.0.0.1", "localhost", "::1", "127.0.1.1"])
def test_a_hub_on_the_loopback_names_the_setting(bound: str) -> None:
    with pytest.raises(HubUnreachable) as caught:
        hub_address.choose(replace(SPEC, hub_ip=bound), BRIDGE, "")
    assert 'c.JupyterHub.hub_ip = "172.17.0.1"' in caught.value.remedy


def test_another_address_of_the_machine_is_kept() -> None:
    assert hub_address.choose(replace(SPEC, hub_ip="192.0.2.7"), BRIDGE, "") == "192.0.2.7"


def test_the_override_wins_and_the_hosts_network_uses_the_loopback() -> None:
    assert hub_address.choose(SPEC, BRIDGE, "hub.example.org") == "hub.example.org"
    assert hub_address.choose(replace(SPEC, hub_ip=""), None, "") == "127.0.0.1"
    assert hub_address.choose(replace(SPEC, hub_ip="192.0.2.7"), None, "") == "192.0.2.7"


def test_the_gateway_of_an_old_engine_is_the_subnets_first_address() -> None:
    assert hub_address.gateway(replace(BRIDGE, gateway="")) == "172.17.0.1"
    assert hub_address.gateway(replace(BRIDGE, gateway="", subnet="")) == ""


def test_a_network_without_the_host_in_it_is_refused() -> None:
    with pytest.raises(ConfigError, match="macvlan"):
        hub_address.choose(SPEC, replace(BRIDGE, driver="macvlan"), "")


# -- names inside of the container -----------------------------------------------------------------


def test_the_accounts_line_comes_first() -> None:
    image = "root:x:0:0:root:/root:/bin/bash\njovyan:x:1234:100::/home/jovyan:/bin/bash\n"
    ours = "alice:x:1234:1234::/home/alice:/bin/bash\n"
    assert container_accounts.with_user(image, ALICE) == ours + image
    exotic = replace(ALICE, shell="/usr/bin/fish")
    assert container_accounts.with_user("", exotic).strip().endswith(":/bin/sh")


def test_an_account_that_would_break_the_file_is_left_out() -> None:
    assert container_accounts.with_user("x", replace(ALICE, home="/home/a\nroot::0:0::/:")) == "x"
    assert container_accounts.with_user("x", replace(ALICE, name="a:b")) == "x"


def test_only_groups_without_a_line_are_added() -> None:
    image = "root:x:0:\nsudo:x:27:\nusers:x:100:"
    names = {1234: "alice", 27: "wheel", 43: "users", 44: "a:b", 45: "x\ny", 46: "course"}
    added = container_accounts.with_groups(image, names)
    assert added == image + "\nalice:x:1234:\ncourse:x:46:\n"


# -- failures in words ---------------------------------------------------------------------------


def explain(error: WorkshopError, **changes: Any) -> WorkshopError:
    return container_failure.explain(error, replace(SPEC, **changes), ADDRESS)


def exited(code: int, log: str) -> ServerExited:
    return ServerExited("It ended.", exit_code=code, log=log)


def test_an_image_without_the_server_is_told_from_a_server_that_fails() -> None:
    words = 'OCI runtime create failed: exec: "jupyterhub-singleuser": executable file not found'
    error = explain(EngineError(words))
    assert isinstance(error, ImageError)
    assert 'course/py has no program "jupyterhub-singleuser"' in error.message
    by_shell = exited(127, "workshop-hub: exec: line 3: jupyterhub-singleuser: not found")
    assert isinstance(explain(by_shell, notebook_dir="/home/alice/x"), ImageError)
    plain = exited(1, "Traceback: module not found")
    assert explain(plain) is plain


def test_the_preludes_words_reach_the_user() -> None:
    error = explain(exited(97, "noise\nworkshop-hub: The notebook directory /x does not exist."))
    assert isinstance(error, DirectoryRefused)
    assert error.message == "The notebook directory /x does not exist."
    own = exited(97, "the server's own 97")
    assert explain(own) is own


def test_a_server_that_cannot_reach_the_hub_blames_the_firewall() -> None:
    line = "ERROR Failed to connect to my Hub at http://172.17.0.1:8081/hub/api"
    log = f"{line}\nTraceback\n{line}\nConnectionRefusedError"
    for error in (exited(1, "ConnectionRefusedError"), StartTimeout("It did not listen.")):
        explained = container_failure.explain(error, SPEC, ADDRESS, log)
        assert isinstance(explained, HubUnreachable)
        assert "http://172.17.0.1:8081" in explained.message
        assert "firewall" in explained.remedy
        assert explained.log == f"{line}\n{line}"


def test_a_lost_port_is_told_so_that_another_is_tried() -> None:
    assert isinstance(explain(exited(1, "OSError: [Errno 98] Address already in use")), PortTaken)


def test_other_errors_stay_as_they_are() -> None:
    for error in (EngineError("no space left on device"), StartTimeout("late", log="busy")):
        assert explain(error) is error


@pytest.mark.parametrize(
    ("hub_url", "name"),
    [
        ("https://172.17.0.1:8081", "IP:172.17.0.1"),
        ("https://[fd00::1]:8081", "IP:fd00::1"),
        ("https://hub.example.org:8081", "DNS:hub.example.org"),
    ],
)
def test_a_hub_that_its_certificate_does_not_name(hub_url: str, name: str) -> None:
    log = f"{hub_address.NO_HUB} at {hub_url}\nssl: CERTIFICATE_VERIFY_FAILED: IP mismatch"
    error = hub_address.unreachable_from_inside(hub_url, log)
    assert f'c.JupyterHub.trusted_alt_names = ["{name}"]' in error.remedy
    assert "firewall" in hub_address.unreachable_from_inside(hub_url, hub_address.NO_HUB).remedy
