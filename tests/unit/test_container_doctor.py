"""What `doctor` says of engines, networks and images, from facts that are given."""

from __future__ import annotations

from dataclasses import replace

import pytest

from workshop_hub.backends.base import Finding
from workshop_hub.backends.docker import DockerBackend, doctor
from workshop_hub.system.engine_replies import EngineInfo, Network

ABLE = EngineInfo("28.0.0", (1, 48), "2", "systemd", True, True, True, True, True, False, False)
BRIDGE = Network("bridge", "bridge", "172.17.0.0/16", "172.17.0.1")


def findings(**changes: object) -> dict[str, Finding]:
    info = replace(ABLE, **changes)  # type: ignore[arg-type]
    found = doctor.engine_findings(info, swap_in_use=True)
    return {finding.subject: finding for finding in found}


def test_a_new_engine_is_fine() -> None:
    assert {finding.level for finding in findings().values()} == {"ok"}


def test_an_old_engine_is_named_with_what_is_needed() -> None:
    finding = findings(api=(1, 40), version="19.03")["engine"]
    assert finding.level == "error"
    assert "19.03" in finding.message
    assert "20.10" in finding.remedy


@pytest.mark.parametrize(
    ("missing", "subject"),
    [
        ("memory", "limit mem_limit"),
        ("swap", "limit mem_limit"),
        ("cpu_quota", "limit cpu_limit"),
        ("pids", "limit pids_limit"),
    ],
)
def test_a_limit_that_cannot_be_enforced_is_an_error(missing: str, subject: str) -> None:
    found = findings(**{missing: False})
    assert found[subject].level == "error"
    assert "limits" not in found


def test_shares_matter_with_version_1_only() -> None:
    assert "limit cpu_guarantee" in findings(cpu_shares=False, cgroup_version="1")
    assert "limit cpu_guarantee" not in findings(cpu_shares=False)
    assert findings(cgroup_version="1")["mem_guarantee"].level == "warning"


@pytest.mark.parametrize("mode", ["rootless", "remapped"])
def test_uids_that_are_not_the_accounts_are_an_error(mode: str) -> None:
    assert findings(**{mode: True})["user ids"].level == "error"


def test_a_guarantee_below_a_parent_without_one_has_no_effect() -> None:
    finding = doctor.memory_low_finding("system.slice", protected=False)
    assert finding is not None
    assert "system.slice" in finding.message
    assert doctor.memory_low_finding("system.slice", protected=True) is None
    assert doctor.memory_low_finding("system.slice", protected=None) is None


def test_networks() -> None:
    def level(name: str, network: Network | None) -> str:
        return doctor.network_finding(name, network, ["bridge", "host"]).level

    assert level("bridge", BRIDGE) == "ok"
    assert level("host", None) == "warning"
    assert level("nowhere", None) == "error"
    assert level("lan", replace(BRIDGE, driver="macvlan")) == "warning"


@pytest.mark.parametrize(
    ("present", "policy", "level"),
    [(True, "never", "ok"), (False, "never", "error"), (False, "ifnotpresent", "warning")],
)
def test_images(present: bool, policy: str, level: str) -> None:
    assert doctor.image_finding("course/py", present, policy).level == level


def test_the_engines_answers_are_read() -> None:
    info = {
        "MemoryLimit": True,
        "SwapLimit": False,
        "CpuCfsQuota": True,
        "CPUShares": True,
        "PidsLimit": True,
        "CgroupVersion": "2",
        "CgroupDriver": "systemd",
        "SecurityOptions": ["name=seccomp,profile=default", "name=rootless"],
    }
    read = EngineInfo.read(info, {"Version": "28.0.0", "ApiVersion": "1.48"})
    assert read == replace(ABLE, swap=False, rootless=True)


async def test_an_engine_that_is_down_is_the_only_finding(tmp_path) -> None:
    backend = DockerBackend(base_url=f"unix://{tmp_path}/none.sock")
    (finding,) = await backend.check()
    assert (finding.level, finding.subject) == ("error", "engine")
    assert (await backend.check_image("course/py", "never")).level == "error"
    backend.close()
