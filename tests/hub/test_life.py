"""A server's life, as the hub and its user see it."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

from hubs import TINY_SERVER, Hub, words
from support import eventually_sync

MakeHub = Callable[..., Hub]


def ready(events: list[dict]) -> bool:
    return bool(events and events[-1].get("ready"))


def test_a_server_starts_and_answers_through_the_proxy(hub: Hub, user: str) -> None:
    events = hub.start_server(user)
    assert ready(events), events
    env = hub.server_json(user)["env"]
    assert env["JUPYTERHUB_USER"] == user
    assert env["JUPYTERHUB_SERVICE_PREFIX"] == f"/user/{user}/"


def test_progress_tells_the_real_steps_in_order(hub: Hub, user: str) -> None:
    messages = [event.get("message", "") for event in hub.start_server(user)]
    steps = ["Preparing (fake)", "Starting the fake server", "Waiting for the fake server"]
    places = [next(i for i, m in enumerate(messages) if step in m) for step in steps]
    assert places == sorted(places), messages


def test_named_servers_run_side_by_side_and_end_apart(hub: Hub, user: str) -> None:
    assert ready(hub.start_server(user))
    assert ready(hub.start_server(user, "second"))
    pids = {hub.server_json(user)["pid"], hub.server_json(user, "second")["pid"]}
    assert len(pids) == 2
    hub.stop_server(user, "second")
    assert hub.server_json(user)["pid"] in pids


def test_stop_ends_the_process_and_a_second_start_is_a_new_one(hub: Hub, user: str) -> None:
    assert ready(hub.start_server(user))
    pid = hub.server_json(user)["pid"]
    hub.stop_server(user)
    assert not Path(f"/proc/{pid}").exists()
    assert ready(hub.start_server(user))
    assert hub.server_json(user)["pid"] != pid


def test_an_early_exit_fails_with_code_and_log_on_the_pending_page(
    make_hub: MakeHub, user: str
) -> None:
    hub = make_hub(
        f"c.Spawner.cmd = [sys.executable, '-S', {str(TINY_SERVER)!r}, "
        "'print:<b>no such</b> kernel', 'exit:3']\n"
    ).start()
    events = hub.start_server(user)
    assert events[-1]["failed"]
    assert "exit code 3" in events[-1]["message"]
    assert "&lt;b&gt;no such&lt;/b&gt; kernel" in events[-1]["html_message"]
    page = hub.browser(user).open(f"/hub/spawn-pending/{user}").text
    assert "exit code 3" in page
    assert "&lt;b&gt;no such&lt;/b&gt; kernel" in page
    assert hub.servers(user) == {}


def test_a_server_that_never_listens_is_ended_and_the_user_is_told(
    make_hub: MakeHub, user: str
) -> None:
    hub = make_hub(
        f"c.Spawner.cmd = [sys.executable, '-S', {str(TINY_SERVER)!r}, 'silent']\n"
        "c.Spawner.start_timeout = 3\n"
    ).start()
    events = hub.start_server(user)
    assert events[-1]["failed"]
    assert "was not ready within 3 seconds" in events[-1]["message"]
    assert not processes_of(hub)


SLOW_TO_CLEAR = """
import asyncio, pathlib
from fake_backend import FakeBackend
class SlowBackend(FakeBackend):
    async def prepare(self, spec):
        pathlib.Path("prepared").open("a").write("x")
        return await super().prepare(spec)
    async def start(self, spec, address):
        try:
            async for event in super().start(spec, address):
                yield event
        except BaseException:
            while not pathlib.Path("go").exists():
                await asyncio.sleep(0.05)
            raise
class SlowSpawner(FakeSpawner):
    backends = {**FakeSpawner.backends, "slow": SlowBackend}
c.JupyterHub.spawner_class = SlowSpawner
c.WorkshopSpawner.backend = "slow"
c.Spawner.start_timeout = 3
c.Spawner.cmd = [sys.executable, "-S", %r, "silent"]
"""


def test_a_start_waits_until_the_last_one_has_been_cleared_away(
    make_hub: MakeHub, user: str
) -> None:
    hub = make_hub(SLOW_TO_CLEAR % str(TINY_SERVER)).start()
    assert "was not ready within 3 seconds" in hub.start_server(user)[-1]["message"]
    prepared = hub.folder / "prepared"
    assert prepared.read_text() == "x"
    hub.api("POST", f"/users/{user}/server")
    (hub.folder / "go").touch()
    eventually_sync(lambda: prepared.read_text() == "xx", "the next start goes on")


def test_the_next_page_tells_why_a_server_died_even_after_a_restart(
    make_hub: MakeHub, user: str
) -> None:
    hub = make_hub().start()
    assert ready(hub.start_server(user))
    hub.request("GET", f"/user/{user}/exit/9")
    hub.wait_stopped(user)
    page = words(hub.browser(user).open(f"/hub/user/{user}/").text)
    assert "Your server has ended. It ended by itself with exit code 9." in page
    hub.kill()
    hub.start()
    assert "exit code 9" in words(hub.browser(user).open("/hub/home").text)


def test_a_death_is_noticed_at_once_not_at_the_next_poll(make_hub: MakeHub, user: str) -> None:
    hub = make_hub("c.Spawner.poll_interval = 3600\n").start()
    assert ready(hub.start_server(user))
    hub.request("GET", f"/user/{user}/exit/9")
    hub.wait_stopped(user)
    assert "exit code 9" in words(hub.browser(user).open("/hub/home").text)


def test_the_death_of_an_adopted_server_is_noticed_at_once(make_hub: MakeHub, user: str) -> None:
    hub = make_hub("c.Spawner.poll_interval = 3600\n").start()
    assert ready(hub.start_server(user))
    hub.kill(signal.SIGKILL)
    hub.start()
    hub.request("GET", f"/user/{user}/exit/9")
    hub.wait_stopped(user)
    assert "exit code 9" in words(hub.browser(user).open("/hub/home").text)


def test_a_new_start_forgets_why_the_last_server_died(make_hub: MakeHub, user: str) -> None:
    hub = make_hub().start()
    assert ready(hub.start_server(user))
    hub.request("GET", f"/user/{user}/exit/9")
    hub.wait_stopped(user)
    assert ready(hub.start_server(user))
    assert "exit code 9" not in hub.browser(user).open("/hub/home").text


def test_a_stop_through_the_hub_is_named_as_such(hub: Hub, user: str) -> None:
    assert ready(hub.start_server(user))
    hub.stop_server(user)
    page = words(hub.browser(user).open(f"/hub/user/{user}/").text)
    assert "stopped through the hub" in page


def test_a_running_server_that_hit_its_memory_limit_is_told_on_the_hubs_pages(
    make_hub: MakeHub, user: str
) -> None:
    hub = make_hub("c.Spawner.mem_limit = '512M'\n").start()
    assert ready(hub.start_server(user))
    record = next((hub.folder / "workshop-logs").glob(f"*-{user}-.json"))
    record.with_suffix(".oom").write_text("2")
    browser = hub.browser(user)
    page = eventually_sync(
        lambda: next(
            (t for t in [words(browser.open("/hub/home").text)] if "memory limit" in t), ""
        ),
        "a notice of the memory limit",
    )
    assert "reached its memory limit of 512M 2 times" in page
    assert user in hub.servers(user) or hub.servers(user)


def test_servers_outlive_a_restart_and_are_adopted(make_hub: MakeHub, user: str) -> None:
    hub = make_hub().start()
    assert ready(hub.start_server(user))
    pid = hub.server_json(user)["pid"]
    hub.kill(signal.SIGTERM)
    assert Path(f"/proc/{pid}").exists()
    hub.start()
    assert hub.server_json(user)["pid"] == pid
    hub.stop_server(user)
    assert not Path(f"/proc/{pid}").exists()


def test_servers_outlive_kill_9_of_the_hub(make_hub: MakeHub, user: str) -> None:
    hub = make_hub().start()
    assert ready(hub.start_server(user))
    pid = hub.server_json(user)["pid"]
    hub.kill(signal.SIGKILL)
    hub.start()
    assert hub.server_json(user)["pid"] == pid


def test_what_a_killed_hub_left_half_started_is_ended(make_hub: MakeHub, user: str) -> None:
    hub = make_hub(
        f"c.Spawner.cmd = [sys.executable, '-S', {str(TINY_SERVER)!r}, 'silent']\n"
    ).start()
    hub.api("POST", f"/users/{user}")
    hub.api("POST", f"/users/{user}/server", {})
    logs = hub.folder / "workshop-logs"
    eventually_sync(lambda: list(logs.glob("*.json")), "the record of the half-started server")
    assert processes_of(hub)
    hub.kill(signal.SIGKILL)
    hub.start()
    eventually_sync(lambda: not processes_of(hub), "the end of the half-started server")
    assert hub.servers(user) == {}


def test_a_server_that_could_not_be_ended_is_ended_as_soon_as_it_can_be(
    make_hub: MakeHub, user: str
) -> None:
    hub = make_hub().start()
    assert ready(hub.start_server(user))
    record = next((hub.folder / "workshop-logs").glob(f"*-{user}-.json"))
    stuck = record.with_suffix(".stuck")
    stuck.touch()
    hub.stop_server(user)
    assert processes_of(hub)
    stuck.unlink()
    eventually_sync(lambda: not processes_of(hub), "the end of the server")


def test_a_server_the_hub_knows_nothing_of_is_ended_at_its_start(
    make_hub: MakeHub, user: str
) -> None:
    hub = make_hub().start()
    assert ready(hub.start_server(user))
    hub.kill(signal.SIGKILL)
    (hub.folder / "jupyterhub.sqlite").unlink()
    hub.start()
    eventually_sync(lambda: not processes_of(hub), "the end of the left-over server")


def processes_of(hub: Hub) -> list[str]:
    """Return the pids of the tiny servers that log below the hub's folder."""
    folder = f"{hub.folder}/workshop-logs/".encode()
    pids = [entry.name for entry in Path("/proc").iterdir() if entry.name.isdecimal()]
    return [pid for pid in pids if folder in command_line(pid)]


def command_line(pid: str) -> bytes:
    """Return the words of a process; nothing where it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""
