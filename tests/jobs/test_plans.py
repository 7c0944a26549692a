"""Plans of the hot statements with 20,000 jobs and records (T19): each finds its rows by an index, on both databases."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from kit import ELSEWHERE, LANE, OTHER, begin, content, done, run_script, take
from sqlalchemy import event

from jobs import Failure, Gone, JobStore
from jobs.job import Job
from jobs.page import Item

N = 20_000
_JOBS = """
INSERT INTO job (queue, client, type, key, fingerprint, state, priority, available_at, created_at, finished_at, lease_until,
    worker, claim_no)
SELECT 'default', 'api', CASE WHEN n % 4 = 0 THEN 'api.others' ELSE 'api.things' END, 'k' || n, 'f/' || n,
    CASE WHEN n % 2 = 0 THEN 'success' WHEN n % 100 = 1 THEN 'processing' ELSE 'queued' END, 0,
    '2020-01-01 00:00:00.000000+00', '2020-01-01 00:00:00.000000+00',
    CASE WHEN n % 2 = 0 THEN {time} END, CASE WHEN n % 100 = 1 THEN {later} END, CASE WHEN n % 100 = 1 THEN '{worker}' END, 1
FROM {numbers}
----
INSERT INTO record (sync, key, version, content_hash, generation, first_seen_at, changed_at, synced_at, data)
SELECT 'api.things', 'r' || n, '1', 'h', 1, {time}, {time}, {time}, '{data}' FROM {numbers}
"""


@pytest.fixture
def full(store: JobStore, dialect: str) -> JobStore:
    """Fill a store; without statistics on SQLite, as is usual there, and with those of autovacuum on PostgreSQL."""
    moments = {"time": "'2020-01-01 00:00:00.000000+00'", "later": "'2099-01-01 00:00:00.000000+00'", "worker": ELSEWHERE}
    data = '["' + "x" * 400 + '"]'
    if dialect == "sqlite":
        numbers = f"(WITH RECURSIVE c(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM c WHERE n < {N - 1}) SELECT n FROM c)"
        run_script(store, _JOBS.format(numbers=numbers, data=data, **moments))
    else:
        moments = {name: value + "::timestamptz" if name != "worker" else value for name, value in moments.items()}
        script = _JOBS.format(numbers=f"generate_series(0, {N - 1}) AS s(n)", data=data, **moments)
        script = script.replace("'2020-01-01 00:00:00.000000+00',", "'2020-01-01 00:00:00.000000+00'::timestamptz,")
        run_script(store, script.replace("%", "%%"))
        run_script(store, "ANALYZE")
    return store


@pytest.fixture
def explained(full: JobStore) -> Iterator[Callable[[], list[tuple[str, str]]]]:
    """Return a function that gives each statement since its last call, with its plan."""
    seen: list[tuple[str, Any]] = []
    quiet = False

    def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_rest: Any) -> None:
        if not quiet and statement.lstrip().upper().startswith(("SELECT", "INSERT", "UPDATE", "WITH", "DELETE")):
            seen.append((statement, parameters))

    event.listen(full.db.engine, "before_cursor_execute", note)

    def plans() -> list[tuple[str, str]]:
        nonlocal quiet
        quiet = True
        prefix = "EXPLAIN QUERY PLAN " if full.db.dialect == "sqlite" else "EXPLAIN "
        found = []
        with full.db.write() as connection:
            for statement, parameters in seen:
                rows = connection.exec_driver_sql(prefix + statement, parameters).all()
                found.append((statement, "\n".join(str(row[-1]) for row in rows)))
        seen.clear()
        quiet = False
        return found

    yield plans
    event.remove(full.db.engine, "before_cursor_execute", note)


def assert_by_index(plans: list[tuple[str, str]], *, sorts: bool = True) -> None:
    """No table of ours is read from end to end."""
    assert plans
    for statement, plan in plans:
        lines = [line.strip() for line in plan.splitlines()]
        scans = [line for line in lines if line.startswith(("SCAN job", "SCAN record", "SCAN attempt", "SCAN listing"))]
        scans += [line for line in lines if "Seq Scan on job" in line or "Seq Scan on record" in line]
        assert not scans, f"{scans}\n{plan}\n{statement}"
        if not sorts:
            assert "TEMP B-TREE" not in plan, f"{plan}\n{statement}"
            assert "Sort" not in plan, f"{plan}\n{statement}"


def test_claim(full: JobStore, explained: Callable[[], list[tuple[str, str]]]) -> None:
    """A claim walks job_ready in its order: no sort, no scan."""
    full.rescue(["default"])
    explained()
    full._claims._rescued_at["default"] = time.monotonic()
    assert len(take(full, 25)) == 25
    (claim,) = explained()
    assert "job_ready" in claim[1]
    assert_by_index([claim], sorts=False)
    take(full, 25, LANE, OTHER)
    plans = explained()
    assert all("job_ready" in plan for _, plan in plans)
    assert_by_index(plans, sorts=False)


def test_rescue(full: JobStore, explained: Callable[[], list[tuple[str, str]]]) -> None:
    """Rescue reads what is processing, by job_lease."""
    full.rescue(["default"])
    plans = explained()
    assert all("job_lease" in plan for _, plan in plans), plans
    assert_by_index(plans)


def test_finish(full: JobStore, explained: Callable[[], list[tuple[str, str]]]) -> None:
    """Everything a finish does, it does by primary key or by the index of twins."""
    jobs = take(full, 25)
    explained()
    outcomes = [None, Gone(), Failure("no"), Failure("no", retry=False)]
    save = done(jobs[0]).verdict
    dones = [
        done(job, outcomes[n % 4], content=content(n), save=(lambda _session: save) if n == 4 else None)
        for n, job in enumerate(jobs)
    ]
    full.finish(dones)
    plans = explained()
    assert len(plans) > 5
    assert_by_index(plans)


def test_renew_and_release(full: JobStore, explained: Callable[[], list[tuple[str, str]]]) -> None:
    """Leases are found by primary key."""
    jobs = take(full, 100)
    explained()
    assert len(full.renew([(job.id, job.claim_no) for job in jobs], lease=60)) == 100
    full.release(jobs, reason="stop")
    assert_by_index(explained())


def test_page(full: JobStore, explained: Callable[[], list[tuple[str, str]]]) -> None:
    """A page looks up its own records, one by one."""
    claim = begin(full)
    items = [Item(f"r{n}", "1" if n % 2 else "2") for n in range(500)]
    explained()
    full.enqueue_page(claim, LANE, items, cursor=1)
    assert_by_index(explained())


def test_lane_view(full: JobStore, explained: Callable[[], list[tuple[str, str]]]) -> None:
    """What is left in a lane costs as much as there is left, not as much as there ever was."""
    full.lane(OTHER)
    assert_by_index(explained())


def test_times(full: JobStore) -> None:
    """With 20,000 rows each call is far below what a person or a lease would notice; the best of some counts."""
    claim = begin(full)
    items = [Item(f"r{n}", "1") for n in range(500)]
    full.rescue(["default"])
    full._claims._rescued_at["default"] = time.monotonic() + 60
    jobs: list[Job] = []
    calls: dict[str, tuple[float, Callable[[], Any]]] = {
        "page": (0.05, lambda: full.enqueue_page(claim, LANE, items, cursor=1)),
        "claim": (0.02, lambda: jobs.__setitem__(slice(None), take(full, 25))),
        "renew": (0.02, lambda: full.renew([(job.id, job.claim_no) for job in jobs], lease=60)),
        "finish": (0.03, lambda: full.finish([done(job, content=content(job.id)) for job in jobs])),
        "lane": (0.02, lambda: full.lane(LANE)),
    }
    best = dict.fromkeys(calls, 9.0)
    for _ in range(6):
        for name, (_limit, call) in calls.items():
            began = time.perf_counter()
            call()
            best[name] = min(best[name], time.perf_counter() - began)
    assert {name: seconds for name, seconds in best.items() if seconds > calls[name][0]} == {}
