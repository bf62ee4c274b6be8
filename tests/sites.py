"""A site around a configuration: accounts with passwords, groups, what sudo allows, and a hub.

All of it is made on this machine, under names that begin with PREFIX, and removed again.
"""

from __future__ import annotations

import contextlib
import grp
import os
import pwd
import re
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Generic, TypeVar

import pytest
from process.harness import PREFIX, command_line, kill_all_of, made_account, processes_of

from hubs import Answer, Browser, Hub, words
from support import require
from workshop_hub.system import accounts
from workshop_hub.system.accounts import Account

CONFIGS = Path(__file__).parent / "configs"
SUDOERS = Path("/etc/sudoers.d")

EMBEDDING = "frame-ancestors 'self' https://learn.example.org"
"""Content-Security-Policy of embedded_small.py."""

FOR_THE_TEST = """

# What a test needs in place of the site's facts: ports, and a token to look at the hub.
c.JupyterHub.bind_url = "http://127.0.0.1:{port}"
c.JupyterHub.hub_port = {hub_port}
c.ConfigurableHTTPProxy.api_url = "http://127.0.0.1:{proxy_port}"
c.JupyterHub.cleanup_servers = False
c.JupyterHub.services = [dict(name="tests", api_token="{token}")]
c.JupyterHub.load_roles = [dict(name="tests", services=["tests"], scopes=[
    "admin:users", "admin:servers", "list:users", "access:servers", "read:hub"])]
"""


class SiteHub(Hub):
    """A hub with a site's configuration, of which nothing is changed but names and ports."""

    def __init__(self, config: str, more: str = "", *, as_user: str = "") -> None:
        folder = Path(tempfile.mkdtemp(prefix=PREFIX))
        folder.chmod(0o755)
        super().__init__(folder, config, base="", as_user=as_user)
        facts = FOR_THE_TEST.format(
            port=self.port, hub_port=self.hub_port, proxy_port=self.proxy_port, token=self.token
        )
        self.config_file.write_text(config + facts + more)
        self.config_file.chmod(0o644)

    def close(self) -> None:
        """End the hub and every server of it."""
        try:
            if self.process is not None and self.process.poll() is None:
                for user in self.api("GET", "/users").json:
                    for server in user.get("servers") or {}:
                        self.stop_server(user["name"], server)
        finally:
            self.kill()
            self.clear_away()
            shutil.rmtree(self.folder)

    def clear_away(self) -> None:
        """Remove what is left of servers when the hub has ended; their accounts end processes."""


AnyHub = TypeVar("AnyHub", bound=SiteHub)


class Person:
    """Somebody at a browser, who has an account of the machine and knows its password."""

    def __init__(self, hub: Hub, name: str, password: str) -> None:
        self.name = name
        self.browser = Browser(hub.root)
        self.hub = hub
        self.browser.open("/hub/login")
        form = {"username": name, "password": password}
        self.browser.open("/hub/login?next=/hub/home", form)  # else a login starts a server

    @property
    def is_in(self) -> bool:
        """Whether the hub shows its own pages, and not its login page."""
        return "/hub/login" not in self.browser.open("/hub/home").url

    def start(self, deadline: float = 150) -> Answer:
        """Ask for a server as the page's button does; return the page once it is decided."""
        answer = self.browser.open("/hub/spawn")
        end = time.monotonic() + deadline
        while time.monotonic() < end:
            if self.server.get("ready"):
                return answer
            answer = self.browser.open(f"/hub/spawn-pending/{self.name}")
            if answer.status >= 400 or "Spawn failed" in answer.text:
                return answer
            time.sleep(0.2)
        pytest.fail(f"no server within {deadline:g} s:\n{self.hub.log[-4000:]}")

    @property
    def server(self) -> dict:
        return self.hub.api("GET", f"/users/{self.name}").json.get("servers", {}).get("", {})

    def lab(self, deadline: float = 60) -> Answer:
        """Start the server and open JupyterLab; return its page."""
        answer = self.start(max(deadline, 150))
        assert self.server.get("ready"), words(answer.text) + self.hub.log[-4000:]
        page = self.browser.open(f"/user/{self.name}/lab", timeout=deadline)
        assert page.status == 200, page.text + self.hub.log[-4000:]
        assert "jupyter-config-data" in page.text
        return page

    def get(self, path: str, timeout: float = 60) -> Answer:
        """Open a page of the server."""
        return self.browser.open(f"/user/{self.name}/{path}", timeout=timeout)


class Site(Generic[AnyHub]):
    """The accounts, groups, rules and hubs of one test, removed when it ends."""

    def __init__(self, stack: contextlib.ExitStack, make_hub: type[AnyHub]) -> None:
        self._stack = stack
        self._make_hub = make_hub
        self._passwords: dict[str, str] = {}

    def at_the_end(self, do: Callable[..., object], *arguments: object) -> None:
        """Have something removed when what is made from now on is gone."""
        self._stack.callback(do, *arguments)

    def account(self, label: str, *groups: str) -> Account:
        """Make an account with a password."""
        account = self._stack.enter_context(made_account(label))
        for group in groups:
            run("usermod", "--append", "--groups", group, account.name)
        self.set_password(account.name)
        return accounts.find(account.name)

    def name(self, label: str) -> str:
        """Return the name of an account that does not exist; the hub may make it."""
        name = f"{PREFIX}{label}-{secrets.token_hex(3)}"
        self._stack.callback(remove_account, name)
        return name

    def set_password(self, name: str) -> None:
        self._passwords[name] = secrets.token_urlsafe(12)
        run("chpasswd", text=f"{name}:{self._passwords[name]}\n")

    def group(self, name: str) -> str:
        """Make a group where it is missing."""
        try:
            grp.getgrnam(name)
        except KeyError:
            run("groupadd", name)
            self._stack.callback(run, "groupdel", name)
        return name

    def allow(self, hub_account: Account, names: Sequence[str], *more: str) -> None:
        """Write what `workshop-hub units` says to write for sudo, and lines that a site adds."""
        program = Path(sys.executable).with_name("workshop-hub")
        named = [word for name in names for word in ("--accounts", name)]
        shown = run(str(program), "units", "--hub-user", hub_account.name, "--missing-ok", *named)
        file = re.search(r"^# ---- /etc/sudoers\.d/\S+ \(mode 440\)\n(.*)", shown, re.M | re.S)
        assert file, shown
        rules = SUDOERS / hub_account.name
        self._stack.callback(rules.unlink, missing_ok=True)
        rules.write_text("\n".join([file[1], *more, ""]))
        rules.chmod(0o440)
        run("visudo", "--check", f"--file={rules}")

    def hub(self, config: str, more: str = "", *, as_user: str = "") -> AnyHub:
        """Make a hub, which ends with the test; it is not started."""
        hub = self._make_hub(config, more, as_user=as_user)
        self._stack.callback(hub.close)
        return hub

    def person(self, hub: Hub, name: str) -> Person:
        """Log somebody in with the account's password."""
        return Person(hub, name, self._passwords[name])


@contextlib.contextmanager
def made_site(make_hub: type[AnyHub]) -> Iterator[Site[AnyHub]]:
    """Give a site on this machine, and remove it."""
    require(os.geteuid() == 0, "only root can make accounts")
    for program in ("sudo", "setpriv", "useradd", "chpasswd", "visudo"):
        require(shutil.which(program), f"the program {program} is needed")
    with contextlib.ExitStack() as stack:
        yield Site(stack, make_hub)


def configuration(name: str, changes: Mapping[str, str]) -> str:
    """Return one of the configurations in tests/configs, with names of people exchanged.

    Each change must find its word: a configuration that changes does not silently escape.
    """
    text = (CONFIGS / name).read_text()
    for old, new in changes.items():
        assert old in text, f"{name} has no {old}"
        text = text.replace(old, new)
    return text


def embedded_small(
    site: Site[AnyHub], more: str, changes: Mapping[str, str] | None = None
) -> AnyHub:
    """Make a hub of embedded_small.py with its add_user.sh; more: lines of this machine."""
    hub = site.hub(configuration("embedded_small.py", changes or {}), more)
    shutil.copy(CONFIGS / "add_user.sh", hub.folder)
    return hub


def run(*command: str, text: str = "") -> str:
    """Run a program and return what it prints."""
    done = subprocess.run(command, input=text, text=True, capture_output=True, check=False)
    assert done.returncode == 0, f"{command}: {done.stderr}{done.stdout}"
    return done.stdout


def remove_account(name: str) -> None:
    try:
        account = pwd.getpwnam(name)
    except KeyError:
        return
    kill_all_of(account.pw_uid)
    subprocess.run(["userdel", "--force", name], check=True, capture_output=True)
    shutil.rmtree(account.pw_dir, ignore_errors=True)


def server_of(account: Account) -> int:
    """Return the process of an account's JupyterLab, in a container or not, however it started."""
    found = {pid: parent_of(pid) for pid in processes_of(account.uid) if runs_jupyter(pid)}
    # between fork and exec, what it starts looks the same
    (server,) = (pid for pid, parent in found.items() if parent not in found)
    return server


def runs_jupyter(pid: int) -> bool:
    """Say whether a process is Python that runs a script of Jupyter's."""
    with contextlib.suppress(OSError):
        program = Path(f"/proc/{pid}/exe").readlink().name
        script = any(Path(word).name.startswith("jupyter") for word in command_line(pid).split())
        return program.startswith("python") and script
    return False


def parent_of(pid: int) -> int:
    with contextlib.suppress(OSError):
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return 0
