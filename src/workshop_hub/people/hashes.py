"""Say whether a password is the one behind a hash of shadow(5), as the machine's own crypt(3) does.

Not by PAM: a wrong one there counts against the person (pam_faillock), and is waited for.
"""

from __future__ import annotations

import ctypes
import hmac

from workshop_hub.errors import UsersRefused

LIBRARIES = (None, "libcrypt.so.1", "libcrypt.so.2")
"""Where crypt(3) is: in the C library (musl), or beside it (Debian and its kin; Fedora)."""


def fits(password: str, hashed: str) -> bool:
    """Say whether the password has this hash; False for no hash. UsersRefused without crypt(3)."""
    if not hashed:
        return False
    crypt = _crypt()
    made = crypt(password.encode(), hashed.encode("utf-8", "surrogateescape"))
    return made is not None and hmac.compare_digest(made, hashed.encode("utf-8", "surrogateescape"))


def _crypt() -> ctypes._NamedFuncPointer:
    for name in LIBRARIES:
        try:
            crypt = ctypes.CDLL(name).crypt
        except (OSError, AttributeError):
            continue
        crypt.argtypes = (ctypes.c_char_p, ctypes.c_char_p)
        crypt.restype = ctypes.c_char_p
        return crypt
    raise UsersRefused(
        "The machine's crypt library was not found.", remedy="Install libcrypt1 or libxcrypt."
    )
