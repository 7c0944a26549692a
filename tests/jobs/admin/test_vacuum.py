"""jobs.admin.vacuum: claims on PostgreSQL do not get slower with each job that was ever claimed."""

from __future__ import annotations

import re
from typing import Any

import pytest
from sqlalchemy import event, text

from jobs import JobStore
from jobs.admin import vacuum
from tests.support.store_helpers import LANE, done, enqueue, take, wait_until

pytestmark = pytest.mark.slow

N = 12_000


@pytest.fixture
def dialect() -> str:
    """SQLite deletes its entries at once."""
    return "postgresql"


@pytest.fixture
def full(store: JobStore) -> JobStore:
    """Queue many jobs, whose statistics are known and which autovacuum leaves alone."""
    with store.db.write() as connection:
        connection.execute(text("ALTER TABLE job SET (autovacuum_enabled = false)"))
    enqueue(store, range(N), LANE)
    with store.db.write() as connection:
        connection.execute(text("ANALYZE job"))
    return store


def work_off(store: JobStore, n: int) -> None:
    """Claim and finish so many jobs."""
    while n > 0:
        jobs = take(store, min(n, 1000))
        store.finish([done(job) for job in jobs])
        n -= len(jobs)


def pages_of_a_claim(store: JobStore) -> int:
    """Return the pages that a claim of one job reads to find it."""
    seen: list[tuple[str, Any]] = []

    def note(_connection: Any, _cursor: Any, statement: str, values: Any, *_: Any) -> None:
        if "claim_no=(job.claim_no" in statement:
            seen.append((statement, values))

    event.listen(store.db.engine, "before_cursor_execute", note)
    take(store, 1)
    event.remove(store.db.engine, "before_cursor_execute", note)
    with store.db.read() as connection:
        lines = [row[0] for row in connection.exec_driver_sql("EXPLAIN (ANALYZE, BUFFERS) " + seen[-1][0], seen[-1][1])]
        connection.rollback()
    (scan,) = [number for number, line in enumerate(lines) if "Index Scan using job_ready" in line]
    found = re.search(r"Buffers: shared hit=(\d+)", "\n".join(lines[scan:]))
    assert found is not None
    return int(found[1])


def vacuums(store: JobStore) -> int:
    """Return how often the table of jobs was vacuumed."""
    with store.db.read() as connection:
        return int(connection.execute(text("SELECT vacuum_count FROM pg_stat_user_tables WHERE relname = 'job'")).scalar_one())


def test_claimed_jobs_are_cleared_from_the_index(full: JobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a vacuum each claim walks over all that were claimed before it; with it, it does not."""
    monkeypatch.setattr(vacuum, "EVERY", 10**9)
    work_off(full, N // 2)
    pages_of_a_claim(full)  # marks the entries as dead
    before = pages_of_a_claim(full)
    monkeypatch.setattr(vacuum, "EVERY", N // 3)
    work_off(full, N // 4)
    full._vacuum.close()
    after = pages_of_a_claim(full)
    assert before > 30
    assert after < before / 2


def test_it_comes_once_in_so_many_jobs(full: JobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """One for each `EVERY` jobs, however the claims are cut."""
    monkeypatch.setattr(vacuum, "EVERY", N // 4)
    for _ in range(4):
        work_off(full, N // 4)
        full._vacuum.close()
    wait_until(lambda: vacuums(full) >= 4)
    assert vacuums(full) == 4


def test_a_vacuum_elsewhere_is_not_waited_for(full: JobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever holds the lock that a vacuum needs: claims go on, and this one gives up at once."""
    monkeypatch.setattr(vacuum, "EVERY", 1000)
    with full.db.write() as connection:
        connection.execute(text("LOCK TABLE job IN SHARE UPDATE EXCLUSIVE MODE"))
        work_off(full, 3000)
        # One that waited would wait for this very thread.
        full._vacuum.close()
    assert vacuums(full) == 0


def test_one_that_fails_is_told_and_harms_nothing(
    full: JobStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The claims have their jobs; the log has one line."""
    monkeypatch.setattr(vacuum, "EVERY", 1000)
    monkeypatch.setattr(vacuum, "STATEMENT", vacuum.STATEMENT.replace("job", "nowhere"))
    work_off(full, 1000)
    full._vacuum.close()
    assert caplog.messages == ['the table of jobs could not be vacuumed: relation "nowhere" does not exist']
    assert len(take(full, 10)) == 10
