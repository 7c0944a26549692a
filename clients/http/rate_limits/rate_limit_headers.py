"""Reads from headers when the next request may be sent: `Retry-After`, `X-RateLimit-*`, and the IETF `RateLimit` fields.

`Retry-After` and `X-RateLimit-*` are read under all names that are in use. The size of a number shows whether it is a delay or
a point in time: nobody asks for a delay of 31 years (10^9 s), or means the year 5138 (10^11 s, so those are milliseconds).
Points in time are compared with the `Date` of the same answer, so that neither clock needs to be right.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from clients.http.rate_limits.ietf_rate_limit import limits, policies
from clients.http.rate_limits.rate_fields import (
    MAX_WAIT,
    Field,
    fields,
    first_seconds,
    http_date,
    is_number,
    seconds_of,
    window_of,
)

LONGEST_NAME = 100
"""Characters of a budget's name."""

MILLISECONDS = 1000.0
"""A reset of more than these seconds may be told in milliseconds, where it is longer than the window."""

CLOCK_SET = 3.0
"""Seconds by which a remote clock may seem to go back before it counts as having been set."""


@dataclass(frozen=True, slots=True)
class RateBudget:
    """What is left of one rate limit.

    Args:
        remaining: requests (or other units) left; None when the sender does not say.
        limit: of the whole window.
        resets_in: seconds until all of it is available again.
        window: seconds of the window.
        name: given by the sender; "" when it has only one.
        resets_at: seconds since the epoch by the remote clock, where the reset is told as a moment.
    """

    remaining: float | None = None
    limit: float | None = None
    resets_in: float | None = None
    window: float | None = None
    name: str = ""
    resets_at: float | None = None

    @property
    def wait(self) -> float:
        """Seconds until the next request may succeed: 0 while something is left, or when it is unknown.

        A window without a reset may be a moving one, so the wait is one minute at most.
        """
        if self.remaining is None or self.remaining > 0 or self.limit == 0:
            # Some servers send a limit of zero with good answers, which means that there is no limit.
            return 0.0
        return min(self.window or 0.0, 60.0) if self.resets_in is None else self.resets_in


@dataclass(frozen=True, slots=True)
class Wait:
    """Seconds to wait, the header that says so, and what is wrong with its value ("" for nothing)."""

    seconds: float
    header: str
    doubt: str = ""

    def __str__(self) -> str:
        return f"come again in {self.seconds:g} s ({self.header}{f': {self.doubt}' if self.doubt else ''})"


def wait(headers: Mapping[str, str], *, now: float | None = None, refused: bool = False, asks: bool = True) -> Wait | None:
    """Return how long to wait: by `Retry-After` or, where that says nothing, by a rate limit that is used up.

    Args:
        headers: names in lower case.
        now: seconds since the epoch where the answer has no `Date`; default: this machine's clock.
        refused: the request was refused for its rate (429), so that a budget of which only the reset is told is used up.
        asks: `Retry-After` means something; False where good answers bear one, too.
    """
    asked = [
        _bounded(seconds, header)
        for header in headers
        if asks and "retry-after" in header and (seconds := _asked(headers, header, now, _scale(header))) is not None
    ]
    longest = max(asked, key=lambda one: one.seconds, default=None)
    if longest is not None and longest.seconds > 0:
        return longest
    # `Retry-After: 0` says nothing (FreshBooks sends it with every answer); a rate limit that is used up may.
    known = budgets(headers, now=now)
    spent = max((budget.wait for budget in known), default=0.0)
    if not spent and refused:
        spent = max((budget.resets_in or 0.0 for budget in known if budget.remaining is None), default=0.0)
    return _bounded(spent, "rate limit") if spent else longest


def retry_after(headers: Mapping[str, str], *, now: float | None = None) -> float | None:
    """Return the seconds to wait by `Retry-After` (RFC 9110, section 10.2.3), or None when it is missing or unreadable.

    Seconds, decimals (Discord), an HTTP or ISO date, or seconds since the epoch; from 0 to `MAX_WAIT`.

    Args:
        headers: names in lower case.
        now: as for `wait`.
    """
    seconds = _asked(headers, "retry-after", now, 1.0)
    return None if seconds is None else _bounded(seconds, "").seconds


class ServerClock:
    """Tells the remote system's time from the `Date` headers of its answers, to less than the second that they are told in.

    The latest time that any answer has told, with what passed since on a clock that nobody sets, is the closest: each answer
    tells a time up to one second ago.
    """

    def __init__(self) -> None:
        self._ahead: float | None = None
        self._last = ""

    def read(self, headers: Mapping[str, str], at: float) -> float | None:
        """Return the seconds since the epoch by the remote clock, None where no answer told them.

        Args:
            headers: of an answer that came just now.
            at: now, by `time.monotonic`.
        """
        date = headers.get("date", "")
        # Within a second, the first answer that tells it is the closest.
        if date != self._last and "age" not in headers and (sent := http_date(date)) is not None:
            self._last = date
            ahead = sent - at
            if self._ahead is None or ahead > self._ahead or ahead < self._ahead - CLOCK_SET:
                self._ahead = ahead
        return None if self._ahead is None else at + self._ahead

    def calibrate(self, remote_now: float, at: float) -> None:
        """Take note of the remote time, as a refusal without a `Date` tells it by its reset and its `Retry-After`."""
        self._ahead = remote_now - at


def budgets(headers: Mapping[str, str], *, now: float | None = None, sent: float | None = None) -> list[RateBudget]:
    """Return every rate limit in the headers, the strictest first: by the longest wait, then by the smallest share left.

    Args:
        headers: names in lower case.
        now: as for `wait`.
        sent: seconds since the epoch when the answer was sent, by the remote clock; default: its `Date`.
    """
    sent = _sent(headers, now) if sent is None else sent
    found = _by_name([*fields(headers, sent), *_structured(headers, sent)])
    shared = found.get("", {})
    if len(found) > 1 and "remaining" not in shared and "used" not in shared:
        # BigCommerce: `Requests-Left` and `Time-Reset-Ms` belong together.
        found.pop("", None)
    else:
        shared = {}
    if "" in found and (resource := headers.get("x-ratelimit-resource", "").strip()) and len(resource) <= LONGEST_NAME:
        # GitHub: which of its budgets these headers are about.
        found[resource.lower()] = found.pop("")
    known = [_budget(name, parts, shared) for name, parts in found.items()]
    # Of two budgets of one name, the second is one only if it is told what is left of it.
    return sorted((one for one in known if "#" not in one.name or one.remaining is not None), key=_strictness)


def _by_name(told: Iterable[Field]) -> dict[str, dict[str, float]]:
    """Return what is told, by budget. `X-RateLimit-…` beside `RateLimit-…` is another one if both tell what is left."""
    found: dict[tuple[str, str], dict[str, float]] = {}
    for family, name, what, number in told:
        found.setdefault((name, family), {}).setdefault(what, number)
    merged: dict[str, dict[str, float]] = {}
    for (name, family), parts in found.items():
        other = found.get((name, "" if family else "x"), {})
        if family and "remaining" in parts and parts["remaining"] != other.get("remaining", parts["remaining"]):
            merged[f"{name}-x" if name else "x"] = parts
        else:
            merged[name] = {**parts, **merged.get(name, {})}
    return merged


def _budget(name: str, parts: Mapping[str, float], shared: Mapping[str, float]) -> RateBudget:
    remaining, limit = parts.get("remaining"), parts.get("limit")
    if remaining is None and limit is not None and "used" in parts:
        remaining = max(0.0, limit - parts["used"])
    window = parts.get("window", shared.get("window", window_of(name)))
    reset = parts.get("reset", shared.get("reset"))
    if reset is not None and window is not None and reset > MILLISECONDS and reset > 2 * window >= reset / 500:
        # More than the whole window: these are milliseconds.
        reset /= 1000
    moment = parts.get("moment", shared.get("moment"))
    return RateBudget(remaining, limit, resets_in=_clamped(reset), window=window, name=name, resets_at=moment)


def clock_skew(headers: Mapping[str, str], *, now: float | None = None) -> float | None:
    """Return the seconds by which the remote clock is ahead of ours, or None without a readable `Date`."""
    sent = http_date(headers.get("date", ""))
    return None if sent is None else sent - (time.time() if now is None else now)


def _sent(headers: Mapping[str, str], now: float | None) -> float:
    sent = http_date(headers.get("date", ""))
    if sent is not None:
        return sent
    return time.time() if now is None else now


def _scale(header: str) -> float:
    return 1e-3 if header.endswith(("-ms", "-milliseconds")) else 1.0


def _asked(headers: Mapping[str, str], header: str, now: float | None, scale: float) -> float | None:
    value = headers.get(header, "").strip()
    # A delay below zero is ignored; sending the next request at once would be wrong.
    return None if not value or value.startswith("-") else first_seconds(value, _sent(headers, now), scale)


def _bounded(seconds: float, header: str) -> Wait:
    if seconds < 0:
        return Wait(0.0, header, "it lies in the past")
    if seconds > MAX_WAIT:
        return Wait(MAX_WAIT, header, f"{seconds / 86400:.0f} days are not believed, {MAX_WAIT / 86400:.0f} are the most")
    return Wait(seconds, header)


def _clamped(seconds: float | None) -> float | None:
    return None if seconds is None else min(max(seconds, 0.0), MAX_WAIT)


def _strictness(budget: RateBudget) -> tuple[float, float]:
    share = 1.0 if budget.remaining is None else budget.remaining / budget.limit if budget.limit else min(budget.remaining, 1.0)
    return -budget.wait, share


def _structured(headers: Mapping[str, str], sent: float) -> Iterator[Field]:
    """Yield what the fields of the drafts tell."""
    for name, what, value in (*limits(headers.get("ratelimit", "")), *policies(headers.get("ratelimit-policy", ""))):
        number = seconds_of(value, sent) if what == "reset" else float(value) if is_number(value) else None
        if number is not None:
            yield Field("", name, what, number)
