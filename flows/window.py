"""Declared maintenance windows: when a client is left alone, in wall time and zone. Pure; knows no pause and no store."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from functools import cached_property
from typing import NamedTuple
from zoneinfo import ZoneInfo

from flows.errors import DeclarationError

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")

LONGEST = timedelta(days=8)
"""Windows that follow one another without a gap for so long leave no time to work."""

_CLOCK = re.compile(r"([01]\d|2[0-3]):[0-5]\d|24:00")
_DAY = timedelta(days=1)


class Span(NamedTuple):
    """A time from `begin` up to, and without, `end`; both in UTC."""

    begin: datetime
    end: datetime


@dataclass(frozen=True)
class Window:
    """A time of the week in which a client is left alone, such as its nightly maintenance.

    The times are those of a clock on the wall of that zone. On the day on which clocks go forward, a time that is left out
    counts as the moment of the jump; on the day on which they go back, a window begins with the first of the two hours of one
    name and ends with the last: whichever of them the remote side means, it is left alone.

    Args:
        begin: `HH:MM`.
        end: `HH:MM`, up to `24:00`; one that is not after `begin` belongs to the next day.
        zone: an IANA name, such as `Europe/Berlin`.
        days: on which it begins: days and ranges such as `mon-fri`, `sat,sun` or `fri-mon`.

    Raises:
        DeclarationError: a field cannot work.
    """

    begin: str
    end: str
    zone: str = field(default="UTC", kw_only=True)
    days: str = field(default="mon-sun", kw_only=True)

    def __post_init__(self) -> None:
        for name in ("begin", "end", "zone", "days"):
            if not isinstance(value := getattr(self, name), str):
                raise DeclarationError(f"Window({name}=…) must be text, got {type(value).__name__}")
        for name in ("begin", "end"):
            value = getattr(self, name)
            if not _CLOCK.fullmatch(value) or (name == "begin" and value == "24:00"):
                raise DeclarationError(f"Window({name}=…) must be a time as in 22:00, got {value!r}")
        if self.begin == self.end:
            raise DeclarationError(f"Window({self.begin!r}, {self.end!r}) has no length; a whole day is '00:00', '24:00'")
        try:
            _ = self.tz
        except (ValueError, OSError) as error:
            raise DeclarationError(f"Window(zone=…) must name a time zone such as Europe/Berlin, got {self.zone!r}") from error
        _ = self.weekdays

    def __str__(self) -> str:
        days = "" if len(self.weekdays) == len(DAYS) else f", {self.days}"
        return f"{self.begin} to {self.end} {self.zone}{days}"

    @cached_property
    def tz(self) -> ZoneInfo:
        """The zone."""
        try:
            return ZoneInfo(self.zone)
        except KeyError as error:  # ZoneInfoNotFoundError
            raise ValueError(self.zone) from error

    @cached_property
    def weekdays(self) -> frozenset[int]:
        """The days on which it begins; Monday is 0."""
        found: set[int] = set()
        for part in self.days.lower().replace(" ", "").split(","):
            first, dash, last = part.partition("-")
            if first not in DAYS or (last if dash else first) not in DAYS:
                raise DeclarationError(f"Window(days=…) must be days as in mon-fri or sat,sun, got {self.days!r}")
            at, end = DAYS.index(first), DAYS.index(last if dash else first)
            found.add(at)
            while at != end:
                at = (at + 1) % len(DAYS)
                found.add(at)
        return frozenset(found)

    def spans(self, since: datetime, days: int) -> Iterator[Span]:
        """Yield when it is, in order: the spans that begin on these many days, from a day before `since` in its zone."""
        first = since.astimezone(self.tz).date() - _DAY
        for offset in range(days):
            day = first + offset * _DAY
            if day.weekday() in self.weekdays and (span := self._on(day)) is not None:
                yield span

    def _on(self, day: date) -> Span | None:
        """Return the span that begins on this day; `None` if clocks leave it out."""
        # 24:00 of this day is 00:00 of the next, and no later than any begin.
        last = day + _DAY if self.end == "24:00" or self.end <= self.begin else day
        begin = _moment(datetime.combine(day, _time(self.begin)), self.tz, fold=0)
        end = _moment(datetime.combine(last, _time(self.end)), self.tz, fold=1)
        return Span(begin, end) if begin < end else None


def window_at(windows: Sequence[Window], now: datetime) -> datetime | None:
    """Return when the window ends in which this moment is, with all that follow without a gap; `None` outside of windows.

    Args:
        windows: of one client.
        now: aware.
    """
    end: datetime | None = None
    at = now
    while at - now < LONGEST:
        later = max((span.end for window in windows for span in window.spans(at, 3) if span.begin <= at < span.end), default=None)
        if later is None:
            return end
        at = end = later
    return end


def next_window(windows: Sequence[Window], now: datetime) -> Span | None:
    """Return the first window that begins after this moment; `None` without windows.

    Its end is that of `window_at` at its begin.
    """
    begins = [next((span.begin for span in window.spans(now, 16) if span.begin > now), None) for window in windows]
    begin = min((one for one in begins if one is not None), default=None)
    end = None if begin is None else window_at(windows, begin)
    return None if begin is None or end is None else Span(begin, end)


def windows_text(windows: Sequence[Window], now: datetime) -> str:
    """Return which of the windows this moment is in, for a person."""
    return " and ".join(str(one) for one in windows if window_at([one], now) is not None)


def _time(text: str) -> time:
    return time(0) if text == "24:00" else time.fromisoformat(text)


def _moment(wall: datetime, zone: ZoneInfo, *, fold: int) -> datetime:
    """Return the moment at which a clock of the zone shows this time; of a time that is left out, that of the jump.

    Args:
        wall: naive.
        zone: whose clock.
        fold: of a time that comes twice the first one (0) or the last (1).
    """
    first, last = (wall.replace(tzinfo=zone, fold=one).astimezone(UTC) for one in (0, 1))
    if first <= last:
        return last if fold else first
    # Left out: the zone's rules before and after the jump disagree, and the jump lies in between.
    before, after = last, first
    offset = before.astimezone(zone).utcoffset()
    while after - before > timedelta(seconds=1):
        middle = (before + (after - before) / 2).replace(microsecond=0)
        before, after = (middle, after) if middle.astimezone(zone).utcoffset() == offset else (before, middle)
    return after
