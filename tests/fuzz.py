"""Feed made-up bytes to what reads what strangers send, led by the lines that they reach.

    fuzz.py [-runs=N] [-seed=N] ...     the options of libFuzzer

Ends with an error, and the bytes that led to it, where something raises what it does not promise.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path
from tempfile import NamedTemporaryFile

import atheris

with atheris.instrument_imports(include=["workshop_hub"]):
    from workshop_hub import client
    from workshop_hub.authenticator import WorkshopAuthenticator
    from workshop_hub.conversation import AGAIN, NEW, OLD, Question, fields_for
    from workshop_hub.errors import UsersRefused
    from workshop_hub.known_browsers import KnownBrowsers
    from workshop_hub.people import names, wanted
    from workshop_hub.policy import joining
    from workshop_hub.slowdown import Slowdown
    from workshop_hub.system import accounts, pam

AUTHENTICATOR = WorkshopAuthenticator(username_map={"teacher": "ada"})
KNOWN = KnownBrowsers(b"a key that only the hub has, of 32")
COOKIE = KNOWN.add("", "ada")
SLOWDOWN = Slowdown(entries=50)
FORM = Question(pam.PASSWORD, (), (OLD, NEW, AGAIN))
CSV = NamedTemporaryFile(suffix=".csv")  # noqa: SIM115 -- it ends with the program


def names_of_people(data: atheris.FuzzedDataProvider) -> None:
    """What is taken for a name is safe for programs, and stays what it is."""
    name = AUTHENTICATOR.normalize_username(data.ConsumeUnicode(300))
    assert AUTHENTICATOR.normalize_username(name) == name
    if AUTHENTICATOR.validate_username(name):
        assert not accounts.unsafe_name(name)
        assert name.isascii()
        assert name[0] not in "-0123456789"


def addresses(data: atheris.FuzzedDataProvider) -> None:
    """An address has one form."""
    plain = client.plain(data.ConsumeUnicode(100))
    assert client.plain(plain) == plain


def cookies(data: atheris.FuzzedDataProvider) -> None:
    """Nobody makes a cookie."""
    made = data.ConsumeUnicode(300)
    place = data.ConsumeIntInRange(0, len(COOKIE))
    for value in (made, COOKIE[:place] + made + COOKIE[place:]):
        if value != COOKIE:
            assert KNOWN.check(value, "ada") == ""
            KNOWN.add(value, made)


def guesses(data: atheris.FuzzedDataProvider) -> None:
    """Nobody waits for more than a minute."""
    whence = (data.ConsumeUnicode(20), data.ConsumeUnicode(20))
    assert 0 <= SLOWDOWN.wait(*whence) <= 60
    SLOWDOWN.failed(*whence)


def answers(data: atheris.FuzzedDataProvider) -> None:
    """Whatever PAM asks, and whatever is answered, there is a page."""
    asked = pam.Prompt(
        data.PickValueInList([pam.HIDDEN, pam.SHOWN]),
        data.ConsumeUnicode(80),
        data.PickValueInList([pam.AUTHENTICATION, pam.PASSWORD]),
    )
    assert all(field.label for field in fields_for([asked, asked]))
    form = {name: data.ConsumeUnicode(600) for name in ("old", "new", "again")}
    if not FORM.complaint_about(form, "utf8"):
        assert form["new"] == form["again"] != ""


def registrations(data: atheris.FuzzedDataProvider) -> None:
    """Nobody registers without the code."""
    form = {name: data.ConsumeUnicode(100) for name in joining.FIELDS}
    found = joining.problems(form, "seven-green-bottles", AUTHENTICATOR.validate_username)
    assert found or form["code"].strip().casefold() == "seven-green-bottles"


def patterns(data: atheris.FuzzedDataProvider) -> None:
    """A pattern of names means something, or is refused."""
    with suppress(UsersRefused):
        assert len(names.expand_all([data.ConsumeUnicode(60)])) <= names.MOST


def lists(data: atheris.FuzzedDataProvider) -> None:
    """A list of people can be read, or is refused."""
    Path(CSV.name).write_bytes(b"name,password\n" + data.ConsumeBytes(300))
    with suppress(UsersRefused):
        wanted.from_csv(Path(CSV.name))


TARGETS = [
    *(names_of_people, addresses, cookies, guesses),
    *(answers, registrations, patterns, lists),
]


def one(raw: bytes) -> None:
    """Feed one of them."""
    data = atheris.FuzzedDataProvider(raw)
    data.PickValueInList(TARGETS)(data)


if __name__ == "__main__":
    atheris.Setup(sys.argv, one)
    atheris.Fuzz()
