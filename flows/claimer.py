"""Which jobs a worker takes next: how many, suspects or not, shown one by one or as a batch. Knows no outcome."""

import threading
import time
from collections.abc import Sequence

from jobs.claim import OnPoison
from jobs.job import Job, Lane
from jobs.store import JobStore

SUSPECTS_EVERY = 1.0
"""Seconds between two looks for suspects while other jobs keep coming, so that they do not wait for ever."""


class Claimer:
    """Claims for the threads of one worker.

    Jobs that were in a dying worker's hands are suspects: taken one at a time, so that a poisonous one takes no other with it.
    Two in hand at once would die together, time after time, and the innocent one would end as poison too.

    Args:
        store: where the jobs are.
        lanes: what this worker can work.
        worker, lease: of the claims.
        singles: so many jobs are shown one by one before batches begin (law 1).
        on_poison: told of jobs that ended because they keep killing their workers.
    """

    def __init__(
        self,
        store: JobStore,
        lanes: Sequence[Lane],
        *,
        worker: str,
        lease: float,
        singles: int = 0,
        on_poison: OnPoison | None = None,
    ) -> None:
        self._store = store
        self._lanes = lanes
        self._worker = worker
        self._lease = lease
        self._singles = singles
        self._on_poison = on_poison
        self._suspects_at = time.monotonic()
        self._suspect: Job | None = None
        self._lock = threading.Lock()

    def claim(self, n: int, lanes: Sequence[Lane] | None = None) -> tuple[list[Job], bool]:
        """Take up to `n` jobs.

        Args:
            n: at most so many.
            lanes: of these lanes; by default of all that this worker can work.

        Returns:
            The jobs, and whether each is to be shown by itself.
        """
        lanes = self._lanes if lanes is None else lanes
        if not lanes or n < 1:
            return [], False
        reserved = self._reserve(n)
        jobs = self._next(reserved or n, lanes)
        if reserved > len(jobs):
            with self._lock:
                self._singles += reserved - len(jobs)
        return jobs, reserved > 0

    def rescue(self) -> None:
        """Take back the jobs of dead and silent workers, as each claim does on its way."""
        self._store.rescue(sorted({lane.queue for lane in self._lanes}), on_poison=self._on_poison)

    def worked(self, jobs: Sequence[Job]) -> None:
        """Take note that claimed jobs are no longer in hand."""
        with self._lock:
            if self._suspect in jobs:
                self._suspect = None

    def _reserve(self, n: int) -> int:
        with self._lock:
            reserved = min(n, self._singles)
            self._singles -= reserved
            return reserved

    def _next(self, n: int, lanes: Sequence[Lane]) -> list[Job]:
        with self._lock:
            look = time.monotonic() - self._suspects_at >= SUSPECTS_EVERY
            if look:
                self._suspects_at = time.monotonic()
        if look and (jobs := self._take_suspect(lanes)):
            return jobs
        return self._take(n, lanes, suspects=False) or ([] if look else self._take_suspect(lanes))

    def _take_suspect(self, lanes: Sequence[Lane]) -> list[Job]:
        with self._lock:
            if self._suspect is not None:
                return []
            jobs = self._take(1, lanes, suspects=True)
            self._suspect = jobs[0] if jobs else None
            return jobs

    def _take(self, n: int, lanes: Sequence[Lane], *, suspects: bool) -> list[Job]:
        return self._store.claim(lanes, n, worker=self._worker, lease=self._lease, suspects=suspects, on_poison=self._on_poison)
