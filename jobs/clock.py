"""Time in the database: one clock (law 13), UTC, never naive.

PostgreSQL tells the time itself, so that workers on many hosts agree. SQLite has no sub-second time function in the versions
that Python carries, so there the host tells it, through a callable that tests can replace.
"""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import DateTime, Dialect, Float, Text, bindparam, func
from sqlalchemy.sql.elements import ColumnElement
from sqlalchemy.types import TypeDecorator, TypeEngine

from jobs.errors import NaiveTime

Clock = Callable[[], datetime]


def system_clock() -> datetime:
    """Return the host's time in UTC."""
    return datetime.now(UTC)


def to_text(when: datetime) -> str:
    """Return the text under which SQLite keeps a time: UTC, microseconds, of fixed width, so that it sorts.

    Raises:
        NaiveTime: `when` has no zone.
    """
    if when.tzinfo is None:
        raise NaiveTime(f"{when.isoformat()} has no zone; pass an aware datetime")
    if when.tzinfo is not UTC:
        when = when.astimezone(UTC)
    return when.isoformat(" ", "microseconds")[:26]


class UTCDateTime(TypeDecorator[datetime]):
    """A moment: `timestamptz` on PostgreSQL, sortable text on SQLite; aware and in UTC in Python."""

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
            raise NaiveTime(f"{value.isoformat()} has no zone; pass an aware datetime")
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
    """A bound number of seconds from now, which SQLite receives as the text of that moment."""

    impl = Text
    cache_ok = True

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self.clock = clock

    def bind_processor(self, _dialect: Dialect) -> Callable[[float | None], str | None]:
        """Return what turns seconds from now into the text of that moment: two of them in each claim, so in one call."""
        clock = self.clock

        def moment(seconds: float | None) -> str | None:
            if seconds is None:
                return None
            when = clock() + timedelta(seconds=seconds) if seconds else clock()
            return when.isoformat(" ", "microseconds")[:26] if when.tzinfo is UTC else to_text(when)

        return moment


def from_now(dialect: str, clock: Clock, name: str) -> ColumnElement[datetime]:
    """Return an expression for "so many seconds from now"; the seconds are bound under `name`."""
    if dialect == "sqlite":
        return bindparam(name, type_=_FromNow(clock))
    return func.statement_timestamp() + interval(bindparam(name, type_=Float))


def now(dialect: str, clock: Clock) -> ColumnElement[datetime]:
    """Return an expression for the present moment of the database's clock.

    On PostgreSQL that is the start of the statement: stable, so that an index can serve the comparison.
    """
    if dialect == "sqlite":
        return bindparam("now", 0.0, type_=_FromNow(clock))
    return func.statement_timestamp()


def interval(seconds: ColumnElement[float]) -> ColumnElement[Any]:
    """Return a PostgreSQL interval of so many seconds."""
    return func.make_interval(0, 0, 0, 0, 0, 0, seconds)
