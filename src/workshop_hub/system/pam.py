"""Check a password with PAM: one transaction, in the calling thread."""

from __future__ import annotations

from dataclasses import dataclass

import pamela

_DISALLOW_NULL_AUTHTOK = 0x0001
"""pam_authenticate(3): an account without a password is refused, `nullok` or not."""

_SILENT = 0x8000
"""pam(3): no messages from modules."""

SECRET_MAX = 512
"""Bytes of a password at most: PAM_MAX_RESP_SIZE of pam_appl.h."""


@dataclass(frozen=True)
class Verdict:
    """What PAM said.

    code: PAM's number, 0 for yes. phase: "authentication" or "account".
    message: PAM's own words, for the administrator's log.
    """

    code: int
    phase: str
    message: str = ""

    @property
    def granted(self) -> bool:
        """Whether the password is right and the account may be used."""
        return self.code == 0


def check(
    name: str, secrets: tuple[str, ...], *, service: str, encoding: str, account: bool
) -> Verdict:
    """Ask PAM whether `name` may log in. Blocks: seconds after a wrong password.

    secrets: the answers to PAM's hidden prompts, in order: password, then one-time password.
    account: ask also whether the account may be used now (expiry, access rules).

    pamela.authenticate() has no way to pass flags, and asks about the account twice or always.
    """
    converse = pamela.new_simple_password_conv(secrets, encoding)  # must outlive the handle
    try:
        handle = pamela.pam_start(service, name, conv_func=converse, encoding=encoding)
    except pamela.PAMError as exc:
        return Verdict(exc.errno or -1, "authentication", exc.message)
    except UnicodeError as exc:
        return Verdict(-1, "authentication", f"the name cannot be written in {encoding}: {exc}")
    flags = _DISALLOW_NULL_AUTHTOK | _SILENT
    phase, code = "authentication", pamela.PAM_AUTHENTICATE(handle, flags)
    if code == 0 and account:
        phase, code = "account", pamela.PAM_ACCT_MGMT(handle, flags)
    if code == 0:
        # Kerberos and the like keep what they got; a failure here is no reason to refuse
        pamela.PAM_SETCRED(handle, pamela.PAM_REINITIALIZE_CRED | _SILENT)
    message = pamela.pam_strerror(handle, code) if code else ""
    pamela.PAM_END(handle, code)
    return Verdict(code, phase, message)


def unusable_secrets(secrets: tuple[str, ...], encoding: str) -> str:
    """Say why PAM cannot be asked about a password and what may follow it; or ""."""
    if not secrets[0]:
        return "the password is empty"
    for secret in secrets:
        if "\0" in secret:
            return "the password has a NUL"
        try:
            size = len(secret.encode(encoding))
        except UnicodeError:
            return f"the password cannot be written in {encoding}"
        if size > SECRET_MAX:
            return f"the password has {size} bytes; PAM takes {SECRET_MAX}"
    return ""
