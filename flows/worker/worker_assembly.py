"""Assembles a worker: connects its claims, threads, leases, probes and finishes to each other."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from types import TracebackType
from typing import Any, Self, TypeVar

from flows.database_outage import DatabaseRetry
from flows.declarations.sync import Sync
from flows.execution.client_test import tests_of
from flows.execution.executor_protocol import Executor, JobControl
from flows.pauses.client_health import Health
from flows.pauses.self_tests import SelfTests
from flows.progress import WakingTracker
from flows.worker.batch_runner import BatchRunner, Reporting
from flows.worker.claims import Claimer
from flows.worker.feed import Feed, InterruptedListings, Waker
from flows.worker.heartbeat import Heartbeat
from flows.worker.limits import Signals, WorkerLimits
from flows.worker.pool import ThreadPool
from flows.worker.probe import Prober
from flows.worker.worker_config import WorkerConfig
from flows.worker.worker_loop import WorkerLoop
from jobs.claiming.claim import OnPoison
from jobs.job import Job
from jobs.process_identity import this_worker
from jobs.store import JobStore

T = TypeVar("T")


def _forget_pace(executors: Mapping[str, Executor], client: str) -> None:
    for executor in executors.values():
        if executor.client.id == client:
            executor.connections.forget_pace()


def _forget_refusals(executors: Mapping[str, Executor], client: str) -> None:
    for executor in executors.values():
        if executor.client.id == client:
            executor.connections.forget_refusals()


def _once(work: Callable[[], T]) -> T:
    return work()


class Worker:
    """The parts of a worker, connected to each other. Its leases are renewed, and its threads run, within its `with` block.

    Args:
        store: where the jobs are.
        config: what it serves.
        make: makes the executors by type, given what they may ask the worker.
        signals: end it.
        reporting: who is informed.
        heartbeat: renews the leases; by default only those of jobs and probes.
        waker: is woken after each page, each finish, and when a thread gets free.
        retry_database: does database work, again while the database is away; by default it is done once.
        on_poison: called with each job that failed because it keeps killing its workers.
        respect_pauses: whether pauses keep jobs in hand from beginning.
        stalled: see `BatchRunner`.
        syncs: those that are declared; the listing of one tests its client, see `flows.execution.client_test`.
    """

    def __init__(
        self,
        store: JobStore,
        config: WorkerConfig,
        make: Callable[[JobControl], Mapping[str, Executor]],
        *,
        signals: Signals,
        reporting: Reporting,
        heartbeat: Heartbeat | None = None,
        waker: Waker | None = None,
        retry_database: Callable[[Callable[[], Any]], Any] = _once,
        on_poison: OnPoison | None = None,
        respect_pauses: bool = True,
        stalled: float | None = None,
        syncs: Iterable[Sync] = (),
    ) -> None:
        self.name = this_worker()
        self._config = config
        self._waker = waker
        self._heartbeat = heartbeat or Heartbeat(store, lease=config.lease)
        # A run claims whole batches ahead: the end of one wakes its loop early enough, and each wake-up may cost a claim.
        wake = waker.wake if waker is not None and (config.prefetch is None or config.limited) else None
        self._pool = ThreadPool(config.threads, limits=config.limits, on_idle=wake)
        self._step_pool = ThreadPool(config.threads, name="syncs-step")
        executors = make(JobControl(self._heartbeat.is_lost, self._may_continue, self._pool.restart))
        tests = tests_of(executors, syncs)
        self.health = Health(
            store,
            {name: executor.client for name, executor in executors.items()},
            worker=self.name,
            retry_database=retry_database,
            observer=reporting.observer,
            respect_pauses=respect_pauses,
            tests=SelfTests(tests),
            forget_pace=partial(_forget_pace, executors),
            forget_refusals=partial(_forget_refusals, executors),
        )
        if wake is not None:
            reporting = replace(reporting, tracker=WakingTracker(reporting.tracker, wake))
        self.runner = BatchRunner(
            store,
            executors,
            pool=self._pool,
            step_pool=self._step_pool,
            heartbeat=self._heartbeat,
            health=self.health,
            signals=signals,
            reporting=reporting,
            retry_database=retry_database,
            flush_immediately=config.flush_immediately,
            stalled=stalled,
        )
        self._lanes = [lane for lane in config.lanes if lane.type in executors]
        self._claimer = Claimer(
            store, self._lanes, worker=self.name, lease=config.lease, singles=config.singles, on_poison=on_poison
        )
        self.prober = Prober(
            store, self.runner, self._lanes, tests=tests, worker=self.name, lease=config.lease, on_poison=on_poison
        )

    def __enter__(self) -> Self:
        self._heartbeat.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._step_pool.close()
        self._pool.close()
        self._heartbeat.__exit__(kind, error, trace)

    def run(
        self,
        limits: WorkerLimits,
        *,
        database: DatabaseRetry,
        feed: Feed | None = None,
        tidy: Callable[[], object] | None = None,
        listings: InterruptedListings | None = None,
    ) -> None:
        """Work until something ends it.

        Args:
            limits: what ends it.
            database: how long it waits for the database.
            feed: a listing that queues its jobs, and probes its client while it goes on; without one the loop probes clients.
            tidy: called now and then, in a thread of its own.
            listings: those that it continues beside the jobs.

        Raises:
            DatabaseLost: the database stayed away.
            Exception: an error of our own code.
        """
        assert self._waker is not None
        WorkerLoop(
            self.runner,
            self._claimer,
            self.prober,
            config=self._config,
            lanes=self._lanes,
            limits=limits,
            waker=self._waker,
            database=database,
            feed=feed,
            tidy=tidy,
            listings=listings,
        ).run()

    def _may_continue(self, job: Job) -> bool:
        """Tell whether a job may go on to its next phase under the same claim."""
        signals = self.runner.signals
        return not signals.is_ending and self.health.may_begin(job)
