"""`Window`: a weekly time, in the wall time of a zone, in which a client gets no requests. Pendulum does the calendar."""

import re
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property, partial
from typing import TYPE_CHECKING, NamedTuple

from flows.declarations.validation import check_zone
from flows.errors import DeclarationError

if TYPE_CHECKING:
    from pendulum import Date

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")

LONGEST = timedelta(days=8)
"""Windows that follow one another without a gap for this long leave no time to work."""

_CLOCK = re.compile(r"([01]\d|2[0-3]):[0-5]\d|24:00")


class Span(NamedTuple):
    """The time from `begin` until before `end`, both in UTC."""

    begin: datetime
    end: datetime


@dataclass(frozen=True)
class Window:
    """A weekly time in which a client gets no requests, such as its nightly maintenance.

    The times are wall time in the zone. When clocks go forward, a skipped time counts as the moment of the jump. When they go
    back, a window begins at the first and ends at the last of two equal times, so that it covers both.

    Args:
        begin: `HH:MM`.
        end: `HH:MM`, up to `24:00`; if it is not after `begin`, it is on the next day.
        zone: an IANA name, such as `Europe/Berlin`.
        days: the days on which it begins, such as `mon-fri`, `sat,sun` or `fri-mon`.

    Raises:
        DeclarationError: a field has the wrong form.
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
        check_zone("Window", self.zone)
        _ = self.weekdays

    def __str__(self) -> str:
        days = "" if len(self.weekdays) == len(DAYS) else f", {self.days}"
        return f"{self.begin} to {self.end} {self.zone}{days}"

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
        """Yield in order the spans that begin on this number of days, from the day before `since` in the window's zone."""
        import pendulum

        first = pendulum.instance(since).in_timezone(self.zone).date().subtract(days=1)
        for day in (first.add(days=offset) for offset in range(days)):
            if day.day_of_week in self.weekdays and (span := self._span_on(day)) is not None:
                yield span

    def _span_on(self, day: "Date") -> Span | None:
        """Return the span that begins on this day; `None` if clocks skip it."""
        # 24:00 of this day is 00:00 of the next, and no later than any begin.
        last = day.add(days=1) if self.end == "24:00" or self.end <= self.begin else day
        begin, end = _moment(day, self.begin, self.zone, fold=0), _moment(last, self.end, self.zone, fold=1)
        return Span(begin, end) if begin < end else None


def window_at(windows: Sequence[Window], now: datetime) -> datetime | None:
    """Return the end of the window that contains this moment, and of all that follow it without a gap; `None` outside of windows.

    Args:
        windows: of one client.
        now: aware datetime.
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
    """Return the first window that begins after this moment, with all that follow it without a gap; `None` without windows."""
    begins = [next((span.begin for span in window.spans(now, 16) if span.begin > now), None) for window in windows]
    begin = min((one for one in begins if one is not None), default=None)
    end = None if begin is None else window_at(windows, begin)
    return None if begin is None or end is None else Span(begin, end)


def windows_text(windows: Sequence[Window], now: datetime) -> str:
    """Return the windows that contain this moment, as text."""
    return " and ".join(str(one) for one in windows if window_at([one], now) is not None)


def _moment(day: "Date", clock: str, zone: str, *, fold: int) -> datetime:
    """Return the moment at which clocks of the zone show this time; of a time that they skip, the moment of the jump.

    Args:
        day: on the calendar of the zone.
        clock: `HH:MM`, also `24:00`, which is `00:00`.
        zone: an IANA name.
        fold: which one of a time that comes twice: the first (0) or the last (1).
    """
    import pendulum

    hour, minute = int(clock[:2]) % 24, int(clock[3:])
    in_zone = partial(pendulum.datetime, day.year, day.month, day.day, hour, minute, tz=zone)
    at = in_zone(fold=fold)
    if (at.date(), at.hour, at.minute) != (day, hour, minute):
        # Clocks skip this time. With `fold=1` Pendulum moves it on by all that they skip, so the jump is less than that before.
        at = in_zone(fold=1)
        skipped = (at.naive() - pendulum.naive(day.year, day.month, day.day, hour, minute)).in_minutes()
        minutes = range(skipped)
        at = at.subtract(minutes=bisect_left(minutes, True, key=lambda back: at.subtract(minutes=back).offset != at.offset) - 1)
    return datetime.fromtimestamp(at.timestamp(), UTC)
