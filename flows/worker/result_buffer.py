"""Collects the results of one batch until there are enough of them to be finished together."""

import threading
from typing import NamedTuple

from jobs.job import Job, JobResult

FLUSH = 50
"""Results that are finished without waiting for more."""

FLUSH_EVERY = 0.2
"""Seconds that a result waits for others: a slow job does not hold back the rest of its batch."""


class BufferedResult(NamedTuple):
    """What a thread returns for one job: a `JobResult`, an error of our own code, or neither if the job was not begun."""

    job: Job
    done: JobResult | None
    error: BaseException | None


class ResultBuffer:
    """The results of one batch that have not been finished.

    Args:
        expected: how many there will be.
    """

    def __init__(self, expected: int) -> None:
        self._expected = expected
        self._results: list[BufferedResult] = []
        self._ready = threading.Event()
        self._lock = threading.Lock()

    def put(self, job: Job, done: JobResult | None, error: BaseException | None, *, flush: bool = False) -> None:
        """Add one.

        Args:
            job: whose.
            done: what the thread returned.
            error: what it raised.
            flush: it does not wait for others.
        """
        with self._lock:
            self._results.append(BufferedResult(job, done, error))
            enough = len(self._results) >= min(FLUSH, self._expected)
        if enough or flush or error is not None:
            self._ready.set()

    def take(self) -> list[BufferedResult]:
        """Wait until there are enough, at most `FLUSH_EVERY` seconds; return what there is."""
        self._ready.wait(FLUSH_EVERY)
        with self._lock:
            self._ready.clear()
            results, self._results = self._results, []
            self._expected -= len(results)
        return results

    def expect_less(self, number: int) -> None:
        """So many will not come."""
        with self._lock:
            self._expected -= number
