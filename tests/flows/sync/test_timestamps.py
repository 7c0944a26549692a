"""Times and numbers as remote sides write them."""

from datetime import UTC, datetime
from typing import Any

import pytest

from flows.sync.timestamps import Timestamp


@pytest.mark.parametrize(
    ("value", "overlap", "before"),
    [
        ("2024-03-01T00:00:05Z", 0, "2024-03-01T00:00:05Z"),
        ("2024-03-01T00:00:05Z", 10, "2024-02-29T23:59:55Z"),
        ("2024-03-01T02:00:05+02:00", 10, "2024-03-01T01:59:55+02:00"),
        ("2024-03-01T02:00:05+0200", 10, "2024-03-01T01:59:55+0200"),
        ("2024-03-01 00:00:05.250", 0.5, "2024-03-01 00:00:04.750"),
        ("2024-03-01T00:00:05,25Z", 1, "2024-03-01T00:00:04,25Z"),
        ("2024-03-01T00:00:05.1234567Z", 0, "2024-03-01T00:00:05.1234567Z"),
        ("2024-03-01T00:00:05.1234567Z", 5, "2024-03-01T00:00:00.1234560Z"),
        ("2024-03-01T10:05Z", 61, "2024-03-01T10:03Z"),
        ("20240301T000005Z", 10, "20240229T235955Z"),
        ("2024-03-01", 1, "2024-02-29"),
        ("0001-01-01T00:00:05Z", 10, "0001-01-02T00:00:05Z"),
        (1_700_000_000, 60, 1_699_999_940),
        (1_700_000_000.5, 60, 1_699_999_940.5),
        (1_700_000_000_000, 60, 1_699_999_940_000),
        (1_700_000_000_000_000, 60, 1_699_999_940_000_000),
        ("1700000000000", 60, "1699999940000"),
        ("1700000000.123456", 60, "1699999940.123456"),
        (500, 20, 480),
        (500, 0.5, 499),
        ("500", 20, "480"),
    ],
)
def test_before(value: Any, overlap: float, before: Any) -> None:
    """An overlap is in seconds for times, in the unit of the field for numbers; the form stays, and nothing is rounded up."""
    found = Timestamp.of(value)
    assert found is not None
    assert found.before(overlap) == before
    assert type(found.before(overlap)) is type(value)


@pytest.mark.parametrize(
    "value", [None, True, "", "soon", [], {}, "2024-13-01", "2024-W10", float("nan"), float("inf"), "01/02/2024", "1e5", "9" * 50]
)
def test_what_has_no_order(value: Any) -> None:
    """What is neither a time nor a number is not compared by its letters."""
    assert Timestamp.of(value) is None


@pytest.mark.parametrize(
    ("value", "at"),
    [
        ("2000-01-01T00:00:00Z", "2024-05-06T07:08:09Z"),
        ("2000-01-01T00:00:00.000+02:00", "2024-05-06T09:08:09.500+02:00"),
        ("2000-01-01", "2024-05-06"),
        (1_000_000_000, 1714979289),
        (1_000_000_000_000, 1714979289500),
        ("1000000000", "1714979289"),
    ],
)
def test_a_moment_of_the_clock(value: Any, at: Any) -> None:
    """The clock's time is written as the remote side writes it, and not later than it is."""
    found = Timestamp.of(value)
    assert found is not None
    assert found.at(datetime(2024, 5, 6, 7, 8, 9, 500_000, UTC)).value == at


def test_kinds_do_not_mix() -> None:
    """A time without a zone is another kind than one with; a number in a text another than a number."""
    values = ["2024-01-01T00:00:00Z", "2024-01-01T00:00:00", "2024-01-01", 5, "5"]
    kinds = [found.kind for value in values if (found := Timestamp.of(value)) is not None]
    assert kinds == ["time", "local", "date", "number", "digits"]
