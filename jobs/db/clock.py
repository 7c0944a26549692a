"""Stores times in UTC and provides "now" and "n seconds from now" as SQL expressions.

On PostgreSQL the server's clock decides, so that workers on many hosts agree. SQLite has no sub-second time function in the
versions that come with Python, so there it is the host's clock, through a callable that tests can replace.
"""

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import DateTime, Dialect, Float, Text, bindparam, func
from sqlalchemy.sql.elements import ColumnElement
from sqlalchemy.types import TypeDecorator, TypeEngine

from jobs.errors import NaiveTime

Clock = Callable[[], datetime]

LONGEST_WAIT = 10 * 366 * 86400.0
"""Seconds. A server may ask for any wait; one that no clock can hold would fail a whole batch."""


def bounded(seconds: float) -> float:
    """Return a wait, at most `LONGEST_WAIT`."""
    return float(min(seconds, LONGEST_WAIT))


def system_clock() -> datetime:
    """Return the host's time in UTC."""
    return datetime.now(UTC)


def to_text(when: datetime) -> str:
    """Return a time as SQLite stores it: text in UTC with microseconds, of fixed width, so that it sorts.

    Raises:
        NaiveTime: `when` has no time zone.
    """
    if when.tzinfo is None:
        raise NaiveTime(f"{when.isoformat()} has no time zone; pass an aware datetime")
    return when.astimezone(UTC).replace(tzinfo=None).isoformat(" ", "microseconds")


_seconds: dict[int, str] = {}


def system_text(seconds: float | None = 0.0) -> str | None:
    """Return `to_text` of the host's time in so many seconds; `None` for `None`.

    It takes a third of the time of `to_text`, because the text of a whole second is formatted once: a claim and a finish need
    four times, and formatting them took 6 of their 100 µs.
    """
    if seconds is None:
        return None
    second, micro = divmod(time.time_ns() // 1000 + int(seconds * 1_000_000), 1_000_000)
    text = _seconds.get(second)
    if text is None:
        if len(_seconds) > 100:
            _seconds.clear()
        text = _seconds[second] = to_text(datetime.fromtimestamp(second, UTC))[:20]
    return f"{text}{micro:06}"


def text_from_now(clock: Clock) -> Callable[[float | None], str | None]:
    """Return a function from seconds to the text of the time in so many seconds; from `None` to `None`."""

    def text_of(seconds: float | None) -> str | None:
        return None if seconds is None else to_text(clock() + timedelta(seconds=seconds))

    return system_text if clock is system_clock else text_of


class UTCDateTime(TypeDecorator[datetime]):
    """A time: `timestamptz` on PostgreSQL, sortable text on SQLite; an aware datetime in UTC in Python."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Return the column's type in this dialect."""
        return dialect.type_descriptor(Text() if dialect.name == "sqlite" else DateTime(timezone=True))

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> Any:
        """Refuse a naive time, encode an aware one."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise NaiveTime(f"{value.isoformat()} has no time zone; pass an aware datetime")
        return to_text(value) if dialect.name == "sqlite" else value

    def process_result_value(self, value: Any, dialect: Dialect | None) -> datetime | None:
        """Return an aware time in UTC."""
        if value is None:
            return None
        if isinstance(value, str):
            return datetime.fromisoformat(value).replace(tzinfo=UTC)
        found: datetime = value
        return found.astimezone(UTC)


class _FromNow(TypeDecorator[Any]):
    """A bound number of seconds from now, which SQLite receives as the text of that time."""

    impl = Text
    cache_ok = True

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self.clock = clock

    def bind_processor(self, _dialect: Dialect) -> Callable[[float | None], str | None]:
        """Return a function from seconds to the text of the time in so many seconds."""
        return text_from_now(self.clock)


def from_now(dialect: str, clock: Clock, name: str) -> ColumnElement[datetime]:
    """Return an expression for the time in so many seconds; the seconds are bound under `name`."""
    if dialect == "sqlite":
        return bindparam(name, type_=_FromNow(clock))
    return func.statement_timestamp() + interval(bindparam(name, type_=Float))


def now(dialect: str, clock: Clock) -> ColumnElement[datetime]:
    """Return an expression for the current time of the database's clock.

    On PostgreSQL it is the start of the statement, which does not change while it runs, so a comparison can use an index.
    """
    if dialect == "sqlite":
        return bindparam("now", 0.0, type_=_FromNow(clock))
    return func.statement_timestamp()


def interval(seconds: ColumnElement[float]) -> ColumnElement[Any]:
    """Return a PostgreSQL interval of so many seconds."""
    return func.make_interval(0, 0, 0, 0, 0, 0, seconds)
