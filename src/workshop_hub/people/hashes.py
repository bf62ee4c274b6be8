"""Hashes of shadow(5), by the machine's own crypt(3): which password is behind one, and new ones.

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
    crypt = _function("crypt", ctypes.c_char_p, ctypes.c_char_p)
    made = crypt(password.encode(), hashed.encode("utf-8", "surrogateescape"))
    return made is not None and hmac.compare_digest(made, hashed.encode("utf-8", "surrogateescape"))


def make(password: str) -> str:
    """Return a new hash of the password, by the method that crypt_gensalt(3) prefers. UsersRefused.

    Its salt is from the system's random source.
    """
    crypt = _function("crypt", ctypes.c_char_p, ctypes.c_char_p)
    gensalt = _function(
        "crypt_gensalt", ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p, ctypes.c_int
    )
    salt = gensalt(None, 0, None, 0)
    made = crypt(password.encode(), salt) if salt else None
    if not made or made.startswith(b"*"):  # crypt(3) says so that it failed
        raise UsersRefused("The machine's crypt library made no hash of a password.")
    return str(made.decode("ascii"))


def _function(name: str, *arguments: type) -> ctypes._NamedFuncPointer:
    for library in LIBRARIES:
        try:
            found: ctypes._NamedFuncPointer = getattr(ctypes.CDLL(library), name)
        except (OSError, AttributeError):
            continue
        found.argtypes = arguments
        found.restype = ctypes.c_char_p
        return found
    raise UsersRefused(
        f"The machine's crypt library, with {name}(3), was not found.",
        remedy="Install libcrypt1 or libxcrypt.",
    )
