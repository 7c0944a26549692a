"""Working claimed jobs in batches: threads that fetch, one transaction that finishes. Knows no listing and no CLI."""

import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field

from flows.entity import EntityWork
from flows.lease import LeaseKeeper
from flows.tracker import Judged, Progress, Tracker
from jobs.job import Done, Job, Settled
from jobs.outcome import Failure, Gone, Pause, Snooze, Unchanged
from jobs.pause import Pausing
from jobs.store import JobStore


@dataclass(slots=True)
class Hands:
    """Works batches of jobs for one process. Several batches may be in hand at once and share the threads.

    Args:
        store: where the jobs are.
        works: how each type of job is worked.
        pool: the threads that fetch.
        concurrency: fetches of one batch at once.
        keeper: keeps the claims alive.
        tracker: who watches.
        progress: the run's numbers.
        worker: who we are.
        stop: set from outside: finish what was begun, release the rest.
    """

    store: JobStore
    works: Mapping[str, EntityWork]
    pool: ThreadPoolExecutor
    concurrency: int
    keeper: LeaseKeeper
    tracker: Tracker
    progress: Progress
    worker: str
    stop: threading.Event
    #: Clients that were paused while we worked: what is not begun goes back.
    paused: dict[str, Pausing] = field(default_factory=dict)
    #: Clients that this process knows to be well; what an earlier one noted of the others may still have to be forgotten.
    _well: set[str] = field(default_factory=set)
    #: Generic errors in a row by client, until the store has heard of them.
    _row: dict[str, int] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def batch(self, jobs: Sequence[Job]) -> None:
        """Work a batch as one step: fetch all, finish all in one transaction."""
        self.keeper.hold(jobs)
        self.tracker.batch([_name(job) for job in jobs], lambda: _sum_up(self._work(jobs)))
        self.keeper.drop(jobs)

    def entities(self, jobs: Sequence[Job]) -> None:
        """Work a batch as steps of their own, one for each entity, each finished as soon as it is fetched."""
        self.keeper.hold(jobs)

        def one(job: Job) -> None:
            self.tracker.entity(_name(job), lambda: _sum_up(self._finish(self._fetch([job]))))

        self._spread(jobs, one)
        self.keeper.drop(jobs)

    def _work(self, jobs: Sequence[Job]) -> list[Settled]:
        return self._finish(self._fetch(jobs))

    def _fetch(self, jobs: Sequence[Job]) -> list[Done]:
        dones: list[Done] = []

        def one(job: Job) -> None:
            done = self.works[job.lane.type].work(job)
            dones.append(done)
            self._notice(done)

        if len(jobs) > 1:
            self._spread(jobs, one)
        elif self._goes_on(jobs[0]):
            one(jobs[0])
        else:
            self._release(jobs)
        return dones

    def _notice(self, done: Done) -> None:
        """Look at an answer at once: a client that must be left alone gets no further request of the batch."""
        client, outcome = done.job.lane.client, done.verdict.outcome
        if isinstance(outcome, Pause):
            self._pause(done.job, outcome, done.verdict.cause)
        elif not isinstance(outcome, Snooze):
            self._row[client] = self._row.get(client, 0) + 1 if done.verdict.trouble else 0

    def _spread(self, jobs: Sequence[Job], work: Callable[[Job], None]) -> None:
        """Work jobs on the shared threads; release those that are not begun when a stop or a pause comes."""
        waiting = deque(jobs)
        left: list[Job] = []

        def drain() -> None:
            while True:
                try:
                    job = waiting.popleft()
                except IndexError:
                    return
                if self._goes_on(job):
                    work(job)
                else:
                    left.append(job)

        futures = [self.pool.submit(drain) for _ in range(min(self.concurrency, len(jobs)))]
        wait(futures)
        self._release([*left, *waiting])
        for future in futures:
            future.result()

    def _release(self, jobs: Sequence[Job]) -> None:
        if jobs:
            self.store.release(jobs, reason="the worker stopped before its turn")

    def _goes_on(self, job: Job) -> bool:
        if self.stop.is_set() or job.lane.client in self.paused or self.keeper.is_lost(job):
            return False
        return not self.in_doubt(job.lane.type)

    def in_doubt(self, type: str) -> bool:
        """Tell whether a client seems to be in trouble, while the store has not decided yet whether that is a pause."""
        client = self.works[type].sync.client
        return self._row.get(client.id, 0) >= client.pause.after

    def _finish(self, dones: Sequence[Done]) -> list[Settled]:
        if not dones:
            return []
        settled = self.store.finish(dones)
        for one in settled:
            # What a save made of a success.
            if isinstance(one.verdict.outcome, Pause):
                self._pause(one.job, one.verdict.outcome, one.verdict.cause)
        self._hear(settled)
        with self._lock:
            _count(self.progress, settled)
        self.tracker.progress(self.progress)
        return settled

    def _pause(self, job: Job, outcome: Pause, cause: str) -> None:
        """Pause a client, before its job is finished: a job that goes back is available at once, and nobody may claim it."""
        client = job.lane.client
        with self._lock:
            if client not in self.paused:
                self.paused[client] = self.store.pause(
                    client, outcome.when, cause=cause, reason=outcome.reason, set_by=self.worker
                )

    def _hear(self, settled: Sequence[Settled]) -> None:
        """Tell the store how each client answered; it decides whether trouble adds up to a pause."""
        answers: dict[str, list[Settled]] = {}
        for one in settled:
            if not isinstance(one.verdict.outcome, Pause | Snooze):
                answers.setdefault(one.job.lane.client, []).append(one)
        for client, ones in answers.items():
            troubles = [one.verdict.trouble for one in ones]
            # A client that was well and is well needs no note; this is the common case and costs nothing.
            if not any(troubles) and client in self._well:
                continue
            (self._well.discard if troubles[-1] else self._well.add)(client)
            policy = self.works[ones[0].job.lane.type].sync.client.pause
            reason = next((_reason(one) for one in reversed(ones) if one.verdict.trouble), "")
            pausing = self.store.hear(
                client, troubles, after=policy.after, durations=policy.durations, reason=reason, set_by=self.worker
            )
            if pausing is not None:
                self.paused[client] = pausing
            self._row[client] = 0


def _name(job: Job) -> str:
    return job.key if job.key is not None else f"job {job.id}"


def _reason(one: Settled) -> str:
    outcome = one.verdict.outcome
    return outcome.message if isinstance(outcome, Failure) else ""


def _count(progress: Progress, settled: Sequence[Settled]) -> None:
    for one in settled:
        outcome = one.verdict.outcome
        if one.state == "success":
            if isinstance(outcome, Unchanged):
                progress.unchanged += 1
            elif isinstance(outcome, Gone):
                progress.gone += 1
            else:
                progress.succeeded += 1
        elif one.state == "failure":
            progress.fail(_name(one.job), _reason(one))
        elif one.state == "queued":
            progress.snoozed += isinstance(outcome, Snooze | Pause)
            progress.retried += isinstance(outcome, Failure)


def _sum_up(settled: Sequence[Settled]) -> Judged:
    """Say in one line what a batch or an entity came to."""
    if len(settled) == 1:
        one = settled[0]
        outcome = one.verdict.outcome
        name = type(outcome).__name__.lower()
        text = getattr(outcome, "message", "") or getattr(outcome, "reason", "")
        return Judged(one.state != "failure", f"{name}: {text}" if text else name)
    counted = Progress()
    _count(counted, settled)
    parts = [
        f"{number} {word}"
        for number, word in (
            (counted.succeeded, "succeeded"),
            (counted.unchanged, "unchanged"),
            (counted.gone, "gone"),
            (counted.failed, "failed"),
            (counted.retried, "to be retried"),
            (counted.snoozed, "snoozed"),
        )
        if number
    ]
    return Judged(counted.failed == 0, ", ".join(parts) or "released")
