"""PostgreSQL as others run it: behind PgBouncer, full, read-only for a while, with jobs that hold their session (T3 to T7).

Each job writes one row through `job.session`. Whatever happens to the database, each has written exactly one in the end, none has
failed, and none has used up an attempt that was not its own.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import psycopg
import pytest
from sqlalchemy import insert
from sqlmodel import Field, SQLModel

from flows import Client, JobType
from flows.project.registry import Registry
from flows.worker.queue_processing import work
from jobs import Database, JobStore, Queue, Retry
from jobs.enqueueing.duplicates import NewJob
from jobs.job import Lane
from tests.support.pgbouncer import pgbouncer

pytestmark = [pytest.mark.slow, pytest.mark.parametrize("dialect", ["postgresql"], indirect=True)]

LANE = Lane("ledger", "ledger", "ledger.line")
#: A job that is still open after two of them has been forgotten.
LEASE = 10.0


class Line(SQLModel, table=True):
    """What a job writes."""

    __tablename__ = "chaos_line"
    id: int | None = Field(default=None, primary_key=True)
    job_id: int


class Ledger:
    """Jobs that each write one line, and workers in this process."""

    def __init__(self, url: str, *, hold: Callable[[], object] = lambda: None, concurrency: int = 8) -> None:
        self.url = url
        self._hold = hold
        client = Client("ledger", connect=lambda _: nullcontext())
        job_type = JobType(
            LANE.type, client, process=self._write, retry=Retry(max_retries=0), concurrency=concurrency, queue="ledger",
        )  # fmt: skip
        self._registry = Registry(
            clients={"ledger": client},
            job_types={LANE.type: job_type},
            queues={"ledger": Queue("ledger", lease=LEASE, concurrency=200)},
        )
        self._errors: list[BaseException] = []

    def _write(self, job: Any, _: Any) -> None:
        job.session.execute(insert(Line).values(job_id=job.id))
        self._hold()

    def fill(self, n: int) -> None:
        """Queue so many jobs."""
        db = Database(self.url)
        SQLModel.metadata.create_all(db.engine, tables=[Line.__table__])  # type: ignore[attr-defined]
        JobStore(db).enqueue([NewJob(LANE, None, key=str(number)) for number in range(n)])
        db.close()

    @contextmanager
    def working(self, url: str, *, workers: int = 2) -> Iterator[None]:
        """Run workers, each with a store of its own; none of them may raise."""
        stop = threading.Event()

        def one() -> None:
            store = JobStore(Database(url), max_rescues=10**6)
            try:
                work(store, self._registry, stop=stop)
            except BaseException as error:  # noqa: BLE001  # shown below
                self._errors.append(error)
            finally:
                store.db.close()

        threads = [threading.Thread(target=one) for _ in range(workers)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            stop.set()
            for thread in threads:
                thread.join(90)
            assert not any(thread.is_alive() for thread in threads), "a worker does not end"
        assert self._errors == []

    def count(self, where: str) -> int:
        """Count jobs, on a connection of the test's own."""
        with psycopg.connect(self.url) as connection:
            row = connection.execute(f"SELECT count(*) FROM job WHERE {where}").fetchone()  # type: ignore[arg-type]
        assert row is not None
        return int(row[0])

    def until(self, where: str, n: int, *, seconds: float = 240) -> float:
        """Wait until at least so many jobs are like this; return the seconds it took."""
        began = time.monotonic()
        while self.count(where) < n:
            assert self._errors == []
            assert time.monotonic() - began < seconds, f"{self.count(where)} of {n} jobs have {where}"
            time.sleep(0.1)
        return time.monotonic() - began

    def check(self, n: int) -> None:
        """Nothing lost, nothing doubled, nothing failed."""
        with psycopg.connect(self.url) as connection:
            states = connection.execute("SELECT state, count(*) FROM job GROUP BY state").fetchall()
            lines = connection.execute("SELECT count(*), count(DISTINCT job_id) FROM chaos_line").fetchone()
            retried = connection.execute("SELECT count(*) FROM job WHERE retries > 0").fetchone()
        assert (states, lines, retried) == ([("success", n)], (n, n), (0,))


@pytest.mark.rows("T5", "T6")
@pytest.mark.parametrize("mode", ["transaction", "session"])
def test_behind_pgbouncer(database_url: str, chaos: Any, mode: str) -> None:
    """Two workers of eight threads through five connections of PgBouncer; in the middle all connections are cut."""
    n = chaos.scaled(400, 3000)
    ledger = Ledger(database_url)
    ledger.fill(n)
    with pgbouncer(database_url, mode, connections=5 if mode == "transaction" else 60) as url, ledger.working(url):
        ledger.until("state = 'success'", n // 4)
        with psycopg.connect(database_url, autocommit=True) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        seconds = ledger.until("state = 'success'", n)
    ledger.check(n)
    chaos.tell(f"PgBouncer, {mode} mode, connections cut", jobs=n, trouble=1, seconds=seconds)


@pytest.mark.rows("T6")
def test_no_connection_is_free(database_url: str, postgres: Any, chaos: Any) -> None:
    """All connections of the server are taken, and all of ours ended, for a while."""
    n, seconds = chaos.scaled((400, 3), (3000, 30))
    ledger = Ledger(database_url)
    ledger.fill(n)
    name = database_url.partition("/test_")[2].partition("?")[0]
    with ledger.working(database_url):
        ledger.until("state = 'success'", n // 4)
        postgres.execute(
            f"ALTER DATABASE test_{name} CONNECTION LIMIT 0",
            f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'test_{name}'",
        )
        time.sleep(seconds)
        postgres.execute(f"ALTER DATABASE test_{name} CONNECTION LIMIT -1")
        took = ledger.until("state = 'success'", n)
    ledger.check(n)
    chaos.tell("connections exhausted", jobs=n, trouble=1, seconds=took)


@pytest.mark.rows("T6")
@pytest.mark.parametrize("is_cut", [True, False])
def test_read_only_for_a_while(database_url: str, postgres: Any, chaos: Any, is_cut: bool) -> None:
    """As after a failover to a standby that is promoted later: with the connections cut, and with those that stay."""
    n, seconds = chaos.scaled((400, 3), (3000, 30))
    ledger = Ledger(database_url)
    ledger.fill(n)
    name = database_url.partition("/test_")[2].partition("?")[0]
    cut = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'test_{name}'"
    with ledger.working(database_url):
        ledger.until("state = 'success'", n // 4)
        postgres.execute(f"ALTER DATABASE test_{name} SET default_transaction_read_only TO on", *([cut] if is_cut else []))
        time.sleep(seconds)
        postgres.execute(f"ALTER DATABASE test_{name} RESET default_transaction_read_only")
        took = ledger.until("state = 'success'", n)
    ledger.check(n)
    chaos.tell(f"read-only, connections {'cut' if is_cut else 'kept'}", jobs=n, trouble=1, seconds=took)


@pytest.mark.rows("T6")
def test_jobs_that_hold_their_session(database_url: str, chaos: Any) -> None:
    """More jobs than there are connections hold theirs for longer than a lease: leases are renewed, and all wait their turn."""
    n, seconds = chaos.scaled((64, 1.5 * LEASE), (128, 3 * LEASE))
    ledger = Ledger(database_url, hold=lambda: time.sleep(seconds), concurrency=64)
    ledger.fill(n)
    with ledger.working(database_url, workers=1):
        took = ledger.until("state = 'success'", n)
    ledger.check(n)
    assert ledger.count("rescues > 0") == 0
    chaos.tell("jobs that hold their session", jobs=n, trouble=n, seconds=took)
