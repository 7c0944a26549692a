"""jobs.db.clock: one clock, UTC, never naive."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.dialects import postgresql, sqlite

from jobs import NaiveTime
from jobs.db import clock
from jobs.db.clock import UTCDateTime, system_clock, system_text, to_text

MOMENTS = st.datetimes(
    min_value=datetime(1000, 1, 2), max_value=datetime(9999, 12, 30), timezones=st.sampled_from(  # noqa: DTZ001
        [UTC, timezone(timedelta(hours=5, minutes=30)), timezone(timedelta(hours=-11))]
    )
)  # fmt: skip


@given(MOMENTS)
def test_text_round_trips(moment: datetime) -> None:
    """SQLite's text gives the same moment back, in UTC."""
    back = UTCDateTime().process_result_value(to_text(moment), None)
    assert back == moment
    assert back.tzinfo is UTC


@given(MOMENTS, MOMENTS)
def test_text_sorts_as_time_does(one: datetime, other: datetime) -> None:
    """Comparing texts is comparing moments."""
    assert (to_text(one) < to_text(other)) == (one < other)


def test_text_has_one_width() -> None:
    """A whole second is not shorter than a broken one: it would sort wrongly."""
    assert to_text(datetime(2030, 1, 1, tzinfo=UTC)) == "2030-01-01 00:00:00.000000"


@pytest.mark.parametrize("dialect", [sqlite.dialect(), postgresql.dialect()])
def test_naive_times_are_refused(dialect: object) -> None:
    """No naive time reaches a database."""
    naive = datetime(2030, 1, 1)  # noqa: DTZ001  # that is the point
    with pytest.raises(NaiveTime):
        UTCDateTime().process_bind_param(naive, dialect)  # type: ignore[arg-type]  # any dialect
    with pytest.raises(NaiveTime):
        to_text(naive)


def test_results_of_other_zones_come_back_in_utc() -> None:
    """PostgreSQL answers in the session's zone; Python sees UTC."""
    found = UTCDateTime().process_result_value(datetime(2030, 1, 1, 5, tzinfo=timezone(timedelta(hours=5))), None)
    assert found == datetime(2030, 1, 1, tzinfo=UTC)
    assert found.utcoffset() == timedelta(0)


def test_the_system_clock_is_aware() -> None:
    """The host's time has a zone."""
    assert system_clock().tzinfo is UTC


@pytest.mark.parametrize("seconds", [0.0, 60, 0.25, -5.5, 10 * 366 * 86400.0])
def test_the_short_way_to_the_hosts_time(seconds: float) -> None:
    """Its text is that of the clock, to the microsecond between two looks at it, and as wide."""
    for _ in range(1000):
        before, found = system_clock(), system_text(seconds)
        after = system_clock()
        shift = timedelta(seconds=seconds)
        assert to_text(before + shift - timedelta(microseconds=1)) <= found <= to_text(after + shift)
        assert len(found) == 26


def test_the_short_way_over_the_edge_of_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    """The text of a second that is kept is not taken for the next one, and few are kept."""
    monkeypatch.setattr(clock.time, "time_ns", lambda: 1_900_000_000_999_999_999)
    assert [system_text(), system_text(0.000001)] == ["2030-03-17 17:46:40.999999", "2030-03-17 17:46:41.000000"]
    for seconds in range(1000):
        system_text(float(seconds))
    assert len(clock._seconds) < 200
