"""How long to wait before the next guess at a password: exponential, bounded, forgotten with time.

Three counts decide, because there are three ways to guess:

- One name from one address. 5 tries are free, as people mistype. Then 1, 2, 4, ... 60 seconds. The
  count goes down by one in 2 minutes: half an hour later it is as if nothing had been.
- Many names from one address. 300 tries are free, then 1, 2, 4, 8, 15 seconds. Who logs in takes
  back what was counted for the name, and the count goes down by 3 a minute, where a stubborn person
  adds one. So a class of 40 behind one address meets nothing of it, whoever mistypes, nor does a
  lecture of 300 that arrives in the same second; who goes through a class again and again does.
- One name from many addresses. 30 tries are free, then all strangers together have one try in 2
  seconds, or in what PAM takes for a wrong one where that is longer: each has its turn.

Nobody is told to wait for more than 60 seconds. What is not let through is not counted, so that who
asks too early does not wait longer. A turn for a name that others guess at from elsewhere is a
promise: it comes when it was said to come, whatever they do meanwhile, and is kept for 30 seconds.
A network has one turn before it (of IPv6 48 bits, of IPv4 24), so that whoever has one of them
keeps nobody out who comes from another. In three places the next turn or try is for whoever asks
first: in a network that has a turn before it; at a name for which turns are given away for a
minute, which takes 30 networks, or as many claimed addresses, and fewer where PAM is slow; and
behind one address that is used for guessing. Who has logged in before in the same browser
(`KnownBrowsers`) has a count apart, and meets none of what strangers do.

In the long run one name can be guessed at 1440 times a day from one address, and one address can
make 5760 guesses a day at whatever names. From however many addresses, and from such as are made
up, one name can be guessed at 43200 times a day.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from workshop_hub.client import neighbours, network


@dataclass(frozen=True)
class Allowance:
    """What is free, and what follows.

    free: tries without a wait. longest: seconds of the longest wait. forgotten: seconds in which
    the count goes down by one. most: where the count ends. first: seconds of the first wait.
    """

    free: int
    longest: float
    forgotten: float
    most: int
    first: float = 1.0

    def wait(self, tries: float) -> float:
        """Return the seconds to wait after so many tries."""
        beyond = math.ceil(tries) - self.free
        return 0.0 if beyond < 0 else min(self.longest, self.first * 2.0 ** min(beyond, 32))


PAIR = Allowance(free=5, longest=60.0, forgotten=120.0, most=12)
"""One name from one address, or in one browser that the name has logged in from."""

ADDRESS = Allowance(free=300, longest=15.0, forgotten=20.0, most=600)
"""All names from one address; forgotten in up to 100 minutes after the last guess."""

NAME = Allowance(free=30, longest=60.0, forgotten=60.0, most=60)
"""One name from all addresses; the wait is for one's turn."""

TURN = 2.0
"""Seconds from one turn to the next, for one name, where PAM wants no longer delay."""

TURN_MAX = 10.0
"""Seconds from one turn to the next at most, whatever delay PAM wants."""

CHECKED = 1.0
"""Seconds that PAM is given to check a password, beside its delay after a wrong one."""

KEPT = 30.0
"""Seconds for which a turn is kept for whom it was promised to: people are slow."""

CODE = Allowance(free=20, longest=10.0, forgotten=10.0, most=30, first=10.0)
"""Wrong codes of registration from one address: 20 at once, in the long run one in 10 seconds."""

ENTRIES = 10_000
"""Counts that are kept of each of the five kinds: some 17 MB together, however much is guessed."""

ROUNDING = 0.001
"""Seconds: who waits exactly as long as was said is not sent away for a bit of a floating point."""


@dataclass
class _Count:
    """Tries, as of `at`.

    opens: when the next try is let through; of a name, when the next turn is that nobody has; of
    a network, when the last turn is that one of it has. promised: it has a turn, at `opens` or
    earlier, for a name that others guess at.
    """

    at: float
    tries: float = 0.0
    opens: float = 0.0
    promised: bool = False


class _Counts:
    """The newest `size` counts of one kind."""

    def __init__(self, allowance: Allowance, size: int) -> None:
        self.allowance = allowance
        self._size = size
        self._counts: OrderedDict[bytes, _Count] = OrderedDict()

    def __len__(self) -> int:
        return len(self._counts)

    def look(self, key: bytes, now: float) -> _Count:
        """Return the count as it is now; a new one is not kept yet."""
        count = self._counts.get(key)
        if count is None:
            return _Count(at=now)
        self._counts.move_to_end(key)
        count.tries = max(0.0, count.tries - (now - count.at) / self.allowance.forgotten)
        count.at = now
        return count

    def keep(self, key: bytes, count: _Count) -> None:
        """Keep a count, in the place of the one that was longest not asked for."""
        if key not in self._counts and len(self._counts) >= self._size:
            self._counts.popitem(last=False)
        self._counts[key] = count

    def change(self, key: bytes, count: _Count, tries: float) -> None:
        """Count more tries, or take some back."""
        count.tries = min(max(0.0, count.tries + tries), float(self.allowance.most))
        self.keep(key, count)


@dataclass(frozen=True)
class _Here:
    """The counts of one try by a stranger, and their keys. near: of its network, at this name."""

    pair: _Count
    address: _Count
    name: _Count
    near: _Count
    keys: tuple[bytes, bytes, bytes, bytes]


class Slowdown:
    """Counts tries at names, and says how long to wait for the next one.

    clock: monotonic seconds. entries: counts that are kept of each kind. Names are the canonical
    ones. Addresses are as `client.address` gives them; of IPv6, a network of 64 bits is one
    address, since whoever has one of it has them all. browser: what `KnownBrowsers.check` returns.

    Names and addresses made up make old counts give way to new ones. That frees nobody from a count
    that hinders him: what is not let through is not kept, an address that is slowed gets through
    with four new names a minute, its own count is kept apart from the names', and a count that is
    in use is the last to give way.
    """

    def __init__(
        self, *, clock: Callable[[], float] = time.monotonic, entries: int = ENTRIES
    ) -> None:
        self._clock = clock
        self._pairs = _Counts(PAIR, entries)
        self._browsers = _Counts(PAIR, entries)
        self._addresses = _Counts(ADDRESS, entries)
        self._names = _Counts(NAME, entries)
        self._near = _Counts(NAME, entries)
        self._pace = TURN

    def __len__(self) -> int:
        """Return how many counts are kept, of all kinds."""
        kinds = (self._pairs, self._browsers, self._addresses, self._names, self._near)
        return sum(len(kind) for kind in kinds)

    def crowded(self, name: str) -> bool:
        """Say whether a stranger's next try at a name needs a turn."""
        return NAME.wait(self._names.look(_key(name), self._clock()).tries) > 0

    def wait(self, name: str, address: str, browser: str = "") -> float:
        """Return the seconds to wait before a try at `name`; 0 lets it through, and counts it.

        It is counted before its end is known, so that many at the same time gain nothing. Tell how
        it ended: `failed`, `succeeded` or `withdrawn`; without that it counts as failed.
        """
        now = self._clock()
        if browser:
            key = _key(name, browser)
            own = self._browsers.look(key, now)
            if own.opens > now + ROUNDING:
                return own.opens - now
            self._browsers.change(key, own, 1)
            own.opens = now + PAIR.wait(own.tries)
            return 0.0
        here = self._here(name, address, now)
        opens = max(self._turn(here, now), here.pair.opens, here.address.opens)
        if opens > now + ROUNDING:
            return min(opens - now, PAIR.longest)
        self._change(here, 1)
        self._close(here, now)
        return 0.0

    def failed(self, name: str, address: str, browser: str = "", *, delay: float = 0.0) -> None:
        """Note that a try was wrong: the wait begins now, when the answer is known.

        delay: seconds that PAM wants after it. Turns that came faster than PAM's would pile up.
        """
        now = self._clock()
        if delay > 0:
            self._pace = max(self._pace, min(delay + CHECKED, TURN_MAX))
        if not browser:
            self._close(self._here(name, address, now), now)
            return
        own = self._browsers.look(_key(name, browser), now)
        own.opens = now + PAIR.wait(own.tries)

    def succeeded(self, name: str, address: str, browser: str = "") -> None:
        """Forget what was counted of this name here: it was its owner."""
        now = self._clock()
        if browser:
            key = _key(name, browser)
            self._browsers.keep(key, _Count(at=now))
            return
        here = self._here(name, address, now)
        self._change(here, -math.ceil(here.pair.tries))
        here.address.opens = here.pair.opens = now
        here.pair.promised = True

    def withdrawn(self, name: str, address: str, browser: str = "") -> None:
        """Take back a try that had no answer because the machine could give none.

        Not for a conversation that whoever tries breaks off: that would make guesses free.
        """
        now = self._clock()
        if browser:
            key = _key(name, browser)
            own = self._browsers.look(key, now)
            self._browsers.change(key, own, -1)
            own.opens = now + PAIR.wait(own.tries)
            return
        here = self._here(name, address, now)
        self._change(here, -1)
        self._close(here, now)

    def _here(self, name: str, address: str, now: float) -> _Here:
        whole = network(address)
        keys = (_key(name, whole), _key(whole), _key(name), _key(name, neighbours(address)))
        return _Here(
            self._pairs.look(keys[0], now),
            self._addresses.look(keys[1], now),
            self._names.look(keys[2], now),
            self._near.look(keys[3], now),
            keys,
        )

    def _change(self, here: _Here, tries: int) -> None:
        self._pairs.change(here.keys[0], here.pair, tries)
        self._addresses.change(here.keys[1], here.address, tries)
        self._names.change(here.keys[2], here.name, tries)

    def _turn(self, here: _Here, now: float) -> float:
        """Return when a try is in turn at a name that is guessed at from many addresses, or 0."""
        if not NAME.wait(here.name.tries):
            return 0.0
        if here.pair.promised and now <= here.pair.opens + KEPT:
            return 0.0
        if here.near.opens > now + ROUNDING:  # ask again, when its network has no turn before it
            return here.near.opens
        turn = max(now + self._pace, here.name.opens)
        if turn > now + NAME.longest:  # ask again, when that turn is near enough to be promised
            return turn - NAME.longest + ROUNDING
        here.name.opens = turn + self._pace
        here.near.opens = turn
        here.pair.promised = True
        here.pair.opens = max(here.pair.opens, turn)
        self._pairs.keep(here.keys[0], here.pair)
        self._near.keep(here.keys[3], here.near)
        return turn

    def _close(self, here: _Here, now: float) -> None:
        here.pair.promised = False
        here.pair.opens = now + PAIR.wait(here.pair.tries)
        here.address.opens = now + ADDRESS.wait(here.address.tries)


class Wrong:
    """Counts wrong tries by address, of which each has an allowance of its own.

    For what belongs to no name, such as the code with which people register. Only what was wrong is
    counted: ask and tell without awaiting anything in between.
    """

    def __init__(
        self,
        allowance: Allowance = CODE,
        *,
        clock: Callable[[], float] = time.monotonic,
        entries: int = ENTRIES,
    ) -> None:
        self._clock = clock
        self._counts = _Counts(allowance, entries)

    def __len__(self) -> int:
        """Return how many addresses are counted."""
        return len(self._counts)

    def wait(self, address: str) -> float:
        """Return the seconds until the next try from an address; 0 for now."""
        now = self._clock()
        return max(0.0, self._counts.look(_key(network(address)), now).opens - now)

    def failed(self, address: str) -> None:
        """Count a wrong try."""
        now = self._clock()
        key = _key(network(address))
        count = self._counts.look(key, now)
        self._counts.change(key, count, 1)
        count.opens = now + self._counts.allowance.wait(count.tries)


def _key(*words: str) -> bytes:
    """Return 16 bytes for a few words of any length."""
    whole = b"".join(hashlib.sha256(_bytes(word)).digest() for word in words)
    return hashlib.sha256(whole).digest()[:16]


def _bytes(text: str) -> bytes:
    return text.encode(errors="surrogatepass")
