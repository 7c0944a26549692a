"""Workers in threads of the tests, and job types for them."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from flows import Client, JobType, PausePolicy, Sync
from flows.enqueue import enqueue_many, using
from flows.project.registry import Registry
from flows.worker.queue_processing import WorkResult, work
from jobs import JobStore, Queue, Retry

NOW = Retry(max_retries=1, delay=0, jitter=False)
NONE = Retry(max_retries=0)


@contextmanager
def _connection(_: Any) -> Iterator[str]:
    yield "connection"


CLIENT = Client("shop", connect=_connection, pause=PausePolicy(after=1000))
OTHER = Client("post", connect=_connection, pause=PausePolicy(after=1000))


def job_type(process: Any, name: str = "shop.order", **options: Any) -> JobType:
    """Declare a job type."""
    return JobType(name, **{"client": CLIENT, "process": process, "retry": NONE, **options})


def declare(*declared: JobType | Sync | Queue) -> Registry:
    """Make a registry of these."""
    return Registry(
        clients={one.client.id: one.client for one in declared if not isinstance(one, Queue)},
        syncs={one.id: one for one in declared if isinstance(one, Sync)},
        job_types={one.id: one for one in declared if isinstance(one, JobType)},
        queues={one.id: one for one in declared if isinstance(one, Queue)},
    )


def add(store: JobStore, kind: JobType, payloads: Any, **options: Any) -> list[int]:
    """Queue jobs; return their ids."""
    with using(store, declare(kind)):
        return [one.id for one in enqueue_many(kind, list(payloads), **options)]


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """What hanging jobs wait for; opened at the end."""
    found = threading.Event()
    yield found
    found.set()


class Daemon:
    """A worker in a thread of its own."""

    def __init__(self, store: JobStore, registry: Registry, **options: Any) -> None:
        self.stop, self.now = threading.Event(), threading.Event()
        self.result: WorkResult | None = None
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, args=(store, registry), kwargs=options, daemon=True)
        self._thread.start()

    def _run(self, store: JobStore, registry: Registry, **options: Any) -> None:
        try:
            self.result = work(store, registry, stop=self.stop, now=self.now, **options)
        except BaseException as error:  # noqa: BLE001 - raised by `join`
            self.error = error

    @property
    def is_running(self) -> bool:
        """Whether it works."""
        return self._thread.is_alive()

    def end(self, *, seconds: float = 60) -> WorkResult:
        """Stop it and return its result."""
        self.stop.set()
        return self.join(seconds=seconds)

    def join(self, *, seconds: float = 60) -> WorkResult:
        """Wait until it ends by itself."""
        self._thread.join(seconds)
        assert not self.is_running, "it does not end"
        if self.error is not None:
            raise self.error
        assert self.result is not None
        return self.result


@pytest.fixture
def daemon() -> Iterator[Callable[..., Daemon]]:
    """Starts workers, and leaves none behind."""
    started: list[Daemon] = []

    def start(store: JobStore, registry: Registry, **options: Any) -> Daemon:
        started.append(Daemon(store, registry, **options))
        return started[-1]

    yield start
    for one in started:
        one.stop.set()
        one.now.set()
        one._thread.join(20)


def eventually(condition: Callable[[], Any], *, seconds: float = 60) -> None:
    """Wait for a condition."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


class Clock:
    """Stands for the module `time`; it can be set forward."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def monotonic(self) -> float:
        """Return the seconds of the process, and those that it is ahead."""
        return time.monotonic() + self.ahead


class Running:
    """Counts what runs at once.

    Args:
        seconds: that each job takes.
        gather: no job ends before so many ran at once, by key: "all", a type, or a type and a phase.
    """

    def __init__(self, seconds: float = 0.05, gather: dict[str, int] | None = None) -> None:
        self.seconds = seconds
        self._gather = gather or {}
        self._all_there = threading.Event()
        self.now: Counter[str] = Counter()
        self.most: Counter[str] = Counter()
        self.at: list[tuple[float, Any]] = []
        self._lock = threading.Lock()

    def __call__(self, job: Any, _: Any) -> None:
        """Work a job, which takes its time."""
        keys = ("all", job.type, f"{job.type}:{job.phase}")
        with self._lock:
            self.at.append((time.monotonic(), job.payload))
            self.now.update(keys)
            for key in keys:
                self.most[key] = max(self.most[key], self.now[key])
            if all(self.most[key] >= number for key, number in self._gather.items()):
                self._all_there.set()
        assert self._all_there.wait(60)
        time.sleep(self.seconds)
        with self._lock:
            self.now.subtract(keys)
