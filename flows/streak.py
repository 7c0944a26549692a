"""Generic errors in a row, in the order in which a client answered. Knows no pause and no store.

Answers reach the store in another order: batches are committed side by side, and a job whose session wrote commits by itself.
"""

import threading
from collections.abc import Mapping, Sequence
from itertools import count

from jobs.job import Job, Settled


class Streaks:
    """What the clients of one process have answered, and what of it the store has heard. Thread-safe."""

    def __init__(self) -> None:
        self._numbers = count(1)
        #: Of the answers that the store has not heard of.
        self._noticed: dict[tuple[int, int], int] = {}
        #: The last success by client, its generation and number; and the last one that the store has heard of.
        self._last: dict[str, tuple[int, int]] = {}
        self._told: dict[str, tuple[int, int]] = {}
        #: Generic errors by client since its last success, unheard; and how many right before them the store has heard of.
        self._row: dict[str, set[tuple[int, int]]] = {}
        self._heard: dict[str, int] = {}
        self._lock = threading.Lock()

    def length(self, client: str) -> int:
        """Return how many errors in a row that makes for a client; 0 once the store has heard of all of them and decided."""
        row = len(self._row.get(client, ()))
        return row and row + self._heard.get(client, 0)

    def notice(self, job: Job, *, trouble: bool) -> None:
        """Take note of the answer to a job's request."""
        client, claim = job.lane.client, claim_of(job)
        with self._lock:
            number = self._noticed[claim] = next(self._numbers)
            if trouble:
                self._row.setdefault(client, set()).add(claim)
            else:
                self._last[client] = job.client_generation, number
                self._forget(client)

    def forget(self, client: str) -> None:
        """Begin anew."""
        with self._lock:
            self._forget(client)

    def number(self, job: Job) -> int:
        """Return the number of a job's answer, once: the store is about to hear of it."""
        return self._noticed.pop(claim_of(job), 0) or next(self._numbers)

    def in_order(self, client: str, generation: int, answers: Sequence[tuple[int, bool]]) -> list[bool]:
        """Return what to tell the store of these answers: the last success, and the trouble since.

        That success may be of a batch that is committed later. What came before one that the store has heard of is no news any
        more, and would count as trouble since.

        Args:
            client: whose.
            generation: under which the requests began.
            answers: numbers, and whether it was generic trouble.
        """
        with self._lock:
            told = self._of(self._told, client, generation)
            last = max([self._of(self._last, client, generation), *(number for number, trouble in answers if not trouble)])
            if last > told:
                self._told[client] = generation, last
            since: list[bool] = [trouble for number, trouble in answers if trouble and number > max(told, last)]
            return [False, *since] if last > told else since

    @staticmethod
    def _of(numbers: Mapping[str, tuple[int, int]], client: str, generation: int) -> int:
        of, number = numbers.get(client, (generation, 0))
        return number if of == generation else 0

    def heard(self, client: str, ones: Sequence[Settled], troubles: Sequence[bool], *, pauses: bool) -> None:
        """Take note that the store has heard of answers.

        Args:
            client: whose.
            ones: the answers.
            troubles: what it was told of them.
            pauses: whether that made a pause.
        """
        last = next((n for n, trouble in enumerate(reversed(troubles)) if not trouble), len(troubles))
        with self._lock:
            before = self._heard.get(client, 0) if last == len(troubles) else 0
            # More may have come while the store heard of these.
            self._row.get(client, set()).difference_update(claim_of(one.job) for one in ones)
            self._heard[client] = 0 if pauses else before + last

    def _forget(self, client: str) -> None:
        self._row.pop(client, None)
        self._heard.pop(client, None)


def claim_of(job: Job) -> tuple[int, int]:
    """Return what tells this claim of a job from every other."""
    return job.id, job.claim_no
