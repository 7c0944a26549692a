"""What the threads of one batch have done and nobody has finished yet. Knows no job type and no store."""

import threading
from typing import Any, NamedTuple

from jobs.job import Done, Job

FLUSH = 50
"""Answers that are finished without waiting for further ones (M6)."""

FLUSH_EVERY = 0.2
"""Seconds that an answer waits for company: a slow job does not hold back what its batch has done."""


class Answer(NamedTuple):
    """What a thread says of one job: its `Done`, nothing if it was not begun, or an error of ours."""

    job: Job
    done: Done | None
    error: BaseException | None


class Answers:
    """Collects answers until there are enough of them, or the first one has waited long enough.

    Args:
        expected: how many there will be.
    """

    def __init__(self, expected: int) -> None:
        self._expected = expected
        self._arrived: list[Answer] = []
        self._ready = threading.Event()
        self._lock = threading.Lock()

    def put(self, job: Job, done: Any, error: BaseException | None, *, prompt: bool = False) -> None:
        """Add one.

        Args:
            job: whose.
            done: what the thread returned.
            error: what it raised.
            prompt: it waits for no others.
        """
        with self._lock:
            self._arrived.append(Answer(job, done, error))
            enough = len(self._arrived) >= min(FLUSH, self._expected)
        if enough or prompt or error is not None:
            self._ready.set()

    def take(self) -> list[Answer]:
        """Wait until there are enough, at most `FLUSH_EVERY`; return what there is."""
        self._ready.wait(FLUSH_EVERY)
        with self._lock:
            self._ready.clear()
            arrived, self._arrived = self._arrived, []
            self._expected -= len(arrived)
        return arrived

    def expect_less(self, number: int) -> None:
        """So many will not come."""
        with self._lock:
            self._expected -= number
