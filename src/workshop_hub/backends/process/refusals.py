"""What the launcher's refusals mean, and what to do about each."""

from __future__ import annotations

from workshop_hub.errors import (
    AccountRefused,
    ConfigError,
    DirectoryRefused,
    LauncherRefused,
    LimitsNotEnforceable,
    WorkshopError,
)
from workshop_hub.launch.message import Refusal
from workshop_hub.launch.sudo import hub_user

_SUDOERS = "Add to /etc/sudoers.d/workshop-hub: Defaults:HUB_USER"

_KINDS: dict[str, tuple[type[WorkshopError], str]] = {
    "account": (AccountRefused, "Use another account."),
    "uid": (AccountRefused, "Was the account made anew? Try again."),
    "home": (
        AccountRefused,
        "Ask the administrator to create it, or to hand it to the account.",
    ),
    "full": (
        AccountRefused,
        "Ask the administrator for more space, or delete what is not needed in another way (ssh).",
    ),
    "outside": (
        DirectoryRefused,
        "Choose a folder inside, or ask the administrator to add to allowed_roots.",
    ),
    "absent": (
        DirectoryRefused,
        "Create it, or ask the administrator to set create_notebook_dir.",
    ),
    "directory": (
        DirectoryRefused,
        "Move what is in the way there, or ask the administrator for another folder.",
    ),
    "program": (ConfigError, "Set cmd to its full path, or PATH in environment."),
    "string": (ConfigError, 'Give cmd as a list: ["program", "argument"].'),
    "closed": (
        ConfigError,
        "The file and every folder above it must be readable and executable by all users.",
    ),
    "command": (ConfigError, "Make the command or its environment shorter."),
    "cgroup": (
        LimitsNotEnforceable,
        f"pam_systemd in sudo's PAM stack has moved it, out of its limits. {_SUDOERS} !pam_session",
    ),
    "output": (LauncherRefused, f"The log would end with sudo. {_SUDOERS} !log_output, !use_pty"),
    "certificates": (
        LauncherRefused,
        "Remove what is in the way there: a link, or a file of somebody else.",
    ),
    "range": (
        AccountRefused,
        "Ask the administrator to look at c.ProcessBackend.warm_uids and warm_group.",
    ),
    "system": (LauncherRefused, "Ask the administrator to look at the launcher's own log."),
    "mediator": (LauncherRefused, "The server's log may tell why."),
}


def error_for(refusal: Refusal, log: str = "") -> WorkshopError:
    """Return the error that a refusal of the launcher means. log: the last lines of the log."""
    kind, remedy = _KINDS.get(refusal.kind, (LauncherRefused, ""))
    return kind(refusal.message, remedy=remedy.replace("HUB_USER", hub_user()), log=log)
