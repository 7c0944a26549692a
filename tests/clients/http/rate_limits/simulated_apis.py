"""Simulates APIs with budgets and clients that keep them, in virtual time: minutes pass in milliseconds, and no thread is needed.

A client here is one `Throttle` with some threads. What the flows do around it is done as they do it: a refusal pauses all clients
for as long as it says, at least a second, and then one request goes first.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from email.utils import formatdate

from clients.http.rate_limits.throttle import MAX_SLEEP, MIN_WAIT, Permit, Throttle
from clients.http.rate_limits.throttle_scope import Kind
from clients.http.response import HttpResponse
from clients.http.status import error_of

EPOCH = 1_780_000_000.0
ITEM: Kind = ("GET", "/items", 3)
PAGE: Kind = ("GET", "/items", 2)

Headers = dict[str, str]
Admit = Callable[[float, Kind], tuple[bool, Headers]]
"""(virtual time, kind) -> whether a request is let in, and the headers."""


@dataclass
class Window:
    """A budget of `limit` units for each `length` seconds.

    Args:
        aligned: windows begin at multiples of their length by the server's clock; otherwise with the first request.
        cost: units of one request.
        kinds: that it counts; None for all.
    """

    limit: int
    length: float
    aligned: bool = True
    cost: int = 1
    kinds: tuple[Kind, ...] | None = None
    skew: float = 0.0
    began: float = -math.inf
    used: int = 0

    def counts(self, kind: Kind) -> bool:
        """Say whether it is a budget of this kind."""
        return self.kinds is None or kind in self.kinds

    def roll(self, now: float) -> None:
        """Begin the next window when this one has ended."""
        clock = EPOCH + now
        if clock >= self.began + self.length:
            self.began = clock - clock % self.length if self.aligned else clock
            self.used = 0

    def has_room(self) -> bool:
        """Say whether one more is let in."""
        return self.used + self.cost <= self.limit

    @property
    def left(self) -> int:
        """Units that are left."""
        return self.limit - self.used

    def ends_in(self, now: float) -> float:
        """Seconds until the window ends."""
        return self.began + self.length - EPOCH - now


def windows(
    *budgets: Window, tell: Callable[[Window, float], Headers], refuse: Callable[[Window, float], Headers], date: bool = True
) -> Admit:
    """Return an API with some windows at once.

    Args:
        tell: the headers about one window.
        refuse: further ones of a refusal.
        date: answers bear a Date.
    """

    def admit(now: float, kind: Kind) -> tuple[bool, Headers]:
        mine = [one for one in budgets if one.counts(kind)]
        for one in mine:
            one.roll(now)
        lacking = [one for one in mine if not one.has_room()]
        if not lacking:
            for one in mine:
                one.used += one.cost
        headers = {"Date": formatdate(EPOCH + now + budgets[0].skew, usegmt=True)} if date else {}
        for one in mine:
            headers |= tell(one, now)
        if lacking:
            headers |= refuse(max(lacking, key=lambda one: one.ends_in(now)), now)
        return not lacking, headers

    return admit


def epoch_reset(one: Window, now: float) -> Headers:
    """The end of the window as seconds since the epoch by a clock that may be wrong."""
    left = {"X-RateLimit-Limit": str(one.limit), "X-RateLimit-Remaining": str(one.left)}
    return left | {"X-RateLimit-Reset": str(math.ceil(one.began + one.length + one.skew))}


def delta_reset(one: Window, now: float, rounded: Callable[[float], float] = math.ceil) -> Headers:
    """The end of the window as seconds from now."""
    left = {"RateLimit-Limit": str(one.limit), "RateLimit-Remaining": str(one.left)}
    return left | {"RateLimit-Reset": str(rounded(one.ends_in(now)))}


def retry_after(one: Window, now: float) -> Headers:
    """When to come again, in whole seconds."""
    return {"Retry-After": str(max(1, math.ceil(one.ends_in(now))))}


def nothing(one: Window, now: float) -> Headers:
    """No header at all."""
    return {}


def bucket(rate: float, size: float, *, tell: bool, retry: bool) -> Admit:
    """Return an API with a token bucket."""
    state = {"tokens": size, "at": 0.0}

    def admit(now: float, kind: Kind) -> tuple[bool, Headers]:
        state["tokens"] = min(size, state["tokens"] + rate * (now - state["at"]))
        state["at"] = now
        good = state["tokens"] >= 1
        if good:
            state["tokens"] -= 1
        headers: Headers = {}
        if tell:
            headers = {
                "RateLimit-Limit": str(int(size)),
                "RateLimit-Remaining": str(int(state["tokens"])),
                "RateLimit-Reset": "1",
            }
        if not good and retry:
            headers["Retry-After"] = "1"
        return good, headers

    return admit


@dataclass
class Outcome:
    """What a simulation came to."""

    answered: int = 0
    refused: int = 0
    first: float = math.inf
    last: float = 0.0
    pauses: int = 0
    by_client: list[int] = field(default_factory=list)

    @property
    def took(self) -> float:
        """Seconds from the first request to the last answer."""
        return self.last - self.first

    @property
    def refused_share(self) -> float:
        """The share of all requests that was refused."""
        return self.refused / max(1, self.answered + self.refused)


def simulate(  # noqa: C901, PLR0912 - one loop over events
    api: Admit,
    jobs: Iterator[Kind] | list[Kind],
    *,
    clients: int = 1,
    threads: int = 8,
    latency: float = 0.05,
    begin: float = 3.3,
    until: float = 3600.0,
    jitter: Callable[[], float] = lambda: 0.0,
    told_of_each_other: bool = False,
) -> Outcome:
    """Run all jobs through the API; return what came of it."""
    now = begin
    made = [Throttle(clock=lambda: now, wall=lambda: EPOCH + now) for _ in range(clients)]
    for rank, one in enumerate(made if told_of_each_other else ()):
        one.share(clients, rank)
    queue = list(jobs)[::-1]
    total = len(queue)
    found = Outcome(by_client=[0] * clients)
    order = itertools.count()
    events: list[tuple[float, int, str, tuple[object, ...]]] = []
    #: Threads that wait for an answer, or have no job, by client; and all that wait for the end of the pause.
    idle: list[list[int]] = [[] for _ in range(clients)]
    paused_until, probing = 0.0, False

    def push(at: float, what: str, *rest: object) -> None:
        heapq.heappush(events, (at, next(order), what, rest))

    def wake(client: int) -> None:
        for thread in idle[client]:
            push(now, "begin", client, thread)
        idle[client].clear()

    for client in range(clients):
        for thread in range(threads):
            push(now, "begin", client, thread)
    while events and found.answered < total and now < until:
        now, _, what, rest = heapq.heappop(events)
        if what == "begin":
            client, thread = rest  # type: ignore[assignment]
            if not queue:
                idle[client].append(thread)
                continue
            if now < paused_until:
                push(paused_until, "begin", client, thread)
                continue
            if paused_until and probing:
                push(now + 0.05, "begin", client, thread)
                continue
            kind = queue.pop()
            left = made[client].attempt(kind)
            if not isinstance(left, Permit):
                queue.append(kind)
                if left == math.inf:
                    idle[client].append(thread)
                elif left > MAX_SLEEP:
                    paused_until, probing = max(paused_until, now + max(left, MIN_WAIT)), False
                    found.pauses += 1
                    push(paused_until, "begin", client, thread)
                else:
                    push(now + left, "begin", client, thread)
                continue
            probing = bool(paused_until)
            found.first = min(found.first, now)
            good, headers = api(now, kind)
            push(now + (latency + jitter() if good else 0.002), "end", client, thread, left, good, headers, kind)
        else:
            client, thread, permit, good, headers, kind = rest  # type: ignore[assignment]
            raw = [(name.encode(), value.encode()) for name, value in headers.items()]
            learned = made[client].answered(permit, HttpResponse(200 if good else 429, raw, b""))
            found.last = now
            if good:
                found.answered += 1
                found.by_client[client] += 1
                paused_until, probing = (0.0, False) if now >= paused_until else (paused_until, probing)
            else:
                found.refused += 1
                queue.insert(0, kind)
                lowered = {name.lower(): value for name, value in headers.items()}
                error = error_of(429, lowered, method="GET", url="", learned=learned)
                wait = getattr(error, "retry_after", None)
                if now >= paused_until:
                    paused_until, probing = now + max(60.0 if wait is None else wait, MIN_WAIT), False
                    found.pauses += 1
            for other in range(clients):
                wake(other)
            push(now, "begin", client, thread)
    return found
