"""The authenticator's options for making accounts of the machine."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jupyterhub.traitlets import Command
from traitlets import Callable, Dict, Float, HasTraits, Unicode, Union, default, validate

from workshop_hub.options import InvalidOption
from workshop_hub.system.account_hooks import Hook, Hooks
from workshop_hub.system.accounts import Account
from workshop_hub.system.unfinished import Unfinished
from workshop_hub.system.useradd import AccountCreator, default_command

if TYPE_CHECKING:
    from collections.abc import Callable as FunctionType

WHEN = ("before", "after")


class AccountOptions(HasTraits):
    """Makes accounts as the options say; a part of WorkshopAuthenticator."""

    if TYPE_CHECKING:
        uids: dict[str, int]

        _not_a_person: FunctionType[[Account], str]

    add_user_cmd = Union(
        [Callable(), Command()],
        help="""
        What makes an account: a command as a list of words, or a function.

        In the words, USERNAME is replaced by the name, which also comes as the last argument,
        after `--uid N` where `uids` has the name. A function, plain or async, is given the name,
        and the uid or None; a plain one runs in a thread. The default is Debian's `adduser`, and
        `useradd` elsewhere and, through sudo, where the hub is not root.
        Example: `["./add_user.sh", "--home=/home/USERNAME"]`.
        """,
    ).tag(config=True)

    add_user_timeout = Float(
        60.0,
        min=1.0,
        help="""
        Seconds that `add_user_cmd`, and each of `add_user_hooks`, may take for one account before
        it is stopped, for example 120 where it copies a large home folder.
        """,
    ).tag(config=True)

    add_user_hooks = Dict(
        help="""
        What else is done when the hub makes an account: lists of functions and commands under
        "before" and "after". Empty, the default, for nothing.

        A function, plain or async, is given the name before, and after it an account with `name`,
        `uid`, `gid` and `home`; a plain one runs in a thread. In the words of a command,
        `{username}` is replaced, and after it `{uid}`, `{gid}` and `{home}`. The first that fails
        ends the matter: the user is not added, or not let in. At the next try all that come
        before run again where the account is missing, and all that come after where it is there,
        so that each must be able to run twice. An account that the hub has not made has no hooks.

        Example: `{"after": [["setquota", "-u", "{username}", "4G", "5G", "0", "0", "/home"]]}`.
        """,
    ).tag(config=True)

    unfinished_accounts_file = Unicode(
        "workshop-unfinished-accounts",
        help="""
        File where the hub notes whose account it has begun to make, so that one that was half-made
        when the hub was killed is finished later. A relative path starts at the hub's folder. An
        empty text keeps the names in memory only.
        Example: `"/srv/jupyterhub/unfinished-accounts"`.
        """,
    ).tag(config=True)

    @default("add_user_cmd")
    def _default_add_user_cmd(self) -> list[str]:
        return default_command(root=os.geteuid() == 0)

    @validate("add_user_hooks")
    def _valid_hooks(self, proposal: Any) -> dict[str, list[Hook]]:
        hooks: dict[str, list[Hook]] = proposal["value"]
        for problem in _problems(hooks):
            raise InvalidOption(
                f"add_user_hooks: {problem}.",
                remedy='Give lists of functions and of commands, for example {"after": '
                '[["chmod", "700", "{home}"]]}.',
            )
        return hooks

    async def add_system_user(self, user: Any) -> None:
        """Make the account where it is missing; check again what an earlier call left half-made."""
        await self._creator.create(user.name, self.uids.get(user.name))

    @cached_property
    def _creator(self) -> AccountCreator:
        file = self.unfinished_accounts_file
        hooks = self.add_user_hooks
        return AccountCreator(
            self.add_user_cmd,
            timeout=self.add_user_timeout,
            refuse=self._not_a_person,
            hooks=Hooks(hooks.get("before", ()), hooks.get("after", ())),
            half_made=Unfinished(Path(file) if file else None),
        )


def _problems(hooks: dict[Any, Any]) -> Iterator[str]:
    """Yield what is wrong with the value of add_user_hooks."""
    for when, each in hooks.items():
        if when not in WHEN:
            yield f'{when!r} is neither "before" nor "after"'
        elif not isinstance(each, (list, tuple)):
            yield f'"{when}" is no list'
        else:
            for hook in each:
                if not callable(hook) and not _is_command(hook):
                    yield f"{hook!r} is neither a function nor a list of words"


def _is_command(hook: object) -> bool:
    return (
        isinstance(hook, (list, tuple))
        and bool(hook)
        and all(isinstance(word, str) for word in hook)
    )
