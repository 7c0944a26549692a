"""Durations and moments as people type them, and as they read them."""

from datetime import UTC, datetime, timedelta, timezone

import pytest

from flows.errors import UsageError
from flows.time_text import clock_text, duration_text, moment_text, parse_duration, parse_moment, relative_text

NOW = datetime(2026, 11, 29, 18, 30, tzinfo=UTC)
"""A Sunday."""

WRITTEN = datetime(2026, 11, 29, 18, 30, 15, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90), ("90s", 90), ("1.5m", 90), (" 2H ", 7200), ("1d", 86400), ("1h30m", 5400), ("1w", 604800), ("1 day", 86400),
        ("2 hours 5 minutes", 7500), ("1 day, 4 hours", 100800), ("PT2H", 7200), ("p1dt12h", 129600), ("PT1.5H", 5400),
    ],
)  # fmt: skip
def test_durations(text: str, seconds: float) -> None:
    """A number of seconds, amounts with units, and ISO 8601."""
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "soon", "-1", "0", "0.0h", "2 fortnights", "h", "1h 2h", "2h later", "P", "P1M", "P1Y", "PT0S", "-PT1H", "9e9d"]
)
def test_no_durations(text: str) -> None:
    """Anything else is refused with forms that work; months and years have no fixed length."""
    with pytest.raises(UsageError, match="is not a duration; write 90s, 15m, 2h"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-11-30T08:00Z", "2026-11-30T08:00"),
        ("2026-11-30 08:00+02:00", "2026-11-30T06:00"),
        ("2035-06-01T08:00:00.5+05:30", "2035-06-01T02:30:00.5"),
        ("2026-11-30T08:00 Europe/Berlin", "2026-11-30T07:00"),
        ("2026-11-30 08:00 America/New_York", "2026-11-30T13:00"),
        ("2026-11-30 Europe/Berlin", "2026-11-29T23:00"),
        ("today 23:00 Europe/Berlin", "2026-11-29T22:00"),
        ("Tomorrow 8:00 Europe/Berlin", "2026-11-30T07:00"),
        # It is Monday already in Auckland.
        ("tomorrow 08:00 Pacific/Auckland", "2026-11-30T19:00"),
        ("sunday 08:00 UTC", "2026-12-06T08:00"),
        ("monday 08:00 UTC", "2026-11-30T08:00"),
        ("in 2h", "2026-11-29T20:30"),
        ("in 1 day 4 hours", "2026-11-30T22:30"),
        # Clocks skip 02:30, and show it twice.
        ("2026-03-29T02:30 Europe/Berlin", "2026-03-29T01:30"),
        ("2026-10-25T02:30 Europe/Berlin", "2026-10-25T01:30"),
    ],
)
def test_moments(text: str, moment: str) -> None:
    """ISO 8601, a day by name, and a duration from now."""
    assert parse_moment(text, now=NOW) == datetime.fromisoformat(moment).replace(tzinfo=UTC)


@pytest.mark.parametrize("text", ["2026-11-30T08:00", "2026-11-30 08:00", "2026-11-30", "tomorrow 08:00", "monday 8:00"])
def test_a_zone_is_never_guessed(text: str) -> None:
    """Without one a moment is refused, and the message is a form that works."""
    with pytest.raises(UsageError, match="has no zone; add ") as refused:
        parse_moment(text, now=NOW)
    (_, suggestion) = str(refused.value).split(": '")
    assert parse_moment(suggestion.removesuffix("'"), now=NOW) > NOW


@pytest.mark.parametrize(
    "text",
    [
        "",
        "tomorrow",
        "08:00",
        "soon",
        "2026",
        "2026-02-30T08:00",
        "today 25:00",
        "in",
        "in a while",
        "2026-11-30T08:00 Mars/Base",
        "PT2H",
    ],
)
def test_no_moments(text: str) -> None:
    """Anything else is refused with forms that work."""
    with pytest.raises(UsageError, match=r"is not a (moment|duration); write"):
        parse_moment(text, now=NOW)


# -- as people read them -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (-3, "0 seconds"),
        (0.4, "0 seconds"),
        (1, "1 second"),
        (89, "1 minute 29 seconds"),
        (90, "2 minutes"),
        (3599, "1 hour"),
        (12_000, "3 hours 20 minutes"),
        (100_000, "1 day 4 hours"),
        (200_000, "2 days 8 hours"),
        (9 * 86_400 + 3600, "1 week 2 days"),
    ],
)
def test_written_durations(seconds: float, said: str) -> None:
    """The units that matter, rounded."""
    assert duration_text(seconds) == said


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.5, "now"),
        (-0.5, "now"),
        (720, "in 12 minutes"),
        (-10_800, "3 hours ago"),
        (45, "in 45 seconds"),
        (90_000, "in 1 day 1 hour"),
    ],
)
def test_how_far_off_a_moment_is(seconds: float, said: str) -> None:
    """Ahead or ago."""
    assert relative_text(WRITTEN + timedelta(seconds=seconds), now=WRITTEN) == said
    assert relative_text(None, now=WRITTEN) == ""


def test_moments_are_in_utc() -> None:
    """Whatever zone they come in; the date is left out on the same day."""
    when = datetime(2026, 11, 30, 1, 5, 9, tzinfo=timezone(timedelta(hours=2)))
    assert moment_text(when) == "2026-11-29 23:05 UTC"
    assert moment_text(when, seconds=True) == "2026-11-29 23:05:09Z"
    assert clock_text(when, now=WRITTEN) == "23:05 UTC"
    assert clock_text(when, now=WRITTEN + timedelta(days=1)) == "2026-11-29 23:05 UTC"
