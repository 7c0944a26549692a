"""What an answer's headers say about when to come again. Pure: headers in, seconds out; nothing to configure.

Reads `Retry-After` and its kin, the `X-RateLimit-*` families under all their names, and the `RateLimit` and
`RateLimit-Policy` fields of the IETF drafts. Whether a number is a delay or a moment, its size tells: no sender means a delay
of 31 years (10^9 s), and none a moment in the year 5138 (10^11 s, so those are milliseconds). Moments count from the answer's
own `Date`, so that neither clock needs to be right.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from clients.fields import limits, policies

LONGEST = 31 * 86400.0
"""No wait is longer: quotas of a month exist, and what is beyond is a mistake of the sender."""

LENGTH = 1000
"""Characters of a value that is still looked at. The expressions below take time by the square of it, and stop all threads."""

_NUMBER = re.compile(r"[+-]?(\d{1,19}(\.\d*)?|\.\d+)")
_ISO = re.compile(r"(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d(?::\d\d)?)(?:[.,](\d+))?\s*(Z|[+-]\d\d:?\d\d)?", re.IGNORECASE)
_PIECE = re.compile(r"(\d+(?:\.\d+)?)(ms|us|µs|ns|d|h|m|s)")
_UNITS = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
_WINDOWS = {
    "second": 1.0, "minute": 60.0, "hour": 3600.0, "hourly": 3600.0, "day": 86400.0, "daily": 86400.0, "month": LONGEST,
    "monthly": LONGEST,
}  # fmt: skip
_MEANING = {
    "limit": "limit", "quota": "limit", "max": "limit", "remaining": "remaining", "left": "remaining", "reset": "reset",
    "window": "window", "interval": "window", "period": "window",
}  # fmt: skip
_FILLING = frozenset({"x", "ms", "milliseconds", "seconds", "time", "after", "at", "in"})


@dataclass(frozen=True, slots=True)
class Budget:
    """How much may still be asked within one window.

    Args:
        remaining: requests (or what else the sender counts) left; None when it does not say.
        limit: of the whole window.
        resets_in: seconds until it is full again.
        window: seconds of the window.
        name: what the sender calls it; "" when it has only one.
    """

    remaining: float | None = None
    limit: float | None = None
    resets_in: float | None = None
    window: float | None = None
    name: str = ""

    @property
    def wait(self) -> float:
        """Seconds until another request makes sense: 0 while something is left, or when nobody knows.

        A window without a reset may be a moving one, so that a minute is worth another look.
        """
        if self.remaining is None or self.remaining > 0 or self.limit == 0:
            # A limit of zero came with an answer: that is how some servers say that there is none.
            return 0.0
        return min(self.window or 0.0, 60.0) if self.resets_in is None else self.resets_in


@dataclass(frozen=True, slots=True)
class Wait:
    """Seconds to wait, which header says so, and what is wrong with what it says ("" when nothing is)."""

    seconds: float
    header: str
    doubt: str = ""

    def __str__(self) -> str:
        return f"come again in {self.seconds:g} s ({self.header}{f': {self.doubt}' if self.doubt else ''})"


def wait(headers: Mapping[str, str], *, now: float | None = None) -> Wait | None:
    """Return how long an answer asks to wait: by `Retry-After` or, where that says nothing, by a budget that is used up.

    Args:
        headers: names in lower case.
        now: seconds since the epoch where the answer has no `Date`; default: this machine's clock.
    """
    asked = [
        _bounded(seconds, header)
        for header, scale in (("retry-after", 1.0), ("retry-after-ms", 1e-3), ("x-retry-after", 1.0), ("x-retry-after-ms", 1e-3))
        if (seconds := _asked(headers, header, now, scale)) is not None
    ]
    longest = max(asked, key=lambda one: one.seconds, default=None)
    if longest is not None and longest.seconds > 0:
        return longest
    # `Retry-After: 0` says nothing (FreshBooks sends it with every answer); a budget that is used up may.
    spent = max(budgets(headers, now=now), key=lambda budget: budget.wait, default=None)
    return longest if spent is None or not spent.wait else _bounded(spent.wait, "rate limit")


def retry_after(headers: Mapping[str, str], *, now: float | None = None) -> float | None:
    """Return the seconds to wait by `Retry-After` (RFC 9110, section 10.2.3), or None when it is missing or unreadable.

    Seconds, decimals (Discord), an HTTP or ISO date, or a moment since the epoch; from 0 to `LONGEST`.

    Args:
        headers: names in lower case.
        now: as for `wait`.
    """
    seconds = _asked(headers, "retry-after", now, 1.0)
    return None if seconds is None else _bounded(seconds, "").seconds


def budgets(headers: Mapping[str, str], *, now: float | None = None) -> list[Budget]:
    """Return every budget that the headers tell of, the strictest first: the longest wait, then the smallest share left.

    Args:
        headers: names in lower case.
        now: as for `wait`.
    """
    sent = _sent(headers, now)
    found: dict[str, dict[str, float]] = {}
    for name, what, value in (*_plain(headers, sent), *_structured(headers, sent)):
        found.setdefault(name, {}).setdefault(what, value)
    if not found:
        return []
    shared = found.get("", {})
    if len(found) > 1 and "remaining" not in shared:
        # BigCommerce: `Requests-Left` and `Time-Reset-Ms` are of one budget.
        found.pop("", None)
    else:
        shared = {}
    known = [
        Budget(
            parts.get("remaining"), parts.get("limit"), _clamped(parts.get("reset", shared.get("reset"))),
            parts.get("window", shared.get("window", _WINDOWS.get(name.rpartition("-")[2]))), name,
        )
        for name, parts in found.items()
    ]  # fmt: skip
    return sorted(known, key=_strictness)


def http_date(value: str) -> float | None:
    """Return seconds since the epoch of an HTTP date in any of its three forms (RFC 9110, section 5.6.7), or None."""
    if not value or len(value) > LENGTH:
        return None
    from email.utils import parsedate_to_datetime

    try:
        parsed = parsedate_to_datetime(value)
        return (parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).timestamp()
    except (ValueError, TypeError, OverflowError, IndexError):
        return None


def clock_skew(headers: Mapping[str, str], *, now: float | None = None) -> float | None:
    """Return the seconds by which the remote clock is ahead of ours, or None without a readable `Date`."""
    sent = http_date(headers.get("date", ""))
    return None if sent is None else sent - (time.time() if now is None else now)


def _sent(headers: Mapping[str, str], now: float | None) -> float:
    sent = http_date(headers.get("date", ""))
    if sent is not None:
        return sent
    return time.time() if now is None else now


def _asked(headers: Mapping[str, str], header: str, now: float | None, scale: float) -> float | None:
    value = headers.get(header, "").strip()
    # A delay below zero says nothing; to come again at once would be the one wrong answer.
    return None if not value or value.startswith("-") else _first(value, _sent(headers, now), scale)


def _first(value: str, sent: float, scale: float) -> float | None:
    """Read a value; of a header that was sent twice, the first one that can be read."""
    if len(value) > LENGTH:
        return None
    seconds = _seconds(value, sent, scale)
    if seconds is None and "," in value:
        return next((one for part in value.split(",") if (one := _seconds(part, sent, scale)) is not None), None)
    return seconds


def _seconds(value: str, sent: float, scale: float = 1.0) -> float | None:
    """Read a delay or a moment, in any form seen; the seconds from `sent`, or None."""
    value = value.strip().strip('"').strip()
    if _NUMBER.fullmatch(value):
        number = float(value)
        for size, unit in ((1e17, 1e-9), (1e14, 1e-6), (1e11, 1e-3), (1e9, 1.0)):
            # In milliseconds a delay of 10^9 is 11 days, which may be.
            if number > size and (size > 1e9 or scale == 1.0):
                return number * unit - sent
        return number * scale
    if (parts := _ISO.fullmatch(value)) is not None:
        day, clock, decimals, zone = parts.groups()
        # Timetastic sends seven decimals; Python 3.11 reads six.
        fraction = f".{(decimals or '0')[:6]:0<6}" if clock.count(":") == 2 else ""
        text = f"{day}T{clock}{fraction}{(zone or 'Z').upper()}"
        try:
            return datetime.fromisoformat(text).timestamp() - sent
        except (ValueError, OverflowError):
            return None
    if pieces := _PIECE.findall(value):
        if "".join(number + unit for number, unit in pieces) == value:
            return sum(float(number) * _UNITS[unit] for number, unit in pieces)
        return None
    moment = http_date(value)
    return None if moment is None else moment - sent


def _bounded(seconds: float, header: str) -> Wait:
    if seconds < 0:
        return Wait(0.0, header, "it lies in the past")
    if seconds > LONGEST:
        return Wait(LONGEST, header, f"{seconds / 86400:.0f} days are not believed, {LONGEST / 86400:.0f} are the most")
    return Wait(seconds, header)


def _clamped(seconds: float | None) -> float | None:
    return None if seconds is None else min(max(seconds, 0.0), LONGEST)


def _strictness(budget: Budget) -> tuple[float, float]:
    share = 1.0 if budget.remaining is None else budget.remaining / budget.limit if budget.limit else min(budget.remaining, 1.0)
    return -budget.wait, share


def _plain(headers: Mapping[str, str], sent: float) -> Iterator[tuple[str, str, float]]:
    """Yield (budget, what, value) from headers that each hold one number."""
    for header, value in headers.items():
        name = header.replace("rate-limit", "ratelimit")
        before, found, after = name.partition("ratelimit")
        if not found:
            if header.endswith("-call-limit") and (pair := re.fullmatch(r"\s*(\d{1,9})\s*/\s*(\d{1,9})\s*", value[:LENGTH])):
                # Shopify: used/limit.
                yield header, "limit", float(pair[2])
                yield header, "remaining", max(0.0, float(pair[2]) - float(pair[1]))
            continue
        if len(value) > LENGTH or len(header) > LENGTH:
            continue
        words = [word for word in (*before.split("-"), *after.split("-")) if word]
        what = next((_MEANING[word] for word in words if word in _MEANING), "")
        if not what or words[-1] == "policy":
            continue
        scale = 1e-3 if words[-1] in ("ms", "milliseconds") else 1.0
        scope = "-".join(word for word in words if word not in _MEANING and word not in _FILLING)
        if what == "reset":
            number = _first(value, sent, scale)
        else:
            # The drafts before 07 put the policies behind the number: "100, 100;w=60".
            plain = _NUMBER.match(value.strip())
            number = None if plain is None else float(plain[0]) * scale
        if number is not None and (what == "reset" or number >= 0):
            yield scope, what, number


def _structured(headers: Mapping[str, str], sent: float) -> Iterable[tuple[str, str, float]]:
    """Yield (budget, what, value) from the fields of the drafts."""
    for name, what, value in (*limits(headers.get("ratelimit", "")), *policies(headers.get("ratelimit-policy", ""))):
        number = _seconds(value, sent) if what == "reset" else float(value) if _NUMBER.fullmatch(value) else None
        if number is not None:
            yield name, what, number
