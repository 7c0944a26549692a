"""PostgreSQL as others run it: restarted, behind PgBouncer, full, read-only, with jobs that hold their session (T3 to T7).

Each job writes one row through `job.session`. Whatever happens to the database, each has written exactly one in the end, none has
failed, none has used up an attempt that was not its own, and none is stuck in a lost claim two leases after the trouble.
"""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext, suppress
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
from jobs.schema import upgrade as schema
from tests.support.pgbouncer import pgbouncer

pytestmark = [pytest.mark.slow, pytest.mark.parametrize("dialect", ["postgresql"], indirect=True)]

LANE = Lane("ledger", "ledger", "ledger.line")
#: A job that is still open after two of them has been forgotten.
LEASE = 10.0
_STUCK = f"state = 'processing' AND lease_until < now() - interval '{LEASE} seconds'"


class Line(SQLModel, table=True):
    """What a job writes."""

    __tablename__ = "chaos_line"
    id: int | None = Field(default=None, primary_key=True)
    job_id: int


class Ledger:
    """Jobs that each write one line, and workers in this process."""

    def __init__(self, url: str, *, hold: Callable[[Any], object] = lambda _: None, concurrency: int = 8) -> None:
        self.url = url
        self._hold = hold
        self._is_quiet_since = time.monotonic()
        #: The most jobs seen at once whose lease had ended for longer than it lasts.
        self.stuck = 0
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
        self._hold(job)

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
            if time.monotonic() - self._is_quiet_since > 2 * LEASE:
                self.stuck = max(self.stuck, self.count(_STUCK))
            time.sleep(0.1)
        return time.monotonic() - began

    def trouble_is_over(self) -> None:
        """From now on, nobody but us keeps a job from its end."""
        self._is_quiet_since = time.monotonic()

    def check(self, n: int) -> dict[str, int]:
        """Nothing failed, lost, doubled or stuck; return the figures for the table."""
        with psycopg.connect(self.url) as connection:
            states = dict(connection.execute("SELECT state, count(*) FROM job GROUP BY state").fetchall())
            lines = connection.execute("SELECT count(*), count(DISTINCT job_id) FROM chaos_line").fetchone()
            retried = connection.execute("SELECT count(*) FROM job WHERE retries > 0").fetchone()
        assert lines is not None
        written, of_jobs = lines
        held = {"failed": states.get("failure", 0), "lost": n - of_jobs, "doubled": written - of_jobs, "stuck": self.stuck}
        assert (states, held, retried) == ({"success": n}, dict.fromkeys(held, 0), (0,))
        return held


@pytest.mark.rows("T5", "T6")
@pytest.mark.parametrize("mode", ["transaction", "session"])
def test_behind_pgbouncer(database_url: str, chaos: Any, mode: str) -> None:
    """Two workers of eight threads through five connections of PgBouncer; in the middle all connections are cut."""
    n = chaos.scaled(400, 3000)
    ledger = Ledger(database_url)
    ledger.fill(n)
    with pgbouncer(database_url, mode, connections=5 if mode == "transaction" else 60) as url, ledger.working(url):
        ledger.until("state = 'success'", n // 4)
        cut_off(database_url)
        ledger.trouble_is_over()
        seconds = ledger.until("state = 'success'", n)
    chaos.tell(f"PgBouncer, {mode} mode, connections cut", jobs=n, trouble=1, seconds=seconds, **ledger.check(n))


@pytest.mark.rows("T5", "T6")
@pytest.mark.timeout(300)
def test_it_restarts(own_postgres: Any, dialect: str, chaos: Any) -> None:
    """PostgreSQL is stopped at once, with jobs that have written, and comes back; again and again."""
    n, restarts = chaos.scaled((400, 2), (3000, 10))
    with psycopg.connect(own_postgres.get_uri(), autocommit=True) as connection:
        connection.execute("DROP DATABASE IF EXISTS ledger")
        connection.execute("CREATE DATABASE ledger")
    ledger = Ledger(own_postgres.get_uri(database="ledger"))
    db = Database(ledger.url)
    schema.upgrade(db)
    db.close()
    ledger.fill(n)
    stop = [str(own_postgres.bin_path / "pg_ctl"), "-w", "-D", str(own_postgres.pgdata), "-m", "immediate", "stop"]
    with ledger.working(ledger.url):
        for turn in range(restarts):
            # Spread over all of the work; some is left for the last one.
            ledger.until("state = 'success'", n * (turn + 1) // (restarts + 2))
            subprocess.run(stop, check=True, stdout=subprocess.DEVNULL, user=own_postgres.system_user)
            time.sleep(0.5 * turn)
            own_postgres.ensure_postgres_running()
            ledger.trouble_is_over()
        assert ledger.count("state = 'success'") < n
        seconds = ledger.until("state = 'success'", n)
    chaos.tell("PostgreSQL restarts", jobs=n, trouble=restarts, seconds=seconds, **ledger.check(n))


def cut_off(url: str) -> None:
    """End all connections to a database."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )


@contextmanager
def all_connections_taken(url: str) -> Iterator[Callable[[float], None]]:
    """Take each connection of the server, those of the database's users too; yield what keeps them for so many seconds."""
    with ExitStack() as taken, psycopg.connect(url, autocommit=True) as first:

        def take() -> None:
            with suppress(psycopg.OperationalError):  # too many clients already
                while True:
                    taken.enter_context(psycopg.connect(url))

        def keep(seconds: float) -> None:
            until = time.monotonic() + seconds
            while time.monotonic() < until:
                take()
                time.sleep(0.05)

        ours = "datname = current_database() AND pid <> pg_backend_pid() AND application_name <> 'taken'"
        found = (1,)
        while found != (0,):
            first.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {ours}")
            take()
            found = first.execute(f"SELECT count(*) FROM pg_stat_activity WHERE {ours}").fetchone()
        yield keep


@pytest.mark.rows("T6")
def test_no_connection_is_free(database_url: str, chaos: Any) -> None:
    """All connections of the server are taken by somebody else, and all of ours ended, for a while."""
    n, seconds = chaos.scaled((400, 3), (3000, 30))
    ledger = Ledger(database_url)
    ledger.fill(n)
    with ledger.working(database_url):
        ledger.until("state = 'success'", n // 4)
        with all_connections_taken(f"{database_url}{'&' if '?' in database_url else '?'}application_name=taken") as keep:
            with pytest.raises(psycopg.OperationalError, match="too many clients"):
                ledger.count("true")
            keep(seconds)
        ledger.trouble_is_over()
        assert ledger.count("state = 'success'") < n
        took = ledger.until("state = 'success'", n)
    chaos.tell("connections exhausted", jobs=n, trouble=1, seconds=took, **ledger.check(n))


@pytest.mark.rows("T6")
@pytest.mark.parametrize("is_cut", [True, False])
def test_read_only_for_a_while(database_url: str, postgres: Any, chaos: Any, is_cut: bool) -> None:
    """As after a failover to a standby that is promoted later: with the connections cut, and with those that stay."""
    n, seconds = chaos.scaled((400, 3), (3000, 30))
    ledger = Ledger(database_url)
    ledger.fill(n)
    name = database_url.partition("/test_")[2].partition("?")[0]
    with ledger.working(database_url):
        ledger.until("state = 'success'", n // 4)
        postgres.execute(f"ALTER DATABASE test_{name} SET default_transaction_read_only TO on")
        if is_cut:
            cut_off(database_url)
            before = ledger.count("state = 'success'")
        time.sleep(seconds)
        if is_cut:
            assert ledger.count("state = 'success'") == before < n
        postgres.execute(f"ALTER DATABASE test_{name} RESET default_transaction_read_only")
        ledger.trouble_is_over()
        took = ledger.until("state = 'success'", n)
    what = f"read-only, connections {'cut' if is_cut else 'kept'}"
    chaos.tell(what, jobs=n, trouble=1, seconds=took, **ledger.check(n))


@pytest.mark.rows("T6")
def test_jobs_that_hold_their_session(database_url: str, chaos: Any) -> None:
    """More jobs than there are connections hold theirs for longer than a lease: leases are renewed, and all wait their turn."""
    n, holding, seconds = chaos.scaled((64, 64, 1.5 * LEASE), (3000, 64, 3 * LEASE))
    still_to_hold = threading.Semaphore(holding)

    def hold(_: Any) -> None:
        if still_to_hold.acquire(blocking=False):
            time.sleep(seconds)

    ledger = Ledger(database_url, hold=hold, concurrency=64)
    ledger.fill(n)
    with ledger.working(database_url, workers=1):
        took = ledger.until("state = 'success'", n)
    held = ledger.check(n)
    assert ledger.count("rescues > 0") == 0
    chaos.tell("jobs that hold their session", jobs=n, trouble=holding, seconds=took, **held)
