"""Processes queues with one worker, for `syncs work` and the flow `work`."""

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial

from sqlalchemy.exc import SQLAlchemyError

from flows.database_outage import GIVE_UP_AFTER, DatabaseRetry
from flows.enqueue import using
from flows.execution.failure_report import report_poisoned
from flows.maintenance import tidy
from flows.notices.notifier import Notifier
from flows.progress import Progress, SilentTracker, Tracker
from flows.project.registry import Registry
from flows.worker.batch_runner import Reporting
from flows.worker.executor_factory import OpenClients, make_executors
from flows.worker.feed import InterruptedListings
from flows.worker.limits import Signals, WorkerLimits
from flows.worker.worker_assembly import Worker
from flows.worker.worker_config import WorkerConfig, choose
from jobs import JobsError
from jobs.claiming.poison import PoisonJob
from jobs.db.change_listener import ChangeListener
from jobs.store import JobStore

log = logging.getLogger("syncs.work")

STALLED = 5.0
"""Seconds in which no thread got free, after which jobs that were claimed ahead go back: another worker may have threads."""


@dataclass(frozen=True, slots=True)
class WorkResult:
    """What a worker did. `processed` counts attempts: also those that failed, wait for a retry, or went on to a phase."""

    processed: int
    succeeded: int
    failed: int
    seconds: float
    #: What this process lacked at the end, by type of job: their jobs stay queued.
    lacking: Mapping[str, str] = field(default_factory=dict)
    #: Up to 100 entities or jobs that failed for good, (key, message).
    failures: tuple[tuple[str, str], ...] = ()


def work(
    store: JobStore,
    registry: Registry,
    *,
    queues: Sequence[str] = (),
    types: Sequence[str] = (),
    phases: Sequence[str] = (),
    time_limit: float | None = None,
    max_jobs: int | None = None,
    until_empty: bool = False,
    concurrency: int | None = None,
    at_once: Mapping[str, int] | None = None,
    grace: float | None = None,
    memory_limit: float | None = None,
    by_queue: bool = False,
    tracker: Tracker | None = None,
    stop: threading.Event | None = None,
    now: threading.Event | None = None,
    wakes: ChangeListener | None = None,
    listings: Callable[[Sequence[str], threading.Event], InterruptedListings] | None = None,
) -> WorkResult:
    """Process queues.

    Without a limit it goes on until it is stopped: while idle it waits for jobs, and for a database that is away. A job whose
    type has a `timeout` ends with it, and the worker goes on; without one a job that hangs keeps its lease and its thread.

    Args:
        store: where the jobs are.
        registry: what is declared; jobs of other types stay where they are.
        queues: only these; none means all that are declared.
        types: only these syncs and job types; none means all.
        phases: only these phases, of the job types that have them; none means everything.
        time_limit: seconds after which no further job is begun; `None` or 0 means none.
        max_jobs: take at most so many.
        until_empty: end when nothing is due, in place of waiting.
        concurrency: jobs at once; by default the largest number of the types'.
        at_once: jobs at once on this worker, by type or by `type:phase`.
        grace: seconds after a stop until the jobs in hand go back; `None` waits for them.
        memory_limit: megabytes after which it ends, to be started anew.
        by_queue: also leave each declared queue after its own `time_limit`, so that a scheduled worker comes to all of them.
        tracker: sees each step.
        stop: set it to begin no further job and finish those in hand.
        now: set it to put the jobs in hand back; it is set here when the grace is over.
        listings: makes what continues the interrupted listings of these syncs until that event is set; without it, they are left.
        wakes: how it waits while there is nothing to do; by default until the database tells that something may have come.

    Raises:
        UnknownName: a queue, type or phase that nothing declares.
        SettingsError: no client of these queues has the settings it needs.
        DatabaseLost: the database was away for half a minute, and `until_empty` asks for an end.
    """
    config = choose(registry, queues=queues, types=types, phases=phases, concurrency=concurrency, at_once=at_once)
    limits = WorkerLimits(
        time_limit=time_limit,
        max_jobs=max_jobs,
        until_empty=until_empty,
        grace=grace,
        memory_limit=memory_limit,
        by_queue=by_queue,
    )
    signals = Signals(stop or threading.Event(), now or threading.Event())
    started, progress = time.monotonic(), Progress()
    database = DatabaseRetry(GIVE_UP_AFTER if until_empty else None, stop=signals.stop, now=signals.now)
    with ExitStack() as stack:
        stack.enter_context(using(store, registry))
        if registry.types:
            store.declare_types(registry.types)
        database(lambda: store.relocations.apply(config.locations))
        for line in registry.undeclared(database(store.relocations.lanes)):
            log.warning("%s", line)
        for queue in config.queues.values():
            database(partial(store.queues.register, queue, declared=queue.id in config.declared))
        wakes = stack.enter_context(ChangeListener(store.db)) if wakes is None else wakes
        link, run = ("", "") if tracker is None else tracker.flow_run
        notifier = stack.enter_context(Notifier(store, registry, link=link, run=run))
        notifier.catch_up()

        def on_poison(one: PoisonJob) -> None:
            progress.fail(one.key or f"job {one.id}", one.message)
            report_poisoned(one, registry.job_types.get(one.type))

        clients = stack.enter_context(OpenClients(store, stop=signals.stop))
        worker = Worker(
            store,
            config,
            lambda control: make_executors(config, store, clients, control=control),
            signals=signals,
            reporting=Reporting(tracker or SilentTracker(), progress, notifier),
            waker=wakes,
            retry_database=database,
            on_poison=on_poison,
            stalled=STALLED,
            syncs=registry.syncs.values(),
        )
        stack.enter_context(worker)
        worker.run(
            limits,
            database=database,
            tidy=lambda: _tidy(store, config, signals.halt, notifier),
            listings=None if listings is None else listings([sync.id for sync in config.syncs], signals.halt),
        )
    return WorkResult(
        processed=worker.runner.finished,
        succeeded=progress.succeeded + progress.unchanged + progress.gone,
        failed=progress.failed,
        seconds=time.monotonic() - started,
        lacking=worker.health.lacks.texts({lane.type for lane in config.lanes}),
        failures=tuple(progress.failures),
    )


def _tidy(store: JobStore, config: WorkerConfig, halt: threading.Event, notifier: Notifier) -> None:
    # Notices that other processes did not send, and those that a channel did not take the last time.
    notifier.catch_up()
    try:
        tidy(store, stop=halt.is_set)
        # Jobs of dead workers go back to where they were claimed; their declaration may have moved since.
        store.relocations.apply(config.locations)
    except (SQLAlchemyError, JobsError) as error:
        # The next call, here or in another worker, does it.
        log.warning("not tidied: %s", type(error).__name__)
