"""The vocabulary of these tests: job types that are declared in a line, queued and worked; and a project with its commands."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from click.testing import CliRunner
from sqlalchemy import text, update

from flows import Client, JobType, Sync
from flows.cli.program import program
from flows.enqueue import enqueue_many, using
from flows.project.registry import Registry
from flows.worker.queue_processing import WorkResult, work
from jobs import JobStore, Queue, Retry
from jobs.job import Job, Lane
from jobs.schema.job_tables import job as table

ELSEWHERE = "elsewhere:4711:1:1"
NONE = Retry(max_retries=0)
AT_ONCE = Retry(max_retries=2, delay=0, jitter=False)


@contextmanager
def connection(_: Any) -> Iterator[str]:
    """Connect to nothing."""
    yield "connection"


SHOP = Client("shop", connect=connection)
POST = Client("post", connect=connection)


def kind(process: Any = lambda *_: None, name: str = "shop.order", **options: Any) -> JobType:
    """Declare a job type that is not retried unless it says so."""
    return JobType(name, **{"client": SHOP, "process": process, "retry": NONE, **options})


def declare(*things: JobType | Sync | Queue) -> Registry:
    """Make a registry of these."""
    return Registry(
        clients={one.client.id: one.client for one in things if not isinstance(one, Queue)},
        syncs={one.id: one for one in things if isinstance(one, Sync)},
        job_types={one.id: one for one in things if isinstance(one, JobType)},
        queues={one.id: one for one in things if isinstance(one, Queue)},
    )


def add(store: JobStore, of: JobType, *payloads: Any, **options: Any) -> list[int]:
    """Queue a job for each payload; return their ids."""
    with using(store, declare(of)):
        return [one.id for one in enqueue_many(of, payloads, **options)]


def drain(store: JobStore, *things: JobType | Sync | Queue, **options: Any) -> WorkResult:
    """Work until nothing is due, one job at a time unless told otherwise."""
    return work(store, declare(*things), **{"until_empty": True, "concurrency": 1, **options})


def lane(of: JobType, phase: str = "") -> Lane:
    """Return where the jobs of a type wait."""
    return Lane(of.queue_id, of.client.id, of.id, phase or of.first_phase)


def take(store: JobStore, of: JobType, n: int = 1, *, worker: str = ELSEWHERE, lease: float = 60) -> list[Job]:
    """Claim, as a worker elsewhere does; also what came back from a dead one."""
    lanes = [lane(of)]
    found = store.claim(lanes, n, worker=worker, lease=lease)
    return found or store.claim(lanes, n, worker=worker, lease=lease, suspects=True)


def query(store: JobStore, statement: str, **values: Any) -> list[dict[str, Any]]:
    """Return rows."""
    with store.db.read() as session:
        return [dict(row) for row in session.execute(text(statement), values).mappings()]


def change(store: JobStore, statement: str, **values: Any) -> None:
    """Run a statement that writes."""
    with store.db.write() as session:
        session.execute(text(statement), values)


def move(store: JobStore, job_id: int, column: str, seconds: float) -> None:
    """Let a moment of a job be so many seconds from now."""
    when = store.views.now() + timedelta(seconds=seconds)
    with store.db.write() as session:
        session.execute(update(table).where(table.c.id == job_id).values({column: when}))


def states(store: JobStore) -> dict[str, int]:
    """Count jobs by state."""
    return dict(Counter(one.state for one in store.views.jobs(limit=100_000)))


def wait(store: JobStore, job_id: int) -> float:
    """Return the seconds until a job is due."""
    when: datetime = store.views.job(job_id).job.available_at
    return (when - store.views.now()).total_seconds()


def eventually(condition: Callable[[], Any], *, seconds: float = 60) -> None:
    """Wait for a condition."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it does not come about"
        time.sleep(0.02)


def together(*calls: Callable[[], Any]) -> list[Any]:
    """Call functions at the same time; return what they return, in their order."""
    found: dict[int, Any] = {}
    errors: list[BaseException] = []
    start = threading.Barrier(len(calls))

    def run(number: int, call: Callable[[], Any]) -> None:
        try:
            start.wait(60)
            found[number] = call()
        except BaseException as error:  # noqa: BLE001  # told by the caller
            errors.append(error)

    threads = [threading.Thread(target=run, args=one, daemon=True) for one in enumerate(calls)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(100)
    assert errors == []
    return [found[number] for number in range(len(calls))]


class Log:
    """A process that notes what it is called with, and how many of it run at once."""

    def __init__(self, seconds: float = 0, answer: Callable[[Any], Any] = lambda _: None) -> None:
        self.payloads: list[Any] = []
        self.types: list[str] = []
        self.most = 0
        self._seconds = seconds
        self._answer = answer
        self._now = 0
        self._lock = threading.Lock()

    def __call__(self, job: Any, _: Any) -> Any:
        """Work a job."""
        with self._lock:
            self.payloads.append(job.payload)
            self.types.append(job.type)
            self._now += 1
            self.most = max(self.most, self._now)
        time.sleep(self._seconds)
        with self._lock:
            self._now -= 1
        return self._answer(job)


class Project:
    """A folder with `syncs/`, in which commands run."""

    store: JobStore

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, text: str, name: str = "syncs/shop.py") -> Path:
        """Write a file of the project."""
        path = self.folder / name
        path.write_text(text)
        return path

    def syncs(self, *arguments: object) -> tuple[int, str, str]:
        """Run a command in this process; return exit code, stdout and stderr."""
        found = CliRunner().invoke(program, list(map(str, arguments)))
        return found.exit_code, found.stdout, found.stderr

    def document(self, *arguments: object) -> Any:
        """Run a command with --json."""
        code, out, err = self.syncs(*arguments, "--json")
        assert out, (code, err)
        return json.loads(out)

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start a command as a process of its own."""
        return subprocess.Popen(
            [sys.executable, "-m", "flows", *arguments], cwd=self.folder, text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
