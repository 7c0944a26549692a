"""jobs.outcome: what became of a job."""

from datetime import UTC, datetime, timedelta

import pytest

from jobs import NaiveTime, Pause, Snooze


@pytest.mark.parametrize("outcome", [Snooze, Pause])
def test_naive_times_are_refused(outcome: type[Snooze] | type[Pause]) -> None:
    """A moment without a zone is an error where it is made."""
    with pytest.raises(NaiveTime):
        outcome(datetime(2030, 1, 1))  # noqa: DTZ001  # that is the point


@pytest.mark.parametrize("outcome", [Snooze, Pause])
@pytest.mark.parametrize("when", [-1, -0.001, float("nan"), float("inf")])
def test_impossible_waits_are_refused(outcome: type[Snooze] | type[Pause], when: float) -> None:
    """A wait is a number of seconds that is finite and not negative; one infinite wait would fail a whole batch."""
    with pytest.raises(ValueError, match="seconds"):
        outcome(when)


@pytest.mark.parametrize("when", [0, 1, 0.5, datetime.now(UTC) + timedelta(days=1)])
def test_waits_and_aware_times_are_taken(when: float | datetime) -> None:
    """Seconds from now and aware moments are fine."""
    assert Snooze(when).when == when
    assert Pause(when).when == when


def test_a_pause_may_last_until_a_person_ends_it() -> None:
    """Pause(None) waits for a person."""
    assert Pause(None).when is None
