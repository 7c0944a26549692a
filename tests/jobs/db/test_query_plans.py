"""Plans of the hot statements with 100,000 jobs (T19): each finds its rows by an index, on both databases."""

from __future__ import annotations

import re
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event

from jobs import Database, Failure, Gone, JobStore, Queue, Rate
from jobs.enqueueing.duplicates import NewJob
from jobs.job import Job, Lane
from jobs.listing.page_plan import Item
from tests.support.store_helpers import ELSEWHERE, LANE, OTHER, begin, content, done, query, row, run_out, run_script, take

pytestmark = pytest.mark.slow

SERIAL = Lane("serial", "api", "api.serial")
N = 100_000
_TIME = "2020-01-01 00:00:00.000000+00"
#: Half of it finished, the rest in two lanes, but for a tenth in a queue of serial keys: one long backlog and many short ones.
#: A few have waited for years at low priorities.
_JOBS = """
INSERT INTO job (queue, client, type, key, fingerprint, state, priority, available_at, created_at, finished_at, lease_until,
    worker, claim_no, serial_key)
SELECT CASE WHEN n % 10 = 9 THEN 'serial' ELSE 'default' END, 'api',
    CASE WHEN n % 10 = 9 THEN 'api.serial' WHEN n % 4 = 1 THEN 'api.others' ELSE 'api.things' END, 'k' || n, 'f/' || n,
    CASE WHEN n % 2 = 0 THEN 'success' WHEN n % 100 = 1 THEN 'processing' ELSE 'queued' END,
    CASE WHEN n % 1000 = 3 THEN -1 - n % 7000 / 1000 ELSE 0 END,
    CASE WHEN n % 1000 = 3 THEN {time} ELSE {recent} END, {time},
    CASE WHEN n % 2 = 0 THEN {time} END, CASE WHEN n % 100 = 1 THEN {later} END,
    CASE WHEN n % 100 = 1 THEN '{worker}' END, 1,
    CASE WHEN n % 100 = 99 THEN 'key ' || (n / 300) WHEN n % 10 = 9 THEN 'backlog' END
FROM {numbers}
----
INSERT INTO record (sync, key, version, content_hash, generation, first_seen_at, changed_at, synced_at, data)
SELECT 'api.things', 'r' || n, '1', 'h', 1, {time}, {time}, {time}, '{data}' FROM {numbers} WHERE n % 5 = 0
----
INSERT INTO start (queue, at, count) SELECT 'limited', {time}, 1 FROM {numbers} WHERE n % 10 = 0
----
INSERT INTO start (queue, at, count) SELECT 'default', {later}, 1 FROM {numbers} WHERE n % 1000 = 0
"""


Plans = Callable[[], list[tuple[str, str]]]


def fill(store: JobStore) -> None:
    """Fill a store; without statistics on SQLite, as is usual there, and with those of autovacuum on PostgreSQL."""
    moments = {"time": f"'{_TIME}'", "recent": "'2024-01-01 00:00:00.000000+00'", "later": "'2099-01-01 00:00:00.000000+00'"}
    rows = {"worker": ELSEWHERE, "data": '["' + "x" * 400 + '"]'}
    if store.db.dialect == "sqlite":
        numbers = f"(WITH RECURSIVE c(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM c WHERE n < {N - 1}) SELECT n FROM c)"
        run_script(store, _JOBS.format(numbers=numbers, **rows, **moments))
    else:
        moments = {name: value + "::timestamptz" for name, value in moments.items()}
        script = _JOBS.format(numbers=f"generate_series(0, {N - 1}) AS s(n)", **rows, **moments)
        run_script(store, script.replace("%", "%%"))
        run_script(store, "ANALYZE")


@pytest.fixture(scope="module")
def _filled_sqlite(_migrated_sqlite: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("filled") / "filled.db"
    shutil.copy(_migrated_sqlite, path)
    store = JobStore(Database(f"sqlite:///{path}"))
    fill(store)
    # All of it into the one file that is copied.
    store.db.close()
    return path


@pytest.fixture(scope="module")
def _filled_postgres(postgres: Any, _migrated_postgres: str) -> str:
    name: str = postgres.create(_migrated_postgres)
    store = JobStore(Database(postgres.url(name)))
    fill(store)
    store.close()
    return name


@pytest.fixture
def database_url(dialect: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Return the URL of a copy of the full database: it is filled once."""
    if dialect == "sqlite":
        path = tmp_path / "full.db"
        shutil.copy(request.getfixturevalue("_filled_sqlite"), path)
        yield f"sqlite:///{path}"
        return
    server = request.getfixturevalue("postgres")
    name = server.create(request.getfixturevalue("_filled_postgres"))
    yield server.url(name)
    server.drop(name)


@pytest.fixture
def full(store: JobStore) -> JobStore:
    """Return a store on the full database whose next look at its queues is a while away."""
    settle(store)
    return store


def settle(store: JobStore, seconds: float = 3600) -> None:
    """Let the store look at its queues once, and then not for a while."""
    store.rescues.run(["default", "serial"])
    store._claims._checked_at.clear()
    store._claims._aged_at.clear()
    take(store, 1, worker="far:1:1:1")
    take(store, 1, SERIAL, worker="far:1:1:1")
    store._claims._rotation.count(100)
    for queue in ("default", "serial"):
        store._claims._checked_at[queue] = store._claims._aged_at[queue] = time.monotonic() + seconds


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
        scans = [
            line for line in lines if line.startswith(("SCAN job", "SCAN record", "SCAN attempt", "SCAN listing", "SCAN start"))
        ]
        scans += [line for line in lines if any(f"Seq Scan on {name}" in line for name in ("job", "record", "start"))]
        assert not scans, f"{scans}\n{plan}\n{statement}"
        if not sorts:
            assert "TEMP B-TREE" not in plan, f"{plan}\n{statement}"
            # Sorting the handful of ids that were found is no matter; sorting the rows of a table is.
            assert "Sort Key: " not in plan.replace("Sort Key: ready.id", ""), f"{plan}\n{statement}"


def of_claims(plans: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return those of the statements that take jobs."""
    return [(statement, plan) for statement, plan in plans if statement.startswith("WITH") and "UPDATE job" in statement]


@pytest.mark.rows("AQ-45", "T19")
def test_claim(full: JobStore, explained: Plans) -> None:
    """A claim is one statement that walks job_ready in its order: no sort, no scan."""
    assert len(take(full, 25)) == 25
    (claim,) = explained()
    assert "job_ready" in claim[1]
    assert_by_index([claim], sorts=False)


@pytest.mark.rows("T19")
def test_claim_from_lanes(full: JobStore, explained: Plans) -> None:
    """Several lanes are asked for their first priorities in one statement, and claimed from in order."""
    assert Counter(job.lane for job in take(full, 25, LANE, OTHER)) == {LANE: 13, OTHER: 12}
    plans = explained()
    assert len(of_claims(plans)) == len(plans) - 1
    assert all("job_ready" in plan for _, plan in plans)
    assert_by_index(plans, sorts=False)


@pytest.mark.rows("T19", "E-19")
def test_aged_claim(full: JobStore, explained: Plans) -> None:
    """Who has waited long is found by a step for each priority, and claimed without a sort."""
    full._claims._aged_at.clear()
    jobs = take(full, 25)
    assert sorted(row(full, job.id)["priority"] < 0 for job in jobs) == [False] * 18 + [True] * 7
    plans = explained()
    assert any("WITH RECURSIVE" in statement for statement, _ in plans)
    assert_by_index(plans, sorts=False)


@pytest.mark.rows("T19")
def test_suspects(full: JobStore, explained: Plans) -> None:
    """Suspects are looked for in the same index."""
    take(full, 1, suspects=True)
    (claim,) = explained()
    assert "job_ready" in claim[1]
    # Where statistics say that suspects are rare, PostgreSQL sorts the few that the index found.
    assert_by_index([claim])


@pytest.mark.rows("T19")
def test_serial_claim(full: JobStore, explained: Plans) -> None:
    """A backlog of one key is not read: some hundred rows in order, then a step for each key."""
    jobs = take(full, 100, SERIAL)
    assert len(jobs) == 100
    assert (
        len(
            {
                row["serial_key"]
                for row in query(full, "SELECT serial_key FROM job WHERE state = 'processing' AND queue = 'serial'")
            }
        )
        >= 100
    )
    plans = explained()
    assert len(of_claims(plans)) == 2
    assert any("job_serial" in plan for _, plan in plans)
    assert_by_index(plans)


@pytest.mark.rows("T19")
def test_budget(full: JobStore, explained: Plans) -> None:
    """Slots are counted by job_lease and starts by start_queue; old starts are deleted by it too."""
    full.queues.register(Queue("default", concurrency=2000, rate=Rate(200, 60)), declared=True)
    explained()
    assert len(take(full, 25)) == 25
    plans = explained()
    counts = [plan for statement, plan in plans if "count(*)" in statement]
    assert len(counts) == 1
    assert "job_lease" in counts[0]
    assert "start_queue" in counts[0]
    assert any("DELETE FROM start" in statement for statement, _ in plans)
    assert_by_index(plans)


@pytest.mark.rows("T19")
def test_wait_hint(full: JobStore, explained: Plans) -> None:
    """The next free start is found by start_queue."""
    full.queues.register(Queue("default", rate=Rate(100, 60)))
    explained()
    assert full.queues.wait_hint(["default"]) is not None
    assert_by_index(explained())


@pytest.mark.rows("T19")
def test_rescue(full: JobStore, explained: Plans) -> None:
    """Rescue reads what is processing, by job_lease."""
    full.rescues.run(["default"])
    plans = explained()
    assert all("job_lease" in plan for _, plan in plans), plans
    assert_by_index(plans)


def read_of_jobs(store: JobStore, statements: list[tuple[str, Any]]) -> int:
    """Do statements and undo them; return how much of the table of jobs they read: SQLite's steps, PostgreSQL's rows."""
    count = 0

    def step() -> None:
        nonlocal count
        count += 1

    with store.db.engine.connect() as connection, connection.begin() as transaction:
        driver: Any = connection.connection.driver_connection
        for statement, parameters in statements:
            if store.db.dialect == "sqlite":
                driver.set_progress_handler(step, 1)
                connection.exec_driver_sql(statement, parameters)
                driver.set_progress_handler(None, 0)
            else:
                for (line,) in connection.exec_driver_sql("EXPLAIN (ANALYZE, TIMING OFF) " + statement, parameters):
                    if (found := re.search(r" on job.*\(actual rows=([\d.]+) loops=(\d+)", line)) is not None:
                        count += int(float(found[1]) * int(found[2]))
                    elif (filtered := re.search(r"Rows Removed by .*: (\d+)", line)) is not None:
                        count += int(filtered[1])
        transaction.rollback()
    return count


@pytest.mark.rows("M8", "SC-14")
def test_jobs_of_a_paused_client_are_not_read(full: JobStore) -> None:
    """Whatever waits: 40,000 jobs of a client that is paused, or waits for its probe, cost the claims of others nothing."""
    free = Lane("default", "free", "free.things")
    full.enqueue([NewJob(free, {"n": n}) for n in range(300)])
    lanes = (LANE, OTHER, SERIAL, free)
    settle(full)
    seen: list[tuple[str, Any]] = []

    def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_rest: Any) -> None:
        if "job" in statement:
            seen.append((statement, parameters))

    def cost(work: Callable[[], object]) -> int:
        seen.clear()
        event.listen(full.db.engine, "before_cursor_execute", note)
        work()
        event.remove(full.db.engine, "before_cursor_execute", note)
        return read_of_jobs(full, list(seen))

    def claims() -> None:
        assert take(full, 25, LANE) == take(full, 25, LANE, OTHER, SERIAL) == take(full, 1, suspects=True) == []
        assert {job.lane for job in take(full, 25, *lanes)} == {free}
        assert full.due_times.is_due(lanes)
        full.probes.due()

    full.pauses.open("api", 3600, cause="asked", reason="", set_by="me")
    many = cost(claims)
    run_out(full)
    reopening = cost(claims)
    # It does look for the first delayed job of a client that waits for its probe: a step for each priority.
    assert cost(lambda: full.due_times.next(lanes)) < 2000
    run_script(full, "DELETE FROM job WHERE client = 'api'\n----\nDELETE FROM start")
    if full.db.dialect == "postgresql":
        with full.db.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.exec_driver_sql("VACUUM ANALYZE job")
    none = cost(claims)
    assert none > 0
    print(f"\n{full.db.dialect}: {many} while paused, {reopening} while reopening, {none} without those jobs")
    assert max(many, reopening) <= 1.1 * none + 50


def test_finish(full: JobStore, explained: Plans) -> None:
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


def test_renew_and_release(full: JobStore, explained: Plans) -> None:
    """Leases are found by primary key."""
    jobs = take(full, 100)
    explained()
    assert len(full.renew([(job.id, job.claim_no) for job in jobs], lease=60)) == 100
    full.release(jobs, reason="stop")
    assert_by_index(explained())


def test_page(full: JobStore, explained: Plans) -> None:
    """A page looks up its own records, one by one."""
    claim = begin(full)
    items = [Item(f"r{n}", "1" if n % 2 else "2") for n in range(500)]
    explained()
    full.pages.enqueue(claim, LANE, items, cursor=1)
    assert_by_index(explained())


def test_lane_view(full: JobStore, explained: Plans) -> None:
    """What is left in a lane costs as much as there is left, not as much as there ever was."""
    full.views.lane(OTHER)
    assert_by_index(explained())


def test_times(full: JobStore) -> None:
    """With 100,000 rows each call takes less than a person or a lease would notice; with room for a busy machine."""
    claim = begin(full)
    items = [Item(f"r{n}", "1") for n in range(500)]
    jobs: list[Job] = []
    calls: dict[str, tuple[float, Callable[[], Any]]] = {
        "page": (2.0, lambda: full.pages.enqueue(claim, LANE, items, cursor=1)),
        "claim": (2.0, lambda: jobs.__setitem__(slice(None), take(full, 25))),
        "renew": (2.0, lambda: full.renew([(job.id, job.claim_no) for job in jobs], lease=60)),
        "finish": (2.0, lambda: full.finish([done(job, content=content(job.id)) for job in jobs])),
        "lane": (2.0, lambda: full.views.lane(LANE)),
    }
    best = dict.fromkeys(calls, 9.0)
    for _ in range(6):
        for name, (_limit, call) in calls.items():
            began = time.perf_counter()
            call()
            best[name] = min(best[name], time.perf_counter() - began)
    assert {name: seconds for name, seconds in best.items() if seconds > calls[name][0]} == {}
