"""What `workshop-hub doctor` says of logins: it makes the hub's authenticator, and asks it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager

from jupyterhub.app import JupyterHub
from jupyterhub.auth import Authenticator
from traitlets import TraitError

from workshop_hub.authenticator import WorkshopAuthenticator
from workshop_hub.backends.base import Finding
from workshop_hub.cli.doctor_hub import error_finding
from workshop_hub.errors import WorkshopError, choices
from workshop_hub.system import accounts

SUBJECT = "logins"

LOOK_UPS = 60.0
"""Seconds that a directory may take for the accounts that the options name."""


async def login_findings(app: JupyterHub) -> list[Finding]:
    """Say what keeps people from logging in, and how passwords are checked."""
    try:
        authenticator = app.authenticator_class(parent=app)
    except (TraitError, WorkshopError) as exc:
        return [error_finding(SUBJECT, exc)]
    except Exception as exc:  # others' may want more of a hub than there is
        name = app.authenticator_class.__name__
        said = f"{name} cannot be made where no hub runs: {type(exc).__name__}: {exc}"
        return [Finding("warning", SUBJECT, said)]
    # in a thread: what is looked up once a hub runs is not begun there
    with heard(authenticator.log) as findings:
        await asyncio.to_thread(authenticator.check_allow_config)
    if isinstance(authenticator, WorkshopAuthenticator):
        findings += await our_findings(authenticator)
    return findings


@contextmanager
def heard(log: logging.Logger) -> Iterator[list[Finding]]:
    """Collect what is logged as findings, instead of showing it."""
    findings: list[Finding] = []

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            first, _, rest = record.getMessage().strip().partition("\n")
            is_error = record.levelno > logging.WARNING
            findings.append(Finding("error" if is_error else "warning", SUBJECT, first, rest))

    collector = Collector(logging.WARNING)
    before, log.handlers, passed_on, log.propagate = log.handlers, [collector], log.propagate, False
    try:
        yield findings
    finally:
        log.handlers, log.propagate = before, passed_on


async def our_findings(authenticator: WorkshopAuthenticator) -> list[Finding]:
    """Ask our own authenticator about the machine."""
    findings = []
    for check in (authenticator.check_join_options, authenticator.check_service):
        try:
            await asyncio.to_thread(check)
        except WorkshopError as exc:
            findings.append(error_finding(SUBJECT, exc))
    try:
        call = accounts.off_loop(lambda: account_findings(authenticator), deadline=LOOK_UPS)
        findings += await call
    except WorkshopError as exc:
        findings.append(error_finding(SUBJECT, exc))
    access = await authenticator.check_access()
    await authenticator.broker.close()
    return [*findings, Finding(access.level, SUBJECT, access.message, access.remedy)]


def account_findings(authenticator: Authenticator) -> list[Finding]:
    """Say which of the people that the options name have no account. May block."""
    if authenticator.create_system_users:
        return []
    findings = []
    for option in ("allowed_users", "admin_users"):
        names = {authenticator.normalize_username(name) for name in getattr(authenticator, option)}
        missing = [name for name in names if accounts.find_or_none(name) is None]
        if missing:
            findings.append(
                Finding(
                    "warning",
                    SUBJECT,
                    f"The option {option} names {choices(missing)}, and the machine has no such "
                    "account: nobody can log in so.",
                    "Correct the name, make the account (useradd, or `workshop-hub users add`), or "
                    "set c.LocalAuthenticator.create_system_users = True.",
                )
            )
    return findings
