"""One worker's shift: claims as threads get free, begins, finishes, waits, and ends. Knows no declaration and no CLI.

A claim takes what the threads can begin, and as much ahead as they have lately worked off in a fifth of a second: fast jobs are
claimed by the hundred, and a slow one keeps nobody else's jobs waiting here that another worker could begin. From queues that
have limits nothing is claimed ahead: what is claimed there begins, so that a start is a start.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence

from flows.bounds import Bounds, Memory
from flows.claimer import Claimer
from flows.crew import Crew
from flows.duty import Duty
from flows.hands import Hands
from flows.lease import LONGEST_PROBE
from flows.patience import Outage, Patience
from flows.prober import Prober
from jobs.job import Job, Lane
from jobs.store import JobStore
from jobs.wake import JITTER, Wakes, jittered

log = logging.getLogger("syncs.work")

POLL = 1.0
"""Seconds between two looks at queues from which nothing was heard; also for jobs of dead workers (E-03)."""

BATCH = 100
"""Jobs in one claim at most."""

AHEAD = 0.2
"""Seconds of work that are claimed ahead."""

LIMITED_EVERY = 0.2
"""Seconds between two looks at a limited queue that gave nothing and says no time."""

RATED_EVERY = 0.05
"""Seconds over which the speed of the threads is measured at least."""

PROBE_EVERY = 0.2
"""Seconds between two looks for clients to test while there is other work; while there is none, each turn looks."""

REST = 1.0
"""Seconds until a client is tested again from here, where that took no job: there was a check, or no room in the queue."""

LEAVING = 10.0
"""Seconds that a worker which was told to leave at once waits for the database to take its jobs back."""

TIDY_EVERY = 60.0
"""Seconds between two offers to tidy up."""


class Shift:
    """Works until it is told to stop, or has reached one of its bounds.

    Args:
        store: where the jobs are.
        duty: what to serve.
        lanes: those of it that can be served.
        hands: who works; what stops them is set here.
        crew: the threads.
        claimer: who claims.
        prober: who tests clients whose pause has run out.
        wakes: what wakes this thread.
        bounds: what ends it.
        patience: with the database.
        stop: set from outside: take nothing new.
        now: set from outside: put back what is in hand.
        tidy: called now and then, in a thread of its own.
    """

    def __init__(
        self, store: JobStore, duty: Duty, lanes: Sequence[Lane], hands: Hands, crew: Crew, claimer: Claimer, prober: Prober,
        wakes: Wakes, bounds: Bounds, patience: Patience, *, stop: threading.Event, now: threading.Event,
        tidy: Callable[[], object],
    ) -> None:  # fmt: skip
        self._store, self._duty, self._hands, self._crew = store, duty, hands, crew
        self._claimer, self._prober, self._wakes, self._bounds = claimer, prober, wakes, bounds
        self._stop, self._now, self._tidy = stop, now, tidy
        self._lanes = lanes
        self._limited = [lane for lane in lanes if lane.queue in duty.limited]
        self._free = [lane for lane in lanes if lane.queue not in duty.limited]
        self._outage = Outage(patience)
        self._memory = Memory(bounds.memory_limit)
        self._began = time.monotonic()
        self._tidied_at = self._looked_at = self._probed_at = self._began
        #: The last claim found nothing.
        self._dry = False
        self._limited_at = 0.0
        self._limited_first = False
        #: No thread is kept free for a limited queue before the crew has begun so many.
        self._fair_at = 0
        self._rate = 0.0
        self._rated = (self._began, 0)
        self._claimed = 0
        #: Batches in hand; their threads count down.
        self._batches = 0
        #: Clients that are being tested here, or were in vain: not before then, by `time.monotonic`.
        self._tests: dict[str, float] = {}
        self._errors: list[BaseException] = []
        self._lock = threading.Lock()
        self._over = threading.Event()

    def run(self) -> None:
        """Work.

        Raises:
            DatabaseLost: the database stayed away.
            Exception: an error of ours; what was in hand was put back as far as that went.
        """
        if self._bounds.grace is not None:
            threading.Thread(target=self._end_grace, args=(self._bounds.grace,), name="syncs-grace", daemon=True).start()
        try:
            while not self._is_at_its_end():
                if not self._turn():
                    break
        except BaseException:
            self._now.set()
            raise
        finally:
            self._end()
            self._over.set()
        if self._errors:
            raise self._errors[0]

    # -- going on --------------------------------------------------------------------------------------------------------------

    def _turn(self) -> bool:
        """Claim and begin, or wait; tell whether to go on."""
        # Asked before the claim: what a batch leaves for others when it ends must not be missed.
        quiet = self._batches == 0
        try:
            self._hands.health.hold()
            took = self._look()
            # In this order: what a probe has opened is claimed first, and one that is due keeps nobody from the end.
            if self._probe(idle=not took) or took:
                self._outage.answered()
                return True
            if quiet and self._is_over():
                return False
            seconds = self._waits()
            self._outage.answered()
        except Exception as error:  # noqa: BLE001 - raised again unless the database is away
            seconds = self._outage.failed(error)
        self._offer_to_tidy()
        self._wakes.wait(min(seconds, self._left()), self._stop)
        return True

    def _is_at_its_end(self) -> bool:
        if self._stop.is_set() or self._now.is_set() or self._errors or self._left() <= 0:
            return True
        if self._memory.is_too_large():
            most = self._bounds.memory_limit
            log.warning("ending: more than %g MB in memory; whoever supervises this worker starts a new one", most)
            return True
        return False

    def _left(self) -> float:
        """Seconds that are left of the time limit."""
        limit = self._bounds.time_limit
        return limit - (time.monotonic() - self._began) if limit else float("inf")

    def _more(self) -> int:
        """How many jobs may yet be taken."""
        most = self._bounds.max_jobs
        return BATCH if most is None else most - self._claimed + self._hands.released

    def _is_over(self) -> bool:
        """Tell whether nothing is left to do, when nothing is in hand and nothing could be claimed."""
        if self._more() <= 0:
            return True
        return self._bounds.until_empty and not self._store.is_due(self._open(self._limited))

    def _waits(self) -> float:
        """Return the seconds until the next look that nobody asks for."""
        seconds = jittered(POLL)
        if self._crew.free and self._more() > 0:
            due = self._store.next_due([*self._free, *self._limited])
            seconds = min(seconds, due if due is not None else seconds)
        if self._limited:
            seconds = min(seconds, max(0.0, self._limited_at - time.monotonic()) or LIMITED_EVERY)
        return seconds

    def _offer_to_tidy(self) -> None:
        if time.monotonic() - self._tidied_at >= TIDY_EVERY:
            self._tidied_at = time.monotonic()
            threading.Thread(target=self._tidy, name="syncs-tidy", daemon=True).start()

    # -- probing ---------------------------------------------------------------------------------------------------------------

    def _probe(self, *, idle: bool) -> bool:
        """Begin to test clients whose pause has run out; tell whether there were any."""
        if self._more() <= 0 or not (idle or time.monotonic() - self._probed_at >= PROBE_EVERY):
            return False
        self._probed_at = time.monotonic()
        began = False
        for pausing in self._prober.due():
            with self._lock:
                if self._tests.get(pausing.client, 0.0) > time.monotonic():
                    continue
                self._tests[pausing.client] = time.monotonic() + LONGEST_PROBE
                self._batches += 1
                self._claimed += 1
            began = True
            threading.Thread(target=self._test, args=(pausing.client,), name="syncs-probe", daemon=True).start()
        return began

    def _test(self, client: str) -> None:
        jobs: int | None = None
        try:
            jobs = self._prober.test(client)
        except BaseException as error:  # noqa: BLE001 - raised by `run`
            self._errors.append(error)
        finally:
            with self._lock:
                self._tests[client] = time.monotonic() + REST if jobs == 0 else 0.0
                self._claimed += (jobs or 0) - 1
                self._batches -= 1
            self._wakes.poke()

    # -- claiming --------------------------------------------------------------------------------------------------------------

    def _look(self) -> bool:
        """Claim, if there may be something; tell whether there was."""
        # A claim that finds nothing may have to walk over all that is delayed, in a transaction that writes.
        if self._dry and self._crew.free and not self._store.is_due(self._lanes):
            self._crew.release()
        else:
            self._dry = not self._claim()
        if not self._dry:
            # It looked for the jobs of dead workers on its way.
            self._looked_at = time.monotonic()
        elif time.monotonic() - self._looked_at >= POLL * (1 - JITTER):
            # Somebody has to, also while all are idle (E-03).
            self._looked_at = time.monotonic()
            self._claimer.rescue()
        return not self._dry

    def _claim(self) -> bool:
        """Claim and begin what there is room for; tell whether there was any."""
        self._limited_first = not self._limited_first
        ways = [self._claim_limited, self._claim_free]
        # Each goes first in its turn, so that neither takes all threads from the other.
        took = [way() for way in (ways if self._limited_first else reversed(ways))]
        return any(took)

    def _claim_free(self) -> bool:
        """Claim from queues without limits, also ahead."""
        ahead = self._ahead()
        room = self._crew.size + ahead - self._crew.in_hand
        if not self._crew.free and room < max(1, ahead // 2):
            return False
        backlog = self._claimed - self._hands.finished - self._hands.released
        # What is worked and not yet finished counts too: a slow database slows the claims (M6).
        room = min(room, self._crew.size + 2 * ahead + BATCH - backlog)
        return self._take(self._free, room, ahead)

    def _claim_limited(self) -> bool:
        """Claim from queues with limits, as much as can begin at once."""
        if not self._limited or time.monotonic() < self._limited_at or self._more() <= 0:
            self._crew.release()
            return False
        free = self._crew.free
        if not free:
            if self._free and self._crew.begun >= self._fair_at:
                # Else the threads would go from one job that was claimed ahead to the next, and these never begin.
                self._crew.reserve()
            return False
        try:
            before = self._claimed
            if self._take(self._limited, free, 0):
                # As many of the others begin before a thread is kept free again.
                self._fair_at = self._crew.begun + 2 * (self._claimed - before)
                return True
        finally:
            self._crew.release()
        hint = self._store.wait_hint({lane.queue for lane in self._limited})
        self._limited_at = time.monotonic() + (LIMITED_EVERY if hint is None else max(0.01, min(hint, POLL)))
        return False

    def _take(self, lanes: Sequence[Lane], room: int, ahead: int) -> bool:
        lanes = [lane for lane in self._open(lanes) if self._room(lane, ahead) > 0]
        room = min(room, BATCH, self._more(), sum(self._room(lane, ahead) for lane in lanes))
        if not lanes or room < 1:
            return False
        known = dict(self._hands.health.paused)
        jobs, _ = self._claimer.claim(room, lanes)
        # A pause is a row that the claim reads; this worker need not remember it any longer.
        self._hands.health.forget({client: known[client] for client in known.keys() & {job.lane.client for job in jobs}})
        if jobs:
            self._begin(jobs)
        return bool(jobs)

    def _open(self, lanes: Sequence[Lane]) -> list[Lane]:
        """Return the lanes from which to claim now: not of a client in doubt, and not of a queue whose time is over."""
        elapsed = time.monotonic() - self._began
        over = {
            name
            for name, queue in self._duty.queues.items()
            if self._bounds.by_queue and name in self._duty.declared and 0 < queue.time_limit <= elapsed
        }
        return [lane for lane in lanes if lane.queue not in over and not self._hands.health.in_doubt(lane.type)]

    def _room(self, lane: Lane, ahead: int) -> int:
        """Return how many jobs of a lane there may be more in hand."""
        keys = [key for key in (lane.type, f"{lane.type}:{lane.phase}") if key in self._duty.limits]
        share = ahead / self._crew.size
        return min((int(self._duty.limits[key] * (1 + share)) - self._crew.load(key) for key in keys), default=BATCH)

    def _ahead(self) -> int:
        """Return how many jobs to have in hand beyond those that are being worked."""
        (began, before), now, ended = self._rated, time.monotonic(), self._crew.ended
        if now - began >= RATED_EVERY:
            rate = (ended - before) / (now - began)
            self._rate = (self._rate + rate) / 2 if self._rate else rate
            self._rated = now, ended
        return min(2 * BATCH, int(self._rate * AHEAD))

    def _begin(self, jobs: list[Job]) -> None:
        with self._lock:
            self._claimed += len(jobs)
            self._batches += 1
        threading.Thread(target=self._work, args=(jobs,), name="syncs-batch", daemon=True).start()

    def _work(self, jobs: list[Job]) -> None:
        try:
            self._hands.batch(jobs)
        except BaseException as error:  # noqa: BLE001 - raised by `run`
            self._errors.append(error)
        finally:
            self._claimer.worked(jobs)
            if any(job.lane.queue in self._duty.limited for job in jobs):
                self._limited_at = 0.0
            with self._lock:
                self._batches -= 1
            self._wakes.poke()

    # -- ending ----------------------------------------------------------------------------------------------------------------

    def _end_grace(self, grace: float) -> None:
        """Put back what is in hand when the grace after a stop is over.

        In a thread of its own: the worker's may be waiting for SQLite's writer, which a job in hand holds.
        """
        while not self._stop.wait(0.2):
            if self._over.is_set():
                return
        if not self._over.wait(grace) and not self._now.is_set():
            log.warning("%d jobs are still in hand after %g s and go back", self._crew.in_hand, grace)
            self._now.set()
            self._wakes.poke()

    def _end(self) -> None:
        """Let the jobs in hand end; put them back where they were given no time for that, or have had it (M18)."""
        self._hands.stop.set()
        self._crew.release()
        grace = self._bounds.grace
        stopped, leaving, never = time.monotonic(), None, threading.Event()
        while self._batches:
            if grace is not None and time.monotonic() - stopped >= grace and not self._now.is_set():
                log.warning("%d jobs are still in hand after %g s and go back", self._crew.in_hand, grace)
                self._now.set()
            if self._now.is_set():
                leaving = leaving or time.monotonic()
                if time.monotonic() - leaving >= LEAVING:
                    log.warning("the database does not take the jobs in hand back; others do when their leases have ended")
                    return
            self._wakes.wait(0.1, never)
