"""Tests clients when single jobs are refused, so often that it matters and not once for each job.

A job that is refused (401, 403) may be the only one, or the first of all. The client's own test tells: a request that does not
depend on the job.
"""

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from flows.execution.client_test import answers_well
from jobs.job import Verdict

LASTS = 10.0
"""Seconds for which a good answer excuses further jobs that are refused, while others succeed in between."""

FEW, MANY = 1, 1024
"""Jobs refused one after the other, without a success in between, that one good answer excuses: few at first, twice as many
each time that the test is answered well again. Credentials that are withdrawn in the middle of a run are found out at once."""


@dataclass(slots=True)
class _Tested:
    lock: threading.Lock = field(default_factory=threading.Lock)
    #: Tests so far.
    number: int = 0
    verdict: Verdict | None = None
    at: float = 0.0
    excused: int = 0
    most: int = FEW
    #: A job has succeeded since the last test.
    has_success: bool = True


class SelfTests:
    """The tests of the clients of one process. Thread-safe.

    Args:
        tests: by client.
    """

    def __init__(self, tests: Mapping[str, Callable[[], Verdict]]) -> None:
        self._tests = tests
        #: By client, what its last test said; empty where nobody has asked.
        self.tested: dict[str, _Tested] = {}
        self._lock = threading.Lock()

    def has(self, client: str) -> bool:
        """Tell whether a client can be tested."""
        return client in self._tests

    def ask(self, client: str, *, began: float | None = None, fresh: bool = False) -> Verdict | None:
        """Return what a test of the client says; `None` where it has none.

        Threads that ask while a test is under way get its answer.

        Args:
            client: whom.
            began: when the request was sent that makes us ask, by `time.monotonic`: an answer that came later counts for it.
            fresh: a request sent from now on must answer.
        """
        test = self._tests.get(client)
        if test is None:
            return None
        with self._lock:
            tested = self.tested.setdefault(client, _Tested())
        seen = tested.number
        with tested.lock:
            is_later = tested.number != seen or (began is not None and tested.number > 0 and began < tested.at)
            if is_later and not fresh and tested.verdict is not None:
                return tested.verdict
            verdict = tested.verdict
            if (
                not fresh
                and verdict is not None
                and answers_well(verdict)
                and time.monotonic() - tested.at < LASTS
                and tested.excused < tested.most
            ):
                tested.excused += 1
                return verdict
            tested.most = FEW if tested.has_success else min(2 * tested.most, MANY)
            verdict = tested.verdict = test()
            tested.number += 1
            tested.at, tested.excused, tested.has_success = time.monotonic(), 0, False
            return verdict

    def succeeded(self, client: str) -> None:
        """Take note that a job of the client has succeeded."""
        if (tested := self.tested.get(client)) is not None:
            tested.has_success, tested.excused = True, 0
