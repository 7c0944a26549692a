"""Working claimed jobs in batches: threads that work, finishes that are committed as they come. Knows no listing and no CLI."""

import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from contextvars import copy_context
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from operator import attrgetter
from typing import Any, Protocol, TypeVar

from flows.answers import Answer, Answers
from flows.crew import Crew
from flows.declaration import Client
from flows.health import Health
from flows.lease import LeaseKeeper
from flows.tally import count, label_of, name_of, sum_up
from flows.task import Order, Task
from flows.teller import SILENT, Teller
from flows.tracker import Progress, Tracker
from jobs.job import Done, Job, Settled, Verdict
from jobs.store import JobStore

T = TypeVar("T")


class Work(Protocol):
    """How the jobs of one type are worked."""

    @property
    def client(self) -> Client:
        """The remote side, whose trouble may pause it."""
        ...

    @property
    def timeout(self) -> float | None:
        """Seconds for one job; with `None` one that hangs keeps its lease and its thread."""
        ...

    @property
    def connect(self) -> Callable[[], Any]:
        """Gives the calling thread a connection."""
        ...

    @property
    def drop(self) -> Callable[[], None]:
        """Gives the thread's connection up after trouble with it."""
        ...

    def judge(self, error: Exception) -> Verdict:
        """Judge an exception of a request."""
        ...

    def work(self, job: Job) -> Done:
        """Work one job. Never raises."""
        ...

    def timed_out(self, job: Job, seconds: float) -> Done:
        """Say what becomes of a job whose thread was left behind, and see to it that this thread changes nothing any more.

        Called from another thread. Never raises.
        """
        ...

    def settled(self, settled: Settled) -> None:
        """Take note of a committed finish. Never raises."""
        ...


@dataclass(slots=True)
class Hands:
    """Works batches of jobs for one process. Several batches may be in hand at once and share the threads.

    Args:
        store: where the jobs are.
        works: how each type of job is worked.
        crew: the threads that work.
        steps: the threads that watch single jobs, see `entities`.
        keeper: keeps the claims alive.
        tracker: who watches.
        progress: the run's numbers.
        worker: who we are.
        stop: set from outside: finish what was begun, put the rest back.
        now: set from outside: put back also what was begun.
        patient: does database work, again while the database is away; by default it is done once.
        prompt: types of jobs that begin next and whose finish waits for no company, because another job may wait for it.
        told: who is told of pauses that begin and end here, and of jobs that fail for good.
        heeds: whether pauses keep jobs in hand from being begun.
        stalled: seconds in which no thread took a job, after which those not begun go back; `None` keeps them.
    """

    store: JobStore
    works: Mapping[str, Work]
    crew: Crew
    steps: Crew
    keeper: LeaseKeeper
    tracker: Tracker
    progress: Progress
    worker: str
    stop: threading.Event
    now: threading.Event = field(default_factory=threading.Event)
    patient: Callable[[Callable[[], Any]], Any] = lambda work: work()
    prompt: Collection[str] = ()
    stalled: float | None = None
    told: Teller = SILENT
    heeds: bool = True
    #: Jobs that were finished, and jobs that went back without having been worked.
    finished: int = 0
    released: int = 0
    health: Health = field(init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        clients = {name: work.client for name, work in self.works.items()}
        self.health = Health(
            self.store, clients, worker=self.worker, patient=self.patient, told=self.told, heeds=self.heeds
        )  # fmt: skip

    def batch(self, jobs: Sequence[Job]) -> None:
        """Work a batch as one step. Returns when each of its jobs is finished or put back."""
        self.keeper.hold(jobs)
        self._prepare(jobs)
        self.tracker.batch([name_of(job) for job in jobs], lambda: sum_up(_Batch(self, jobs).work()))

    def entities(self, jobs: Sequence[Job]) -> None:
        """Work a batch as steps of their own, one for each entity, each finished as soon as it is worked."""
        self.keeper.hold(jobs)
        self._prepare(jobs)
        answers = Answers(len(jobs))

        def step(job: Job) -> None:
            self.tracker.entity(name_of(job), lambda: sum_up(self._alone(job)))

        tasks = self.steps.submit(jobs, Order(step, answers.put))
        errors: list[BaseException] = []
        left = len(tasks)
        while left:
            arrived = answers.take()
            left -= len(arrived)
            errors += [answer.error for answer in arrived if answer.error is not None]
            if errors or self.stop.is_set():
                back = self.steps.withdraw(tasks)
                left -= len(back)
                answers.expect_less(len(back))
                _note(errors, partial(self.release, [task.item for task in back]))
        if errors:
            raise errors[0]

    def _prepare(self, jobs: Sequence[Job]) -> None:
        """Let those look up what they need who look it up for many jobs at once."""
        for name, of_type in groupby(jobs, key=lambda job: job.lane.type):
            if (prepare := getattr(self.works[name], "prepare", None)) is not None:
                self.patient(partial(prepare, list(of_type)))

    def _alone(self, job: Job) -> list[Settled]:
        """Work one job in this thread; in another one if it may take too long."""
        if self.works[job.lane.type].timeout is not None:
            return _Batch(self, [job]).work()
        done = self._one(job)
        if done is None:
            self.release([job])
            return []
        return self.finish([self.health.notice(done)])

    def begin(self, jobs: Sequence[Job], answers: Answers) -> list[Task]:
        """Hand jobs to the threads."""
        call = self._one
        if self.tracker.shows_entities:
            # What a job says is shown where its batch is shown.
            context = copy_context()
            call = lambda job: context.copy().run(self._one, job)  # noqa: E731
        tasks: list[Task] = []
        for lane, of_lane in groupby(jobs, key=attrgetter("lane")):
            work = self.works[lane.type]
            order = Order(
                call,
                partial(self._answer, answers),
                timeout=work.timeout,
                late=work.timed_out,
                group=(lane.type, lane.phase),
                keys=(lane.type, f"{lane.type}:{lane.phase}"),
                first=lane.type in self.prompt,
                label=label_of,
            )
            tasks += self.crew.submit(of_lane, order)
        return tasks

    def _one(self, job: Job) -> Done | None:
        """Work a job, unless a stop or a pause came before its turn."""
        return self.works[job.lane.type].work(job) if self._goes_on(job) else None

    def _goes_on(self, job: Job) -> bool:
        if self.stop.is_set() or self.now.is_set() or self.keeper.is_lost(job):
            return False
        return self.health.may_begin(job)

    def _answer(self, answers: Answers, job: Job, done: Done | None, error: BaseException | None) -> None:
        prompt = job.lane.type in self.prompt
        if done is not None:
            try:
                done = self.health.notice(done)
            except BaseException as raised:  # noqa: BLE001 - raised by whoever waits for the batch
                error = raised
            prompt = prompt or self.health.in_doubt(job.lane.type)
        answers.put(job, done, error, prompt=prompt)

    def finish(self, dones: Sequence[Done]) -> list[Settled]:
        """Finish worked jobs: together, but for those with a transaction of their own."""
        if not dones:
            return []
        settled: list[Settled] = []
        together = [done for done in dones if done.finish is None]
        if together:
            settled += self._patiently(lambda: self.store.finish(together))
        for done in dones:
            if done.finish is not None:
                settled.append(self._patiently(partial(done.finish, done)))
        self.keeper.drop([done.job for done in dones])
        self.health.hear(settled)
        with self._lock:
            self.finished += len(settled)
            count(self.progress, settled)
        self.tracker.progress(self.progress)
        for one in settled:
            self.works[one.job.lane.type].settled(one)
        if any(one.state == "failure" for one in settled):
            self.told.failed()
        return settled

    def release(self, jobs: Sequence[Job], why: str = "had not begun it when its client was paused") -> None:
        """Put jobs back that were not worked; no attempt is used. A stop is reason enough, whatever `why` says."""
        if jobs:
            why = "was told to stop" if self.stop.is_set() or self.now.is_set() else why
            self.patient(lambda: self.store.release(jobs, reason=f"put back by a worker that {why}"))
            self.keeper.drop(jobs)
            with self._lock:
                self.released += len(jobs)

    def _patiently(self, work: Callable[[], T]) -> T:
        found: T = self.patient(work)
        return found


class _Batch:
    """Jobs that were claimed together, from the threads to their finishes; strictly private."""

    def __init__(self, hands: Hands, jobs: Sequence[Job]) -> None:
        self._hands = hands
        self._answers = Answers(len(jobs))
        self._settled: list[Settled] = []
        self._errors: list[BaseException] = []
        self._left = len(jobs)
        self._tasks = hands.begin(jobs, self._answers)

    def work(self) -> list[Settled]:
        """Finish the answers as they come; put back what a stop leaves.

        Raises:
            Exception: the first error of ours, once everything else is finished or put back as far as that goes.
        """
        hands = self._hands
        while self._left:
            arrived = self._answers.take()
            self._left -= len(arrived)
            _note(self._errors, partial(self._take, arrived))
            if hands.now.is_set():
                _note(self._errors, self._give_up)
            elif hands.stop.is_set() or self._errors or self._has_stalled():
                _note(self._errors, self._put_back)
        if self._errors:
            raise self._errors[0]
        return self._settled

    def _take(self, arrived: Sequence[Answer]) -> None:
        self._errors += [answer.error for answer in arrived if answer.error is not None]
        self._settled += self._hands.finish([answer.done for answer in arrived if answer.done is not None])
        self._hands.release([answer.job for answer in arrived if answer.done is None and answer.error is None])

    def _has_stalled(self) -> bool:
        seconds = self._hands.stalled
        return seconds is not None and self._hands.crew.has_stalled(seconds)

    def _put_back(self) -> None:
        self._hands.release(self._without(self._hands.crew.withdraw(self._tasks)), "had no thread for it")

    def _give_up(self) -> None:
        tasks = self._hands.crew.abandon(self._tasks)
        for task in tasks:
            if task.began:
                # For what it does, not for what it says: a transaction that the thread has open would keep everybody waiting.
                self._hands.works[task.item.lane.type].timed_out(task.item, 0.0)
        self._hands.release(self._without(tasks))

    def _without(self, tasks: Sequence[Task]) -> list[Job]:
        self._left -= len(tasks)
        self._answers.expect_less(len(tasks))
        return [task.item for task in tasks]


def _note(errors: list[BaseException], work: Callable[[], object]) -> None:
    """Do it, and keep what it raises for later: the rest of a batch is still to be looked after."""
    try:
        work()
    except Exception as error:  # noqa: BLE001 - raised at the end of the batch
        errors.append(error)
