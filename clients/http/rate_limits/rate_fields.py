"""Reads the values of rate headers, and the headers that hold one number each, under all names that are in use.

A header's name is taken apart into words: what it tells (limit, remaining, used, reset, window), the span of time that it is
about, and the rest, which names the budget.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import NamedTuple

MAX_WAIT = 31 * 86400.0
"""Seconds. There are quotas of a month; a longer wait is a mistake of the sender."""

MAX_LENGTH = 1000
"""Characters of a value that is read. The expressions below need time proportional to its square, and block all threads."""

_NUMBER = re.compile(r"[+-]?(\d{1,19}(\.\d*)?|\.\d+)")
_ISO = re.compile(r"(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d(?::\d\d)?)(?:[.,](\d+))?\s*(Z|[+-]\d\d:?\d\d)?", re.IGNORECASE)
_PIECE = re.compile(r"(\d+(?:\.\d+)?)(ms|us|µs|ns|d|h|m|s)")
_UNITS = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
_WINDOWS = {
    "second": 1.0,
    "secondly": 1.0,
    "minute": 60.0,
    "minutely": 60.0,
    "appmin": 60.0,
    "hour": 3600.0,
    "hourly": 3600.0,
    "day": 86400.0,
    "daily": 86400.0,
    "week": 7 * 86400.0,
    "weekly": 7 * 86400.0,
    "month": MAX_WAIT,
    "monthly": MAX_WAIT,
}
MOMENT = 1e9
"""A number above this is a point in time."""
_SAME = {"today": "day", "min": "minute", "sec": "second", "hr": "hour"}
_COMPOUND = re.compile(r"(appmin|min|day|hour|sec)limit\b")
_POLICY = re.compile(r"(\d{1,12});\s*w=(\d{1,9})")
_NAMED = re.compile(r"\b(limit|total|remaining|used|resets?|window)\s*[=:]\s*(\d{1,15}(?:\.\d{1,9})?)", re.IGNORECASE)
_SILENT = frozenset({"policy", "retry", "currentrequest", "resource", "bucket"})
"""Words of headers that hold no number of a budget."""
_UNIT = frozenset({"requests", "calls", "quota", "credits", "limit", "api"})
_PRECEDENCE = ("remaining", "reset", "used", "window", "limit")
MAX_SAME = 8
"""Budgets of one name that are told apart."""
_GENERAL = re.compile(
    r"(|x|w|[0-9]+|api|app|account|burst|calls?|complexity|cost|credits|clients?|default|global|ip|key|minuterate|org|organization"
    r"|points|project|rate|requests?|rps|rpm|shop|steady|sustained|team|tenant|tokens?|total|units|users?|weight)"
)
_MEANING = {
    "limit": "limit",
    "quota": "limit",
    "max": "limit",
    "total": "limit",
    "used": "used",
    "usage": "used",
    "remaining": "remaining",
    "left": "remaining",
    "reset": "reset",
    "resets": "reset",
    "window": "window",
    "interval": "window",
    "period": "window",
}
_FILLING = frozenset({"x", "ms", "milliseconds", "seconds", "time", "after", "at", "in", "per", "this"})


class Field(NamedTuple):
    """One number that a header tells.

    Args:
        family: "x" for names that begin so, which may tell other budgets than those that do not.
        name: of the budget; "" when it has none.
        what: limit, remaining, used, reset (seconds from now), window (seconds), or moment (of the
            reset, seconds since the epoch by the remote clock).
        number: the value.
    """

    family: str
    name: str
    what: str
    number: float


def is_general(name: str) -> bool:
    """Say whether a budget of this name holds for all requests: it names a span of time, a unit or a user, and no operation."""
    words = re.split(r"[-_. ;=#]+", name)
    return all(word in _WINDOWS or word in _FILLING or _GENERAL.fullmatch(word) is not None for word in words)


def http_date(value: str) -> float | None:
    """Return seconds since the epoch of an HTTP date in any of its three forms (RFC 9110, section 5.6.7), or None."""
    if not value or len(value) > MAX_LENGTH:
        return None
    from email.utils import parsedate_to_datetime

    try:
        parsed = parsedate_to_datetime(value)
        return (parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).timestamp()
    except (ValueError, TypeError, OverflowError, IndexError):
        return None


def first_seconds(value: str, sent: float, scale: float) -> float | None:
    """Return the seconds of a value; of a header that was sent twice, those of the first readable one."""
    if len(value) > MAX_LENGTH:
        return None
    seconds = seconds_of(value, sent, scale)
    if seconds is None and "," in value:
        return next((one for part in value.split(",") if (one := seconds_of(part, sent, scale)) is not None), None)
    return seconds


def seconds_of(value: str, sent: float, scale: float = 1.0) -> float | None:
    """Return the seconds of a delay, or those from `sent` to a point in time, in any form that is in use; or None."""
    value = value.strip().strip('"').strip()
    if _NUMBER.fullmatch(value):
        number = float(value)
        for size, unit in ((1e17, 1e-9), (1e14, 1e-6), (1e11, 1e-3), (1e9, 1.0)):
            # In a header of milliseconds, 10^9 may be a delay, of 11 days.
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


def is_number(value: str) -> bool:
    """Say whether a value is one number."""
    return _NUMBER.fullmatch(value) is not None


def is_moment(value: str) -> bool:
    """Say whether a value tells a point in time, and not a delay: a date, or seconds since the epoch."""
    value = value.strip().strip('"')
    if is_number(value):
        return float(value) > MOMENT
    return _ISO.fullmatch(value) is not None or http_date(value) is not None


def window_of(name: str) -> float | None:
    """Return the seconds of the span of time that a budget's name has, or None."""
    return next((_WINDOWS[word] for word in reversed(name.partition("#")[0].split("-")) if word in _WINDOWS), None)


def fields(headers: Mapping[str, str], sent: float) -> Iterator[Field]:
    """Yield what the headers tell, but for the structured fields of the IETF drafts.

    Args:
        headers: names in lower case.
        sent: seconds since the epoch when they were sent.
    """
    for header, value in headers.items():
        if len(value) > MAX_LENGTH or len(header) > MAX_LENGTH:
            continue
        family = "x" if header.startswith("x-") else ""
        if (pairs := _pairs(header, value)) is not None:
            for name, what, number in pairs:
                yield Field(family, name, what, number)
            continue
        words = _words(header)
        what = _what(words, has_prefix="ratelimit" in words)
        if what:
            yield from _numbers(family, [word for word in words if word != "ratelimit"], what, value, sent)


def _words(header: str) -> list[str]:
    name = _COMPOUND.sub(r"\1-limit", header.replace("rate-limit", "ratelimit")).replace("ratelimit", "-ratelimit-")
    return [_SAME.get(word, word) for word in name.split("-") if word]


def _what(words: list[str], *, has_prefix: bool) -> str:
    """Return what a header tells, or an empty text if it tells nothing about a limit."""
    if not words or words[-1] == "policy" or not _SILENT.isdisjoint(words):
        return ""
    meanings = {_MEANING[word] for word in words if word in _MEANING}
    has_window = any(word in _WINDOWS for word in words)
    if not has_prefix:
        is_counted = "remaining" in meanings and (has_window or not _UNIT.isdisjoint(words))
        if not is_counted and not ("limit" in meanings and "per" in words and has_window):
            return ""
    for what in _PRECEDENCE:
        if what in meanings:
            return what
    # HubSpot: `X-HubSpot-RateLimit-Secondly`.
    return "limit" if has_window else ""


def _numbers(family: str, words: list[str], what: str, value: str, sent: float) -> Iterator[Field]:
    scale = 1e-3 if words[-1] in ("ms", "milliseconds") else 1.0
    name = "-".join(word for word in words if word not in _MEANING and word not in _FILLING)
    parts = [part.strip() for part in value.split(",")]
    if len(parts) > 1 and all(_NUMBER.fullmatch(part) for part in parts):
        # Strava: `200,2000`; or a header that was sent twice: two budgets of one name.
        for index, part in enumerate(parts[:MAX_SAME]):
            number = seconds_of(part, sent, scale) if what == "reset" else float(part) * scale
            if number is not None and (what == "reset" or number >= 0):
                yield Field(family, f"{name}#{index + 1}" if index else name, what, number)
        return
    if what == "reset":
        number = first_seconds(value, sent, scale)
        if number is not None and is_moment(value):
            yield Field(family, name, "moment", sent + number)
    else:
        # The drafts before 07 put the policies behind the number: "100, 100;w=60".
        plain = _NUMBER.match(value.strip())
        number = None if plain is None else float(plain[0]) * scale
        if number is not None and what == "limit" and (window := _POLICY.search(value)) and float(window[1]) == number:
            yield Field(family, name, "window", float(window[2]))
    if number is not None and (what == "reset" or number >= 0):
        yield Field(family, name, what, number)


def _pairs(header: str, value: str) -> list[tuple[str, str, float]] | None:
    """Return (budget, what, number) of headers that hold several numbers, or None if it is none of those."""
    if header.endswith("-call-limit") and (pair := re.fullmatch(r"\s*(\d{1,9})\s*/\s*(\d{1,9})\s*", value)):
        # Shopify: used/limit.
        return [(header, "limit", float(pair[2])), (header, "used", float(pair[1]))]
    if header == "sforce-limit-info":
        # Salesforce: `api-usage=18/5000`, of a day.
        found = re.findall(r"\b(?:([a-z-]{1,40})-)?usage=(\d{1,12})/(\d{1,12})", value)
        return [
            field
            for name, used, limit in found
            for field in ((f"{name}-day", "limit", float(limit)), (f"{name}-day", "used", float(used)))
        ]
    if header in ("x-app-usage", "x-ad-account-usage", "x-page-usage"):
        # Facebook: percents of an hour, `{"call_count":28,"total_time":25,"total_cputime":25}`.
        percents = [float(number) for number in re.findall(r":\s*(\d{1,6}(?:\.\d{1,6})?)", value)]
        return [(f"{header[2:-6]}-hour", "limit", 100.0), (f"{header[2:-6]}-hour", "used", max(percents))] if percents else []
    if header.endswith(("-rate-limit", "-rate-limit-count")) and (counts := re.fullmatch(r"\d+:\d+(?:,\d+:\d+)*", value)):
        # Riot: `20:1,100:120`, requests and seconds.
        what = "used" if header.endswith("-count") else "limit"
        name = header.removesuffix("-count").removesuffix("-rate-limit")
        found = [pair.split(":") for pair in counts[0].split(",")[:MAX_SAME]]
        return [
            field
            for number, window in found
            for field in ((f"{name}-{window}", what, float(number)), (f"{name}-{window}", "window", float(window)))
        ]
    if "ratelimit" in header and (several := _NAMED.findall(value)) and len(several) > 1 and header != "ratelimit":
        # Zendesk: `total=100; remaining=99; resets=41`.
        name = "-".join(word for word in _words(header) if word not in _FILLING and word != "ratelimit")
        return [(name, _MEANING[word.lower()], float(number)) for word, number in several if word.lower() in _MEANING]
    return None
