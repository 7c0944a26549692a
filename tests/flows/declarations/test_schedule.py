"""`Cron` and `Every`: what they take is what Prefect runs, and everything else is one line."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prefect._vendor.croniter import croniter

from clients import HttpClient, Page
from flows import Client, Cron, DeclarationError, Every, Sync

PETS = Client("pets", connect=lambda _: HttpClient("https://pets.example/"))
ITEM = st.one_of(
    st.sampled_from(
        ["*", "*/5", "1", "0", "7", "12", "23", "59", "31", "L", "5#2", "L5", "mon", "jan-mar", "*/60", "1-5/2", "60"]
    ),
    st.from_regex(r"[0-9]{1,2}(-[0-9]{1,2})?(/[0-9]{1,2})?", fullmatch=True),
)
FIELD = st.lists(ITEM, min_size=1, max_size=2).map(",".join)


def declared(schedule: object) -> object:
    """Return what a sync makes of it."""
    return Sync("pets.all", PETS, listing=lambda http, since: iter([Page(())]), schedule=schedule).schedule  # type: ignore[arg-type]


def test_what_a_sync_takes() -> None:
    """Text is cron in UTC; short names mean what cron says."""
    assert declared("0  3 * * *") == Cron("0 3 * * *", zone="UTC")
    assert declared("@daily") == Cron("0 0 * * *")
    assert str(declared(Cron("15 2 * * mon-fri", zone="Europe/Berlin"))) == "15 2 * * mon-fri Europe/Berlin"
    assert declared(Every(300)) == Every(300)
    assert declared(None) is None


@pytest.mark.parametrize(
    ("schedule", "said"),
    [
        ("0 3 * *", "Cron must be five fields"),
        ("daily", "Cron must be five fields"),
        ("0 24 * * *", "'24' is no hour"),
        ("0 3 * * * *", "Cron must be five fields"),
        ("x 3 * * *", "'x' is no minute"),
        (300, "schedule must be cron text, Cron(…) or Every(seconds), got 300"),
    ],
)
def test_what_is_no_schedule_is_one_line(schedule: object, said: str) -> None:
    """The line names the sync and what is wrong."""
    with pytest.raises(DeclarationError) as caught:
        declared(schedule)
    assert said in str(caught.value)
    assert "'pets.all'" in str(caught.value)


def test_zones_and_seconds() -> None:
    """A zone must exist, and a run each tenth of a second is no schedule."""
    with pytest.raises(DeclarationError, match="time zone"):
        Cron("0 3 * * *", zone="Europe/Nowhere")
    for seconds in (0, 0.5, -1, float("inf"), True, "5"):
        with pytest.raises(DeclarationError, match="at least 1"):
            Every(seconds)  # type: ignore[arg-type]


@given(st.floats(1, 1e7), st.datetimes(datetime(2020, 1, 1), datetime(2040, 1, 1), timezones=st.just(UTC)))  # noqa: DTZ001
def test_when_the_next_run_is_due(seconds: float, now: datetime) -> None:
    """Later than now, by at most the interval."""
    due = Every(seconds).next_after(now)
    assert now < due <= now + timedelta(seconds=seconds)


@given(st.tuples(FIELD, FIELD, FIELD, FIELD, FIELD).map(" ".join))
def test_what_is_taken_is_run(text: str) -> None:
    """Prefect takes each text that a declaration takes."""
    with contextlib.suppress(DeclarationError):
        croniter(Cron(text).text, datetime(2026, 1, 1, tzinfo=UTC))
