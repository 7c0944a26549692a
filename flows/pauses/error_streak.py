"""Counts generic errors in a row per client, in the order in which the client answered.

The store learns of the answers in another order: batches are committed side by side, and a job whose session wrote something
commits by itself.
"""

import threading
from collections.abc import Mapping, Sequence
from itertools import count

from jobs.job import Job, JobResult

Claim = tuple[int, int]
"""Id and claim number of a job."""


class ErrorStreaks:
    """The answers of the clients of one process, and which of them were reported to the store. Thread-safe."""

    def __init__(self) -> None:
        self._numbers = count(1)
        #: The numbers of answers that were not reported yet.
        self._unreported: dict[Claim, int] = {}
        #: The last success of each client, as generation and number; and the last one that was reported.
        self._last_success: dict[str, tuple[int, int]] = {}
        self._reported_success: dict[str, tuple[int, int]] = {}
        #: Unreported errors of each client since its last success. Clients without any are not in it.
        self.errors: dict[str, set[Claim]] = {}
        #: How many errors right before those were reported.
        self._reported_errors: dict[str, int] = {}
        #: Clients among whose errors since the last success is one of a job that had not failed before.
        self._new: set[str] = set()
        self._lock = threading.Lock()

    def length(self, client: str) -> int:
        """Return the number of a client's errors in a row; 0 once all of them are reported and the store has decided."""
        unreported = len(self.errors.get(client, ()))
        return unreported and unreported + self._reported_errors.get(client, 0)

    def add(self, job: Job, *, trouble: bool) -> None:
        """Count the answer to a job's request."""
        client, claim = job.lane.client, (job.id, job.claim_no)
        with self._lock:
            number = self._unreported[claim] = next(self._numbers)
            if trouble:
                self.errors.setdefault(client, set()).add(claim)
                if job.retries == 0:
                    self._new.add(client)
            else:
                self._last_success[client] = job.client_generation, number
                if self.errors or self._reported_errors:
                    self._forget(client)

    def has_new(self, client: str) -> bool:
        """Tell whether a client's errors in a row are also of jobs that had not failed before."""
        return client in self._new

    def has_succeeded(self, client: str, generation: int) -> bool:
        """Tell whether a client has answered well under this generation."""
        return _number(self._last_success, client, generation) > 0

    def excuse(self, client: str, generation: int) -> None:
        """Take a client's errors in a row for those of single jobs: it has answered its test well."""
        with self._lock:
            self._last_success[client] = generation, next(self._numbers)
            self._forget(client)

    def forget(self, client: str) -> None:
        """Forget a client's errors."""
        with self._lock:
            self._forget(client)

    def take_numbers(self, settled: Sequence[JobResult]) -> list[int]:
        """Return the numbers of these jobs' answers, once: they are about to be reported."""
        take = self._unreported.pop
        return [take((one.job.id, one.job.claim_no), 0) or next(self._numbers) for one in settled]

    def to_report(self, client: str, generation: int, answers: Sequence[tuple[int, bool]]) -> list[bool]:
        """Return what to report to the store of these answers: the last success (`False`), and the errors since (`True`).

        That success may belong to a batch that is committed later. Errors from before a success that was reported already are
        left out: the store would count them as errors since.

        Args:
            client: whose.
            generation: under which the requests began.
            answers: numbers, and whether it was a generic error.
        """
        with self._lock:
            reported = _number(self._reported_success, client, generation)
            successes = [number for number, trouble in answers if not trouble]
            last = max([_number(self._last_success, client, generation), *successes])
            if last > reported:
                self._reported_success[client] = generation, last
            since: list[bool] = [trouble for number, trouble in answers if trouble and number > max(reported, last)]
            return [False, *since] if last > reported else since

    def reported(self, client: str, settled: Sequence[JobResult], report: Sequence[bool], *, paused: bool) -> None:
        """Count answers as reported.

        Args:
            client: whose.
            settled: the jobs that they answered.
            report: what the store was told.
            paused: whether that led to a pause.
        """
        streak = next((n for n, trouble in enumerate(reversed(report)) if not trouble), len(report))
        with self._lock:
            before = self._reported_errors.get(client, 0) if streak == len(report) else 0
            # More may have come while these were reported.
            if (errors := self.errors.get(client)) is not None:
                errors.difference_update((one.job.id, one.job.claim_no) for one in settled)
                if not errors:
                    del self.errors[client]
            self._reported_errors[client] = 0 if paused else before + streak

    def _forget(self, client: str) -> None:
        self.errors.pop(client, None)
        self._new.discard(client)
        self._reported_errors.pop(client, None)


def _number(numbers: Mapping[str, tuple[int, int]], client: str, generation: int) -> int:
    of, number = numbers.get(client, (generation, 0))
    return number if of == generation else 0
