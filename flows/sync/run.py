"""Runs a sync once: a thread lists pages while a worker works their jobs, then the sweep and the result."""

import threading
import time
from dataclasses import replace
from functools import partial
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from flows.database_outage import DatabaseRetry, is_outage, lost
from flows.declarations.sync import Sync
from flows.execution.entity_executor import EntityExecutor
from flows.execution.failure_report import report_poisoned
from flows.notices.notifier import Notifier
from flows.pauses.client_health import Health
from flows.progress import SilentTracker, Tracker, WakingTracker
from flows.project.registry import load
from flows.run_result import RunResult
from flows.sync.conclusion import Conclusion, paused_text
from flows.sync.dry_run import DryRun
from flows.sync.history.run_row import PYTHON, WORK, RunHistory
from flows.sync.listing import Lister
from flows.sync.listing_thread import ListingThread
from flows.sync.pause_gate import PauseGate
from flows.sync.run_lock import RunOptions, take_run_lock
from flows.sync.sweep import sweep
from flows.sync.watermark import Watermark
from flows.worker.batch_runner import Reporting
from flows.worker.executor_factory import OpenClients, entity_executor
from flows.worker.feed import DEFAULT_WAIT, Feed, LocalWaker
from flows.worker.heartbeat import Heartbeat
from flows.worker.limits import Signals, WorkerLimits
from flows.worker.worker_assembly import Worker
from flows.worker.worker_config import config_of_run
from jobs import JobsError, Queue
from jobs.claiming.poison import PoisonJob
from jobs.errors import DatabaseLost
from jobs.job import Lane
from jobs.listing.listing_claim import ListingBusy, ListingClaim
from jobs.listing.sweep import SweepResult
from jobs.process_identity import this_worker
from jobs.store import JobStore


def run(
    sync: Sync,
    store: JobStore,
    *,
    full: bool = False,
    limit: int | None = None,
    dry_run: bool = False,
    allow_deletes: bool = False,
    wait: float | None = 0.0,
    new_pass: bool = False,
    tracker: Tracker | None = None,
    stop: threading.Event | None = None,
    queue: Queue | None = None,
    declared: bool = False,
    started_by: str = PYTHON,
) -> RunResult:
    """Run a sync once, here and now.

    Ends when the listing has ended and no job of the sync is due or waited for. Retries that are further away stay for the next
    run or `syncs work`.

    Args:
        sync: the declaration.
        store: where jobs and records are.
        full: list all, also where the sync is incremental, and work every listed entity, changed or not.
        limit: stop listing after so many entities.
        dry_run: list and compare, write nothing.
        allow_deletes: a person has confirmed that more than `max_delete_share` of the records may be deleted by this run.
        wait: seconds; a pause that the remote side asked for or that generic trouble caused, and the delay of a retry, are
            waited for if each ends within it. A refused sign-in, a window and a person's pause end the run at once. Another
            process that runs the sync is waited for as long. 0 waits for nothing; `None` waits `DEFAULT_WAIT`, but for no other
            process.
        new_pass: begin a new listing, also if there is an unfinished one.
        tracker: sees each step.
        stop: set it to end early: jobs in hand are finished, the others released, the listing resumes next time.
        queue: the declaration of the sync's queue.
        declared: whether that queue is declared; its concurrency then holds for all workers together.
        started_by: what `syncs runs` says.

    Raises:
        SettingsError: a setting of the client is missing or wrong; nothing was written.
        DatabaseLost: the database went away; what was committed stands, the rest is resumed by the next run.
        SQLAlchemyError: it failed in another way; the same holds.
    """
    options = RunOptions(full, limit, dry_run, allow_deletes, wait=wait, new_pass=new_pass)
    queue, stop, started = queue or Queue(sync.queue_id), stop or threading.Event(), time.monotonic()
    try:
        with OpenClients(store, stop=stop) as clients:
            executor = entity_executor(sync, store, clients, allow_deletes=allow_deletes, dry_run=dry_run)
            tracker = tracker or SilentTracker()
            link, flow_run = tracker.flow_run
            history = RunHistory(sync, store, started_by=started_by, flow_run=flow_run, wait=wait, lease=queue.lease)
            with Notifier(store, clients=[sync.client], link=link, run=flow_run) as notifier, history:
                reporting = Reporting(tracker, observer=notifier)
                running = _Run(executor, store, options, history, queue=queue, declared=declared, reporting=reporting, stop=stop)
                result = running.preview() if dry_run else running.run()
                connections, _ = clients.open(sync.client)
                waited = round(running.feed.waited, 3)
                result = replace(result, seconds=time.monotonic() - started, requests=connections.requests, waited=waited)
                if not dry_run:
                    history.ended(result)
                    notifier.ended(sync, result, by_hand=stop.is_set())
                return result
    except (JobsError, SQLAlchemyError) as error:
        if is_outage(error) and not isinstance(error, DatabaseLost):
            raise lost(error) from error
        raise


def continue_listing(sync: Sync, store: JobStore, *, queue: Queue, declared: bool, stop: threading.Event) -> RunResult | None:
    """Continue the interrupted listing of a sync, for a worker, which works its jobs.

    Args:
        sync: the declaration.
        store: where jobs and records are.
        queue, declared, stop: as for `run`.

    Returns:
        How the listing ended; `None` if another process has it or has ended it, or if it listed something else.

    Raises:
        Exception: as `run` does.
    """
    history = RunHistory(sync, store, started_by=WORK, lease=queue.lease)
    with OpenClients(store, stop=stop) as clients, Notifier(store, clients=[sync.client]) as notifier, history:
        running = _Run(
            entity_executor(sync, store, clients, allow_deletes=False),
            store,
            RunOptions(),
            history,
            queue=queue,
            declared=declared,
            reporting=Reporting(observer=notifier),
            stop=stop,
        )
        result = running.run(works=False)
        history.ended(result)
        if result.state in ("failed", "partial") and not stop.is_set():
            notifier.ended(sync, result)
    return None if result.state == "skipped" else result


class _Run:
    """The state of one run."""

    def __init__(
        self,
        executor: EntityExecutor,
        store: JobStore,
        options: RunOptions,
        history: RunHistory,
        *,
        queue: Queue,
        declared: bool,
        reporting: Reporting,
        stop: threading.Event,
    ) -> None:
        self._executor, self._store, self._options, self._history = executor, store, options, history
        self._sync = sync = executor.sync
        self._queue, self._declared = queue, declared
        self._reporting, self._progress = reporting, reporting.progress
        self._signals = Signals(stop)
        self._waker = LocalWaker()
        self._lane = Lane(sync.queue_id, sync.client.id, sync.id)
        self._gate = PauseGate(store, sync, worker=this_worker(), observer=reporting.observer)
        self._conclusion = Conclusion(sync, store, self._lane, self._progress, options.allow_deletes)
        wait = DEFAULT_WAIT if options.wait is None else options.wait
        self.feed = Feed(sync.client.id, self._progress, reporting.tracker, store.views.now, wait=wait)
        self._listing = ListingThread(sync, store, self._gate, feed=self.feed, signals=self._signals, wake=self._waker.wake)

    def run(self, *, works: bool = True) -> RunResult:
        """List and work, sweep, and conclude; or list and sweep, and leave the jobs."""
        if works:
            self._history.begin()
        if (paused := self._paused()) is not None:
            return paused
        options = self._options
        claim = take_run_lock(
            self._sync,
            self._store,
            self.feed,
            options,
            lease=self._queue.lease,
            stop=self._signals.stop,
            only_unfinished=not works,
        )
        if claim is None or isinstance(claim, ListingBusy):
            return self._conclusion.of_skipped(claim)
        try:
            self._history.claimed(claim.claim_no)
            self._store.queues.register(self._queue, declared=self._declared)
            # Before listing: jobs of a dead worker are then queued again and updated in place, and get no follow-up.
            self._store.rescues.run([self._lane.queue], on_poison=self._on_poison)
            if claim.is_filtered:
                # An incremental listing shows them no more: they changed before the watermark.
                self._progress.queued += self._store.failed_entities.requeue(self._lane)
            with self._worker(claim) as worker:
                self._work(claim, worker, works=works)
                swept = self._sweep(claim)
            if not works:
                return self._conclusion.of_listing(self._listing.ended, swept)
            return self._conclusion.of(self._listing.ended, worker.health, swept=swept, stopped=self._signals.stop.is_set())
        finally:
            self._store.listings.release(claim)

    def preview(self) -> RunResult:
        """List and compare, and write nothing."""
        if (paused := self._paused()) is not None:
            return paused
        since, options = self._sync.incremental, self._options
        mark = None if since is None or options.full else self._store.listings.high_water_mark(self._sync.id, since.field)
        return DryRun(
            self._executor,
            self._store,
            self._lane,
            reporting=self._reporting,
            full=options.full,
            limit=options.limit,
            allow_deletes=options.allow_deletes,
            stop=self._signals.stop,
            watermark=self._watermark(mark, None),
            is_filtered=mark is not None,
        ).run(self._conclusion)

    def _paused(self) -> RunResult | None:
        """Return the result of a run whose client is paused; it sends no request."""
        if (blocked := self._gate.blocked_until(self.feed, dry_run=self._options.dry_run)) is None:
            return None
        until, reason = blocked
        return self._conclusion.result("paused", stopped="paused", until=until, message=paused_text(until, reason))

    def _worker(self, claim: ListingClaim) -> Worker:
        singles = self._sync.entity_task_runs if self._reporting.tracker.shows_entities else 0
        return Worker(
            self._store,
            config_of_run(self._sync, self._queue, declared=self._declared, singles=singles),
            lambda _: {self._sync.id: self._executor},
            signals=self._signals,
            reporting=self._reporting,
            heartbeat=Heartbeat(self._store, lease=self._queue.lease, listing=claim, on_lost=self._listing.lost),
            waker=self._waker,
            on_poison=self._on_poison,
            syncs=[self._sync],
        )

    def _work(self, claim: ListingClaim, worker: Worker, *, works: bool) -> None:
        """List and work side by side, until the listing has ended and nothing is due; or list only."""
        signals, listing = self._signals, self._listing
        listing.start(self._lister(claim, worker.health), worker)
        try:
            if works:
                worker.run(WorkerLimits(), database=DatabaseRetry(0.0, stop=signals.stop, now=signals.now), feed=self.feed)
            else:
                listing.wait()
        finally:
            listing.end()
        listing.raise_error()

    def _lister(self, claim: ListingClaim, health: Health) -> Lister:
        return Lister(
            self._executor,
            self._store,
            claim,
            self._lane,
            reporting=replace(self._reporting, tracker=WakingTracker(self._reporting.tracker, self._waker.wake)),
            full=claim.full,
            limit=self._options.limit,
            may_go_on=partial(self._gate.may_list, health, self._signals),
            on_page=partial(self._gate.on_page, health),
            watermark=self._watermark(claim.mark, claim.next_mark),
        )

    def _sweep(self, claim: ListingClaim) -> SweepResult:
        ended = self._listing.ended
        if ended is None or self._signals.stop.is_set():
            return SweepResult(0)
        allow = self._options.allow_deletes
        return sweep(self._executor, self._store, claim, self._lane, ended=ended, progress=self._progress, allow=allow)

    def _watermark(self, mark: Any, kept: Any) -> Watermark | None:
        """Return what follows an incremental listing."""
        since = self._sync.incremental
        return None if since is None else Watermark(since, mark=mark, kept=kept, now=self._store.views.now())

    def _on_poison(self, one: PoisonJob) -> None:
        is_own = one.type == self._sync.id
        self._progress.retrying.pop(one.id, None)
        if is_own:
            self._progress.fail(one.key or f"job {one.id}", one.message)
        # A rescue requeues the jobs of the whole queue, also those of other types.
        report_poisoned(one, None if is_own else load().job_types.get(one.type))
