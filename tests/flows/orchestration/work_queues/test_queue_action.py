"""Which step follows from a work queue and a client that differ. No server."""

import itertools
from datetime import UTC, datetime, timedelta

import pytest

from flows.orchestration.work_queues.queue_action import Step, next_step
from flows.orchestration.work_queues.queue_description import pause_id_in, with_pause, without_pause
from jobs.pauses.pause import ClientState, OpenPause

START = datetime(2026, 11, 9, 13, 5, tzinfo=UTC)


def pausing(number: int = 17, *, minutes: float | None = 60, reason: str = "401 Unauthorized") -> OpenPause:
    """Return a pause that began at five past one."""
    until = None if minutes is None else START + timedelta(minutes=minutes)
    return OpenPause("petstore", until, "enforced", reason, 1, START, number)


OPEN = ClientState(0)
HELD = ClientState(1, pausing=pausing(17))
HELD_ANEW = ClientState(2, pausing=pausing(18))
REOPENING = ClientState(1, reopening=pausing(17))
LINE_17, LINE_16 = with_pause("", pausing(17)), with_pause("", pausing(16))


@pytest.mark.parametrize(
    ("paused", "description", "state", "step"),
    [
        # They agree.
        (False, None, OPEN, Step.NOTHING),
        (False, "the pets", REOPENING, Step.NOTHING),
        (True, LINE_17, HELD, Step.NOTHING),
        (True, with_pause("the pets", pausing(17)), HELD, Step.NOTHING),
        # The table has changed.
        (False, None, HELD, Step.PAUSE_QUEUE),
        (False, "the pets", HELD, Step.PAUSE_QUEUE),
        (True, LINE_16, HELD, Step.DESCRIBE_PAUSE),
        (True, with_pause("", pausing(17, minutes=5)), HELD, Step.DESCRIBE_PAUSE),
        (True, LINE_17, OPEN, Step.RESUME_QUEUE),
        (True, LINE_17, REOPENING, Step.RESUME_QUEUE),
        (True, LINE_16, REOPENING, Step.RESUME_QUEUE),
        # A person has done something in Prefect.
        (True, None, OPEN, Step.PAUSE_CLIENT),
        (True, "the pets", OPEN, Step.PAUSE_CLIENT),
        (True, None, REOPENING, Step.PAUSE_CLIENT),
        (False, LINE_17, HELD, Step.RESUME_CLIENT),
        (False, LINE_17, REOPENING, Step.RESUME_CLIENT),
        (False, LINE_17, OPEN, Step.CLEAR_DESCRIPTION),
        # Both have; what a person let go is another pause than the present one.
        (True, None, HELD, Step.DESCRIBE_PAUSE),
        (False, LINE_17, HELD_ANEW, Step.PAUSE_QUEUE),
        (False, LINE_16, REOPENING, Step.CLEAR_DESCRIPTION),
    ],
)
def test_each_difference_has_its_step(paused: bool, description: str | None, state: ClientState, step: Step) -> None:
    """What the queue shows and what the table says decide, and nothing else."""
    assert next_step(paused=paused, description=description, state=state) is step


@pytest.mark.parametrize("paused", [True, False])
@pytest.mark.parametrize("description", [None, "the pets", LINE_16, LINE_17, with_pause("the pets", pausing(18))])
@pytest.mark.parametrize("state", [OPEN, HELD, HELD_ANEW, REOPENING])
def test_every_start_comes_to_rest(paused: bool, description: str | None, state: ClientState) -> None:
    """From wherever they are, a few steps bring them to agree, the client is changed once at most, and nothing is undone."""
    steps = []
    numbers = itertools.count(100)
    while (step := next_step(paused=paused, description=description, state=state)) is not Step.NOTHING:
        steps.append(step)
        assert len(steps) <= 3, steps
        match step:
            case Step.PAUSE_QUEUE | Step.DESCRIBE_PAUSE:
                assert state.pausing is not None
                paused, description = True, with_pause(description, state.pausing)
            case Step.RESUME_QUEUE | Step.CLEAR_DESCRIPTION:
                paused, description = False, without_pause(description)
            case Step.PAUSE_CLIENT:
                state = ClientState(5, pausing=pausing(next(numbers), minutes=None))
            case Step.RESUME_CLIENT:
                state = ClientState(5)
    assert paused is (state.pausing is not None)
    assert (pause_id_in(description) is not None) is paused
    assert len(steps) == len(set(steps))
    assert not {Step.PAUSE_CLIENT, Step.RESUME_CLIENT} <= set(steps)
