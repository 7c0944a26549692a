"""Time in which a job waits for SQLite's writer is not the job's own."""

import sqlite3
import threading
import time
from typing import Any

import pytest

from flows import JobType
from flows.enqueue import enqueue, using
from flows.project.registry import Registry
from flows.worker.queue_processing import work
from jobs import JobStore, Retry
from tests.support.job_bench import CLIENT, Bench, write


@pytest.mark.rows("DS-07", "DS-08")
@pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)
@pytest.mark.parametrize("holder", ["a job of this worker", "another process"])
def test_an_innocent_job_does_not_time_out(store: JobStore, holder: str) -> None:
    """Somebody holds the writer longer than the other job's whole time: that one waits, and then has its time."""
    bench, held, waits = Bench(store), threading.Event(), threading.Event()
    begun = threading.Event()

    def hold(job: Any, connection: Any) -> None:
        # The other one's time begins now, so that it does not wait for this long.
        assert begun.wait(60)
        if holder == "another process":
            stranger = sqlite3.connect(str(store.db.url.database), isolation_level=None, check_same_thread=False)
            stranger.execute("BEGIN IMMEDIATE")
        else:
            write(job, "holder")
        held.set()
        assert waits.wait(60)
        time.sleep(2.3)
        if holder == "another process":
            stranger.execute("ROLLBACK")
            stranger.close()

    def innocent(job: Any, connection: Any) -> None:
        begun.set()
        assert held.wait(60)
        waits.set()
        write(job, "innocent")

    none = Retry(max_retries=0)
    kinds = [
        JobType("shop.holder", CLIENT, process=hold, retry=none),
        JobType("shop.innocent", CLIENT, process=innocent, timeout=2.0, retry=none),
    ]
    registry = Registry(clients={CLIENT.id: CLIENT}, job_types={one.id: one for one in kinds})
    with using(store):
        for kind in kinds:
            enqueue(kind, 1)
    result = work(store, registry, until_empty=True, concurrency=2)
    assert (result.succeeded, result.failed) == (2, 0), bench.query("SELECT type, message FROM job")
    assert "innocent" in bench.tables()


@pytest.mark.rows("DS-07")
@pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)
def test_its_time_goes_on_when_the_wait_is_over(store: JobStore) -> None:
    """A job that hangs after it has waited still times out."""
    bench, go = Bench(store), threading.Event()
    began = threading.Event()

    def hold(job: Any, connection: Any) -> None:
        write(job, "holder")
        began.set()
        time.sleep(1.0)

    def hang(job: Any, connection: Any) -> None:
        assert began.wait(60)
        write(job, "hung")
        go.wait(110)

    none = Retry(max_retries=0)
    kinds = [
        JobType("shop.holder", CLIENT, process=hold, retry=none),
        JobType("shop.hang", CLIENT, process=hang, timeout=0.8, retry=none),
    ]
    registry = Registry(clients={CLIENT.id: CLIENT}, job_types={one.id: one for one in kinds})
    with using(store):
        for kind in kinds:
            enqueue(kind, 1)
    started = time.monotonic()
    try:
        result = work(store, registry, until_empty=True, concurrency=2)
    finally:
        go.set()
    assert (result.succeeded, result.failed) == (1, 1)
    assert time.monotonic() - started < 60
    assert bench.tables() == ["holder"]
