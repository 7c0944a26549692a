"""Holds requests back while the remote system's rate limit is used up, before it has to refuse them.

Where answers tell what is left, as much is sent as fast as it goes, and then nothing until there is more (`told_budget`): that
takes the least time, and nothing is refused. Where they tell nothing, the pace is learned from the refusals (`learned_pace`).
All threads of a client share both.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import replace
from typing import NamedTuple

from clients.errors import RateLimitedError
from clients.http.rate_limits.learned_pace import LearnedPace
from clients.http.rate_limits.rate_limit_headers import RateBudget, ServerClock, Wait, budgets, wait
from clients.http.rate_limits.throttle_scope import Kind, Scope
from clients.http.rate_limits.told_budget import MARGIN
from clients.http.response import HttpResponse, joined_headers

MAX_SLEEP = 5.0
"""Seconds for which nobody may send, after which a waiting request gives up: a longer wait is the job's (docs/architecture.md,
law 6)."""

MAX_LINE = 10.0
"""Seconds that a request waits at most, for others that are sent before it and for its budget together."""

MAX_BLOCKING = 1.0
"""The same for a request whose caller keeps others waiting meanwhile: SQLite's other writers give up after 15 s."""

blocks_others: ContextVar[Callable[[], bool]] = ContextVar("syncs_blocks_others", default=lambda: False)
"""Tells whether others wait for what the caller holds, such as a transaction that is open."""

USED_WITHIN = 5.0
"""Seconds after its last request for which a process counts as one that shares a budget."""

MAX_KINDS = 64
"""Kinds of requests that may have budgets of their own."""

MIN_WAIT = 1.0
"""The shortest wait in seconds after a refusal: with `Retry-After: 0`, or a date in the past, a worker would ask hundreds of
times a second without using up an attempt."""


class Permit(NamedTuple):
    """One request that may be sent, and its number in its scope."""

    scope: Scope
    kind: Kind
    number: int


class Throttle:
    """The rate limits of one origin, for all threads of a client.

    Args:
        clock: seconds that only grow; for tests.
        wall: seconds since the epoch; for tests.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic, wall: Callable[[], float] = time.time) -> None:
        self._time, self._wall = clock, wall
        self._changed = threading.Condition(threading.Lock())
        self._main = Scope()
        self._scopes: dict[Kind, Scope] = {}
        self._lines: dict[Kind, threading.Lock] = {}
        self._remote = ServerClock()
        #: Without a `Date`: whether the remote clock was compared with ours.
        self._is_checked = False
        self._stopped = False
        self._used_at = -USED_WITHIN
        #: Whether anything is known that could hold a request back.
        self._is_active = False
        #: Whether good answers bear a `Retry-After`, so that it says nothing about a refusal.
        self.always_asks = False

    def acquire(self, kind: Kind, *, method: str, url: str) -> Permit:
        """Wait until a request of a kind may be sent. End each permit with `answered` or `failed`.

        Raises:
            RateLimitedError: nobody may send for more than `MAX_SLEEP`; the client then pauses for exactly that long. Or it
                cannot be sent within `MAX_LINE`, or within `MAX_BLOCKING` where the caller keeps others waiting.
        """
        with self._changed:
            found = self._attempt(kind) if kind not in self._lines else 0.0
            if isinstance(found, Permit):
                return found
            line = self._lines.setdefault(kind, threading.Lock())
        is_blocking = blocks_others.get()()
        longest = MAX_BLOCKING if is_blocking else MAX_LINE
        ends = self._time() + longest
        # Only the first in line looks at the clock, so that not all wake up for each request that may be sent.
        if not line.acquire(timeout=longest):
            raise _refusal(MIN_WAIT, method=method, url=url, whole=False)
        try:
            with self._changed:
                while True:
                    left = self._attempt(kind)
                    if isinstance(left, Permit):
                        return left
                    over = ends - self._time()
                    is_long = MAX_SLEEP < left < float("inf")
                    if is_long or over <= 0 or (is_blocking and over < left < float("inf")) or self._stopped:
                        seconds = max(left - MARGIN, 0.0) if left < float("inf") else MIN_WAIT
                        # A short wait is no reason to pause the client: only this caller may not wait.
                        whole = (is_long or not is_blocking) and self._holds_all(kind)
                        raise _refusal(seconds, method=method, url=url, whole=whole)
                    self._changed.wait(min(left, MAX_SLEEP, over))
        finally:
            line.release()

    def attempt(self, kind: Kind) -> Permit | float:
        """Return a permit, or the seconds until there may be one: infinite for when an answer comes."""
        with self._changed:
            return self._attempt(kind)

    def _attempt(self, kind: Kind) -> Permit | float:
        scope, now = self._scopes.get(kind, self._main), self._time()
        self._used_at = now
        if self._is_active and (left := scope.wait(kind, now)) > 0:
            return left
        return Permit(scope, kind, scope.take(kind, now))

    def _holds_all(self, kind: Kind) -> bool:
        """Say whether requests of other kinds would have to wait as well."""
        scope = self._scopes.get(kind, self._main)
        return scope is self._main and scope.wait_of_all(kind, self._time()) > 0

    def answered(self, permit: Permit, answer: HttpResponse) -> float | None:
        """Take note of an answer; return the seconds to wait where it is a refusal, as far as that is known."""
        status, scope = answer.status, permit.scope
        names = b" ".join([name for name, _ in answer.raw_headers]).lower()
        # Most answers say nothing about limits, and decoding headers costs more than this search.
        tells = b"limit" in names or b"quota" in names
        if not (tells or status in (403, 429, 503) or self._is_active or b"retry-after" in names):
            with self._changed:
                scope.in_flight -= 1
                scope.pace.answered(permit.number, self._time())
            return None
        headers = joined_headers(answer.raw_headers)
        if status < 300 and status != 202 and "retry-after" in headers:
            self.always_asks = True
        sent = self._remote.read(headers, self._time()) if tells else None
        told = budgets(headers, now=self._wall(), sent=sent) if tells else []
        asked: Wait | None = None
        if status in (403, 429, 503):
            asked = wait(headers, now=self._wall(), refused=status == 429, asks=status == 429 or not self.always_asks)
        refused = status == 429 or asked is not None
        if sent is None:
            told = self._checked(told, asked, refused=refused)
        # Taken last: with an earlier moment, the end of a window would seem to come before it does.
        now = self._time()
        with self._changed:
            scope.in_flight -= 1
            scope.is_new = False
            may_part = bool(told) and scope is self._main and len(self._scopes) < MAX_KINDS
            if may_part and scope.has_own_budget(permit.kind, told, permit.number, now):
                scope = self._scopes.setdefault(permit.kind, Scope(sent=permit.number, members=scope.members, rank=scope.rank))
            seconds: float | None = None
            if refused:
                seconds = None if asked is None else max(asked.seconds, MIN_WAIT)
                seconds = scope.refused(permit.kind, told, permit.number, now, retry_after=seconds)
            else:
                scope.pace.answered(permit.number, now)
            if told and self._scopes.get(permit.kind, self._main) is scope:
                scope.hear(permit.kind, told, permit.number, now, good=not refused, remote_now=sent)
            self._is_active = self._is_active or refused or bool(told)
            self._changed.notify_all()
        return seconds

    def _checked(self, told: list[RateBudget], asked: Wait | None, *, refused: bool) -> list[RateBudget]:
        """Return budgets of an answer without a `Date`: a reset by a clock that may be wrong is believed only once it is checked.

        A refusal with `Retry-After` tells the remote time. Until one came, what would mean a pause, or lies in the past, is
        taken for unknown: then one request asks.
        """
        moments = [one for one in told if one.resets_at is not None]
        if not moments or self._is_checked:
            return told
        if refused:
            self._is_checked = True
            if asked is not None and asked.header.endswith("retry-after"):
                self._remote.calibrate(max(one.resets_at or 0.0 for one in moments) - asked.seconds, self._time())
                return [one if one.resets_at is None else replace(one, resets_in=asked.seconds) for one in told]
            return told
        return [
            one if one.resets_at is None or 0 < (one.resets_in or 0) <= MAX_SLEEP else replace(one, resets_in=None)
            for one in told
        ]

    def failed(self, permit: Permit) -> None:
        """Take note that a request got no answer."""
        with self._changed:
            permit.scope.in_flight -= 1
            self._changed.notify_all()

    def known(self) -> tuple[float | None, float] | None:
        """Return what other processes should know: the pace that was measured here, and seconds since then.

        None where nothing limits, or nobody has asked for `USED_WITHIN` seconds. The pace is None where none was measured.
        """
        with self._changed:
            now, pace = self._time(), self._main.pace
            if not self._is_active or now - self._used_at > USED_WITHIN:
                return None
            return (pace.own or None), max(0.0, now - pace.since)

    def adopt(self, rate: float | None, age: float) -> None:
        """Go on with what others know.

        Args:
            rate: the share of this process, in requests per second; None where only that others are let in is known.
            age: seconds since it was measured.
        """
        with self._changed:
            if not self._is_active:
                self._is_active = self._main.is_new = True
            self._main.pace.adopt(rate or 0.0, age, self._time())
            self._changed.notify_all()

    def inherit(self, rate: float) -> None:
        """Take over a part of the pace of a process that is gone."""
        with self._changed:
            pace = self._main.pace
            pace.own += rate
            pace.base += rate if pace.base else 0.0

    def share(self, members: int, rank: int) -> None:
        """Take note of how many processes share the budgets of this origin, and which of them this one is, from 0."""
        with self._changed:
            for scope in (self._main, *self._scopes.values()):
                if (scope.members, scope.rank) != (members, rank):
                    scope.share(members, rank)
            self._changed.notify_all()

    def forget_pace(self) -> None:
        """Forget what refusals taught: they were about a single thing, and not about the number of requests."""
        with self._changed:
            for scope in (self._main, *self._scopes.values()):
                scope.pace = LearnedPace(ever=True)
            self._changed.notify_all()

    def forget_refusals(self) -> None:
        """Let one request ask where nobody may send for more than `MAX_SLEEP`: a person may know better than the last answer."""
        with self._changed:
            for scope in (self._main, *self._scopes.values()):
                scope.forget_refusals(self._time(), longer_than=MAX_SLEEP)
            self._changed.notify_all()

    def stop(self) -> None:
        """End all waits at once, and let no request wait from now on."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()


def _refusal(left: float, *, method: str, url: str, whole: bool) -> RateLimitedError:
    what = "budget" if whole else "budget for such requests"
    text = f"the remote system's {what} is used up, it is full again in {left:.0f} s; nothing was sent"
    return RateLimitedError(text, method=method, url=url, retry_after=left, whole=whole)
