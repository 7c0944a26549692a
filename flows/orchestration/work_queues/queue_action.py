"""Decides what to do where a client's work queue and the table of pauses differ. Pure function."""

from enum import Enum

from flows.orchestration.work_queues.queue_description import pause_id_in, with_pause
from jobs.pauses.pause import ClientState


class Step(Enum):
    """What to do next for one queue and its client."""

    #: They agree.
    NOTHING = "nothing"
    #: Pause the queue and name the pause in its description.
    PAUSE_QUEUE = "pause queue"
    #: The queue is paused, but its description names another pause or none.
    DESCRIBE_PAUSE = "describe pause"
    #: Resume the queue, and take the pause out of its description.
    RESUME_QUEUE = "resume queue"
    #: Neither is paused: take an old pause out of the description.
    CLEAR_DESCRIPTION = "clear description"
    #: A person paused the queue: pause the client.
    PAUSE_CLIENT = "pause client"
    #: A person resumed the queue: resume the client.
    RESUME_CLIENT = "resume client"


def next_step(*, paused: bool, description: str | None, state: ClientState) -> Step:
    """Compare a queue with its client and return the next step towards agreement.

    The queue of a pause that has run out is resumed: one of the runs that it held becomes the probe, the others wait for it.

    Args:
        paused: whether the work queue is paused.
        description: the queue's.
        state: the client's, read after the queue.
    """
    described, pause = pause_id_in(description), state.pausing
    open_pause = pause or state.reopening
    if described is not None and not paused and open_pause is not None and described == open_pause.id:
        return Step.RESUME_CLIENT
    if pause is None:
        if paused:
            return Step.PAUSE_CLIENT if described is None else Step.RESUME_QUEUE
        return Step.NOTHING if described is None else Step.CLEAR_DESCRIPTION
    if not paused:
        return Step.PAUSE_QUEUE
    return Step.NOTHING if description == with_pause(description, pause) else Step.DESCRIBE_PAUSE
