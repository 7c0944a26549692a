"""Declared maintenance windows: wall time, zones, the two days on which clocks jump, and the days of the week."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flows import DeclarationError, PausePolicy, Window
from flows.declarations.window import DAYS, next_window, window_at, windows_text

NIGHT = Window("22:00", "02:00", zone="Europe/Berlin", days="mon-fri")


def at(text: str) -> datetime:
    """A moment in UTC."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("now", "end"),
    [
        # 2026-01-05 is a Monday; Berlin is an hour ahead of UTC in winter, two in summer.
        ("2026-01-05 20:59:59", None),
        ("2026-01-05 21:00", "2026-01-06 01:00"),
        ("2026-01-06 00:59:59", "2026-01-06 01:00"),
        ("2026-01-06 01:00", None),
        ("2026-07-06 19:59", None),
        ("2026-07-06 20:00", "2026-07-07 00:00"),
        # Friday's belongs to Friday, also on Saturday morning; Saturday and Sunday have none, and Monday morning is Sunday's.
        ("2026-01-10 00:30", "2026-01-10 01:00"),
        ("2026-01-10 22:00", None),
        ("2026-01-11 22:00", None),
        ("2026-01-12 00:30", None),
    ],
)
def test_a_window_over_midnight(now: str, end: str | None) -> None:
    """It is from its begin up to its end, which is not in it; it belongs to the day on which it begins."""
    assert window_at([NIGHT], at(now)) == (None if end is None else at(end))


@pytest.mark.parametrize(
    ("begin", "end", "day", "span"),
    [
        # Clocks in Berlin jump from 02:00 to 03:00 on 2026-03-29, at 01:00 UTC.
        ("01:30", "02:30", "2026-03-28", ("2026-03-29 00:30", "2026-03-29 01:00")),
        ("02:30", "03:30", "2026-03-28", ("2026-03-29 01:00", "2026-03-29 01:30")),
        ("02:15", "02:45", "2026-03-28", ("2026-03-30 00:15", "2026-03-30 00:45")),
        ("22:00", "04:00", "2026-03-28", ("2026-03-28 21:00", "2026-03-29 02:00")),
        # They go back from 03:00 to 02:00 on 2026-10-25, at 01:00 UTC: 02:30 is at 00:30 and at 01:30 UTC.
        ("02:30", "03:30", "2026-10-24", ("2026-10-25 00:30", "2026-10-25 02:30")),
        ("01:30", "02:30", "2026-10-24", ("2026-10-24 23:30", "2026-10-25 01:30")),
        ("02:15", "02:45", "2026-10-24", ("2026-10-25 00:15", "2026-10-25 01:45")),
        ("22:00", "04:00", "2026-10-24", ("2026-10-24 20:00", "2026-10-25 03:00")),
    ],
)
def test_the_days_on_which_clocks_jump(begin: str, end: str, day: str, span: tuple[str, str]) -> None:
    """A time that is left out is the moment of the jump; of one that comes twice a window has both."""
    window = Window(begin, end, zone="Europe/Berlin")
    now = at(f"{day} 12:00")
    found = next_window([window], now)
    if window_at([window], now) is not None:
        # The one that began the night before is on at noon.
        found = next_window([window], at(span[0]) - timedelta(seconds=1))
    assert found == (at(span[0]), at(span[1]))
    assert window_at([window], at(span[0])) == at(span[1])
    assert window_at([window], at(span[0]) - timedelta(seconds=1)) is None


def test_a_day_that_a_zone_left_out() -> None:
    """Samoa had no 30th of December in 2011: a window of that day is none."""
    window = Window("10:00", "12:00", zone="Pacific/Apia", days="fri")
    # Midnight between the 29th and the 31st was at 10:00 UTC; the Friday in between did not happen.
    assert next_window([window], at("2011-12-24 00:00")) == (at("2012-01-05 20:00"), at("2012-01-05 22:00"))


@pytest.mark.parametrize(
    ("days", "expected"),
    [("mon-sun", range(7)), ("mon-fri", range(5)), ("sat,sun", [5, 6]), ("fri-mon", [4, 5, 6, 0]), ("Tue, thu-thu", [1, 3])],
)
def test_days(days: str, expected: Any) -> None:
    """Days, ranges, and ranges over the weekend."""
    assert Window("10:00", "11:00", days=days).weekdays == set(expected)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"begin": "25:00"}, "begin"), ({"begin": "24:00"}, "begin"), ({"begin": "9:00"}, "begin"), ({"end": "22:00:00"}, "end"),
        ({"end": "22:60"}, "end"), ({"begin": 22}, "begin"), ({"end": "22:00"}, "no length"), ({"zone": "Europe/Berln"}, "zone"),
        ({"zone": ""}, "zone"), ({"zone": "../etc/passwd"}, "zone"), ({"zone": None}, "zone"), ({"days": "mo-fr"}, "days"),
        ({"days": ""}, "days"), ({"days": "mon-"}, "days"), ({"days": ["mon"]}, "days"),
    ],
)  # fmt: skip
def test_what_cannot_be_a_window(fields: dict[str, Any], said: str) -> None:
    """A declaration that cannot work says which field, and what it should look like."""
    given = {"begin": "22:00", "end": "23:00", **fields}
    with pytest.raises(DeclarationError, match=said):
        Window(given.pop("begin"), given.pop("end"), **given)


def test_a_whole_day() -> None:
    """`24:00` is the end of a day."""
    sunday = Window("00:00", "24:00", zone="Europe/Berlin", days="sun")
    assert next_window([sunday], at("2026-01-07 00:00")) == (at("2026-01-10 23:00"), at("2026-01-11 23:00"))
    # The Sunday on which clocks go back has 25 hours.
    assert next_window([sunday], at("2026-10-22 00:00")) == (at("2026-10-24 22:00"), at("2026-10-25 23:00"))


def test_windows_that_follow_one_another() -> None:
    """Windows without a gap are one, also in different zones; the next one ends where the last of them does."""
    windows = (Window("22:00", "02:00", zone="Europe/Berlin"), Window("01:00", "04:00"), Window("03:30", "03:45"))
    assert window_at(windows, at("2026-01-05 23:00")) == at("2026-01-06 04:00")
    assert next_window(windows, at("2026-01-05 12:00")) == (at("2026-01-05 21:00"), at("2026-01-06 04:00"))
    assert windows_text(windows, at("2026-01-06 03:40")) == "01:00 to 04:00 UTC and 03:30 to 03:45 UTC"
    assert str(NIGHT) == "22:00 to 02:00 Europe/Berlin, mon-fri"
    assert (window_at((), at("2026-01-05 12:00")), next_window((), at("2026-01-05 12:00"))) == (None, None)


@pytest.mark.parametrize(
    "windows",
    [
        (Window("00:00", "24:00"),),
        (Window("06:00", "18:00"), Window("18:00", "06:00")),
        (Window("00:00", "24:00", days="mon-fri"), Window("00:00", "24:00", days="sat,sun")),
    ],
)
def test_windows_must_leave_time_to_work(windows: tuple[Window, ...]) -> None:
    """Windows that never end are a mistake, and are refused when they are declared."""
    with pytest.raises(DeclarationError, match="no time to work"):
        PausePolicy(windows=windows)


@pytest.mark.parametrize("windows", [("22:00", "02:00"), NIGHT, [NIGHT, "23:00"], None])
def test_what_is_no_window(windows: Any) -> None:
    """A policy takes windows and nothing else."""
    with pytest.raises(DeclarationError, match="windows"):
        PausePolicy(windows=windows)


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf"), True, "900"])
def test_an_enforced_pause_has_a_length(seconds: Any) -> None:
    """Or is `None`."""
    with pytest.raises(DeclarationError, match="enforced"):
        PausePolicy(enforced={401: seconds})
    assert PausePolicy(enforced={401: None}).enforced == {401: None}


_CLOCKS = st.integers(0, 95).map(lambda quarter: f"{quarter // 4:02}:{quarter % 4 * 15:02}")
_ZONES = st.sampled_from(["UTC", "Europe/Berlin", "America/New_York", "Asia/Kathmandu", "Australia/Lord_Howe", "Africa/Cairo"])


@settings(max_examples=150, deadline=None)
@given(
    begin=_CLOCKS,
    end=_CLOCKS,
    zone=_ZONES,
    days=st.sets(st.sampled_from(DAYS), min_size=1).map(",".join),
    minutes=st.integers(0, 366 * 1440),
)
def test_the_two_questions_agree(begin: str, end: str, zone: str, days: str, minutes: int) -> None:
    """Outside of windows it stays so until the next one, which is on from its begin to its end, on every day of a year."""
    if begin == end:
        return
    windows = [Window(begin, end, zone=zone, days=days)]
    now = at("2026-01-01 00:00") + timedelta(minutes=minutes)
    if (last := window_at(windows, now)) is not None:
        assert timedelta(0) < last - now <= timedelta(hours=26) or len(windows[0].weekdays) > 1
        now = last
        assert window_at(windows, now) is None
    span = next_window(windows, now - timedelta(microseconds=1))
    assert span is not None
    assert window_at(windows, span.begin) == span.end
    assert window_at(windows, span.end) is None
    step = (span.begin - now) / 7
    assert all(window_at(windows, now + number * step) is None for number in range(7) if step)
