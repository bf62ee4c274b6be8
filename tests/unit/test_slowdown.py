"""Guessing is slowed down, and nobody else is."""

from __future__ import annotations

import heapq
import math
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workshop_hub import slowdown
from workshop_hub.known_browsers import KnownBrowsers
from workshop_hub.slowdown import (
    ADDRESS,
    CODE,
    KEPT,
    NAME,
    PAIR,
    TURN,
    Allowance,
    Slowdown,
    Wrong,
)

LONGEST = 60.0
CLASSROOM = "192.0.2.7"
DAY = 86400.0


class Clock:
    def __init__(self) -> None:
        self.now = 5000.0

    def __call__(self) -> float:
        return self.now


class Guesser:
    """Tries names that are not its own; counts what gets through."""

    def __init__(self, slow: Slowdown, clock: Clock) -> None:
        self.slow = slow
        self.clock = clock

    def guess(self, name: str, address: str, browser: str = "") -> float:
        """Try once; return the seconds that were asked for instead, 0 where it got through."""
        seconds = self.slow.wait(name, address, browser)
        if not seconds:
            self.slow.failed(name, address, browser)
        return seconds

    def insist(self, name: str, address: str, tries: int, browser: str = "") -> list[float]:
        """Try again and again, as early as possible; return how long each try was waited for."""
        waits = []
        for _ in range(tries):
            seconds = self.guess(name, address, browser)
            self.clock.now += seconds
            if seconds:
                assert self.guess(name, address, browser) == 0
            waits.append(round(seconds, 3))
        return waits


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def slow(clock: Clock) -> Slowdown:
    return Slowdown(clock=clock)


@pytest.fixture
def guesser(slow: Slowdown, clock: Clock) -> Guesser:
    return Guesser(slow, clock)


def test_a_few_tries_are_free_and_the_waits_double_up_to_a_minute(guesser: Guesser) -> None:
    waits = guesser.insist("ada", CLASSROOM, 15)
    assert waits == [0, 0, 0, 0, 0, 1, 2, 4, 8, 16, 32, 60, 60, 60, 60]


def test_asking_too_early_does_not_lengthen_the_wait(guesser: Guesser, clock: Clock) -> None:
    guesser.insist("ada", CLASSROOM, 9)
    told = guesser.guess("ada", CLASSROOM)
    for _ in range(100):
        assert guesser.guess("ada", CLASSROOM) == told
    clock.now += told
    assert guesser.guess("ada", CLASSROOM) == 0


def test_it_is_forgotten_in_half_an_hour(guesser: Guesser, clock: Clock) -> None:
    guesser.insist("ada", CLASSROOM, 30)
    clock.now += 30 * 60
    assert guesser.insist("ada", CLASSROOM, 4) == [0, 0, 0, 0]


def test_success_forgets_it_at_once(guesser: Guesser, slow: Slowdown, clock: Clock) -> None:
    guesser.insist("ada", CLASSROOM, 8)
    clock.now += 8
    assert slow.wait("ada", CLASSROOM) == 0
    slow.succeeded("ada", CLASSROOM)
    assert guesser.insist("ada", CLASSROOM, 6) == [0, 0, 0, 0, 0, 1]


def test_many_tries_at_the_same_time_gain_nothing(slow: Slowdown) -> None:
    through = [slow.wait("ada", CLASSROOM) == 0 for _ in range(100)]
    assert sum(through) == PAIR.free
    names = [slow.wait(f"user{number}", CLASSROOM) == 0 for number in range(2000)]
    assert sum(names) <= ADDRESS.free


def test_the_wait_begins_when_the_answer_is_known(slow: Slowdown, clock: Clock) -> None:
    for _ in range(8):
        clock.now += slow.wait("ada", CLASSROOM)
        slow.wait("ada", CLASSROOM)
    clock.now += 10
    slow.failed("ada", CLASSROOM)
    assert slow.wait("ada", CLASSROOM) > 1


def test_what_had_no_answer_is_taken_back(slow: Slowdown, clock: Clock) -> None:
    for _ in range(1000):
        assert slow.wait("ada", CLASSROOM) == 0
        slow.withdrawn("ada", CLASSROOM)
        assert slow.wait("ada", CLASSROOM, "browser") == 0
        slow.withdrawn("ada", CLASSROOM, "browser")


def test_what_had_no_answer_does_not_free_who_is_waiting(guesser: Guesser, slow: Slowdown) -> None:
    for browser in ("", "browser"):
        guesser.insist("ada", CLASSROOM, 10, browser)
        slow.withdrawn("ada", CLASSROOM, browser)
        assert guesser.guess("ada", CLASSROOM, browser) > 1


def test_one_who_mistypes_does_not_slow_the_class(guesser: Guesser, slow: Slowdown) -> None:
    guesser.insist("ada", CLASSROOM, 500)
    for number in range(40):
        assert guesser.guess(f"student{number}", CLASSROOM) == 0
        assert slow.wait(f"student{number}", CLASSROOM) == 0
        slow.succeeded(f"student{number}", CLASSROOM)


def test_a_lecture_behind_one_address_arrives_in_the_same_second(slow: Slowdown) -> None:
    assert not any(slow.wait(f"student{number}", CLASSROOM) for number in range(300))
    for number in range(300):
        slow.succeeded(f"student{number}", CLASSROOM)
    assert not any(slow.wait(f"student{number}", CLASSROOM) for number in range(290))


def test_who_goes_through_a_class_from_one_address_is_slowed(
    guesser: Guesser, clock: Clock
) -> None:
    """One guess at each of 40 names every 10 seconds, for a day."""
    let_through = 0
    for _ in range(int(DAY / 10)):
        clock.now += 10
        for number in range(40):
            let_through += guesser.guess(f"student{number}", CLASSROOM) == 0
    assert let_through < ADDRESS.most + DAY / ADDRESS.longest * 1.1


def test_logging_in_oneself_does_not_speed_up_guessing(
    guesser: Guesser, slow: Slowdown, clock: Clock
) -> None:
    """A student with an account goes through names that are not there, and logs in in between."""
    let_through = 0
    for number in range(6 * 3600):
        clock.now += 1
        if not slow.wait("mallory", CLASSROOM):
            slow.succeeded("mallory", CLASSROOM)
        let_through += guesser.guess(f"name{number}", CLASSROOM) == 0
    assert let_through < ADDRESS.most + 6 * 3600 / ADDRESS.longest * 2


def test_a_name_guessed_at_from_everywhere_makes_strangers_wait_once_and_no_longer(
    guesser: Guesser, slow: Slowdown, clock: Clock
) -> None:
    for number in range(200):
        guesser.guess("ada", f"198.51.100.{number % 20}")
        clock.now += 5
    told = slow.wait("ada", CLASSROOM)
    assert 1 < told <= NAME.longest
    for second in range(int(told)):
        for number in range(200):
            guesser.guess("ada", f"203.0.113.{number}")
        clock.now = clock.now + 1 if second else clock.now + told % 1 + 1
    assert slow.wait("ada", CLASSROOM) == 0
    slow.succeeded("ada", CLASSROOM)
    assert slow.wait("ada", CLASSROOM) == 0


@pytest.mark.parametrize("form", ["2001:db8:0:{:x}::1", "2001:db8:{:x}::1"])
@pytest.mark.parametrize("new_ones", [0.5, 5])
def test_from_addresses_that_are_made_up_a_name_has_one_try_in_two_seconds(
    guesser: Guesser, clock: Clock, new_ones: float, form: str
) -> None:
    """new_ones: addresses a second that join; each comes again as early as it was told to."""
    coming = [(clock.now + number / new_ones, number) for number in range(int(200 * new_ones))]
    end, let_through = clock.now + 200, 0
    heapq.heapify(coming)
    while coming[0][0] < end:
        clock.now, number = heapq.heappop(coming)
        seconds = guesser.guess("ada", form.format(number))
        let_through += not seconds
        heapq.heappush(coming, (clock.now + (seconds or 0.1), number))
    assert let_through <= NAME.free + 200 / NAME.forgotten + 200 / TURN + 1


@pytest.mark.parametrize("every", [0.05, 0.2, 1])
@pytest.mark.parametrize("networks", [48, 64, 1000])
def test_nobody_keeps_the_owner_out_with_a_prefix_of_ipv6(
    guesser: Guesser, slow: Slowdown, clock: Clock, networks: int, every: float
) -> None:
    """Somebody asks all the time from networks of one /48; of 1000 each lets its turns lapse.

    The owner comes when that has gone on for five minutes, and waits as long as he is told.
    """
    began = clock.now + 300
    owner, asked = began, 0
    while True:
        guesser.guess("ada", f"2001:db8:0:{asked % networks:x}::1")
        asked += 1
        clock.now += every
        if clock.now < owner:
            continue
        told = slow.wait("ada", "198.51.100.9")
        if not told:
            break
        owner = clock.now + math.ceil(told)
        assert owner < began + 120


def test_a_turn_that_is_not_used_lapses(guesser: Guesser, slow: Slowdown, clock: Clock) -> None:
    for number in range(NAME.free):
        guesser.guess("ada", f"10.0.0.{number}")
    told = [slow.wait("ada", f"192.0.{number}.7") for number in range(3)]
    assert told == [TURN, 2 * TURN, 3 * TURN]
    clock.now += told[2] + KEPT - TURN
    assert slow.wait("ada", "192.0.0.7") > 0
    assert slow.wait("ada", "192.0.1.7") == 0


def test_a_network_has_one_turn_before_it_but_a_room_is_no_network(
    guesser: Guesser, slow: Slowdown, clock: Clock
) -> None:
    for number in range(NAME.free):
        guesser.guess("ada", f"10.0.0.{number}")
    assert slow.wait("ada", "192.0.2.1") == slow.wait("ada", "192.0.2.2") == TURN
    assert slow.wait("ada", "10.0.1.1") == 2 * TURN
    assert slow.wait("ada", "10.0.1.2") == 3 * TURN
    clock.now += TURN
    assert slow.wait("ada", "192.0.2.2") > 0
    assert slow.wait("ada", "192.0.2.1") == 0


def test_turns_come_no_faster_than_pam_answers(slow: Slowdown) -> None:
    for number in range(NAME.free):
        assert slow.wait("ada", f"192.0.{number}.1") == 0
        slow.failed("ada", f"192.0.{number}.1", delay=3.5)
    assert slow.wait("ada", "198.51.100.9") >= 3.5
    assert slow.wait("ada", "203.0.113.9") >= 7


def test_a_few_who_guess_from_many_addresses_leave_the_owner_a_turn_soon(
    guesser: Guesser, slow: Slowdown, clock: Clock
) -> None:
    for number in range(2000):
        guesser.guess("ada", f"198.51.100.{number % 20}")
        clock.now += 0.25
    told = slow.wait("ada", CLASSROOM)
    assert told <= 21 * TURN
    clock.now += told
    assert slow.wait("ada", CLASSROOM) == 0
    slow.succeeded("ada", CLASSROOM)


def test_a_name_guessed_at_from_everywhere_slows_no_other_name(guesser: Guesser) -> None:
    for number in range(200):
        guesser.guess("ada", f"198.51.100.{number}")
    assert guesser.guess("bob", "198.51.100.3") == 0
    assert guesser.guess("bob", CLASSROOM) == 0


def test_a_known_browser_meets_nothing_of_what_strangers_do(guesser: Guesser) -> None:
    for number in range(300):
        guesser.guess("ada", f"198.51.100.{number % 250}")
        guesser.guess("ada", CLASSROOM)
        guesser.guess(f"name{number}", CLASSROOM)
    assert guesser.guess("ada", CLASSROOM) > 0
    assert guesser.guess("ada", CLASSROOM, "a browser") == 0


def test_a_known_browser_is_no_place_to_guess_from(guesser: Guesser, slow: Slowdown) -> None:
    waits = guesser.insist("ada", CLASSROOM, 13, "a browser")
    assert waits == [0, 0, 0, 0, 0, 1, 2, 4, 8, 16, 32, 60, 60]
    assert guesser.guess("ada", CLASSROOM) == 0
    assert guesser.guess("ada", CLASSROOM, "another browser") == 0
    slow.succeeded("ada", CLASSROOM, "a browser")
    assert guesser.guess("ada", CLASSROOM, "a browser") == 0


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ("2001:db8::1", "2001:db8::ffff:1", True),
        ("2001:db8:0:1::1", "2001:db8:0:2::1", False),
        ("192.0.2.1", "192.0.2.2", False),
        ("::ffff:192.0.2.1", "::ffff:192.0.2.2", False),
        ("", "", True),
    ],
)
def test_who_has_one_address_of_a_small_ipv6_network_has_them_all(
    guesser: Guesser, first: str, second: str, same: bool
) -> None:
    guesser.insist("ada", first, 5)
    assert (guesser.guess("ada", second) > 0) is same


def test_made_up_names_do_not_free_who_makes_them_up(clock: Clock) -> None:
    """One address, room for 1000 counts, and as many requests as a machine can make."""
    slow = Slowdown(clock=clock, entries=1000)
    guesser = Guesser(slow, clock)
    guesser.insist("ada", CLASSROOM, 14)
    let_through = 0
    for number in range(100_000):
        clock.now += 0.01
        guesser.guess(f"{number} is made up", CLASSROOM)
        let_through += guesser.guess("ada", CLASSROOM) == 0
    assert let_through <= 1000 / LONGEST + 1
    assert len(slow) <= 5000


def test_made_up_names_are_let_through_slowly_however_many(guesser: Guesser, clock: Clock) -> None:
    let_through = 0
    for number in range(100_000):
        clock.now += 0.01
        let_through += guesser.guess(f"{number} is made up", CLASSROOM) == 0
    assert let_through <= ADDRESS.free + 1000 / ADDRESS.longest + 10


def test_some_wrong_codes_at_once_and_then_one_from_time_to_time(clock: Clock) -> None:
    wrong = Wrong(clock=clock)

    def try_again() -> float:
        if not (wait := wrong.wait(CLASSROOM)):
            wrong.failed(CLASSROOM)
        return wait

    assert [try_again() for _ in range(CODE.free)] == [0] * CODE.free
    assert try_again() == CODE.longest
    let_through, end = 0, clock.now + DAY
    while clock.now < end:
        clock.now += try_again()
        let_through += 1
    assert let_through / 2 <= DAY / CODE.longest + CODE.most
    assert wrong.wait("192.0.2.8") == 0
    clock.now += CODE.most * CODE.forgotten
    assert [try_again() for _ in range(CODE.free)] == [0] * CODE.free


def test_wrong_codes_are_counted_for_a_network_of_ipv6_and_forgotten_in_turn(clock: Clock) -> None:
    wrong = Wrong(Allowance(free=1, longest=10, forgotten=10, most=5), clock=clock, entries=100)
    wrong.failed("2001:db8::1")
    assert wrong.wait("2001:db8::ffff") == 1
    assert wrong.wait("2001:db8:0:1::1") == 0
    for number in range(5000):
        wrong.failed(f"10.0.{number // 256}.{number % 256}")
    assert len(wrong) == 100
    assert wrong.wait("10.0.19.135") == 1
    wrong.failed("no address")
    assert wrong.wait("no address") == 1


STEP = st.tuples(
    st.sampled_from(["ada", "bob", "cyd", "\ud800", "x" * 1000]),
    st.sampled_from(["", "192.0.2.1", "192.0.2.2", "2001:db8::1", "no address"]),
    st.sampled_from(["", "", "", "browser"]),
    st.sampled_from(["failed", "failed", "failed", "succeeded", "withdrawn", "nothing"]),
    st.floats(0, 100),
)


@settings(deadline=None)
@given(st.lists(STEP, max_size=200), st.integers(1, 4))
def test_whatever_happens(steps: list[tuple[str, str, str, str, float]], entries: int) -> None:
    clock = Clock()
    slow = Slowdown(clock=clock, entries=entries)
    for name, address, browser, end, pause in steps:
        seconds = slow.wait(name, address, browser)
        assert 0 <= seconds <= LONGEST
        if not seconds and end != "nothing":
            getattr(slow, end)(name, address, browser)
            if end == "succeeded":
                assert slow.wait(name, address, browser) == 0
        assert len(slow) <= 5 * entries
        clock.now += pause


@settings(deadline=None)
@given(st.lists(STEP, max_size=200))
def test_waiting_as_long_as_was_said_is_enough(
    steps: list[tuple[str, str, str, str, float]],
) -> None:
    """Whatever others have done before, and do meanwhile from elsewhere."""
    clock = Clock()
    slow = Slowdown(clock=clock)
    guesser = Guesser(slow, clock)
    for name, address, browser, _, pause in steps:
        guesser.guess(name, address, browser)
        clock.now += pause
    told = slow.wait("ada", "198.51.100.9")
    arrival = clock.now + told
    for name, address, browser, _, _ in steps:
        guesser.guess(name, address, browser)
    clock.now = arrival
    assert not told or slow.wait("ada", "198.51.100.9") == 0


@settings(deadline=None)
@given(st.lists(st.floats(0, 30), max_size=300))
def test_one_name_slows_no_other_one_of_its_address(pauses: list[float]) -> None:
    clock = Clock()
    guesser = Guesser(Slowdown(clock=clock), clock)
    for pause in pauses:
        guesser.guess("ada", CLASSROOM)
        clock.now += pause
    assert guesser.guess("bob", CLASSROOM) == 0


@pytest.fixture
def known(clock: Clock) -> KnownBrowsers:
    return KnownBrowsers(KnownBrowsers.key_from(b"the hub's secret"), clock=clock)


def test_a_browser_is_known_for_the_names_that_logged_in_in_it(known: KnownBrowsers) -> None:
    one = known.add("", "ada")
    both = known.add(one, r"CORP\bob")
    assert known.check(one, "ada") == known.check(both, "ada") != ""
    assert known.check(both, r"CORP\bob") == known.check(both, "ada")
    assert known.check(one, r"CORP\bob") == ""
    assert known.check(known.add("", "ada"), "ada") != known.check(one, "ada")
    assert "ada" not in both


def test_a_browser_is_forgotten_after_a_time(known: KnownBrowsers, clock: Clock) -> None:
    value = known.add("", "ada")
    clock.now += known.lifetime - 1
    assert known.check(value, "ada")
    renewed = known.add(value, "bob")
    clock.now += 2
    assert not known.check(value, "ada")
    assert not known.check(renewed, "ada")
    assert known.check(renewed, "bob")


def test_a_machine_that_a_class_shares_knows_the_newest_names(
    known: KnownBrowsers, clock: Clock
) -> None:
    value = ""
    for number in range(40):
        clock.now += 60
        value = known.add(value, f"student{number}")
    assert [n for n in range(40) if known.check(value, f"student{n}")] == list(range(32, 40))
    assert len(value) < 1000


@settings(deadline=None)
@given(st.text(max_size=300), st.text(max_size=40))
def test_no_cookie_can_be_made_up(text: str, name: str) -> None:
    known = KnownBrowsers(b"k" * 32)
    good = known.add("", "ada")
    for value in (text, f"1.{text}", good + text, text + good, f"{text}.{good.split('.')[-1]}"):
        assert value == good or known.check(value, "ada") == ""
    assert name == "ada" or known.check(good, name) == ""
    assert known.check(KnownBrowsers(b"j" * 32).add("", "ada"), "ada") == ""


def test_what_is_kept_is_small(clock: Clock) -> None:
    entries = 500
    tracemalloc.start()
    try:
        slow = Slowdown(clock=clock, entries=entries)
        before, _ = tracemalloc.get_traced_memory()
        for number in range(20 * entries):
            slow.wait(f"{number} is made up", f"2001:db8:{number >> 16:x}:{number & 0xFFFF:x}::1")
            slow.wait("ada", CLASSROOM, f"browser {number}")
        for number in range(34 * entries):  # so that each of these names needs turns
            slow.wait(f"name {number // 34}", f"2001:db8:{0xFF00 + number % 34:x}::1")
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(slow) == 5 * entries
    assert (after - before) * slowdown.ENTRIES / entries < 20e6
