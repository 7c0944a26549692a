"""jobs.admin.retention: finished jobs go by age, by state and by number; nothing else goes. On both databases."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import event

from jobs import Failure, JobStore
from jobs.admin import retention as module
from jobs.admin.retention import Pruned
from tests.support.store_helpers import (
    LANE,
    ManualClock,
    change,
    done,
    enqueue,
    finish,
    query,
    record,
    run_script,
    start_audit,
    states,
    take,
    take_one,
)

DAY = 86400
_NOW = {"sqlite": "strftime('%Y-%m-%d %H:%M:%f', 'now', '{0} seconds') || '000'", "postgresql": "now() + interval '{0} seconds'"}


def ago(store: JobStore, days: float) -> str:
    """Return SQL for a moment so many days ago."""
    return _NOW[store.db.dialect].format(-days * DAY)


def add(store: JobStore, state: str, days: float, *, queue: str = "q", n: int = 1) -> None:
    """Put in jobs that came to a state so many days ago, each with an attempt."""
    moment = ago(store, days)
    finished = "NULL" if state in ("queued", "processing") else moment
    for _ in range(n):
        change(
            store,
            "INSERT INTO job (queue, client, type, state, available_at, created_at, finished_at) "
            f"VALUES ('{queue}', 'c', 't', '{state}', {moment}, {moment}, {finished})",
        )
        change(
            store,
            f"INSERT INTO attempt (job_id, ended_at, outcome) SELECT max(id), {moment}, 'success' FROM job",
        )


def keep(store: JobStore, queue: str, success: float | None, failure: float | None, items: int | None = None) -> None:
    """Declare what a queue keeps."""
    change(
        store,
        "INSERT INTO queue (id, lease, concurrency, time_limit, updated_at, keep_success_days, keep_failure_days, keep_max_items)"
        f" VALUES (:queue, 60, 8, 90, {ago(store, 0)}, :success, :failure, :items)",
        queue=queue, success=success, failure=failure, items=items,
    )  # fmt: skip


def left(store: JobStore) -> dict[tuple[str, str], int]:
    """Count jobs by queue and state."""
    found = query(store, "SELECT queue, state, count(*) AS n FROM job GROUP BY queue, state")
    return {(one["queue"], one["state"]): one["n"] for one in found}


def no_orphans(store: JobStore) -> bool:
    """Tell whether every attempt has its job."""
    return query(store, "SELECT 1 FROM attempt WHERE job_id NOT IN (SELECT id FROM job)") == []


@pytest.mark.rows("AQ-43", "E-20", "E-21", "BA-16")
def test_the_default_keeps_a_week_of_success_and_a_month_of_failure(store: JobStore) -> None:
    """A queue that nobody declared is trimmed too, whether or not anything works it; what waits or is in hand stays."""
    for state in ("success", "superseded", "cancelled", "failure", "queued", "processing"):
        for days in (6.9, 7.1, 29.9, 30.1):
            add(store, state, days)
    found = store.retention.prune()
    assert found == Pruned({"success": 3, "superseded": 3, "cancelled": 3, "failure": 1}, 10, 0, 0, stopped=False)
    assert found.total == 10
    assert states(store) == {"success": 1, "superseded": 1, "cancelled": 1, "failure": 3, "queued": 4, "processing": 4}
    assert no_orphans(store)
    assert len(query(store, "SELECT id FROM attempt")) == 14
    assert store.retention.prune().total == 0


@pytest.mark.rows("AQ-43", "E-21")
def test_each_queue_keeps_what_it_says(store: JobStore) -> None:
    """Any number of days, none at all, or for ever, by state; a paused client's queue is trimmed like any other."""
    keep(store, "short", 1.5, 0)
    keep(store, "ever", None, None)
    keep(store, "failures", 2, None)
    keep(store, "vast", 1e9, 1e300)
    for queue in ("short", "ever", "failures", "vast", "none"):
        for days in (1, 2.5, 400):
            add(store, "success", days, queue=queue)
            add(store, "failure", days, queue=queue)
    store.pauses.open("c", None, cause="person", reason="", set_by="ada")
    store.retention.prune()
    assert left(store) == {
        ("short", "success"): 1,
        ("ever", "success"): 3, ("ever", "failure"): 3,
        ("failures", "success"): 1, ("failures", "failure"): 3,
        ("vast", "success"): 3, ("vast", "failure"): 3,
        ("none", "success"): 2, ("none", "failure"): 2,
    }  # fmt: skip


@pytest.mark.rows("AQ-43", "E-22")
@pytest.mark.parametrize("most", [0, 1, 99, 100, 149, 150, 151])
def test_the_number_that_stays_is_exact(store: JobStore, most: int) -> None:
    """150 finished jobs, many in one and the same moment: exactly the newest stay; jobs that are not finished do not count."""
    keep(store, "q", None, None, most)
    add(store, "queued", 3, n=3)
    for _ in range(3):
        # One statement, one moment.
        moment = ago(store, 1)
        numbers = (
            "(WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < 50) SELECT n FROM c) AS c"
            if store.db.dialect == "sqlite"
            else "generate_series(1, 50) AS c(n)"
        )
        run_script(
            store,
            "INSERT INTO job (queue, client, type, state, available_at, created_at, finished_at) SELECT 'q', 'c', 't', "
            f"CASE WHEN n > 25 THEN 'success' ELSE 'failure' END, {moment}, {moment}, {moment} FROM {numbers}",
        )
    add(store, "success", 0.5, queue="other", n=2)
    finished = "SELECT id FROM job WHERE queue = 'q' AND finished_at IS NOT NULL"
    newest = {found["id"] for found in query(store, f"{finished} ORDER BY finished_at DESC, id DESC LIMIT :n", n=most)}
    assert store.retention.prune().total == max(0, 150 - most)
    assert {found["id"] for found in query(store, finished)} == newest
    assert left(store)["q", "queued"] == 3
    assert left(store)["other", "success"] == 2


@pytest.mark.rows("M15")
def test_pruning_is_done_in_small_transactions(store: JobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """No transaction removes more than the batch, and between any two it stops when told to; the rest comes the next time."""
    monkeypatch.setattr(module, "BATCH", 10)
    add(store, "success", 8, n=35)
    deleted: list[int] = []

    def note(_connection: Any, cursor: Any, statement: str, *_rest: Any) -> None:
        if statement.startswith("DELETE FROM job"):
            deleted.append(len(deleted))

    event.listen(store.db.engine, "after_cursor_execute", note)
    asked = iter([False, False, True])
    found = store.retention.prune(stop=lambda: next(asked))
    assert (found.total, found.stopped, len(deleted)) == (20, True, 2)
    assert no_orphans(store)
    found = store.retention.prune()
    assert (found.total, found.stopped, len(deleted)) == (15, False, 4)
    event.remove(store.db.engine, "after_cursor_execute", note)
    assert store.retention.prune(stop=lambda: True) == Pruned(stopped=True)


def test_the_ledger_outlives_the_job(store: JobStore) -> None:
    """A failed job goes; that its entity failed, and why, stays in its record (issue 3, point 10)."""
    enqueue(store, ["a"])
    job = take_one(store)
    change(
        store, "INSERT INTO record (sync, key, generation, first_seen_at) VALUES (:sync, 'a', 1, '2020-01-01 00:00:00+00')",
        sync=LANE.type,
    )  # fmt: skip
    finish(store, done(job, Failure("no such pet", retry=False)))
    change(store, "UPDATE job SET finished_at = '2020-01-01 00:00:00.000000+00'")
    assert store.retention.prune().jobs == {"failure": 1}
    found = record(store, "a")
    assert found is not None
    assert (found["last_error"], store.views.jobs()) == ("no such pet", [])


def test_a_job_that_a_person_queues_again_stays(store: JobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the look and the transaction a failed job is retried: it is not finished any more."""
    add(store, "failure", 40, n=2)
    first, _second = (job.id for job in store.views.jobs())
    removed = store.retention._remove

    def remove(ids: list[int], newest: Any) -> Any:
        assert store.commands.retry([first]).done == 1
        return removed(ids, newest)

    monkeypatch.setattr(store.retention, "_remove", remove)
    assert store.retention.prune().jobs == {"failure": 1}
    assert states(store) == {"queued": 1}
    assert query(store, "SELECT job_id FROM attempt") == [{"job_id": first}]


def test_what_is_left_over_goes_too(store: JobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Attempts without a job, starts that no rate looks back on, and pauses that ended long ago."""
    monkeypatch.setattr(module, "ORPHAN_BATCH", 3)
    monkeypatch.setattr(module, "BATCH", 2)
    add(store, "success", 1, n=7)
    change(store, "DELETE FROM job WHERE id IN (1, 2, 3, 6)")
    for seconds in (60, 3500, 3700, 90_000):
        change(store, f"INSERT INTO start (queue, at, count) VALUES ('q', {ago(store, seconds / DAY)}, 1)")
    for days in (89, 91, 92):
        change(
            store,
            "INSERT INTO pause (client, cause, level, started_at, ended_at) "
            f"VALUES ('c', 'level', 1, {ago(store, days)}, {ago(store, days)})",
        )
    change(store, f"INSERT INTO pause (client, cause, level, started_at) VALUES ('c', 'person', 1, {ago(store, 400)})")
    assert store.retention.prune(orphans=False) == Pruned({}, 0, 2, 2)
    assert store.retention.prune() == Pruned({}, 4, 0, 0)
    assert no_orphans(store)
    change(store, f"INSERT INTO start (queue, at, count) VALUES ('q', {ago(store, 2)}, 1)")
    keep(store, "q", 7, 30)
    change(store, "UPDATE queue SET rate_n = 1, rate_seconds = 200000")
    assert store.retention.prune().starts == 0
    change(store, "UPDATE queue SET rate_seconds = 1")
    assert store.retention.prune().starts == 1


@pytest.mark.rows("M14", "T7")
def test_maintenance_is_done_by_one(store: JobStore, open_store: Callable[[], JobStore]) -> None:
    """Of many workers that ask at once one is told yes; again only after the time."""
    others = [open_store() for _ in range(6)]
    told: list[bool] = []
    barrier = threading.Barrier(len(others))

    def ask(own: JobStore) -> None:
        barrier.wait()
        told.append(own.retention.is_due("prune", 60))

    for _ in range(2):
        threads = [threading.Thread(target=ask, args=(one,)) for one in others]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(told) == [False] * 5 + [True]
        told.clear()
        assert store.retention.is_due("prune", 60) is False
        assert store.retention.is_due("other", 60) is True
        change(store, "UPDATE maintenance SET next_at = '2000-01-01 00:00:00.000000+00'")


@pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)
def test_time_is_the_databases(open_store: Callable[..., JobStore]) -> None:
    """Age is counted on the one clock that also stamped the jobs (law 13)."""
    clock = ManualClock()
    store = open_store(clock=clock)
    enqueue(store, ["a", "b"])
    finish(store, done(take_one(store)))
    clock.forward(3 * DAY)
    finish(store, done(take_one(store)))
    clock.forward(4 * DAY - 1)
    assert store.retention.prune().total == 0
    assert store.retention.is_due("x", 60) is True
    clock.forward(2)
    assert store.retention.prune().total == 1
    assert store.retention.is_due("x", 60) is False
    clock.forward(60)
    assert store.retention.is_due("x", 60) is True


@pytest.mark.rows("E-08", "AQ-44")
def test_pruning_beside_workers(store: JobStore, open_store: Callable[[], JobStore], monkeypatch: pytest.MonkeyPatch) -> None:
    """Two prunes beside two workers: no deadlock, nothing that is not finished goes, no attempt without its job."""
    monkeypatch.setattr(module, "BATCH", 20)
    keep(store, LANE.queue, 0, 0)
    start_audit(store)
    enqueue(store, range(400))
    errors: list[Exception] = []
    stop = threading.Event()

    def run(own: JobStore, work: Callable[[JobStore], Any]) -> None:
        try:
            while not stop.is_set():
                work(own)
        except Exception as error:  # noqa: BLE001  # shown below
            errors.append(error)

    executors: list[Callable[[JobStore], Any]] = [
        lambda own: own.finish([done(job) for job in take(own, 10)]),
        lambda own: own.finish([done(job, Failure("no", retry=False)) for job in take(own, 7)]),
        lambda own: own.retention.prune(),
        lambda own: own.retention.prune(),
    ]
    threads = [threading.Thread(target=run, args=(open_store(), work)) for work in executors]
    for thread in threads:
        thread.start()
    while errors == [] and query(store, "SELECT 1 FROM job WHERE state IN ('queued', 'processing')"):
        stop.wait(0.05)
    stop.set()
    for thread in threads:
        thread.join()
    assert errors == []
    store.retention.prune()
    assert states(store) == {}
    assert query(store, "SELECT 1 FROM attempt") == []
    ended = query(store, "SELECT count(*) AS n FROM audit WHERE new_state IN ('success', 'failure')")
    assert ended == [{"n": 400}]


@pytest.mark.rows("T19", "M15")
def test_retention_finds_its_rows_by_an_index(store: JobStore) -> None:
    """With 20,000 jobs no statement of a prune reads the jobs from end to end or sorts them all, on either database."""
    sqlite, text = store.db.dialect == "sqlite", "x" * 1000
    numbers = "(WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < 20000) SELECT n FROM c) AS c"
    old = "strftime('%Y-%m-%d %H:%M:%f', 'now', '-' || (n % 60) || ' days') || '000'"
    if not sqlite:
        numbers, old = "generate_series(1, 20000) AS c(n)", "now() - make_interval(days => mod(n, 60))"
    run_script(
        store,
        "INSERT INTO job (queue, client, type, state, available_at, created_at, finished_at, payload) "
        f"SELECT CASE WHEN n > 9000 THEN 'q' ELSE 'r' END, 'c', 't', 'success', {old}, {old}, {old},"
        f" '[\"{text}\"]' FROM {numbers}"
        f"\n----\nINSERT INTO attempt (job_id, ended_at, outcome, traceback) SELECT id, created_at, 'success', '{text}' FROM job",
    )
    keep(store, "q", None, 5, 500)
    if not sqlite:
        run_script(store, "ANALYZE")
    plans: dict[str, str] = {}

    def explain(connection: Any, _cursor: Any, statement: str, parameters: Any, *_rest: Any) -> None:
        if statement not in plans and statement.startswith(("SELECT", "DELETE")):
            plans[statement] = ""
            rows = connection.exec_driver_sql(f"EXPLAIN {'QUERY PLAN ' * sqlite}{statement}", parameters)
            plans[statement] = "\n".join(str(found[-1]) for found in rows)

    event.listen(store.db.engine, "before_cursor_execute", explain)
    assert store.retention.prune().total > 15_000
    event.remove(store.db.engine, "before_cursor_execute", explain)
    assert any("job_finished" in plan for plan in plans.values())
    assert any("attempt_job" in plan for plan in plans.values())
    for plan in plans.values():
        assert "SCAN job" not in plan
        assert "SCAN attempt USING" not in plan
        assert "Seq Scan on job" not in plan
        assert "TEMP B-TREE" not in plan
        assert "Sort  " not in plan.replace("Incremental Sort", "")
