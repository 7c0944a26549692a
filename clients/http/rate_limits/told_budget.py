"""Follows one rate limit that the answers tell: what of it is left, what our own requests will still take, when it is full again.

Pure: every function takes the time. An answer says what was left when the remote side looked, so what we have sent since is
subtracted. What else becomes less (a request that costs five, other threads and processes with the same sign-in) shows as a
cost above one, so that two equal processes each take half without asking each other.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from clients.http.rate_limits.rate_limit_headers import RateBudget

UNKNOWN = math.inf
"""What is left of a window of which nothing is known."""

ANSWER = math.inf
"""A wait that ends when the next answer comes, not by the clock."""

NEARLY_FULL = 0.9
"""The share that a window has at least when it has just begun; a bucket that fills up slowly has less."""

ROUNDED = 1.0
"""Seconds by which a moment in whole seconds may lie before the true one."""

LONGEST_ALIGNED = 86400.0
"""Seconds of the longest window that may begin at multiples of its length: months do not."""

MARGIN = 0.01
"""Seconds by which a window is taken to begin late: the remote clock and ours are not read at the same moment."""

SOON = 5.0
"""Seconds for which the end of a window is waited for while answers are on their way; a later end does not matter then."""

STALE = 0.2
"""Seconds after which an answer says little about what others have left."""

_OLD_WEIGHT = 3.0
"""How many requests the cost that was seen in the last window counts for in this one."""


def aligned_end(budget: RateBudget, remote_now: float) -> float | None:
    """Return the seconds until a window ends that begins at multiples of its length, where that fits to what is told.

    Args:
        remote_now: seconds since the epoch by the remote clock.
    """
    told, length = budget.resets_in, budget.window
    if not length or length > LONGEST_ALIGNED:
        return told
    end = length - remote_now % length
    return end if told is None or 0.0 <= told - end < ROUNDED else told


@dataclass(slots=True)
class ToldBudget:
    """One rate limit. Requests are numbered in the order in which they were sent, from 1.

    Attributes:
        left: units that may be spent before the next answer or the end of the window.
        told: remaining units in the newest answer.
        limit: units of a whole window; None when the sender does not say.
        resets_at: the end of the window; None when it is unknown.
        latest: the latest end that an answer has told; a moment in whole seconds is told differently by each answer.
        newest: number of the request whose answer was the newest.
        sent: requests sent so far.
        cost: units that one request takes, with what others take meanwhile.
        least: units that must be left for a request when none is in flight.
        trusted: windows are known to begin when they were announced, so that all may go at once.
        late: seconds that windows begin later than announced.
        scout: number of the request that goes first in a window that is not trusted; 0 for none.
        began: number of the first request of this window.
        heard_at: when the newest answer came.
        members: processes that are known to use it.
        rank: of this process among them, from 0: the last units are left to the first one.
        is_limit_told: `limit` is the sender's, and not the most that was ever left.
        is_aligned: windows of a told length may begin at multiples of it by the remote clock, as most do.
    """

    left: float = UNKNOWN
    told: float = UNKNOWN
    limit: float | None = None
    resets_at: float | None = None
    latest: float = 0.0
    newest: int = 0
    sent: int = 0
    cost: float = 1.0
    least: float = 1.0
    trusted: bool = False
    late: float = MARGIN
    scout: int = 0
    began: int = 1
    heard_at: float = 0.0
    members: int = 1
    rank: int = 0
    is_limit_told: bool = False
    is_aligned: bool = True
    _first: tuple[int, float] = (0, 0.0)
    _old_cost: float = 1.0

    def wait(self, now: float, *, in_flight: int) -> float:
        """Return the seconds until the next request may be sent: 0 for now, `ANSWER` for when an answer comes.

        Args:
            in_flight: requests without an answer.
        """
        if self.resets_at is not None and now >= self.resets_at + self.late:
            self._begin_window()
        if self.members > 1 and in_flight == 0 and self.newest and now - self.heard_at > STALE:
            # Others may have taken the rest meanwhile: one request finds out.
            self.left, self.told = min(self.left, self.cost), min(self.told, self.cost)
        if self.left >= self.cost:
            return 0.0
        if in_flight > 0 and self.told > 0:
            # An answer will tell more, or the window ends before it comes.
            end = ANSWER if self.resets_at is None else max(0.0, self.resets_at + self.late - now)
            return end if end <= SOON else ANSWER
        if in_flight == 0 and self.told >= (self.least if self.rank == 0 else self.least * self.members):
            self.left = self.told
            return 0.0
        if self.resets_at is None:
            # Nothing says when there will be more: one request after the other finds out.
            return 0.0 if in_flight == 0 else ANSWER
        return max(0.0, self.resets_at + self.late - now)

    def take(self, number: int) -> None:
        """Count a request that is sent now."""
        self.sent = number
        self.left -= self.cost

    def hear(self, budget: RateBudget, number: int, now: float, *, in_flight: int, remote_now: float | None = None) -> None:
        """Take note of an answer.

        Args:
            budget: as the answer tells it; `remaining` is not None.
            number: of its request.
            in_flight: requests without an answer, this one not included.
            remote_now: seconds since the epoch by the remote clock, where that is known.
        """
        remaining = budget.remaining or 0.0
        if number < self.began or number < self.newest:
            # It tells of the time before; a newer answer is known.
            return
        ends_in = aligned_end(budget, remote_now) if self.is_aligned and remote_now is not None else budget.resets_in
        if ends_in is None and budget.wait > 0:
            ends_in = budget.wait
        ends_at = None if ends_in is None else now + ends_in
        is_scout = 0 < self.scout <= number
        has_risen = remaining > self.told + in_flight and not is_scout
        if self.told == UNKNOWN or is_scout or has_risen or self.resets_at is None:
            self._old_cost = self.cost
            self._first = (number, remaining)
            self.resets_at, self.latest = ends_at, ends_at or 0.0
            self.left = UNKNOWN
            if is_scout:
                self.trusted = self.limit is not None and remaining >= NEARLY_FULL * self.limit - 1
                self.scout = 0
        elif ends_at is not None:
            self.resets_at = self._end(ends_at, self.resets_at)
        self.newest, self.told, self.heard_at = number, remaining, now
        if budget.limit is not None:
            self.limit, self.is_limit_told = budget.limit, True
        elif self.limit is None or remaining >= self.limit:
            self.limit = remaining + 1
        first, had = self._first
        count = number - first
        if count > 0:
            self.cost = max(self._floor, (_OLD_WEIGHT * self._old_cost + had - remaining) / (_OLD_WEIGHT + count))
        guess = remaining - self.cost * (self.sent - number)
        self.left = remaining if in_flight == 0 else min(self.left, guess)

    def share(self, members: int, rank: int) -> None:
        """Take note of how many processes use it, this one included: each request of ours is taken for one of each."""
        self.members, self.rank = members, rank
        self.cost = max(self.cost, self._floor)

    def refused(self, number: int, now: float) -> None:
        """Take note that a request was refused although it seemed to be within the budget."""
        if 0 < self.scout <= number:
            self.scout = 0
            if self.is_aligned:
                self.is_aligned = False
            else:
                self.late = ROUNDED + MARGIN
        elif number >= self.began and self.told >= self.least and self.told < self.cost:
            # What was left did not suffice for this request.
            self.least = self.cost
        self.trusted = False
        self.left = min(self.left, 0.0)
        self.told = min(self.told, 0.0)

    def is_spent(self, *, in_flight: int) -> bool:
        """Say whether a refusal was to be expected of this budget."""
        return self.told <= in_flight * self.cost

    @property
    def _floor(self) -> float:
        # What others tell us comes late: one more than there are.
        return float(self.members + (self.members > 1))

    def _end(self, told: float, before: float) -> float:
        """Return the end of the window, as this answer and those before it tell it."""
        self.latest = max(self.latest, told)
        if self.latest - min(before, told) > ROUNDED:
            # It moves on with each answer: a bucket, or a window that slides.
            return told
        # What is told in whole seconds differs by up to one. Rounded up, the earliest is the closest; rounded down, the latest.
        return self.latest if self.late >= ROUNDED else min(before, told)

    def _begin_window(self) -> None:
        self.resets_at = None
        self.began = self.sent + 1
        if self.trusted and self.limit is not None:
            self.left = self.told = self.limit
            self._first, self._old_cost = (self.sent, self.limit), self.cost
            return
        # One request finds out whether the window has really begun.
        self.scout = self.began
        self.left = self.told = self.cost
