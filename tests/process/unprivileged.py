"""A hub that runs as an account of its own: what it may do is in sudoers and in a cgroup."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness import PREFIX, made_account, remove_group

from workshop_hub.backends.process import ProcessBackend
from workshop_hub.launch.sudo import sudoers_rule
from workshop_hub.system import cgroup
from workshop_hub.system.accounts import Account

DRIVER = Path(__file__).with_name("driver.py")
SUDOERS = Path("/etc/sudoers.d")

Said = list[dict[str, Any]]


@dataclass
class UnprivilegedHub:
    """Starts tests/process/driver.py as the hub's account.

    group: a part of the cgroup tree in which `hub` holds the hub and `users` is delegated to it.
    wrapper: what the hub is started through, as a unit's options would be.
    """

    account: Account
    user: Account
    folder: Path
    group: Path | None
    hub_id: str = field(default_factory=lambda: uuid.uuid4().hex[:12])
    wrapper: tuple[str, ...] = ()

    @classmethod
    @contextlib.contextmanager
    def made(cls, user: Account, *, with_cgroup: bool) -> Iterator[UnprivilegedHub]:
        with made_account("hub") as account:
            folder = Path(tempfile.mkdtemp(prefix=PREFIX))
            os.chown(folder, account.uid, account.gid)
            mount = cgroup.find_mount()
            group = mount.path / folder.name if mount and with_cgroup else None
            hub = cls(account, user, folder, group)
            if group:
                hub._delegate(group)
            hub.allow(user)
            try:
                yield hub
            finally:
                hub.rule.unlink(missing_ok=True)
                shutil.rmtree(folder)
                if group:
                    remove_group(group)

    @property
    def rule(self) -> Path:
        return SUDOERS / self.account.name

    def allow(self, *users: Account, tag: str = "NOPASSWD") -> None:
        """Write the rule that the product's own words tell the administrator to write."""
        command = ProcessBackend.launcher_command.default_args[0]
        line = sudoers_rule(command, self.account.name)
        names = ",".join(user.name for user in users)
        self.rule.write_text(line.replace("%GROUP", names).replace("NOPASSWD", tag) + "\n")
        self.rule.chmod(0o440)

    def allow_warm(self) -> None:
        """Add the rule for the warm launcher, which `workshop-hub units` writes as a comment."""
        command = Path(sys.executable).with_name("workshop-hub")
        uids = f"--uids={self.user.uid}-{self.user.uid}"
        words = ["--launcher=warm", "--no-pam", f"--accounts={self.user.name}", uids]
        argv = [command, "units", f"--hub-user={self.account.name}", *words]
        shown = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
        begin = f"#{self.account.name} ALL=(root)"
        (line,) = [line for line in shown.splitlines() if line.startswith(begin)]
        with self.rule.open("a") as rule:
            rule.write(line.removeprefix("#") + "\n")

    def _delegate(self, group: Path) -> None:
        for place in (group, group / "hub", group / "servers"):
            place.mkdir()
        os.chown(group / "cgroup.procs", self.account.uid, -1)
        for place in ("", "cgroup.procs", "cgroup.subtree_control", "cgroup.threads"):
            os.chown(group / "servers" / place, self.account.uid, -1)

    def command(
        self,
        do: Sequence[str],
        tiny: Sequence[str] = (),
        *,
        handle: dict[str, Any] | None = None,
        user: str = "",
        changes: dict[str, Any] | None = None,
        **options: Any,
    ) -> list[str]:
        parent = f"{self.group.name}/servers" if self.group else "no-such-group/holder"
        logs = str(self.folder / "logs")
        asked = {
            "hub": self.hub_id,
            "options": {"log_dir": logs, "cgroup_parent": parent, "term_timeout": 3.0, **options},
            "user": user or self.user.name,
            "changes": changes or {},
            "tiny": list(tiny),
            "handle": handle or {},
            "do": list(do),
        }
        become = ["setpriv", "--reuid", self.account.name, "--regid", self.account.name]
        argv = [*self.wrapper, *become, "--init-groups", sys.executable, str(DRIVER)]
        enter = 'if [ "$1" ]; then echo $$ >"$1"; fi; shift; exec "$@"'
        procs = str(self.group / "hub" / "cgroup.procs") if self.group else ""
        return ["/bin/sh", "-c", enter, "sh", procs, *argv, json.dumps(asked)]

    def run(self, *do: str, tiny: Sequence[str] = (), **asked: Any) -> Said:
        """Let the hub do these things, and return all that it says."""
        done = subprocess.run(
            self.command(do, tiny, **asked),
            capture_output=True,
            text=True,
            timeout=120,
            cwd="/",
            env=self.environment,
        )
        sys.stderr.write(done.stderr)  # for whoever reads why a test failed
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    def popen(self, *do: str, tiny: Sequence[str] = ()) -> subprocess.Popen[str]:
        """Let the hub begin with these things; what it says comes from its standard output."""
        command = self.command(do, tiny)
        return subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, cwd="/", env=self.environment
        )

    @property
    def environment(self) -> dict[str, str]:
        coverage = {name: value for name, value in os.environ.items() if "COV" in name}
        return {
            "PATH": "/usr/bin:/bin",
            "HOME": self.account.home,
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
            "PYTHONDONTWRITEBYTECODE": "1",
            **coverage,
        }


def last(said: Said, kind: str) -> dict[str, Any]:
    """Return the last thing of that kind that the hub said."""
    found = [one for one in said if one["kind"] == kind]
    assert found, said
    return found[-1]
