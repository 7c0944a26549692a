"""Learns how many requests per second an API lets in that says nothing until it refuses one, and forgets it slowly.

Pure: every function takes the time. What was let in between two times of being refused, divided by how long that took, is the
pace: it holds for windows of any length and for buckets. From there the pace rises, quickly while it was never found to be too
high, then slowly, and after some minutes without a refusal so quickly that it is as good as forgotten.
"""

from __future__ import annotations

from dataclasses import dataclass

FIRST_GUESS = 1.0
"""Seconds to wait after a refusal that does not say for how long; each further one waits `GUESS_FACTOR` times as long."""

GUESS_FACTOR = 1.5
LONGEST_GUESS = 60.0

BACK = 0.95
"""The share of a pace that was a little too high which is kept."""

SEARCHING, KEEPING = 0.02, 0.008
"""How much the pace rises each second: before it was found to be too high, and after."""

QUICKLY = 1.6
"""The factor by which the pace rises each second while it may be too low because of a guess: how long to wait until the request
that was let in again. A bucket had room for that long before."""

ROOM = 4.0
"""A guess makes the measure too low by this factor at most."""

FORGETTING = 120.0
"""Seconds after which a pace that was never refused again has doubled by forgetting alone; twice as long, eightfold."""

BEYOND = 2
"""A refusal says nothing about the number of requests if so many that were sent after the refused one were let in meanwhile, and
none was refused: it was about that one thing."""

IDLE = 10.0
"""Seconds without a request after which what was let in is counted anew: the budget has filled up meanwhile."""

AT_ONCE = 0.25
"""Seconds of the pace that may be sent at once, to make up for requests that came late."""


@dataclass(slots=True)
class LearnedPace:
    """The pace of one client, or of one kind of its requests.

    Attributes:
        base: requests per second at `since`; 0 while no limit is known.
        own: what this process has measured of it; `base` is its share of what all have measured.
        since: when it was measured.
        is_found: a pace that was paced by us was refused, so that the limit is near.
        room: the factor by which the measure may be too low, because how long to wait was a guess.
        next_at: when the next request may be sent.
        refused_at: when the present refusal began; None while requests are let in.
        refusals: in a row.
        let_in: answers since `counting_at`.
        last_at: when the last one came.
        ever: something was let in at some time.
    """

    base: float = 0.0
    own: float = 0.0
    since: float = 0.0
    is_found: bool = False
    room: float = 1.0
    next_at: float = 0.0
    refused_at: float | None = None
    refusals: int = 0
    let_in: int = 0
    counting_at: float = 0.0
    last_at: float = 0.0
    ever: bool = False
    _until: float = 0.0
    #: Seconds since the last refusal, if nothing said how long to wait.
    _guess: float = 0.0
    _number: int = 0
    #: The request that was refused first, how many of those sent after it were let in, and whether another one was refused.
    _first: int = 0
    _beyond: int = 0
    _again: bool = False

    def rate(self, now: float) -> float:
        """Return the requests per second that may be sent now; 0 for any number."""
        if not self.base:
            return 0.0
        age = max(0.0, now - self.since)
        guessed = 1.0 if self.room <= 1.0 else min(self.room, QUICKLY ** min(age, IDLE))
        return self.base * (guessed + (KEEPING if self.is_found else SEARCHING) * age + (age / FORGETTING) ** 3)

    def wait(self, now: float, *, in_flight: int) -> float:
        """Return the seconds until the next request may be sent; infinite for when an answer comes."""
        if self.refused_at is not None:
            if now < self._until:
                return self._until - now
            # One request finds out whether others are let in again.
            return 0.0 if in_flight == 0 else float("inf")
        return max(0.0, self.next_at - now) if self.base else 0.0

    def take(self, now: float) -> None:
        """Count a request that is sent now."""
        rate = self.rate(now)
        if rate:
            self.next_at = max(self.next_at, now - AT_ONCE) + 1.0 / rate

    def adopt(self, rate: float, age: float, now: float) -> None:
        """Go on at a share of what all processes have measured, the last of them `age` seconds ago."""
        self.ever = True
        if rate > 0 and not self.base and self.refused_at is None:
            self.since, self.is_found, self.next_at = now - age, True, now
        if rate > 0 and (self.base or self.refused_at is None):
            self.base = rate

    def answered(self, number: int, now: float) -> None:
        """Take note that a request was let in.

        Args:
            number: of the request, in the order in which they were sent.
        """
        self.ever = True
        if self.refused_at is not None:
            if number <= self._number:
                self.let_in += 1
                self._beyond += number > self._first
                return
            self._measure(now)
        elif not self.let_in or now - self.last_at > IDLE:
            self.counting_at, self.let_in = now, 0
        self.let_in += 1
        self.last_at = now

    def refused(self, number: int, last: int, now: float, *, retry_after: float | None) -> float | None:
        """Take note of a refusal; return the seconds until the next request, None when nothing is known about that.

        Args:
            number: of the request.
            last: number of the last request that was sent.
            retry_after: seconds by the answer; None when it does not say.
        """
        if self.refused_at is None:
            self.refused_at, self.refusals = now, 0
            self._first, self._beyond, self._again = number, 0, False
        elif number <= self._number:
            # It was sent before the first of these refusals came.
            self._again = True
            if retry_after is not None:
                self._until = max(self._until, now + retry_after)
            return max(0.0, self._until - now) if self.ever else retry_after
        self._again = self._again or number != self._first
        self._number = last
        wait = retry_after if retry_after is not None else min(LONGEST_GUESS, FIRST_GUESS * GUESS_FACTOR**self.refusals)
        self.refusals += 1
        if retry_after is None and not self.ever:
            # Nothing was ever let in, so that this may be anything.
            self.refused_at = None
            return None
        self._until = now + wait
        self._guess = wait if retry_after is None else 0.0
        return wait

    def forget_refusal(self, latest: float, now: float) -> bool:
        """Forget a refusal that holds all back until after a moment, and learn nothing from it; say whether there was one."""
        if self.refused_at is None or self._until <= latest:
            return False
        self._let_in_again(now)
        return True

    def _measure(self, now: float) -> None:
        """Take the pace from what was let in, now that requests are let in again."""
        assert self.refused_at is not None
        if self._beyond >= BEYOND and not self._again:
            self._let_in_again(now)
            return
        # What passes from the end of the wait to the next request is our own time: the end of a pause is seen late.
        ended = max(self.refused_at, min(now, self._until))
        blocked, whole = ended - self.refused_at, max(ended - self.counting_at, 1e-3)
        measured = self.let_in / whole
        before = self.rate(self.refused_at)
        self.room = min(ROOM, whole / max(whole - self._guess, 1e-3)) if self._guess else 1.0
        if before and blocked <= whole / 4:
            # It was a little too high. What was waited beyond need makes the measure too low.
            measured = max(measured, BACK * before)
            self.is_found, self.room = True, 1.0
        self.base = self.own = measured
        self.since = self.next_at = now
        self._let_in_again(now)

    def _let_in_again(self, now: float) -> None:
        self.refused_at, self.refusals = None, 0
        self.counting_at, self.let_in = now, 0
