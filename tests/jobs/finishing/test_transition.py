"""jobs.finishing.transition: from outcome to the row's next state."""

from datetime import UTC, datetime
from typing import Any

import pytest

from jobs import Failure, Gone, Pause, Retry, Snooze, Success, Unchanged
from jobs.db.clock import LONGEST_WAIT
from jobs.finishing.transition import Transition, finished, rescued
from jobs.job import Job, Verdict
from jobs.outcome import MESSAGE_LIMIT, one_line
from tests.support.store_helpers import LANE

EVEN = Retry(max_retries=2, delay=10, jitter=False)
MOMENT = datetime(2030, 1, 1, tzinfo=UTC)


def job(retries: int = 0) -> Job:
    """Make a claimed job."""
    return Job(7, LANE, "k", "api.things/k", None, 1, 3, retries, retries, 0)


@pytest.mark.parametrize(
    ("outcome", "retries", "expected"),
    [
        (Success(), 0, {"state": "success", "outcome": "success", "attempts": 1}),
        (Success("12 rows"), 0, {"state": "success", "outcome": "success", "message": "12 rows", "attempts": 1}),
        (Unchanged(), 0, {"state": "success", "outcome": "unchanged", "message": "unchanged", "attempts": 1}),
        (Gone(), 0, {"state": "success", "outcome": "gone", "message": "gone", "attempts": 1}),
        (Failure("no"), 0, {"state": "queued", "outcome": "retry", "message": "no", "delay": 10, "attempts": 1, "retries": 1}),
        (Failure("no"), 1, {"state": "queued", "outcome": "retry", "message": "no", "delay": 20, "attempts": 1, "retries": 1}),
        (Failure("no"), 2, {"state": "failure", "outcome": "failure", "message": "no", "attempts": 1}),
        (Failure("no", retry=False), 0, {"state": "failure", "outcome": "failure", "message": "no", "attempts": 1}),
        (Failure("no", delay=3), 0,
         {"state": "queued", "outcome": "retry", "message": "no", "delay": 3, "attempts": 1, "retries": 1}),
        (Failure("no", delay=3), 2, {"state": "failure", "outcome": "failure", "message": "no", "attempts": 1}),
        (Snooze(5, "busy"), 0, {"state": "queued", "outcome": "snooze", "message": "busy", "delay": 5.0, "snoozes": 1}),
        (Snooze(MOMENT), 2, {"state": "queued", "outcome": "snooze", "until": MOMENT, "snoozes": 1}),
        (Pause(60, "429"), 0, {"state": "queued", "outcome": "pause", "message": "429", "snoozes": 1}),
        (Pause(None), 2, {"state": "queued", "outcome": "pause", "snoozes": 1}),
        # A server may ask for any wait; one that no clock can hold must not fail the batch that it comes in.
        (Snooze(1e300), 0, {"state": "queued", "outcome": "snooze", "delay": LONGEST_WAIT, "snoozes": 1}),
        (Failure("no", delay=1e300), 0,
         {"state": "queued", "outcome": "retry", "message": "no", "delay": LONGEST_WAIT, "attempts": 1, "retries": 1}),
    ],
)  # fmt: skip
def test_what_becomes_of_a_job(outcome: Any, retries: int, expected: dict[str, Any]) -> None:
    """Each outcome leads to one state, and only failures and successes use an attempt."""
    assert finished(job(retries), Verdict(outcome), EVEN) == Transition(7, 3, "api.things/k", **expected)


def test_the_traceback_stays_with_a_failure() -> None:
    """A failure and a retry keep the traceback; a success has none to keep."""
    for outcome, trace in ((Failure("no"), "Traceback…"), (Failure("no", retry=False), "Traceback…"), (Success(), None)):
        assert finished(job(), Verdict(outcome, "Traceback…"), EVEN).traceback == trace


def test_dice_decide_the_jitter() -> None:
    """The dice come from outside."""
    assert finished(job(), Verdict(Failure("no")), Retry(), dice=0.0).delay == 5
    assert finished(job(), Verdict(Failure("no")), Retry(), dice=1.0).delay == 10


@pytest.mark.parametrize(("before", "state"), [(0, "queued"), (1, "queued"), (2, "failure"), (3, "failure")])
def test_the_third_rescue_is_poison(before: int, state: str) -> None:
    """A job goes back until it has taken `max_rescues` workers with it; no rescue uses an attempt."""
    move = rescued(7, 3, "f", before, worker="w", max_rescues=3)
    assert (move.state, move.outcome, move.rescues, move.attempts) == (state, "rescued", 1, 0)
    assert ("poison" in move.message) == (state == "failure")
    assert "w" in move.message


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ""),
        ("one", "one"),
        (" a\n b\t\tc \r\n", "a b c"),
        ("x" * MESSAGE_LIMIT, "x" * MESSAGE_LIMIT),
        ("x" * (MESSAGE_LIMIT + 1), "x" * (MESSAGE_LIMIT - 1) + "…"),
        ("\n\n", ""),
    ],
)
def test_messages_are_one_line(text: str, expected: str) -> None:
    """A message fits a line of a table."""
    assert one_line(text) == expected
