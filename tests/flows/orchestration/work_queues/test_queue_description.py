"""What the description of a work queue says of a pause, and what of a person's own text remains."""

from datetime import UTC, datetime, timedelta

import pytest

from flows.orchestration.work_queues.queue_description import pause_id_in, until_text, with_pause, without_pause
from jobs.pauses.pause import OpenPause

START = datetime(2026, 11, 9, 13, 5, tzinfo=UTC)


def pausing(number: int = 17, *, minutes: float | None = 60, reason: str = "401 Unauthorized") -> OpenPause:
    """Return a pause that began at five past one."""
    until = None if minutes is None else START + timedelta(minutes=minutes)
    return OpenPause("petstore", until, "enforced", reason, 1, START, number)


def test_line_names_the_end_the_number_and_the_reason() -> None:
    """A person reads until when and why; we read the number."""
    assert with_pause(None, pausing()) == "Paused by sync-clients until 14:05 UTC (#17): 401 Unauthorized"
    assert pause_id_in(with_pause(None, pausing())) == 17
    assert pause_id_in("Paused by hand (#17)") is None
    assert pause_id_in(None) is None


def test_description_of_a_persons_own_survives() -> None:
    """It stands below the line about the pause while the client is paused, through any number of pauses, and alone afterwards."""
    own = "Runs of the pets.\n\nAsk Anna."
    first = with_pause(own, pausing(17))
    assert first.endswith(f"\n\n{own}")
    second = with_pause(first, pausing(18, minutes=None))
    assert (pause_id_in(second), without_pause(second)) == (18, own)
    assert without_pause(own) == own
    assert without_pause(with_pause(None, pausing())) == ""


@pytest.mark.parametrize(
    ("minutes", "text"),
    [(60, "14:05 UTC"), (24 * 60, "2026-11-10 13:05 UTC"), (11 * 60, "2026-11-10 00:05 UTC"), (None, "resumed")],
)
def test_end_has_its_day_unless_it_is_the_first(minutes: float | None, text: str) -> None:
    """An hour alone is enough on the day on which the pause began."""
    assert until_text(pausing(minutes=minutes)) == text


def test_a_reason_of_any_form_is_one_short_line() -> None:
    """What an API answers may have lines of its own, look like such a line, and never end."""
    line = with_pause(None, pausing(reason="no\n\nsuch (#99): thing " + "x" * 1000))
    assert "\n" not in line
    assert len(line) < 300
    assert pause_id_in(line) == 17
