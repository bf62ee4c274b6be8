"""Ports: who holds which, and who listens."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from workshop_hub.errors import ConfigError, NoFreePort
from workshop_hub.system import ports
from workshop_hub.system.ports import PortTable

HEAD = "  sl  local_address rem_address   st tx rx tr tm->when retrnsmt   uid  timeout inode\n"


def line(address: str, port: int, uid: int, state: str = "0A") -> str:
    return f" 0: {address}:{port:04X} 00000000:0000 {state} 0:0 00:0 00000000 {uid} 0 1 1 0\n"


LOOPBACK = "0100007F"
LOOPBACK_2 = "0200007F"
ANY = "00000000"
ANY_6 = "0" * 32
LOOPBACK_6 = "0" * 24 + "01000000"
MAPPED = "0000000000000000FFFF00000100007F"


def net(folder: Path, tcp: str = "", tcp6: str = "") -> Path:
    (folder / "tcp").write_text(HEAD + tcp)
    (folder / "tcp6").write_text(HEAD + tcp6)
    return folder


@pytest.mark.parametrize(
    ("tcp", "tcp6", "ip", "uids"),
    [
        ("", "", "127.0.0.1", set()),
        (line(LOOPBACK, 80, 5), "", "127.0.0.1", {5}),
        (line(LOOPBACK, 81, 5), "", "127.0.0.1", set()),
        (line(LOOPBACK, 80, 5, state="01"), "", "127.0.0.1", set()),
        (line(LOOPBACK_2, 80, 5), "", "127.0.0.1", set()),
        (line(ANY, 80, 5), "", "127.0.0.1", {5}),
        (line(ANY, 80, 5) + line(LOOPBACK, 80, 6), "", "127.0.0.1", {6}),
        (line(LOOPBACK, 80, 5), line(ANY_6, 80, 6), "127.0.0.1", {5}),
        ("", line(ANY_6, 80, 6), "127.0.0.1", {6}),
        ("", line(MAPPED, 80, 6), "127.0.0.1", {6}),
        ("", line(LOOPBACK_6, 80, 6), "::1", {6}),
        (line(ANY, 80, 5), "", "::1", set()),
        (line(ANY, 80, 5), "", "0.0.0.0", {5}),
        (line(LOOPBACK, 80, 6), "", "0.0.0.0", {6}),
        (line(LOOPBACK, 80, 5) + line(LOOPBACK, 80, 6), "", "127.0.0.1", {5, 6}),
    ],
)
def test_who_gets_a_connection(
    tmp_path: Path, tcp: str, tcp6: str, ip: str, uids: set[int]
) -> None:
    assert ports.listener_uids(ip, 80, net(tmp_path, tcp, tcp6)) == uids


IPV4 = ["127.0.0.1", "127.0.0.3", "0.0.0.0"]
IPV6 = ["::1", "::"] if ports.is_free("::1", 0) else []


@pytest.mark.parametrize("ip", IPV4 + IPV6)
def test_a_real_listener_is_seen(ip: str) -> None:
    family = socket.AF_INET6 if ":" in ip else socket.AF_INET
    with socket.create_server((ip, 0), family=family) as listener:
        port = listener.getsockname()[1]
        assert ports.listener_uids(ip, port) == {os.getuid()}
        assert not ports.is_free(ip, port)
    assert ports.listener_uids(ip, port) == set()
    assert ports.is_free(ip, port)


def test_a_table_gives_each_port_once() -> None:
    table = PortTable(28100, 28119)
    given = [table.take(f"server {number}", "127.0.0.1") for number in range(20)]
    assert sorted(given) == list(range(28100, 28120))
    with pytest.raises(NoFreePort, match="All 20 ports"):
        table.take("one more", "127.0.0.1")
    table.release("server 7")
    assert table.take("one more", "127.0.0.1") == given[7]


def test_taking_again_gives_another_port_and_frees_the_first() -> None:
    table = PortTable(28120, 28121)
    first = table.take("a", "127.0.0.1")
    second = table.take("a", "127.0.0.1")
    assert {first, second} == {28120, 28121}
    assert table.take("b", "127.0.0.1") == first


def test_a_port_in_use_is_passed_over() -> None:
    with socket.create_server(("127.0.0.1", 28122)):
        table = PortTable(28122, 28123)
        assert table.take("a", "127.0.0.1") == 28123
        with pytest.raises(NoFreePort, match="The port 28122 is in use"):
            table.take("b", "127.0.0.1", 28122)


def test_a_held_port_is_passed_over() -> None:
    table = PortTable(28124, 28125)
    table.hold("a", 28124)
    table.hold("b", 28124)
    assert table.take("c", "127.0.0.1") == 28125
    table.release("b")
    with pytest.raises(NoFreePort):
        table.take("d", "127.0.0.1", 28124)
    table.release("a")
    assert table.take("d", "127.0.0.1", 28124) == 28124


@pytest.mark.parametrize(("first", "last"), [(80, 90), (30000, 29999), (65000, 65536)])
def test_a_range_that_is_none(first: int, last: int) -> None:
    with pytest.raises(ConfigError, match=f"port_range is \\({first}, {last}\\)"):
        ports.check_range(first, last)


def test_a_range_inside_the_kernels_own(tmp_path: Path) -> None:
    kernel = tmp_path / "range"
    kernel.write_text("32768\t60999\n")
    ports.check_range(20000, 29999, kernel)
    ports.check_range(61000, 61999, kernel)
    for first, last in ((30000, 40000), (40000, 50000), (60000, 62000), (20000, 62000)):
        with pytest.raises(ConfigError, match="32768 to 60999"):
            ports.check_range(first, last, kernel)
    ports.check_range(40000, 50000, tmp_path / "absent")
