"""One run of a sync: listing and working overlap, then the sweep and the summary. Knows no Prefect and no CLI."""

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from flows.claimer import Claimer
from flows.conclusion import Conclusion, paused_text
from flows.conditional import Conditions
from flows.connection import Connections
from flows.crew import Crew
from flows.declaration import Sync
from flows.entity import EntityWork
from flows.gate import Gate
from flows.gone import GoneGuard, flawed_text, how_to_allow
from flows.hands import Hands
from flows.job_work import tell_poisoned
from flows.lease import LeaseKeeper
from flows.lister import Ended, Lister
from flows.mark import Marker
from flows.mask import Mask
from flows.patience import is_outage, lost
from flows.preview import Preview
from flows.prober import Prober
from flows.registry import load
from flows.result import RunResult
from flows.settings import client_settings
from flows.teller import SILENT, Teller
from flows.told import Told
from flows.tracker import Progress, SilentTracker, Tracker, Waking
from jobs import JobsError, LostLease, Queue
from jobs.errors import DatabaseLost
from jobs.job import Lane
from jobs.listing import Busy, ListingClaim
from jobs.poison import Poisoned
from jobs.store import JobStore
from jobs.sweep import SweepResult
from jobs.worker import this_worker

BATCHES = 2
"""Batches in hand at once: while one is finished in the database, the other keeps the fetching threads busy."""

POLL = 0.25
"""Seconds between two looks for due jobs while listing goes on; a stored page wakes the wait at once."""


def run(
    sync: Sync,
    store: JobStore,
    *,
    full: bool = False,
    limit: int | None = None,
    dry_run: bool = False,
    allow_deletes: bool = False,
    tracker: Tracker | None = None,
    stop: threading.Event | None = None,
    queue: Queue | None = None,
    declared: bool = False,
) -> RunResult:
    """Run a sync once, here and now.

    Ends when the listing has ended and no job of the sync is due. Delayed retries stay for the next run or `syncs work`.

    Args:
        sync: the declaration.
        store: where jobs and records are.
        full: list all, also where the sync is incremental, and work every listed entity, changed or not.
        limit: stop listing after so many entities.
        dry_run: list and compare, write nothing.
        allow_deletes: a person has confirmed that more than `max_delete_share` of the records may be deleted by this run.
        tracker: who watches.
        stop: set it to end early: jobs in hand are finished, the others released, the listing resumes next time.
        queue: the declaration of the sync's queue.
        declared: somebody declared that queue: its concurrency then holds for all workers together.

    Raises:
        SettingsError: a setting of the client is missing or wrong; nothing was written.
        DatabaseLost: the database went away; what was committed stands, the rest is resumed by the next run.
        SQLAlchemyError: it failed in another way; the same holds.
    """
    try:
        queue = queue or Queue(sync.queue_id)
        return _run(
            _Run(sync, store, full, limit, tracker or SilentTracker(), stop or threading.Event(), queue, declared, allow_deletes),
            dry_run,
        )
    except (JobsError, SQLAlchemyError) as error:
        if is_outage(error) and not isinstance(error, DatabaseLost):
            raise lost(error) from error
        raise


def _run(work: "_Run", dry_run: bool) -> RunResult:
    started, sync = time.monotonic(), work.sync
    settings = client_settings(sync.client)
    with Connections(sync.client, settings) as connections, Told(work.store, clients=[sync.client]) as told:
        work.told, work.gate = told, Gate(work.store, sync.client, worker=work.worker, told=told)
        gone = GoneGuard(sync, work.store, allow=work.allow_deletes)
        entity_work = EntityWork(sync, connections.get, Mask(settings), gone, connections.drop, Conditions.of(sync, work.store))
        result = work.preview(entity_work) if dry_run else work.run(entity_work)
        result = replace(result, seconds=time.monotonic() - started, requests=connections.requests)
        if not dry_run:
            told.ended(sync, result, by_hand=work.stop.is_set())
        return result


class _Run:
    """The state of one run; strictly private."""

    def __init__(
        self, sync: Sync, store: JobStore, full: bool, limit: int | None, tracker: Tracker, stop: threading.Event, queue: Queue,
        declared: bool, allow_deletes: bool,
    ) -> None:  # fmt: skip
        self.sync, self.store, self.full, self.limit = sync, store, full, limit
        self.tracker, self.stop, self.queue, self.declared = tracker, stop, queue, declared
        self.allow_deletes = allow_deletes
        #: The queue may give less than is due.
        self.limited = declared or queue.rate is not None
        self.lane = Lane(sync.queue_id, sync.client.id, sync.id)
        self.worker = this_worker()
        self.told: Teller = SILENT
        self.gate = Gate(store, sync.client, worker=self.worker, told=SILENT)
        self.progress = Progress()
        self.swept = SweepResult(0)
        self.ended: Ended | None = None
        self.conclusion = Conclusion(sync, store, self.lane, self.progress)
        self.errors: list[BaseException] = []
        self.halt = threading.Event()
        self.news = threading.Condition()
        singles = sync.entity_task_runs if tracker.shows_entities else 0
        self.claimer = Claimer(
            store, [self.lane], worker=self.worker, lease=queue.lease, singles=singles, on_poison=self._on_poison
        )

    def run(self, entity_work: EntityWork) -> RunResult:
        if (paused := self._paused()) is not None:
            return paused
        self.store.serve(self.queue, declared=self.declared)
        claim = self.store.begin_listing(
            self.sync.id, self.sync.client.id, worker=self.worker, lease=self.queue.lease, full=self.full,
            since=None if self.sync.incremental is None else self.sync.incremental.field,
        )  # fmt: skip
        if isinstance(claim, Busy):
            message = f"{self.sync.id} is already being run by {claim.worker} since {claim.since:%H:%M:%S} UTC; nothing to do"
            return self.conclusion.result("skipped", stopped="running", message=message)
        try:
            # Before listing: jobs of a dead worker go back and are renewed in place, in place of getting a follow-up each.
            self.store.rescue([self.lane.queue], on_poison=self._on_poison)
            if claim.is_filtered:
                # The listing shows them no more: what made them new is below the mark.
                self.progress.queued += self.store.requeue_failed(self.lane)
            self._work(claim, entity_work)
            return self._conclude(claim)
        finally:
            self.store.release_listing(claim)

    def _paused(self, *, dry_run: bool = False) -> RunResult | None:
        """Return what a run of a paused client comes to; it sends no request."""
        shut = self.gate.shut(dry_run=dry_run)
        if shut is None:
            return None
        until, reason = shut
        return self.conclusion.result("paused", stopped="paused", until=until, message=paused_text(until, reason))

    def _work(self, claim: ListingClaim, entity_work: EntityWork) -> None:
        with (
            LeaseKeeper(self.store, lease=self.queue.lease, listing=claim, on_lost=self._on_lost) as keeper,
            Crew(self.sync.concurrency, on_free=self._wake if self.limited else None) as crew,
            Crew(self.sync.concurrency, name="syncs-step") as steps,
        ):
            self.hands = hands = Hands(
                self.store, {self.sync.id: entity_work}, crew, steps, keeper, self.tracker, self.progress, self.worker, self.halt,
                prompt=[self.sync.id] if self.limited else [], told=self.told,
            )  # fmt: skip
            prober = Prober(self.store, hands, [self.lane], lease=self.queue.lease, on_poison=self._on_poison)
            lister = Lister(
                self.sync, self.store, claim, self.lane, entity_work.connect, entity_work.judge, entity_work.judge_page,
                Waking(self.tracker, self._wake), self.progress, claim.full, self.limit, lambda: self._lists_on(hands),
                self._marker(claim.mark, claim.next_mark), lambda: self.gate.page_came(hands.health),
            )  # fmt: skip
            threads = [threading.Thread(target=self._guard, args=(lambda: self._list(lister, prober),), name="syncs-list")]
            threads += [
                threading.Thread(target=self._guard, args=(lambda: self._batches(hands),), name=f"syncs-batch-{number}")
                for number in range(BATCHES)
            ]
            for thread in threads:
                thread.start()
            try:
                for thread in threads:
                    while thread.is_alive():
                        thread.join(0.1)
                        if self.stop.is_set():
                            self._end()
            finally:
                # Also on KeyboardInterrupt: what is in hand is finished or released before the claims are let go.
                self._end()
                for thread in threads:
                    thread.join()
            if not self.errors:
                self._sweep(claim, entity_work)
        if self.errors:
            raise self.errors[0]

    def _sweep(self, claim: ListingClaim, entity_work: EntityWork) -> None:
        """Delete what a complete listing no longer has, as far as the listing proves it (law 8)."""
        ended = self.ended
        if ended is None or ended.stopped != "end" or not self.sync.delete_missing or self.stop.is_set() or claim.is_filtered:
            return
        if self.progress.later:
            # They are there, but this listing has not stamped them; the next one that finds them at rest sweeps.
            return
        if self.progress.flawed:
            self.swept = SweepResult(0, flawed_text(self.progress.flawed))
            return
        if claim.flawed:
            self.swept = SweepResult(0, f"{flawed_text(claim.flawed)}; they were listed before it was interrupted")
            return
        self.swept = self.store.sweep(
            claim, self.lane, max_share=self.sync.max_delete_share, delete=entity_work.deletes(), gone=self.progress.gone,
            allow=self.allow_deletes, how=how_to_allow(self.sync), doubt=ended.doubt,
        )  # fmt: skip
        for key, error in self.swept.errors:
            self.progress.fail(key, error)

    def _marker(self, mark: Any, kept: Any) -> Marker | None:
        """Return what follows an incremental listing."""
        since = self.sync.incremental
        return None if since is None else Marker(since, mark=mark, kept=kept, now=self.store.now())

    def _guard(self, work: Callable[[], None]) -> None:
        """Run a thread's work; an error of ours ends the whole run and is raised again by it."""
        try:
            work()
        except BaseException as error:  # noqa: BLE001  # carried to the thread that called `run`, which raises it
            self.errors.append(error)
            self._end()

    def _end(self) -> None:
        self.halt.set()
        self._wake()

    def _wake(self) -> None:
        with self.news:
            self.news.notify_all()

    def _on_poison(self, one: Poisoned) -> None:
        if one.type == self.sync.id:
            self.progress.fail(one.key or f"job {one.id}", one.message)
        # A rescue takes back the jobs of the whole queue, other types' too.
        tell_poisoned(one, None if one.type == self.sync.id else load().job_types.get(one.type))

    def _on_lost(self) -> None:
        self.ended = Ended("error", "another process took this sync over")
        self._end()

    def _goes_on(self, hands: Hands) -> bool:
        return not self.halt.is_set() and self.sync.client.id not in hands.health.paused

    def _lists_on(self, hands: Hands) -> bool:
        """Tell whether to ask for another page; a claim reads pauses by itself, a listing looks for those of other processes."""
        if self._goes_on(hands):
            self.gate.lists_on(hands.health)
        return self._goes_on(hands)

    def _list(self, lister: Lister, prober: Prober) -> None:
        try:
            if self.gate.opens(prober, self.hands.health, halt=self.halt):
                self._list_out(lister)
        except LostLease:
            self._on_lost()
        finally:
            self.gate.close(prober)
            self.progress.listing_ended = True
            self._wake()

    def _list_out(self, lister: Lister) -> None:
        ended = self.gate.ended(lister.run(), self.hands.health)
        if ended.stopped in ("loop", "limit", "short") or (ended.stopped == "error" and not ended.trouble):
            # Nothing to resume: the next run looks at the whole listing again.
            self.store.abandon_listing(lister.claim)
        if ended.stopped in ("error", "loop", "short"):
            self.store.notices.note(self.sync.client.id, self.sync.id, ended.stopped, ended.message)
        self.ended = self.ended or ended

    def _batches(self, hands: Hands) -> None:
        claimer = self.claimer
        while self._goes_on(hands):
            hands.health.hold()
            # Asked before the claim: a page stored in between must not be missed.
            last_look = self.progress.listing_ended
            if hands.health.in_doubt(self.sync.id):
                # The other batch is about to tell; what is claimed now would only go back.
                with self.news:
                    self.news.wait(POLL)
                continue
            # From a queue with limits no more than can begin: there a claim is a start.
            jobs, single = claimer.claim(min(self.sync.batch, hands.crew.free) if self.limited else self.sync.batch)
            if jobs:
                (hands.entities if single else hands.batch)(jobs)
                claimer.worked(jobs)
                continue
            if last_look and not (self.limited and self.store.is_due([self.lane])):
                return
            with self.news:
                if self.limited or not self.progress.listing_ended:
                    self.news.wait(self._wait())

    def _wait(self) -> float:
        """Return the seconds until the next look for due jobs."""
        hint = self.store.wait_hint([self.lane.queue]) if self.queue.rate is not None else None
        return POLL if hint is None else min(POLL, hint)

    def _conclude(self, claim: ListingClaim) -> RunResult:
        # A short pause may be over by now; it has ended this run all the same.
        standing = self.store.standing(self.sync.client.id)
        pausing = standing.pausing or standing.reopening or self.hands.health.paused.get(self.sync.client.id)
        return self.conclusion.of(
            self.ended or Ended("stop", "stopped"), pausing=pausing, swept=self.swept, stopped=self.stop.is_set()
        )

    def preview(self, entity_work: EntityWork) -> RunResult:
        if (paused := self._paused(dry_run=True)) is not None:
            return paused
        since = self.sync.incremental
        mark = None if since is None or self.full else self.store.listing_mark(self.sync.id, since.field)
        looking = Preview(
            self.sync, self.store, self.lane, entity_work, self.progress, self.tracker, full=self.full, limit=self.limit,
            stop=self.stop, marker=self._marker(mark, None), is_filtered=mark is not None, allow_deletes=self.allow_deletes,
        )  # fmt: skip
        ended = looking.run()
        state = "failed" if ended.stopped in ("error", "loop", "paused") else "success"
        if state == "success" and (looking.refused or ended.stopped == "short"):
            state = "partial"
        message = "; ".join(filter(None, (looking.refused, ended.message)))
        return replace(self.conclusion.result(state, stopped=ended.stopped, message=message), **looking.found)
