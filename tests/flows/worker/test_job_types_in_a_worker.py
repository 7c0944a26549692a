"""Job types in a real worker: sessions, timeouts and phases with threads, batches and a watch around them."""

import asyncio
import threading
import time
from typing import Any

import pytest

from flows import JobType, events
from flows.enqueue import enqueue_many, using
from flows.events import subscribe
from flows.execution.job_executor import JobExecutor
from flows.project.registry import Registry
from flows.worker.queue_processing import WorkResult, work
from jobs import Failure, JobStore, Queue, Retry
from tests.support.job_bench import CLIENT, NOW, Bench, write


@pytest.fixture
def bench(store: JobStore) -> Bench:
    """A bench on a fresh database."""
    return Bench(store)


def worked(bench: Bench, *job_types: JobType, jobs: dict[str, list[Any]], **options: Any) -> WorkResult:
    """Queue jobs, and let a worker run until nothing is due."""
    registry = Registry(
        clients={CLIENT.id: CLIENT}, job_types={one.id: one for one in job_types}, queues=options.pop("queues", {})
    )
    with using(bench.store, registry):
        for name, payloads in jobs.items():
            enqueue_many(name, payloads)
    return work(bench.store, registry, until_empty=True, **options)


def states(bench: Bench) -> dict[str, int]:
    """Count the jobs by type and state."""
    rows = bench.query("SELECT type, state, count(*) AS n FROM job GROUP BY type, state")
    return {f"{row['type']} {row['state']}": row["n"] for row in rows}


@pytest.mark.rows("DS-08", "DS-11")
def test_many_jobs_that_write(bench: Bench) -> None:
    """Eight threads, one writer on SQLite: each job's rows are there, and those of the failing ones are not."""

    def process(job: Any, connection: Any) -> Any:
        write(job, f"row {job.payload:02}")
        return Failure("odd", retry=False) if job.payload % 2 else None

    result = worked(bench, JobType("shop.order", CLIENT, process=process), jobs={"shop.order": list(range(40))})
    assert (result.succeeded, result.failed) == (20, 20)
    assert bench.tables() == [f"row {number:02}" for number in range(0, 40, 2)]


@pytest.mark.rows("DS-07", "DS-08", "E-36")
def test_a_job_that_writes_and_hangs(bench: Bench) -> None:
    """None of its rows remain, its state and reason are recorded, and the worker goes on with the others meanwhile and after."""
    go = threading.Event()

    def hang(job: Any, connection: Any) -> None:
        write(job, "hung")
        go.wait(30)
        write(job, "late")

    hanging = JobType("shop.hanging", CLIENT, process=hang, timeout=0.5, retry=Retry(max_retries=1, delay=0, jitter=False))
    other = JobType("shop.other", CLIENT, process=lambda job, connection: write(job, f"row {job.payload}"))
    try:
        result = worked(bench, hanging, other, jobs={"shop.hanging": [0], "shop.other": [1, 2, 3]}, concurrency=2)
    finally:
        go.set()
    assert (result.succeeded, result.failed) == (3, 1)
    assert states(bench) == {"shop.hanging failure": 1, "shop.other success": 3}
    rows = bench.query("SELECT message, attempts FROM job WHERE type = 'shop.hanging'")
    assert rows == [{"message": "timed out after 0.5 s", "attempts": 2}]
    time.sleep(0.3)
    assert bench.tables() == ["row 1", "row 2", "row 3"]


@pytest.mark.rows("DS-04", "DS-07")
def test_each_phase_has_its_time(bench: Bench) -> None:
    """Six phases of 0.55 seconds under a timeout of 3: together they take longer, and none is cut."""

    def process(job: Any, connection: Any) -> None:
        time.sleep(0.55)
        write(job, job.phase)

    phases = ("a", "b", "c", "d", "e", "f")
    phased = JobType("shop.phased", CLIENT, process=dict.fromkeys(phases, process), phases=phases, timeout=3, retry=Retry(0))
    assert worked(bench, phased, jobs={"shop.phased": [1]}).succeeded == 1
    assert bench.tables() == ["a", "b", "c", "d", "e", "f"]
    assert bench.query("SELECT claim_no FROM job") == [{"claim_no": 1}]


@pytest.mark.rows("DS-04", "DS-12")
def test_two_workers_share_the_phases(bench: Bench) -> None:
    """One fetches, the other saves; each job passes through both, and the session's rows with it."""
    phases = ("fetch", "save")
    process = dict.fromkeys(phases, lambda job, connection: write(job, f"{job.phase} {job.payload}"))
    phased = JobType("shop.phased", CLIENT, process=process, phases=phases)
    worked(bench, phased, jobs={"shop.phased": [1, 2, 3]}, phases=["fetch"])
    assert bench.tables() == ["fetch 1", "fetch 2", "fetch 3"]
    assert bench.query("SELECT DISTINCT phase, state FROM job") == [{"phase": "save", "state": "queued"}]
    worked(bench, phased, jobs={}, phases=["save"])
    assert len(bench.tables()) == 6
    assert states(bench) == {"shop.phased success": 3}


@pytest.mark.rows("E-28", "AQ-11")
def test_on_failure_in_a_worker(bench: Bench) -> None:
    """Once for each job that failed for good, in whatever thread."""
    told: list[int] = []
    failing = JobType(
        "shop.failing",
        CLIENT,
        process=lambda job, connection: Failure("no"),
        retry=NOW,
        on_failure=lambda job: told.append(job.id),
    )
    assert worked(bench, failing, jobs={"shop.failing": [1, 2, 3]}).failed == 3
    assert len(told) == len(set(told)) == 3


@pytest.mark.rows("AQ-14", "E-44")
def test_jobs_of_an_undeclared_type_wait(bench: Bench) -> None:
    """The worker leaves them alone, and works what it knows in the same queue."""
    known = JobType("shop.known", CLIENT, process=lambda job, connection: None)
    unknown = JobType("shop.unknown", CLIENT, process=lambda job, connection: None)
    with using(bench.store):
        enqueue_many(unknown, [1, 2])
    queues = {"shop": Queue("shop", concurrency=2)}
    assert worked(bench, known, jobs={"shop.known": [1]}, queues=queues).processed == 1
    assert states(bench) == {"shop.known success": 1, "shop.unknown queued": 2}
    assert worked(bench, known, unknown, jobs={}, queues=queues).processed == 2
    assert states(bench) == {"shop.known success": 1, "shop.unknown success": 2}


class Panic(BaseException):
    """What extensions in Rust raise."""


@pytest.mark.rows("E-01", "E-10")
@pytest.mark.parametrize("error", [asyncio.CancelledError(), Panic("out of bounds"), KeyboardInterrupt()], ids=repr)
def test_what_is_no_exception_fails_its_own_job(bench: Bench, error: BaseException) -> None:
    """The worker lives on, the other jobs are worked, and nobody takes the job for one that kills its workers."""

    def process(job: Any, connection: Any) -> None:
        if job.payload == 1:
            raise error

    result = worked(bench, JobType("shop.order", CLIENT, process=process), jobs={"shop.order": list(range(20))}, concurrency=2)
    assert (result.succeeded, result.failed) == (19, 1)
    (row,) = bench.query("SELECT message, rescues, attempts FROM job WHERE state = 'failure'")
    assert row["message"].startswith(f"RuntimeError: the code raised {type(error).__name__}")
    assert (row["rescues"], row["attempts"]) == (0, 1)
    (tried,) = bench.query("SELECT traceback FROM attempt WHERE outcome = 'failure'")
    assert "in process" in tried["traceback"]


@pytest.mark.rows("DS-04", "DS-07")
def test_a_job_that_was_given_up_begins_no_further_phase(bench: Bench) -> None:
    """Its thread was left behind between two phases: the next one is the next attempt's to begin."""
    ran: list[str] = []
    told: list[str] = []
    subscribe(lambda event: told.append(event.phase or ""), "before")
    job_work: list[JobExecutor] = []
    claims: list[Any] = []

    def process(job: Any, connection: Any) -> None:
        ran.append(job.phase)
        claims.append(job.claim)

    work = bench.work_of(
        dict.fromkeys(("fetch", "save"), process),
        phases=("fetch", "save"),
        restart_timeout=lambda: job_work[0].timed_out(claims[0], 5),
    )
    job_work.append(work)
    bench.queue(work)
    try:
        work.execute(bench.claim(work))
    finally:
        events._subscribed.clear()
    assert ran == told == ["fetch"]
    assert bench.query("SELECT phase FROM job") == [{"phase": "save"}]
