"""The order that the hub gives to the launcher, and the launcher's report; see `become`."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from workshop_hub.errors import ConfigError
from workshop_hub.launch.become import END, MAX_MESSAGE, PROTOCOL

MAX_PID = 1 << 22
"""The kernel's own limit (PID_MAX_LIMIT). Beyond a C int, Python refuses to ask about a process."""


@dataclass(frozen=True)
class Order:
    """One server to be started.

    key: name of the server, unique on the machine. cgroup: where the launcher must find itself,
    as /proc/self/cgroup says it; empty for anywhere. certificates: folder below the home, and the
    PEM texts by file name. ip, port: where it will listen, for a launcher that binds the port.
    account: the name that the hub knows the uid by, for a launcher that is not run as that.
    """

    key: str
    uid: int
    cmd: tuple[str, ...]
    env: Mapping[str, str]
    cgroup: str = ""
    notebook_dir: str = ""
    create_notebook_dir: bool = False
    allowed_roots: tuple[str, ...] = ()
    certificates: str = ""
    files: Mapping[str, str] = field(default_factory=dict)
    ip: str = ""
    port: int = 0
    account: str = ""
    no_new_privileges: bool = False


@dataclass(frozen=True)
class Target:
    """A server that signals are meant for. pid, start_time: its supervisor's; 0 if not known."""

    key: str
    uid: int
    pid: int
    start_time: int


@dataclass(frozen=True)
class Refusal:
    """What the launcher could not do. kind: see `become`."""

    kind: str
    message: str


@dataclass(frozen=True)
class Report:
    """What a launcher, and later the supervisor, wrote.

    Only a hint: it was written by processes of the user.
    """

    pid: int | None = None
    start_time: int | None = None
    exit_code: int | None = None
    oom_kills: int = 0
    refusal: Refusal | None = None


def start_message(order: Order, *, fast: bool = False) -> bytes:
    """Write the order to start a server; ConfigError where it cannot be written.

    fast: whether `start` runs the single-user server's script.
    """
    return _encode(
        [
            ("verb", "start"),
            ("key", order.key),
            ("uid", str(order.uid)),
            ("account", order.account),
            ("cgroup", order.cgroup),
            ("dir", order.notebook_dir),
            ("fast", "yes" if fast else ""),
            ("create", "yes" if order.create_notebook_dir else ""),
            ("certificates", order.certificates),
            ("ip", order.ip),
            ("port", str(order.port)),
            ("no_new_privileges", "yes" if order.no_new_privileges else ""),
            *(("root", root) for root in order.allowed_roots),
            *(("arg", argument) for argument in order.cmd),
            *(("env", f"{name}={value}") for name, value in order.env.items()),
            *(("file", f"{name}={text}") for name, text in order.files.items()),
        ]
    )


def signal_message(target: Target, signals: Iterable[int], *, tree: bool) -> bytes:
    """Write the order to signal a server's session, or with `tree` everything it started."""
    return _encode(
        [
            ("verb", "signal"),
            ("key", target.key),
            ("uid", str(target.uid)),
            ("session", str(target.pid)),
            ("start", str(target.start_time)),
            ("signals", " ".join(str(int(number)) for number in signals)),
            ("tree", "yes" if tree else ""),
        ]
    )


def read_report(text: str) -> Report:
    """Understand what a launcher has written; lines that mean nothing are passed over."""
    said: dict[str, str] = {}
    for line in text.splitlines():
        word, _, rest = line.partition(" ")
        said.setdefault(word, rest)  # the launcher spoke first
    error = said.get("error")
    pid, start_time = _numbers(said.get("pid", ""), 2)
    if pid is not None and not 0 < pid <= MAX_PID:
        pid = start_time = None
    ended, code = _numbers(said.get("ended", ""), 2)
    return Report(
        pid=pid,
        start_time=start_time,
        exit_code=code
        if ended is not None and ended == pid
        else _numbers(said.get("exit", ""), 1)[0],
        oom_kills=_numbers(said.get("oom", ""), 1)[0] or 0,
        refusal=None if error is None else Refusal(*[*error.split("\t"), ""][:2]),
    )


def _numbers(text: str, count: int) -> list[int] | list[None]:
    """Read `count` numbers; as many None where the text is anything else."""
    words = text.split()
    if len(words) == count and all(word.isdecimal() and len(word) < 20 for word in words):
        return [int(word) for word in words]
    return [None] * count


def _encode(fields: Iterable[tuple[str, str]]) -> bytes:
    fields = list(fields)
    for name, value in fields:
        if name == "env" and value.startswith("="):
            raise ConfigError(
                "The environment has a variable without a name.", remedy="Give it a name."
            )
    texts = [PROTOCOL, *(f"{name}={value}" for name, value in fields), END]
    for text in texts:
        if "\0" in text:
            raise ConfigError(
                f"The server's {_subject(text)} has a NUL character.",
                remedy="Remove it; no process can be given one.",
            )
    data = b"".join(os.fsencode(text) + b"\0" for text in texts)
    if len(data) > MAX_MESSAGE:
        raise ConfigError(
            f"Command, environment and certificates of the server take {len(data)} bytes; "
            f"at most {MAX_MESSAGE} can be given to a process.",
            remedy="Put what is large into a file.",
        )
    return data


def _subject(field: str) -> str:
    """Name a field for a message, without its value: that may be a token."""
    kind, name, *_ = field.split("=", 2)
    return f"environment variable {name!r}" if kind == "env" else {"arg": "command"}.get(kind, kind)
