"""Works batches of claimed jobs: threads execute them, and results are finished together as they come."""

import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextvars import copy_context
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from operator import attrgetter
from typing import Any, TypeVar

from flows.execution.executor_protocol import Executor
from flows.execution.job_counts import count, label_of, log_each, name_of, sum_up
from flows.notices.observer import NULL_OBSERVER, Observer
from flows.pauses.client_health import Health
from flows.progress import Progress, SilentTracker, Tracker
from flows.worker.heartbeat import Heartbeat
from flows.worker.limits import Signals
from flows.worker.pool import ThreadPool
from flows.worker.result_buffer import BufferedResult, ResultBuffer
from flows.worker.watchdog import Task, TaskSpec
from jobs.job import Job, JobResult
from jobs.outcome import one_line
from jobs.store import JobStore

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Reporting:
    """Who is informed of the work of a worker.

    Args:
        tracker: sees each step.
        progress: the numbers.
        observer: is informed of pauses that begin and end here, and of jobs that fail for good.
    """

    tracker: Tracker = field(default_factory=SilentTracker)
    progress: Progress = field(default_factory=Progress)
    observer: Observer = NULL_OBSERVER


@dataclass(slots=True)
class BatchRunner:
    """Works batches of jobs for one process. Several batches may be in hand at once and share the threads.

    Args:
        store: where the jobs are.
        executors: by type of job.
        pool: the threads that execute jobs.
        step_pool: the threads that show single jobs, see `entities`.
        heartbeat: renews the claims.
        health: of the clients.
        signals: end it.
        reporting: who is informed.
        retry_database: does database work, again while the database is away.
        flush_immediately: types of jobs that begin next, and whose results do not wait for others, because another job may wait
            for their finish.
        stalled: seconds in which no thread took a job, after which those that have not begun go back; `None` keeps them.
    """

    store: JobStore
    executors: Mapping[str, Executor]
    pool: ThreadPool
    step_pool: ThreadPool
    heartbeat: Heartbeat
    health: Health
    signals: Signals
    reporting: Reporting
    retry_database: Callable[[Callable[[], Any]], Any]
    flush_immediately: Collection[str] = ()
    stalled: float | None = None
    #: Jobs that were finished, and jobs that went back without having been worked.
    finished: int = 0
    released: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def in_hand(self) -> int:
        """Jobs that wait for a thread or run."""
        return self.pool.in_hand + self.step_pool.in_hand

    @property
    def free(self) -> int:
        """How many jobs could begin at once."""
        return max(0, self.pool.free - self.step_pool.in_hand)

    def batch(self, jobs: Sequence[Job]) -> list[JobResult]:
        """Work a batch as one step. Returns when each of its jobs is finished or put back."""
        self._begin(jobs)
        settled: list[JobResult] = []

        def work() -> Any:
            settled.extend(Batch(self, jobs).work())
            return sum_up(settled)

        self.reporting.tracker.batch([name_of(job) for job in jobs], work)
        return settled

    def entities(self, jobs: Sequence[Job]) -> None:
        """Work a batch as one step for each entity, each finished as soon as it is worked."""
        self._begin(jobs)
        tracker, results = self.reporting.tracker, ResultBuffer(len(jobs))

        def step(job: Job) -> None:
            tracker.entity(name_of(job), lambda: sum_up(self._alone(job)))

        tasks = self.step_pool.submit(jobs, TaskSpec(step, results.put))
        errors: list[BaseException] = []
        left = len(tasks)
        while left:
            arrived = results.take()
            left -= len(arrived)
            errors += [result.error for result in arrived if result.error is not None]
            if errors or self.signals.halt.is_set():
                back = self.step_pool.withdraw(tasks)
                left -= len(back)
                results.expect_less(len(back))
                _collect_error(errors, partial(self.release, [task.item for task in back]))
        if errors:
            raise errors[0]

    def submit(self, jobs: Sequence[Job], results: ResultBuffer) -> list[Task]:
        """Hand jobs to the threads."""
        call = self._execute
        if self.reporting.tracker.shows_entities:
            # What a job logs is shown where its batch is shown.
            context = copy_context()
            call = lambda job: context.copy().run(self._execute, job)  # noqa: E731
        tasks: list[Task] = []
        for lane, of_lane in groupby(jobs, key=attrgetter("lane")):
            executor = self.executors[lane.type]
            spec = TaskSpec(
                call,
                partial(self._completed, results),
                timeout=executor.timeout,
                late=partial(_timed_out, executor),
                group=(lane.type, lane.phase),
                keys=(lane.type, f"{lane.type}:{lane.phase}"),
                first=lane.type in self.flush_immediately,
                label=label_of,
            )
            tasks += self.pool.submit(of_lane, spec)
        return tasks

    def finish(self, dones: Sequence[JobResult]) -> list[JobResult]:
        """Finish worked jobs: together, except those with a transaction of their own."""
        if not dones:
            return []
        settled: list[JobResult] = []
        together = [done for done in dones if done.finish is None]
        if together:
            settled += self.retry_database(partial(self.store.finish, together))
        for done in dones:
            if done.finish is not None:
                settled.append(self.retry_database(partial(done.finish, done)))
        self.heartbeat.remove([done.job for done in dones])
        self.health.report(settled)
        with self._lock:
            # What our own process could not work goes back, a little later, so that other jobs come first.
            back = sum(one.verdict.ours for one in settled)
            self.finished += len(settled) - back
            self.released += back
            count(self.reporting.progress, settled)
        log_each(settled)
        self.reporting.tracker.progress(self.reporting.progress)
        for name, of_type in groupby(settled, key=_type_of):
            self.executors[name].on_settled(list(of_type))
        if any(one.state == "failure" for one in settled):
            self.reporting.observer.failed()
        return settled

    def release(self, jobs: Sequence[Job], why: str = "had not begun it when its client was paused") -> None:
        """Put jobs back that were not worked; no attempt is used.

        After a stop that is the reason, whatever `why` says, and so is what this process lacks for their type.
        """
        lacks = self.health.lacks
        for name in {job.lane.type for job in jobs}:
            some = [job for job in jobs if job.lane.type == name]
            why = "was told to stop" if self.signals.is_ending else why
            if lacks.known and (text := lacks.text(name)):
                why = f"could not work it: {text}"
            self.retry_database(partial(self.store.release, some, reason=one_line(f"put back by a worker that {why}")))
            self.heartbeat.remove(some)
        with self._lock:
            self.released += len(jobs)

    def _begin(self, jobs: Sequence[Job]) -> None:
        self.heartbeat.add(jobs)
        for name, of_type in groupby(jobs, key=lambda job: job.lane.type):
            self.retry_database(partial(self.executors[name].prepare, list(of_type)))

    def _alone(self, job: Job) -> list[JobResult]:
        """Work one job in this thread; in another one if it has a time-out."""
        if self.executors[job.lane.type].timeout is not None:
            return Batch(self, [job]).work()
        done = self._execute(job)
        if done is None:
            self.release([job])
            return []
        return self.finish([self.health.on_result(done)])

    # -- in the threads of the pool --------------------------------------------------------------------------------------------

    def _execute(self, job: Job) -> JobResult | None:
        """Work a job, unless a stop or a pause came before its turn."""
        if self.signals.is_ending:
            return None
        if self.heartbeat.lost and self.heartbeat.is_lost(job):
            return None
        if not self.health.may_begin(job):
            return None
        began = time.monotonic()
        return self.executors[job.lane.type].execute(job)._replace(began=began)

    def _completed(self, results: ResultBuffer, job: Job, done: JobResult | None, error: BaseException | None) -> None:
        flush = job.lane.type in self.flush_immediately
        if done is not None:
            try:
                done = self.health.on_result(done)
                flush = flush or (done.verdict.trouble and self.health.has_pending_errors(job.lane.type))
            except BaseException as raised:  # noqa: BLE001 - raised again by the thread that waits for the batch
                error = raised
        results.put(job, done, error, flush=flush)


class Batch:
    """Jobs that were claimed together, from the threads to their finishes."""

    def __init__(self, runner: BatchRunner, jobs: Sequence[Job]) -> None:
        self._runner = runner
        self._results = ResultBuffer(len(jobs))
        self._settled: list[JobResult] = []
        self._errors: list[BaseException] = []
        self._left = len(jobs)
        self._tasks = runner.submit(jobs, self._results)

    def work(self) -> list[JobResult]:
        """Finish the results as they come; after a stop, put back what has not begun.

        Raises:
            Exception: the first error of our own code, after everything else is finished or put back as far as possible.
        """
        signals = self._runner.signals
        while self._left:
            arrived = self._results.take()
            self._left -= len(arrived)
            _collect_error(self._errors, partial(self._take, arrived))
            if signals.now.is_set():
                _collect_error(self._errors, self._give_up)
            elif signals.halt.is_set() or self._errors or self._has_stalled():
                _collect_error(self._errors, self._put_back)
        if self._errors:
            raise self._errors[0]
        return self._settled

    def _take(self, arrived: Sequence[BufferedResult]) -> None:
        self._errors += [result.error for result in arrived if result.error is not None]
        self._settled += self._runner.finish([result.done for result in arrived if result.done is not None])
        self._runner.release([result.job for result in arrived if result.done is None and result.error is None])

    def _has_stalled(self) -> bool:
        seconds = self._runner.stalled
        return seconds is not None and self._runner.pool.has_stalled(seconds)

    def _put_back(self) -> None:
        self._runner.release(self._without(self._runner.pool.withdraw(self._tasks)), "had no thread for it")

    def _give_up(self) -> None:
        tasks = self._runner.pool.abandon(self._tasks)
        for task in tasks:
            if task.began:
                # Rolls back a transaction that the thread has open, which would keep others waiting; the result is not needed.
                self._runner.executors[task.item.lane.type].timed_out(task.item, 0.0)
        self._runner.release(self._without(tasks))

    def _without(self, tasks: Sequence[Task]) -> list[Job]:
        self._left -= len(tasks)
        self._results.expect_less(len(tasks))
        return [task.item for task in tasks]


def _timed_out(executor: Executor, job: Job, seconds: float) -> JobResult:
    return executor.timed_out(job, seconds)._replace(began=time.monotonic() - seconds)


def _type_of(one: JobResult) -> str:
    return one.job.lane.type


def _collect_error(errors: list[BaseException], work: Callable[[], object]) -> None:
    """Do it, and keep what it raises for later: the rest of a batch must still be finished or put back."""
    try:
        work()
    except Exception as error:  # noqa: BLE001 - raised at the end of the batch
        errors.append(error)
