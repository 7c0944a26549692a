"""Reads the durations and moments that people type, and writes them as people read them. JSON keeps ISO 8601 in UTC."""

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from flows.errors import UsageError

if TYPE_CHECKING:
    from pendulum import DateTime

_UNITS = {
    "s": "seconds",
    "sec": "seconds",
    "second": "seconds",
    "m": "minutes",
    "min": "minutes",
    "minute": "minutes",
    "h": "hours",
    "hr": "hours",
    "hour": "hours",
    "d": "days",
    "day": "days",
    "w": "weeks",
    "week": "weeks",
}
_SECONDS = {"seconds": 1.0, "minutes": 60.0, "hours": 3600.0, "days": 86_400.0, "weeks": 604_800.0}
_LONGEST = 86_400.0 * 999_999_999
"""Seconds: what `datetime.timedelta` holds."""
_PART = re.compile(r"(\d+(?:\.\d+)?)\s*([a-z]+),?\s*")
_WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_CLOCK = re.compile(r"([01]?\d|2[0-3]):([0-5]\d)")
_DATE = re.compile(r"\d{4}-?\d\d-?\d\d(?=[T ]|$)", re.IGNORECASE)


def parse_duration(text: str) -> float:
    """Return the seconds of a duration: `90`, `90s`, `2h`, `1h30m`, `1 day 4 hours`, or ISO 8601 as in `PT2H` and `P1DT12H`.

    Raises:
        UsageError: it is not one, or not longer than nothing.
    """
    typed = text.strip().lower()
    seconds = 0.0
    try:
        if typed.startswith("p"):
            import pendulum

            found = pendulum.parse(typed.upper())
            if isinstance(found, pendulum.Duration) and not (found.years or found.months):
                seconds = found.total_seconds()
        elif (parts := _parts(typed)) is not None:
            seconds = sum(amount * _SECONDS[unit] for unit, amount in parts.items())
    except (ValueError, OverflowError):
        pass
    if not 0 < seconds <= _LONGEST:
        raise UsageError(f"{text!r} is not a duration; write 90s, 15m, 2h, '1 day 4 hours' or PT2H")
    return seconds


def _parts(typed: str) -> dict[str, float] | None:
    """Return the amounts by unit, such as `{"hours": 1.0, "minutes": 30.0}`; `None` if something is not understood."""
    if re.fullmatch(r"\d+(\.\d+)?", typed):
        return {"seconds": float(typed)}
    found: dict[str, float] = {}
    at = 0
    while at < len(typed):
        part = _PART.match(typed, at)
        unit = None if part is None else _UNITS.get(part[2]) or _UNITS.get(part[2].removesuffix("s"))
        if part is None or unit is None or unit in found:
            return None
        found[unit] = float(part[1])
        at = part.end()
    return found


def parse_moment(text: str, *, now: datetime) -> datetime:
    """Return a moment in UTC: `2026-11-30T08:00+01:00`, `tomorrow 08:00 Europe/Berlin`, `monday 8:00 UTC`, `in 2h`.

    In the hour that clocks repeat when they go back, the second one is meant; a time that clocks skip is moved on by as much.

    Args:
        text: what was typed.
        now: what `today` and `in` are counted from.

    Raises:
        UsageError: it is not a moment, or it has no zone.
    """
    import pendulum

    *words, last = text.split() or [""]
    zone = None
    try:
        if words and words[0].lower() == "in":
            return now.astimezone(UTC) + pendulum.duration(seconds=parse_duration(text.strip()[2:]))
        if words and re.fullmatch(r"[A-Za-z_]+(/[A-Za-z_/+-]+\d*)?", last):
            zone = last
        else:
            words.append(last)
        typed = " ".join(words)
        is_iso = _DATE.match(typed) is not None
        found = pendulum.parse(typed, tz=zone) if is_iso else _named_day(typed.lower(), now, zone)
    except (ValueError, OverflowError):
        found = None
    if not isinstance(found, pendulum.DateTime):
        raise UsageError(f"{text!r} is not a moment; write 2030-01-31T08:00+01:00, 'tomorrow 08:00 Europe/Berlin' or 'in 2h'")
    if found.tzinfo is None:
        # The zone of this machine would be a guess: servers run in UTC, and the people who type do not.
        takes_offset = is_iso and len(typed) > len("2030-01-31")
        how = "add Z, an offset such as +02:00, or a zone's name" if takes_offset else "add a zone's name"
        raise UsageError(f"{text!r} has no zone; {how}: '{typed} Europe/Berlin'")
    return datetime.fromtimestamp(found.timestamp(), UTC)


def _named_day(typed: str, now: datetime, zone: str | None) -> "DateTime | None":
    """Return the moment that `today 18:00`, `tomorrow 8:00` or `friday 08:00` names, naive if `zone` is `None`.

    A weekday is the next one after today.
    """
    import pendulum

    name, _, clock = typed.partition(" ")
    if (time := _CLOCK.fullmatch(clock)) is None:
        return None
    day = pendulum.instance(now).in_timezone(zone or "UTC")
    if name == "tomorrow":
        day = day.add(days=1)
    elif name in _WEEKDAYS:
        day = day.next(pendulum.WeekDay(_WEEKDAYS.index(name)))
    elif name != "today":
        return None
    return pendulum.datetime(day.year, day.month, day.day, int(time[1]), int(time[2]), tz=zone)


def moment_text(when: datetime, *, seconds: bool = False) -> str:
    """Return a moment in UTC: `2026-11-30 08:00 UTC`, with seconds `2026-11-30 08:00:15Z`."""
    utc = when.astimezone(UTC)
    return f"{utc:%Y-%m-%d %H:%M:%SZ}" if seconds else f"{utc:%Y-%m-%d %H:%M} UTC"


def clock_text(when: datetime, *, now: datetime) -> str:
    """Return a moment in UTC, without its date if that is the date of `now`: `08:00 UTC`."""
    utc = when.astimezone(UTC)
    return f"{utc:%H:%M} UTC" if utc.date() == now.astimezone(UTC).date() else moment_text(utc)


def duration_text(seconds: float) -> str:
    """Return a duration with at most two units: `45 seconds`, `17 minutes`, `3 hours 20 minutes`, `2 days 4 hours`."""
    seconds = max(0.0, seconds)
    unit = 1 if seconds < 90 else 60 if seconds < 86_400 else 3600 if seconds < 7 * 86_400 else 86_400
    rounded = round(seconds / unit) * unit
    return _in_words(rounded) if rounded else "0 seconds"


def _in_words(seconds: int) -> str:
    words = []
    for unit, size in (("week", 604_800), ("day", 86_400), ("hour", 3600), ("minute", 60), ("second", 1)):
        count, seconds = divmod(seconds, size)
        if count:
            words.append(f"{count} {unit}{'' if count == 1 else 's'}")
    return " ".join(words)


def relative_text(when: datetime | None, *, now: datetime) -> str:
    """Return how far a moment is from `now`: `in 12 minutes`, `3 hours ago`, `now`; empty for `None`."""
    if when is None:
        return ""
    seconds = (when - now).total_seconds()
    if abs(seconds) < 1:
        return "now"
    words = duration_text(abs(seconds))
    return f"in {words}" if seconds > 0 else f"{words} ago"
