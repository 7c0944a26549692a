"""Claims jobs for the threads of one worker: from which lanes, how many at a time, suspects one at a time."""

import threading
import time
from collections.abc import Callable, Sequence

from flows.worker.batch_runner import BatchRunner
from flows.worker.limits import WorkerLimits
from flows.worker.worker_config import WorkerConfig
from jobs.claiming.claim import OnPoison
from jobs.job import Job, Lane
from jobs.store import JobStore

SUSPECTS_EVERY = 1.0
"""Seconds between two looks for suspects while other jobs keep coming, so that they do not wait for ever."""

AHEAD = 0.2
"""Seconds of work that are claimed ahead."""

LIMITED_EVERY = 0.2
"""Seconds between two looks at a limited queue that gave nothing and does not say when it will."""

RATED_EVERY = 0.05
"""Seconds over which the speed of the threads is measured at least."""

LONGEST_HINT = 1.0
"""Seconds until a limited queue is looked at again at the latest, whatever it says."""


class Claimer:
    """Claims for the threads of one worker.

    Jobs whose worker died are suspects. They are taken one at a time: if two were in hand when a poisonous one kills the worker,
    the other one would be counted as poison too. One that still works after a lease does not kill at once, and the next is taken.

    Args:
        store: where the jobs are.
        lanes: those that this worker can work.
        worker, lease: of the claims.
        singles: so many jobs are shown one by one before batches begin.
        on_poison: called with each job that failed because it keeps killing its workers.
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
        self._suspect_since = 0.0
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
        """Requeue the jobs of dead and silent workers, as each claim does, too."""
        self._store.rescues.run(sorted({lane.queue for lane in self._lanes}), on_poison=self._on_poison)

    def release_suspect(self, jobs: Sequence[Job]) -> None:
        """Take note that claimed jobs are no longer in hand: another suspect may be taken."""
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
            if self._suspect is not None and time.monotonic() - self._suspect_since < self._lease:
                return []
            if jobs := self._take(1, lanes, suspects=True):
                self._suspect, self._suspect_since = jobs[0], time.monotonic()
            return jobs

    def _take(self, n: int, lanes: Sequence[Lane], *, suspects: bool) -> list[Job]:
        return self._store.claim(lanes, n, worker=self._worker, lease=self._lease, suspects=suspects, on_poison=self._on_poison)


class ClaimRounds:
    """Decides from which lanes a worker claims now and how many jobs, and hands them over to begin.

    A claim takes what the threads can begin, and as much ahead as they have lately worked in a fifth of a second: fast jobs are
    claimed by the hundred, and slow ones are left to other workers that could begin them. From queues that have limits nothing
    is claimed ahead, because there each claim counts as a start.

    Args:
        runner: works the jobs.
        claimer: claims them.
        config: what is served.
        lanes: those of it that can be served.
        limits: what ends the worker.
        begin: begins claimed jobs; the second argument says whether each is to be shown by itself.
    """

    def __init__(
        self,
        runner: BatchRunner,
        claimer: Claimer,
        *,
        config: WorkerConfig,
        lanes: Sequence[Lane],
        limits: WorkerLimits,
        begin: Callable[[list[Job], bool], None],
    ) -> None:
        self._runner, self._claimer, self._begin = runner, claimer, begin
        self._store, self._pool, self._health = runner.store, runner.pool, runner.health
        self._config, self._limits = config, limits
        #: The lanes of queues with limits.
        self.limited = [lane for lane in lanes if lane.queue in config.limited]
        self._unlimited = [lane for lane in lanes if lane.queue not in config.limited]
        #: Jobs that were claimed, those of probes included.
        self.claimed = 0
        self._began = time.monotonic()
        self._limited_at = 0.0
        self._limited_first = False
        #: No thread is kept free for a limited queue before the pool has begun so many.
        self._fair_at = 0
        self._rate = 0.0
        self._rated = (self._began, 0)
        self._lock = threading.Lock()

    @property
    def jobs_left(self) -> int:
        """How many jobs may yet be taken."""
        most = self._limits.max_jobs
        return self._config.batch if most is None else most - self.claimed + self._runner.released

    def count(self, jobs: int) -> None:
        """Add to the number of claimed jobs."""
        with self._lock:
            self.claimed += jobs

    def ended(self, jobs: Sequence[Job]) -> None:
        """Take note that jobs are no longer in hand: there may be room for another suspect, and in a queue with limits."""
        self._claimer.release_suspect(jobs)
        if self.limited and any(job.lane.queue in self._config.limited for job in jobs):
            self._limited_at = 0.0

    def longest_wait(self, seconds: float) -> float:
        """Return the seconds to wait until the next claim: at most these, and less where a queue with limits has room before."""
        if not self.limited:
            return seconds
        return min(seconds, max(0.0, self._limited_at - time.monotonic()) or LIMITED_EVERY)

    def claim(self) -> bool:
        """Claim and begin what there is room for; tell whether there was any."""
        self._limited_first = not self._limited_first
        if not self.limited:
            return self._claim_unlimited()
        ways = [self._claim_limited, self._claim_unlimited]
        # Each goes first in its turn, so that neither takes all threads from the other.
        took = [way() for way in (ways if self._limited_first else reversed(ways))]
        return any(took)

    def _claim_unlimited(self) -> bool:
        """Claim from queues without limits, also ahead."""
        ahead, size = self._ahead(), self._pool.size
        room = size + ahead - self._runner.in_hand
        if room < max(1, ahead // 2) and not self._runner.free:
            return False
        backlog = self.claimed - self._runner.finished - self._runner.released
        # What is worked and not yet finished counts too: a slow database slows the claims.
        room = min(room, size + 2 * ahead + self._config.batch - backlog)
        return self._take(self._unlimited, room, ahead)

    def _claim_limited(self) -> bool:
        """Claim from queues with limits, as much as can begin at once."""
        if time.monotonic() < self._limited_at or self.jobs_left <= 0:
            self._pool.release()
            return False
        free = self._runner.free
        if not free:
            if self._unlimited and self._pool.begun >= self._fair_at:
                # Else the threads would go from one job that was claimed ahead to the next, and these never begin.
                self._pool.reserve()
            return False
        try:
            before = self.claimed
            if self._take(self.limited, free, 0):
                # As many of the others begin before a thread is kept free again.
                self._fair_at = self._pool.begun + 2 * (self.claimed - before)
                return True
        finally:
            self._pool.release()
        hint = self._store.queues.wait_hint({lane.queue for lane in self.limited})
        self._limited_at = time.monotonic() + (LIMITED_EVERY if hint is None else max(0.01, min(hint, LONGEST_HINT)))
        return False

    def _take(self, lanes: Sequence[Lane], room: int, ahead: int) -> bool:
        lanes = [lane for lane in self.open(lanes) if self._room(lane, ahead) > 0]
        room = min(room, self._config.batch, self.jobs_left, sum(self._room(lane, ahead) for lane in lanes))
        if not lanes or room < 1:
            return False
        known = dict(self._health.pauses.in_force)
        jobs, one_by_one = self._claimer.claim(room, lanes)
        if known:
            # A pause is a row that the claim reads; what it returned shows that these pauses are over.
            self._health.pauses.forget({client: known[client] for client in known.keys() & {job.lane.client for job in jobs}})
        if jobs:
            self.count(len(jobs))
            self._begin(jobs, one_by_one)
        return bool(jobs)

    def open(self, lanes: Sequence[Lane]) -> list[Lane]:
        """Return the lanes from which to claim now.

        Not of a client with pending errors, or a type that this process cannot work, nor of a queue whose time is over.
        """
        elapsed = time.monotonic() - self._began
        over = {
            name
            for name, queue in self._config.queues.items()
            if self._limits.by_queue and name in self._config.declared and 0 < queue.time_limit <= elapsed
        }
        health = self._health
        return [
            lane
            for lane in lanes
            if lane.queue not in over
            and not health.has_pending_errors(lane.type)
            and not (health.lacks.known and health.lacks.holds(lane.type))
        ]

    def _room(self, lane: Lane, ahead: int) -> int:
        """Return how many more jobs of a lane may be in hand."""
        limits = self._config.limits
        keys = [key for key in (lane.type, f"{lane.type}:{lane.phase}") if key in limits]
        share = ahead / self._pool.size
        return min((int(limits[key] * (1 + share)) - self._pool.load(key) for key in keys), default=self._config.batch)

    def _ahead(self) -> int:
        """Return how many jobs to have in hand beyond those that are being worked."""
        if self._config.prefetch is not None:
            return self._config.prefetch
        (began, before), now, ended = self._rated, time.monotonic(), self._pool.ended
        if now - began >= RATED_EVERY:
            rate = (ended - before) / (now - began)
            self._rate = (self._rate + rate) / 2 if self._rate else rate
            self._rated = now, ended
        return min(2 * self._config.batch, int(self._rate * AHEAD))
