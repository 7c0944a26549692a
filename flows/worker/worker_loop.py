"""The worker's main loop: claims jobs as threads get free, begins them, waits, and ends."""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial

from flows.database_outage import DatabaseRetry, Outage
from flows.worker.batch_runner import BatchRunner
from flows.worker.claims import Claimer, ClaimRounds
from flows.worker.feed import Feed, InterruptedListings, Waker
from flows.worker.limits import MemoryWatch, TablesWatch, WorkerLimits
from flows.worker.probe import Prober, ProbeRounds
from flows.worker.worker_config import WorkerConfig
from jobs.db.change_listener import JITTER, jittered
from jobs.job import Job, Lane

log = logging.getLogger("syncs.work")

FEED_POLL = 0.25
"""Seconds between two looks for due jobs while a listing feeds the loop; a stored page wakes it at once."""

POLL = 1.0
"""Seconds between two looks at queues without a wake-up; also for jobs of dead workers."""

LEAVING = 10.0
"""Seconds that a worker which was told to leave at once waits for the database to take its jobs back."""

TIDY_EVERY = 60.0
"""Seconds between two calls of `tidy`."""


class WorkerLoop:
    """Works until it is told to stop, or has reached one of its limits.

    Args:
        runner: works the jobs.
        claimer: claims them.
        prober: probes clients whose pause has run out; those of a feed only once its listing has ended, which does it until then.
        config: what is served.
        lanes: those of it that can be served.
        limits: what ends it.
        waker: how it waits.
        database: how long it waits for the database.
        feed: the listing that queues its jobs, if there is one.
        tidy: called now and then, in a thread of its own.
        listings: those that it continues beside the jobs.
    """

    def __init__(
        self,
        runner: BatchRunner,
        claimer: Claimer,
        prober: Prober,
        *,
        config: WorkerConfig,
        lanes: Sequence[Lane],
        limits: WorkerLimits,
        waker: Waker,
        database: DatabaseRetry,
        feed: Feed | None = None,
        tidy: Callable[[], object] | None = None,
        listings: InterruptedListings | None = None,
    ) -> None:
        self._listings, self._listed_at = listings, 0.0
        self._store, self._runner, self._pool, self._signals = runner.store, runner, runner.pool, runner.signals
        self._claimer, self._limits = claimer, limits
        self._claims = ClaimRounds(runner, claimer, config=config, lanes=lanes, limits=limits, begin=self._begin)
        self._probes = ProbeRounds(prober, self._claims, start=self._start)
        self._waker, self._feed, self._tidy = waker, feed, tidy
        self._lanes = lanes
        self._outage, self._tables = Outage(database), TablesWatch(self._store.db)
        self._memory = None if limits.memory_limit is None else MemoryWatch(limits.memory_limit)
        self._began = time.monotonic()
        self._tidied_at = self._looked_at = self._asked_at = self._began
        #: The last claim found nothing.
        self._is_empty = False
        #: Batches, probes and listings in hand; their threads count down.
        self._batches = 0
        self._errors: list[BaseException] = []
        self._lock = threading.Lock()
        self._over = threading.Event()

    def run(self) -> None:
        """Work.

        Raises:
            DatabaseLost: the database stayed away.
            SchemaTooNew: somebody has upgraded the tables.
            Exception: an error of our own code; what was in hand was put back as far as possible.
        """
        if self._limits.grace is not None:
            threading.Thread(target=self._end_grace, args=(self._limits.grace,), name="syncs-grace", daemon=True).start()
        try:
            while not self._must_end():
                if not self._turn():
                    break
        except BaseException:
            if self._feed is None:
                # A run of a sync finishes the entities that it has begun.
                self._signals.now.set()
            raise
        finally:
            self._end()
            self._over.set()
        if self._errors:
            raise self._errors[0]

    # -- going on --------------------------------------------------------------------------------------------------------------

    def _turn(self) -> bool:
        """Claim and begin, or wait; tell whether to go on."""
        # Read before the claim: jobs that a batch or a page leaves behind as it ends must not be missed.
        quiet = self._batches == 0 and (self._feed is None or self._feed.progress.listing_ended)
        try:
            if self._runner.health.pauses.has_windows:
                self._runner.health.pauses.apply_windows()
            self._tables.check_if_due()
            took = self._look()
            # In this order: what a probe has opened is claimed first, and one that is due does not prevent the end.
            took = (self._may_probe and self._probes.begin(idle=not took)) or took
            took = (self._listings is not None and self._continue(self._listings, idle=not took)) or took
            if not took and quiet and self._is_over():
                return False
            seconds = 0.0 if took else self._seconds_to_wait()
            if self._outage.began is not None:
                self._outage.answered()
            if took:
                return True
        except Exception as error:  # noqa: BLE001 - raised again unless the database is away
            seconds = self._outage.failed(self._tables.explain(error))
        self._offer_to_tidy()
        self._waker.wait(min(seconds, self._seconds_left()), self._signals.stop)
        return True

    def _must_end(self) -> bool:
        if self._signals.stop.is_set() or self._signals.now.is_set() or self._errors or self._seconds_left() <= 0:
            return True
        if self._feed is not None and (self._signals.halt.is_set() or self._is_paused(self._feed)):
            return True
        if self._memory is not None and self._memory.is_too_large():
            most = self._limits.memory_limit
            log.warning("ending: more than %g MB in memory; the supervisor of this worker has to start a new one", most)
            return True
        return False

    def _is_paused(self, feed: Feed) -> bool:
        """Tell whether the client of the feed has a pause for whose end the run does not wait."""
        pausing = self._runner.health.pauses.in_force.get(feed.client)
        if pausing is None:
            feed.opened()
            return False
        return not feed.waits_for(pausing)

    @property
    def _may_probe(self) -> bool:
        """Whether probing is left to the loop: a listing that goes on does it with its next page."""
        return self._feed is None or (self._feed.wait > 0 and self._feed.progress.listing_ended)

    def _seconds_left(self) -> float:
        limit = self._limits.time_limit
        return limit - (time.monotonic() - self._began) if limit else float("inf")

    def _is_over(self) -> bool:
        """Tell whether nothing is left to do, when nothing is in hand and nothing could be claimed."""
        if self._claims.jobs_left <= 0:
            return True
        ends = self._limits.until_empty or self._feed is not None
        if not ends or (self._claims.limited and self._store.due_times.is_due(self._claims.open(self._claims.limited))):
            return False
        return self._feed is None or not self._feed.awaits(self._store, self._runner.health, self._lanes)

    def _seconds_to_wait(self) -> float:
        """Return the seconds until the next look without a wake-up."""
        seconds = jittered(POLL) if self._looks_first else FEED_POLL
        if self._looks_first and self._runner.free and self._claims.jobs_left > 0:
            # Jobs that this process cannot work are due all the time.
            lacks = self._runner.health.lacks
            lanes = [lane for lane in self._lanes if not (lacks.known and lacks.holds(lane.type))]
            due = self._store.due_times.next(lanes, since=time.monotonic() - self._asked_at) if lanes else None
            seconds = min(seconds, due if due is not None else seconds)
        return self._claims.longest_wait(seconds)

    @property
    def _looks_first(self) -> bool:
        return self._feed is None or bool(self._feed.progress.waiting)

    def _offer_to_tidy(self) -> None:
        if self._tidy is not None and time.monotonic() - self._tidied_at >= TIDY_EVERY:
            self._tidied_at = time.monotonic()
            threading.Thread(target=self._tidy, name="syncs-tidy", daemon=True).start()

    def _continue(self, listings: InterruptedListings, *, idle: bool) -> bool:
        """Begin to continue interrupted listings; tell whether there were any."""
        if self._claims.jobs_left <= 0 or not (idle or time.monotonic() - self._listed_at >= POLL):
            return False
        self._listed_at = time.monotonic()
        names = listings.due()
        for name in names:
            self._start("syncs-continuing", partial(listings.run, name))
        return bool(names)

    # -- claiming --------------------------------------------------------------------------------------------------------------

    def _look(self) -> bool:
        """Claim, if there may be something; tell whether there was."""
        self._asked_at = time.monotonic()
        # A claim that finds nothing may have to walk over all delayed jobs, in a transaction that writes. A run of a sync claims
        # without a look before, unless it waits: it would execute that query only a few times, and to compile it takes 40 ms.
        if self._is_empty and self._looks_first and self._runner.free and not self._store.due_times.is_due(self._lanes):
            self._pool.release()
        else:
            self._is_empty = not self._claims.claim()
        if not self._is_empty:
            # The claim also looked for the jobs of dead workers.
            self._looked_at = time.monotonic()
        elif time.monotonic() - self._looked_at >= POLL * (1 - JITTER):
            # An idle worker looks for them, too: all others may be dead.
            self._looked_at = time.monotonic()
            self._claimer.rescue()
        return not self._is_empty

    def _begin(self, jobs: list[Job], one_by_one: bool) -> None:
        if self._feed is not None and self._feed.progress.waiting:
            self._feed.show("")
        self._start("syncs-batch", partial(self._work, jobs, one_by_one))

    def _work(self, jobs: list[Job], one_by_one: bool) -> None:
        try:
            if one_by_one:
                self._runner.entities(jobs)
            else:
                self._runner.batch(jobs)
        finally:
            self._claims.ended(jobs)

    def _start(self, name: str, work: Callable[[], object]) -> None:
        """Do something in a thread of its own, for which the loop waits before it ends."""
        with self._lock:
            self._batches += 1
        threading.Thread(target=self._do, args=(work,), name=name, daemon=True).start()

    def _do(self, work: Callable[[], object]) -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - raised by `run`
            self._errors.append(self._tables.explain(error))
        finally:
            with self._lock:
                self._batches -= 1
            self._waker.wake()

    # -- ending ----------------------------------------------------------------------------------------------------------------

    def _end_grace(self, grace: float) -> None:
        """Put back what is in hand when the grace after a stop is over.

        In a thread of its own: the loop's may be waiting for SQLite's writer, which a job in hand holds.
        """
        while not self._signals.stop.wait(0.2):
            if self._over.is_set():
                return
        if not self._over.wait(grace):
            self._put_back(grace)
            self._waker.wake()

    def _put_back(self, grace: float) -> None:
        if not self._signals.now.is_set():
            log.warning("%d jobs are still in hand after %g s and go back", self._runner.in_hand, grace)
            self._signals.now.set()

    def _end(self) -> None:
        """Let the jobs in hand end; put them back where they were given no time for that, or have had it."""
        self._signals.halt.set()
        self._pool.release()
        grace = self._limits.grace
        stopped, leaving, never = time.monotonic(), None, threading.Event()
        while self._batches:
            if grace is not None and time.monotonic() - stopped >= grace:
                self._put_back(grace)
            if self._signals.now.is_set():
                leaving = leaving or time.monotonic()
                if time.monotonic() - leaving >= LEAVING:
                    log.warning("the database does not take the jobs in hand back; others do when their leases have ended")
                    return
            self._waker.wait(0.1, never)
