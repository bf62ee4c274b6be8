"""Real accounts, real PAM and a real hub, in a mount namespace with its own /etc and /home.

The machine's own files are never touched: what the tests make ends with the namespace, and the
namespace ends with the tests, however they end.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import pytest
from accounts.browser import chromium as chromium  # a fixture

from hubs import Hub
from support import require

PREFIX = "wsacct-"
PASSWORD = "a long sentence of theirs"

PRIVATE = """
mount -t tmpfs -o mode=755 private "$1"
mkdir "$1/etc" "$1/home" "$1/log" "$1/mail" "$1/extrausers" "$1/run"
cp -a /etc/. "$1/etc/"
mount --bind "$1/etc" /etc
mount --bind "$1/home" /home
mount --bind "$1/log" /var/log
mount --bind "$1/mail" /var/mail
mkdir -p /run/workshop-hub
mount --bind "$1/run" /run/workshop-hub
if [ -d /var/lib/extrausers ]; then mount --bind "$1/extrausers" /var/lib/extrausers; fi
printf 'auth required pam_unix.so nullok nodelay\\naccount required pam_unix.so\\n' \
    >/etc/pam.d/workshop-test
printf 'auth required pam_permit.so\\naccount required pam_permit.so\\n' \
    >/etc/pam.d/workshop-anyone
echo ready
exec cat
"""

BASE_CONFIG = """
import sys
sys.path.insert(0, {tests!r})
from accounts.noproxy import NoProxy
from workshop_hub import WorkshopAuthenticator
c = get_config()
c.JupyterHub.bind_url = "http://127.0.0.1:{port}"
c.JupyterHub.hub_port = {hub_port}
c.JupyterHub.proxy_class = NoProxy
c.JupyterHub.redirect_to_server = False
c.JupyterHub.authenticator_class = WorkshopAuthenticator
c.PAMAuthenticator.service = "workshop-test"
c.JupyterHub.services = [dict(name="tests", api_token={token!r})]
c.JupyterHub.load_roles = [dict(name="tests", services=["tests"], scopes=[
    "admin:users", "admin:servers", "access:servers", "list:users", "read:hub", "delete:users"])]
"""


WITH_PROXY = """
c.JupyterHub.proxy_class = "configurable-http-proxy"
c.ConfigurableHTTPProxy.command = [{program!r}]
c.ConfigurableHTTPProxy.api_url = "http://127.0.0.1:{{proxy_port}}"
"""


@dataclass(frozen=True)
class Entry:
    """One line of the private /etc/passwd."""

    name: str
    uid: int
    gid: int
    home: str
    shell: str


class Machine:
    """The namespace: programs run in it, and the accounts that it has."""

    def __init__(self, pid: int) -> None:
        self.enter = ["nsenter", f"--target={pid}", "--mount", "--"]

    def run(self, *command: str, text: str = "") -> str:
        """Run a program in the namespace and return what it prints."""
        done = subprocess.run(
            [*self.enter, *command], input=text, text=True, capture_output=True, check=False
        )
        assert done.returncode == 0, f"{command}: {done.stderr}{done.stdout}"
        return done.stdout

    def add(self, name: str, *options: str, password: str = PASSWORD) -> Entry:
        """Make an account whose name begins with the prefix."""
        assert name.lower().startswith(PREFIX)
        self.run("useradd", "--create-home", "--shell", "/bin/bash", *options, "--", name)
        self.set_password(name, password)
        entry = self.entry(name)
        assert entry
        return entry

    def set_password(self, name: str, password: str = PASSWORD) -> None:
        self.run("chpasswd", text=f"{name}:{password}\n")

    def entries(self) -> dict[str, Entry]:
        """Return all accounts of the private /etc/passwd."""
        found = {}
        for line in self.run("cat", "/etc/passwd").splitlines():
            name, _, uid, gid, _, home, shell = line.split(":")
            found[name] = Entry(name, int(uid), int(gid), home, shell)
        return found

    def entry(self, name: str) -> Entry | None:
        return self.entries().get(name)

    def write(self, path: str, text: str, mode: str = "644") -> None:
        self.run("sh", "-c", 'cat >"$1" && chmod "$2" "$1"', "sh", path, mode, text=text)


class AccountsHub(Hub):
    """A hub in the namespace, asked without a proxy."""

    @property
    def root(self) -> str:
        return f"http://127.0.0.1:{self.hub_port}"


@pytest.fixture(scope="module")
def machine() -> Iterator[Machine]:
    require(os.geteuid() == 0, "accounts can only be made by root")
    for program in ("unshare", "nsenter", "setpriv", "useradd", "chpasswd", "sudo"):
        require(shutil.which(program), f"the program {program} is needed")
    folder = tempfile.mkdtemp(prefix="workshop-accounts-")
    holder = subprocess.Popen(
        ["unshare", "--mount", "--propagation", "private", "sh", "-ec", PRIVATE, "sh", folder],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert holder.stdin
    assert holder.stdout
    assert holder.stderr
    try:
        ready = holder.stdout.readline()
        require(ready == "ready\n", f"no private /etc: {'' if ready else holder.stderr.read()}")
        yield Machine(holder.pid)
    finally:
        holder.stdin.close()
        holder.wait(30)
        holder.stdout.close()
        holder.stderr.close()
        Path(folder).rmdir()


class Hubs:
    """Starts hubs in the namespace, and ends them."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self._started: list[Hub] = []

    def start(
        self,
        config: str,
        *,
        as_user: str = "",
        files: dict[str, str] | None = None,
        proxy: bool = False,
    ) -> Hub:
        """Start a hub. as_user: account of the namespace. files: programs for its folder.

        proxy: whether it has a proxy, through which it is asked.
        """
        return self.prepare(config, as_user=as_user, files=files, proxy=proxy).start()

    def prepare(
        self,
        config: str,
        *,
        as_user: str = "",
        files: dict[str, str] | None = None,
        proxy: bool = False,
    ) -> Hub:
        """Return a hub that is not started."""
        folder = Path(tempfile.mkdtemp(prefix="workshop-accounts-hub-"))
        entry = [sys.executable, "-m", "jupyterhub"]
        if as_user:
            account = self.machine.entry(as_user)
            assert account
            ids = [f"--reuid={as_user}", f"--regid={account.gid}", "--init-groups"]
            entry = ["setpriv", *ids, *entry]
        enter = " ".join([*self.machine.enter, "sh", "-c", """'cd "$0" && exec "$@"' "$PWD" """])
        bin_dir = folder / "bin"
        bin_dir.mkdir()
        for name, text in {"bin/jupyterhub": f'exec {enter} {" ".join(entry)} "$@"'}.items():
            (folder / name).write_text(f"#!/bin/sh\n{text}\n")
            (folder / name).chmod(0o755)
        for name, text in (files or {}).items():
            (folder / name).write_text(f"#!/bin/sh\n{text}\n")
            (folder / name).chmod(0o755)
        kind, base = AccountsHub, BASE_CONFIG
        if proxy:
            program = Path(sys.executable).parent / "configurable-http-proxy"
            kind, base = Hub, base + WITH_PROXY.format(program=str(program))
        hub = kind(folder, config, base=base, bin_dir=bin_dir)
        if as_user:
            for path in (folder, *folder.iterdir()):
                os.chown(path, account.uid, account.gid)
        self._started.append(hub)
        return hub

    def close(self) -> None:
        with ExitStack() as left:  # all of it, whatever of it fails
            for hub in self._started:
                left.callback(shutil.rmtree, hub.folder)
                left.callback(hub.kill)
                left.callback(end_servers, hub)


def end_servers(hub: Hub) -> None:
    if hub.process is not None and hub.process.poll() is None:
        for user in hub.api("GET", "/users").json:
            for server in user.get("servers") or {}:
                hub.stop_server(quote(user["name"], safe=""), server)


@pytest.fixture(scope="module")
def hubs(machine: Machine) -> Iterator[Hubs]:
    hubs = Hubs(machine)
    yield hubs
    hubs.close()
