"""Options: checked when the hub starts, varied by group and user, refused with a reason."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from hubs import TINY_SERVER, Hub

MakeHub = Callable[..., Hub]


def override(options: str) -> str:
    return (
        f"c.Spawner.group_overrides = {{'r': {{'groups': ['r'], 'spawner_override': {options}}}}}"
    )


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("c.WorkshopSpawner.backend = 'dokcer'", ["backend is 'dokcer'", '"docker"', '"process"']),
        ("c.Spawner.mem_limit = '-1G'", ["mem_limit", "negative"]),
        ("c.Spawner.mem_limit = '12Q'", ["mem_limit is '12Q'", '"512M"']),
        ("c.Spawner.mem_limit = float('nan')", ["mem_limit is nan"]),
        ("c.Spawner.mem_limit = ''", ["mem_limit is ''"]),
        ("c.Spawner.cpu_limit = 0", ["cpu_limit is 0", "None"]),
        ("c.Spawner.cpu_limit = -1", ["cpu_limit is -1"]),
        ("c.Spawner.cpu_limit = float('nan')", ["cpu_limit is nan"]),
        ("c.Spawner.cpu_limit = '2'", ["cpu_limit is '2'", "without quotes"]),
        ("c.Spawner.mem_limit = '1G'; c.Spawner.mem_guarantee = '2G'", ["mem_guarantee (2G)"]),
        ("c.WorkshopSpawner.pids_limit = -5", ["pids_limit is -5"]),
        ("c.WorkshopSpawner.limits_policy = 'maybe'", ["limits_policy"]),
        ("c.Spawner.notebook_dir = '~/{nosuch}'", ["notebook_dir", "{nosuch}", '"username"']),
        ("c.Spawner.notebook_dir = '~/{username'", ["notebook_dir"]),
        ("c.Spawner.notebook_dir = 'relative/dir'", ["notebook_dir", "absolute"]),
        ("c.Spawner.default_url = 'http://evil/'", ["default_url", "path"]),
        ("c.Spawner.default_url = '//evil/'", ["default_url", "path"]),
        (override("{'backend': 'podman'}"), ['group_overrides["r"]', "'podman'"]),
        (override("{'mem_limt': '1G'}"), ['group_overrides["r"]', "mem_limt"]),
        (
            "c.Spawner.group_overrides = {'r': {'groups': ['r'], 'spawner_overrid': {}}}",
            ['group_overrides["r"]', '"groups", "spawner_overrid"'],
        ),
    ],
)
def test_a_wrong_option_ends_the_hubs_start_and_is_named(
    make_hub: MakeHub, line: str, said: list[str]
) -> None:
    hub = make_hub(line + "\n")
    process = hub.launch()
    assert process.wait(20) != 0
    message = next((x for x in hub.log.splitlines() if "Bad config encountered" in x), hub.log)
    for words in said:
        assert words in message


def test_a_class_that_is_misspelt_is_told_at_the_hubs_start(make_hub: MakeHub) -> None:
    hub = make_hub("c.WorkshopSpwner.cpu_limit = 2\nc.DockerSpawner.image = 'course'\n").start()
    assert "nothing reads c.WorkshopSpwner.cpu_limit. Did you mean c.WorkshopSpawner?" in hub.log
    assert "DockerSpawner" not in hub.log


def test_a_group_varies_the_options_of_its_members(make_hub: MakeHub, user: str) -> None:
    hub = make_hub(
        f"c.JupyterHub.load_groups = {{'r': {{'users': ['{user}']}}}}\n"
        "c.Spawner.mem_limit = '1G'\n"
        + override("{'mem_limit': '2G', 'environment': {'COURSE': 'r'}}")
        + "\n"
    ).start()
    assert hub.start_server(user)[-1]["ready"]
    env = hub.server_json(user)["env"]
    assert (env["MEM_LIMIT"], env["COURSE"]) == (str(2 * 1024**3), "r")
    assert hub.start_server("other-user")[-1]["ready"]
    env = hub.server_json("other-user")["env"]
    assert env["MEM_LIMIT"] == str(1024**3)
    assert "COURSE" not in env


def test_user_options_over_rest_reach_the_spawner(make_hub: MakeHub, user: str) -> None:
    hub = make_hub(
        "def apply(spawner, options): spawner.cpu_limit = options['cores']\n"
        "c.Spawner.apply_user_options = apply\n"
    ).start()
    assert hub.start_server(user, options={"cores": 0.5})[-1]["ready"]
    assert hub.server_json(user)["env"]["CPU_LIMIT"] == "0.5"


def test_an_image_that_is_not_offered_is_refused_with_the_choices(
    make_hub: MakeHub, user: str
) -> None:
    hub = make_hub("c.WorkshopSpawner.allowed_images = {'R': 'course/r', 'Py': 'course/py'}\n")
    hub.start()
    events = hub.start_server(user, options={"image": "evil/miner"})
    assert events[-1]["failed"], events
    assert "'evil/miner' is not offered" in events[-1]["message"]
    assert '"Py", "R"' in events[-1]["message"]
    assert hub.start_server(user, options={"image": "R"})[-1]["ready"]


def test_the_start_page_offers_the_images(make_hub: MakeHub, user: str) -> None:
    hub = make_hub(
        "c.WorkshopSpawner.allowed_images = {'R & co': 'course/r', 'Py': 'course/py'}\n"
    ).start()
    page = hub.browser(user).open("/hub/spawn").text
    assert '<option value="R &amp; co">R &amp; co</option>' in page


def test_the_notebook_dir_is_filled_in_and_made_absolute(make_hub: MakeHub, user: str) -> None:
    hub = make_hub(
        "c.Spawner.notebook_dir = '~/notes/{username}-{servername}-{uid}'\n"
        "c.Spawner.default_url = '/lab/tree/{username}'\n"
    ).start()
    assert hub.start_server(user, "second")[-1]["ready"]
    env = hub.server_json(user, "second")["env"]
    home = hub.folder
    assert env["JUPYTERHUB_ROOT_DIR"] == f"{home}/notes/{user}-second-{os.getuid()}"
    assert env["JUPYTERHUB_DEFAULT_URL"] == f"/lab/tree/{user}"


@pytest.mark.parametrize("folder", ["/etc", "~/../other", "~/a/../../b"])
def test_a_notebook_dir_outside_of_the_home_is_refused(
    make_hub: MakeHub, user: str, folder: str
) -> None:
    hub = make_hub(f"c.Spawner.notebook_dir = {folder!r}\n").start()
    events = hub.start_server(user)
    assert events[-1]["failed"]
    assert "outside the folders that are allowed" in events[-1]["message"]


def test_allowed_roots_widen_where_a_notebook_dir_may_be(make_hub: MakeHub, user: str) -> None:
    hub = make_hub(
        "c.Spawner.notebook_dir = '/srv/course'\nc.WorkshopSpawner.allowed_roots = ['~', '/srv']\n"
    ).start()
    assert hub.start_server(user)[-1]["ready"]


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ("{'BAD KEY': '1'}", "'BAD KEY'"),
        ("{'1X': '1'}", "'1X'"),
        ("{'A': 'x\\0y'}", "NUL"),
        ("{'A': None}", "A is None"),
    ],
)
def test_an_environment_that_no_process_can_have_is_refused(
    make_hub: MakeHub, user: str, entry: str, said: str
) -> None:
    hub = make_hub(f"c.Spawner.environment = {entry}\n").start()
    events = hub.start_server(user)
    assert events[-1]["failed"]
    assert said in events[-1]["message"]


def test_environment_and_env_keep_reach_the_server_as_they_are(
    make_hub: MakeHub, user: str
) -> None:
    hub = make_hub(
        "c.Spawner.environment = {'LINES': 'one\\ntwo', 'WHO': lambda s: s.user.name, 'N': 3}\n"
        "c.Spawner.env_keep = ['KEPT']\n",
        env={"KEPT": "kept", "DROPPED": "dropped"},
    ).start()
    assert hub.start_server(user)[-1]["ready"]
    env = hub.server_json(user)["env"]
    assert (env["LINES"], env["WHO"], env["N"]) == ("one\ntwo", user, "3")
    assert env["KEPT"] == "kept"
    assert "DROPPED" not in env


def test_cmd_and_args_reach_the_server(make_hub: MakeHub, user: str) -> None:
    hub = make_hub(
        f"c.Spawner.cmd = [sys.executable, '-S', {str(TINY_SERVER)!r}]\n"
        "c.Spawner.args = ['--one', 'two words']\n"
    ).start()
    assert hub.start_server(user)[-1]["ready"]
    assert hub.server_json(user)["argv"] == ["--one", "two words"]


def test_a_fixed_port_is_used(make_hub: MakeHub, user: str) -> None:
    from hubs import free_ports

    (port,) = free_ports(1)
    hub = make_hub(f"c.Spawner.port = {port}\n").start()
    assert hub.start_server(user)[-1]["ready"]
    assert f":{port}/" in hub.server_json(user)["env"]["JUPYTERHUB_SERVICE_URL"]
