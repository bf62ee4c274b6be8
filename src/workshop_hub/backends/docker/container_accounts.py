"""The account's entry in a container's own /etc/passwd and /etc/group.

Without one, `ssh` refuses to work, `whoami` and `git` complain, and a shell greets with
"I have no name!". The user can write neither file.
"""

from __future__ import annotations

from collections.abc import Mapping

from workshop_hub.system import accounts
from workshop_hub.system.accounts import Account
from workshop_hub.system.engine import Engine

PASSWD = "/etc/passwd"  # noqa: S105 - a file
GROUP = "/etc/group"
COMMON_SHELLS = ("/bin/sh", "/bin/bash")

IMAGES_REMEMBERED = 64


class AccountNames:
    """Adds accounts to containers; an image's own files are read once (0.2 s) and kept."""

    def __init__(self) -> None:
        self._files: dict[str, dict[str, str]] = {}

    async def files(self, engine: Engine, container: str, account: Account) -> dict[str, str]:
        """Return the files of a container, which was created and not started, with the account."""
        files = dict(await self._of_image(engine, container))
        if PASSWD in files:
            files[PASSWD] = with_user(files[PASSWD], account)
        if GROUP in files:
            names = await accounts.off_loop(
                lambda: {gid: accounts.group_name(gid) for gid in account.groups},
                name=account.name,
            )
            files[GROUP] = with_groups(files[GROUP], names)
        return files

    async def _of_image(self, engine: Engine, container: str) -> dict[str, str]:
        found = await engine.inspect(container)
        image = found.image_id if found else ""
        if image not in self._files:
            files = await engine.read_files(container, PASSWD, GROUP)
            while len(self._files) >= IMAGES_REMEMBERED:
                del self._files[next(iter(self._files))]
            self._files[image] = files
        return self._files[image]


def with_user(passwd: str, account: Account) -> str:
    """Return passwd(5) with the account's line in front: the first one for a uid or name counts.

    An image's own user of the same uid (docker-stacks' jovyan) keeps her line, below.
    """
    shell = account.shell if account.shell in COMMON_SHELLS else COMMON_SHELLS[0]
    fields = (account.name, "x", str(account.uid), str(account.gid), "", account.home, shell)
    if any(":" in field or "\n" in field for field in fields):
        return passwd
    return ":".join(fields) + "\n" + passwd


def with_groups(group: str, names: Mapping[int, str]) -> str:
    """Return group(5) with a line for each group that has none, neither by number nor by name.

    names: the groups' names on the host by number.
    """
    lines = [line.split(":") for line in group.splitlines() if line.count(":") >= 2]
    known = {fields[2] for fields in lines}
    taken = {fields[0] for fields in lines}
    added = [
        f"{name}:x:{gid}:\n"
        for gid, name in names.items()
        if str(gid) not in known and name not in taken and name.isprintable() and ":" not in name
    ]
    return group + ("" if not group or group.endswith("\n") else "\n") + "".join(added)
