"""A remote system in a Python object, for tests of pauses: it can be ill, and it knows when it was asked and by whom."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import event, text

from flows import Client, JobType, PausePolicy
from flows.enqueue import enqueue_many, using
from flows.project.registry import Registry
from flows.worker.queue_processing import WorkResult, work
from jobs import JobStore, Retry

PAST = "2000-01-01 00:00:00.000000+00"
AT_ONCE = Retry(max_retries=50, delay=0, jitter=False)


@dataclass
class System:
    """Answers everything, or raises what it is ill of."""

    #: Made anew for each request; `None`: it is well.
    ill: Callable[[], Exception | None] = lambda: None
    #: Seconds that an answer takes.
    slow: float = 0.0
    #: Begin and end of each request, by `time.monotonic`, and what was asked.
    requests: list[tuple[float, float, Any]] = field(default_factory=list)
    checks: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def ask(self, what: Any) -> None:
        """Send a request."""
        began, error = time.monotonic(), self.ill()
        time.sleep(self.slow)
        with self._lock:
            self.requests.append((began, time.monotonic(), what))
        if error is not None:
            raise error

    def check(self, _: Any) -> None:
        """Serve as the `check` of a client."""
        self.checks += 1
        self.ask("check")

    @property
    def asked(self) -> list[Any]:
        """What was asked, in the order of the answers."""
        return [what for _, _, what in self.requests]


@contextmanager
def connected(system: System) -> Iterator[System]:
    """Connect to it."""
    yield system


def client(system: System, name: str = "shop", *, check: bool = False, queue: str | None = None, **policy: Any) -> Client:
    """Declare the system as a client; `policy` are the fields of its `PausePolicy`."""
    return Client(
        name, connect=lambda _: connected(system), queue=queue, pause=PausePolicy(**policy),
        check=system.check if check else None,
    )  # fmt: skip


def orders(of: Client, **fields: Any) -> JobType:
    """Declare a job type whose jobs each send one request."""
    given = {"process": lambda job, system: system.ask(job.payload), "retry": AT_ONCE, "concurrency": 4, **fields}
    return JobType(f"{of.id}.order", of, **given)


def registry(*types: JobType) -> Registry:
    """Make a registry of these."""
    return Registry(clients={one.client.id: one.client for one in types}, job_types={one.id: one for one in types})


def queue(store: JobStore, of: JobType, n: int) -> list[int]:
    """Queue so many jobs."""
    with using(store, registry(of)):
        return [one.id for one in enqueue_many(of, [{"n": number} for number in range(n)])]


def drain(store: JobStore, *types: JobType, **options: Any) -> WorkResult:
    """Work until nothing is due."""
    return work(store, registry(*types), until_empty=True, **options)


@contextmanager
def working(store: JobStore, *types: JobType, **options: Any) -> Iterator[None]:
    """Work in a thread until the block ends."""
    stop, errors = threading.Event(), []

    def run() -> None:
        try:
            work(store, registry(*types), stop=stop, **options)
        except BaseException as error:  # noqa: BLE001 - raised below
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
    if errors:
        raise errors[0]


@contextmanager
def meanwhile(act: Callable[[], object]) -> Iterator[None]:
    """Do something in a thread beside the block; the block ends when that is done, and raises what it raised."""
    errors: list[BaseException] = []

    def run() -> None:
        try:
            act()
        except BaseException as error:  # noqa: BLE001 - raised below
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        thread.join()
    if errors:
        raise errors[0]


@contextmanager
def statements(store: JobStore, *parts: str) -> Iterator[list[str]]:
    """Note the statements that contain these parts, as they are sent by this store."""
    sent: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if all(part in statement for part in parts):
            sent.append(statement)

    event.listen(store.db.engine, "before_cursor_execute", note)
    try:
        yield sent
    finally:
        event.remove(store.db.engine, "before_cursor_execute", note)


def until(true: Callable[[], Any], seconds: float = 60) -> None:
    """Wait until something is true."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not come true"
        time.sleep(0.02)


def query(store: JobStore, statement: str) -> list[dict[str, Any]]:
    """Return rows."""
    with store.db.read() as connection:
        return [dict(row) for row in connection.execute(text(statement)).mappings()]


def states(store: JobStore) -> dict[str, int]:
    """Count jobs by state."""
    return {row["state"]: row["n"] for row in query(store, "SELECT state, count(*) AS n FROM job GROUP BY state")}


def run_out(store: JobStore) -> None:
    """Let the clock end every open pause."""
    with store.db.write() as connection:
        connection.execute(text(f"UPDATE pause SET until = '{PAST}' WHERE ended_at IS NULL"))


def pauses(store: JobStore) -> list[tuple[str, int, int, str | None]]:
    """Return cause, level, probes and end of each pause, the first one first."""
    return [(one.cause, one.level, one.probes, one.ended_by) for one in reversed(store.pause_history.latest())]


def seconds_of(one: Any) -> float:
    """Return the length of a pause that was set."""
    end, begin = (one.until, one.started_at)
    assert isinstance(end, datetime)
    return float((end - begin).total_seconds())
