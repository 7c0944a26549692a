"""Tests a client whose pause has run out with a single request, before all its other jobs may begin.

Only one worker of all may do so at a time; see `jobs.pauses.probe`. Jobs that paused the client before, again and again, are
suspects. Before anything else is sent, each of them is worked alone: if it is refused again while the client's test is answered,
it has failed by itself. The next pause then begins with something else.
"""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from flows.execution.client_test import ClientTest
from flows.execution.executor_protocol import Executor
from flows.worker.batch_runner import BatchRunner
from flows.worker.claims import ClaimRounds
from flows.worker.heartbeat import LONGEST_PROBE
from jobs.claiming.claim_statement import ANY
from jobs.claiming.rescue import OnPoison
from jobs.job import Job, JobResult, Lane
from jobs.outcome import Success, Unchanged
from jobs.pauses.pause import OpenPause
from jobs.pauses.probe import Probe
from jobs.pauses.suspects import TIMES
from jobs.store import JobStore

SUSPECTS = 5
"""Jobs at most that are worked alone before one probe."""

PROBE_EVERY = 0.2
"""Seconds between two looks for clients to probe while there is other work; without other work each turn looks."""

PROBE_REST = 1.0
"""Seconds until a client is probed again from here, where that took no job: there was a check, or no room in the queue."""


class Prober:
    """Probes clients: with the `check` of the client's declaration, else with one due job that has had no trouble yet, else with
    the first page of a listing, else with any due job. So the probe is not the same suspect twice, if there is anything else.

    Args:
        store: where pauses and jobs are.
        runner: works the job, and knows the clients' health.
        lanes: what this process can work.
        worker: the name under which it probes.
        lease: seconds, of the right to probe and of the job.
        on_poison: called with each job that failed because it keeps killing its workers.
        tests: of the clients that can be tested.
    """

    def __init__(
        self,
        store: JobStore,
        runner: BatchRunner,
        lanes: Sequence[Lane],
        *,
        tests: Mapping[str, ClientTest],
        worker: str,
        lease: float,
        on_poison: OnPoison | None = None,
    ) -> None:
        self._store = store
        self._runner = runner
        self._worker = worker
        self._lease = lease
        self._on_poison = on_poison
        self._tests = tests
        self._lanes: dict[str, list[Lane]] = {}
        #: How the requests of a client are made and judged; any of its types will do.
        self._executors: dict[str, Executor] = {}
        for lane in lanes:
            self._lanes.setdefault(lane.client, []).append(lane)
            self._executors.setdefault(lane.client, runner.executors[lane.type])

    def due(self) -> list[OpenPause]:
        """Return the pauses that have run out, that nobody probes, and for whose clients there is something to try."""
        return [
            pausing
            for pausing in self._store.probes.due(self._lanes)
            if not self._runner.health.lacks.holds(pausing.client)
            if self.has_check(pausing.client) or self._store.due_times.is_due(self._lanes[pausing.client], probing=True)
        ]

    def probe(self, client: str) -> int | None:
        """Probe a client; return how many jobs were worked for that, or `None` if another worker was first.

        Raises:
            DatabaseLost: the database stayed away.
            Exception: an error of our own code; another worker may probe.
        """
        probe = self.begin(client)
        if probe is None:
            return None
        try:
            jobs = self.request(probe)
        finally:
            # This thread ends, and its connection with it.
            self._executors[client].connections.drop()
        if jobs is None:
            self.end(probe)
        return jobs or 0

    def begin(self, client: str) -> Probe | None:
        """Take the right to probe; `None` where another worker has it, or the client is open or paused."""
        runner = self._runner
        probe: Probe | None = runner.retry_database(
            partial(self._store.probes.begin, client, worker=self._worker, lease=self._lease)
        )
        if probe is not None:
            runner.heartbeat.add_probe(probe)
            runner.health.probes.begun(probe)
        return probe

    def request(self, probe: Probe, *, silent: bool = True) -> int | None:
        """Send the request, and give the right to probe back.

        Args:
            probe: the right to probe.
            silent: use also the first page of a listing, or a job that sends no request, if there is nothing else. A run lists
                by itself.

        Returns:
            How many jobs were worked for that; `None` where there is nothing to try with: the right is then kept.
        """
        jobs: list[Job] = []
        is_kept = False
        test = self._tests.get(probe.client)
        try:
            tried = self._try_suspects(probe)
            if probe.client in self._runner.health.pauses.in_force:
                return tried
            if test is not None and self.has_check(probe.client):
                self._test(probe, test)
                return tried
            jobs = self._claim(probe, silent=False, most=0)
            if not jobs and silent and test is not None:
                self._test(probe, test)
                return tried
            if not jobs and test is None:
                jobs = self._claim(probe, silent=silent)
            is_kept = not jobs
            if jobs:
                self.work(probe, jobs)
        finally:
            if not is_kept:
                self.end(probe, jobs)
        return None if is_kept else len(jobs)

    def work(self, probe: Probe, jobs: Sequence[Job]) -> list[JobResult]:
        """Work this job; its result is the probe's."""
        self._runner.health.probes.expect_answer(probe, jobs)
        return self._runner.batch(jobs)

    def end(self, probe: Probe, jobs: Sequence[Job] = ()) -> None:
        """Give the right to probe back, whatever the result."""
        self._runner.heartbeat.remove_probe(probe)
        self._runner.health.probes.ended(probe, jobs)

    def has_check(self, client: str) -> bool:
        """Tell whether the client's declaration has a `check`."""
        return self._executors[client].client.check is not None

    def _test(self, probe: Probe, test: ClientTest) -> None:
        """Test the client and report the answer."""
        halt = self._runner.signals.halt
        if halt.is_set():
            return
        verdict = test(halt)
        if halt.is_set() and not isinstance(verdict.outcome, Success | Unchanged):
            # Its connection may have been closed under it.
            return
        self._runner.health.probes.answered(probe, verdict)

    def _try_suspects(self, probe: Probe) -> int:
        """Work jobs that were refused before one after the other, until one of them pauses the client; return how many."""
        health, runner = self._runner.health, self._runner
        left = self._claim(probe, silent=False, n=SUSPECTS, least=TIMES - 1)
        tried = 0
        try:
            for job in list(left):
                if probe.client in health.pauses.in_force or runner.signals.halt.is_set():
                    break
                if not health.blame.may_be_tried_alone(job):
                    continue
                left.remove(job)
                tried += 1
                health.blame.expect_alone([job])
                try:
                    runner.batch([job])
                finally:
                    health.blame.settled_alone([job])
        finally:
            runner.release(left, "took something else for its probe")
        return tried

    def _claim(self, probe: Probe, *, silent: bool, n: int = 1, least: int = 0, most: int = ANY) -> list[Job]:
        """Claim due jobs, if there are any, preferably such that send a request; see `Probes.claim_job`."""
        lanes, executors = self._lanes[probe.client], self._runner.executors
        asking = [lane for lane in lanes if executors[lane.type].sends_requests]
        for some in (asking, [lane for lane in lanes if silent and lane not in asking]):
            claim = partial(
                self._store.probes.claim_job,
                probe,
                some,
                worker=self._worker,
                lease=self._lease,
                on_poison=self._on_poison,
                n=n,
                least=least,
                most=most,
            )
            jobs: list[Job] = self._runner.retry_database(claim) if some else []
            if jobs:
                self._runner.heartbeat.add(jobs)
                return jobs
        return []


class ProbeRounds:
    """Decides when the loop of a worker probes which clients, each in a thread of its own.

    Args:
        prober: probes them.
        claims: counts the jobs that probes take.
        start: runs something in a thread of that name.
    """

    def __init__(self, prober: Prober, claims: ClaimRounds, *, start: Callable[[str, Callable[[], object]], None]) -> None:
        self._prober, self._claims, self._start = prober, claims, start
        self._looked_at = time.monotonic()
        #: Clients that are being probed here, or were without success: not before then, by `time.monotonic`.
        self._next: dict[str, float] = {}
        self._lock = threading.Lock()

    def begin(self, *, idle: bool) -> bool:
        """Begin to probe clients whose pause has run out; tell whether there were any.

        Args:
            idle: there is no other work.
        """
        if self._claims.jobs_left <= 0 or not (idle or time.monotonic() - self._looked_at >= PROBE_EVERY):
            return False
        self._looked_at = time.monotonic()
        began = False
        for pausing in self._prober.due():
            with self._lock:
                if self._next.get(pausing.client, 0.0) > time.monotonic():
                    continue
                self._next[pausing.client] = time.monotonic() + LONGEST_PROBE
            self._claims.count(1)
            self._start("syncs-probe", partial(self._probe, pausing.client))
            began = True
        return began

    def _probe(self, client: str) -> None:
        jobs: int | None = None
        try:
            jobs = self._prober.probe(client)
        finally:
            with self._lock:
                self._next[client] = time.monotonic() + PROBE_REST if jobs == 0 else 0.0
            self._claims.count((jobs or 0) - 1)
