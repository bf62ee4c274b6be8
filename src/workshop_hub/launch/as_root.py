"""A command that sudo is to run as root for the hub: whether it does, and the rule for it."""

from __future__ import annotations

from collections.abc import Sequence

from workshop_hub.errors import WorkshopError
from workshop_hub.launch import running, sudo

TIMEOUT = 20.0
"""Seconds that sudo may take to say what it allows: its rules may be in a directory."""


async def refusal(command: Sequence[str]) -> str:
    """Say why sudo does not run the command as root; "" where it does."""
    try:
        argv = [*sudo.sudo_command(("sudo",)), "-n", "-l", "--", *command]
        code, words = await running.run_for_words(argv, b"", timeout=TIMEOUT)
    except WorkshopError as exc:
        return exc.message
    return "" if code == 0 else words.strip() or "there is no rule for it"


def rule(command: Sequence[str], user: str = "") -> str:
    """Return the line of sudoers(5) that lets `user`, or this process's own, run the command."""
    return f"{user or sudo.hub_user()} ALL=(root) NOPASSWD: {sudo.escaped(command)}"
