"""Ask PAM about somebody: one transaction, in the calling process. Hubs ask the broker."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import pamela

HIDDEN, SHOWN, ERROR, INFO = 1, 2, 3, 4
"""Styles of a message (pam_conv(3)): two that want an answer, two that do not."""

GIVEN_UP = 19
"""PAM_CONV_ERR: what a conversation returns that has no answer."""

ACCOUNT_EXPIRED, MUST_CHANGE, DENIED, PASSWORD_EXPIRED = 13, 12, 6, 27
"""Answers of the account phase: PAM_ACCT_EXPIRED, PAM_NEW_AUTHTOK_REQD, PAM_PERM_DENIED and
PAM_AUTHTOK_EXPIRED (_pam_types.h of Linux-PAM)."""

OLD_PASSWORD_WRONG = frozenset({7, 20, 21})
"""What the change of a password ends with where the old one was wrong: PAM_AUTH_ERR,
PAM_AUTHTOK_ERR and PAM_AUTHTOK_RECOVERY_ERR, as modules and the rules around them have it."""

SECRET_MAX = 512
"""Bytes of a password at most: PAM_MAX_RESP_SIZE of pam_appl.h."""

MESSAGES_MAX = 32
"""PAM_MAX_NUM_MSG."""

AUTHENTICATION, ACCOUNT, PASSWORD = "authentication", "account", "password"
"""Phases: who is it, may the account be used, and the change of a password that must be."""

SESSION = "session"
"""The phase of what is set up for somebody who is in; see pam_keeper."""

_DISALLOW_NULL_AUTHTOK = 0x0001
"""pam_authenticate(3): an account without a password is refused, `nullok` or not."""

_CHANGE_EXPIRED_AUTHTOK = 0x0020
"""pam_chauthtok(3): only a password that has expired is changed, and the old one is asked for."""

_FAIL_DELAY = 10
"""pam_set_item(3): what is called in the place of a sleep after a wrong password."""

_DELAY_FUNC = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_uint, ctypes.c_void_p)


class Prompt(NamedTuple):
    """One message of PAM's.

    style: HIDDEN, SHOWN, ERROR or INFO. phase: in which it comes. early: before any answer was
    given, such as a password, so that it comes to whoever types a name.
    """

    style: int
    text: str
    phase: str = AUTHENTICATION
    early: bool = False

    @property
    def asks(self) -> bool:
        """Whether it wants an answer."""
        return self.style in (HIDDEN, SHOWN)


Converse: TypeAlias = "Callable[[list[Prompt]], Sequence[str | None] | None]"
"""Answers to as many prompts, None for those that want none; or None to give up."""


@dataclass(frozen=True)
class Verdict:
    """What PAM said.

    code: PAM's number, 0 for yes. phase: AUTHENTICATION, ACCOUNT or PASSWORD.
    message: PAM's own words, for the administrator's log. delay: seconds that whoever tried is to
    wait for the answer. said: words of its modules about this, one line that can be printed; a
    conversation fills it in.
    """

    code: int
    phase: str
    message: str = ""
    delay: float = 0.0
    said: str = ""

    @property
    def granted(self) -> bool:
        """Whether the password is right and the account may be used."""
        return self.code == 0


def transact(
    name: str,
    converse: Converse,
    *,
    service: str,
    encoding: str,
    account: bool,
    change: bool = False,
    rhost: str = "",
) -> Verdict:
    """Ask PAM whether `name` may log in. Blocks.

    account: ask also whether the account may be used now (expiry, access rules). change: where its
    password must be changed first, have that done. rhost: where the login comes from, for the
    machine's log and rules.

    pamela.authenticate() has no way to pass flags, and asks about the account twice or always.
    """
    phases = [AUTHENTICATION]
    told = conversation(converse, encoding, phases)  # must outlive the handle
    try:
        handle = pamela.pam_start(service, name, conv_func=told, encoding=encoding)
    except pamela.PAMError as exc:
        return Verdict(exc.errno or -1, AUTHENTICATION, exc.message)
    except UnicodeError as exc:
        return Verdict(-1, AUTHENTICATION, f"the name cannot be written in {encoding}: {exc}")
    delays: list[float] = []
    delay = _DELAY_FUNC(lambda _code, microseconds, _data: delays.append(microseconds / 1e6))
    pamela.PAM_SET_ITEM(handle, _FAIL_DELAY, ctypes.cast(delay, ctypes.c_char_p))
    if rhost:
        pamela.PAM_SET_ITEM(handle, pamela.PAM_RHOST, rhost.encode("ascii", "replace"))
    code = pamela.PAM_AUTHENTICATE(handle, _DISALLOW_NULL_AUTHTOK)
    if code == 0 and account:
        phases.append(ACCOUNT)
        code = pamela.PAM_ACCT_MGMT(handle, _DISALLOW_NULL_AUTHTOK)
        if code == MUST_CHANGE and change:
            phases.append(PASSWORD)
            code = pamela.PAM_CHAUTHTOK(handle, _CHANGE_EXPIRED_AUTHTOK)
    if code == 0:
        # Kerberos and the like keep what they got; a failure here is no reason to refuse
        pamela.PAM_SETCRED(handle, pamela.PAM_REINITIALIZE_CRED)
    message = pamela.pam_strerror(handle, code) if code else ""
    pamela.PAM_END(handle, code)
    return Verdict(code, phases[-1], message, max(delays, default=0.0) if code else 0.0)


def check(
    name: str, secrets: tuple[str, ...], *, service: str, encoding: str, account: bool
) -> Verdict:
    """Like `transact`, with the answers to PAM's hidden prompts, in order."""
    return transact(name, answers(secrets), service=service, encoding=encoding, account=account)


def answers(secrets: Sequence[str], otherwise: Converse | None = None) -> Converse:
    """Return a conversation that knows the answers to the first hidden prompts.

    otherwise: hears all others, and what wants no answer; without it, it gives up.
    """
    left = list(secrets)

    def converse(prompts: list[Prompt]) -> Sequence[str | None] | None:
        wanted = [prompt for prompt in prompts if prompt.asks]
        known = all((each.style, each.phase) == (HIDDEN, AUTHENTICATION) for each in wanted)
        if known and len(wanted) <= len(left) and (wanted or not otherwise):
            return [left.pop(0) if prompt.asks else None for prompt in prompts]
        return otherwise(prompts) if otherwise else None

    return converse


def unusable_secrets(secrets: tuple[str, ...], encoding: str) -> str:
    """Say why PAM cannot be asked about a password and what may follow it; or ""."""
    if not secrets[0]:
        return "the password is empty"
    reasons = (unusable(secret, encoding) for secret in secrets)
    return next((f"the password {reason}" for reason in reasons if reason), "")


def unusable(answer: str, encoding: str) -> str:
    """Say what keeps PAM from taking an answer: "has ..." or "cannot ..."; or ""."""
    if "\0" in answer:
        return "has a NUL"
    try:
        size = len(answer.encode(encoding))
    except UnicodeError:
        return f"cannot be written in {encoding}"
    return f"has {size} bytes; PAM takes {SECRET_MAX}" if size > SECRET_MAX else ""


def one_line(text: str) -> str:
    """Return what PAM's modules say as one line that can be shown, and written to a log."""
    return "".join(each if each.isprintable() else "?" for each in " ".join(text.split()))


def conversation(converse: Converse, encoding: str, phases: Sequence[str]) -> Any:
    """Return what PAM calls for its messages (pam_conv(3)); it frees what it is given.

    phases: the last is the one that PAM is in.
    """
    answers_given = 0

    @pamela.CONV_FUNC  # type: ignore[untyped-decorator, unused-ignore]
    def called(count: int, messages: Any, response: Any, _data: Any) -> int:
        nonlocal answers_given
        try:
            if not 0 < count <= MESSAGES_MAX:
                return GIVEN_UP
            found = [messages[number].contents for number in range(count)]
            early = not answers_given
            prompts = [
                Prompt(each.msg_style, _text(each.msg, encoding), phases[-1], early)
                for each in found
            ]
            answered = converse(prompts)
            if answered is None or len(answered) != count:
                return GIVEN_UP
            answers_given += sum(prompt.asks for prompt in prompts)
            place = pamela.CALLOC(count, ctypes.sizeof(pamela.PamResponse))
            response[0] = ctypes.cast(place, ctypes.POINTER(pamela.PamResponse))
            for number, answer in enumerate(answered):
                if answer is not None:
                    response.contents[number].resp = pamela.STRDUP(answer.encode(encoding))
        except BaseException:  # ctypes would print it, and tell PAM that all is well
            return GIVEN_UP
        return 0

    return called


def _text(message: Any, encoding: str) -> str:
    raw = ctypes.cast(message, ctypes.c_char_p).value or b""
    return raw.decode(encoding, errors="replace")
