"""Many processes queue the same few jobs, half of them in transactions that roll back, while others work them off (T12)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from jobs import JobStore
from tests.support.store_helpers import LANE, assert_invariants, change, done, finish, query, run_python, start_audit, take

pytestmark = [pytest.mark.slow, pytest.mark.rows("T12", "E-13", "AQ-18", "I7")]

PROCESSES, CALLS, PRINTS = 8, 200, 20

#: Forks after everything is imported, so that all begin at once. What a child has to tell, it writes into its own file.
HEAD = """
import json, os, random, sys, time
from sqlalchemy import create_engine, text
from sqlalchemy.orm import Session
from jobs import Database, DuplicateJob, JobStore, Retry, Success
from jobs.enqueueing.duplicates import NewJob
from jobs.job import JobResult, Lane, Verdict

url, mode, folder, processes, calls, prints = *sys.argv[1:4], *map(int, sys.argv[4:7])
lane = Lane("default", "api", "api.things")
policy = {"merge": lambda new, old: new + old}.get(mode, mode)

def drain(store, alive, seen=lambda connection, job: None):
    while True:
        last = not alive()
        claimed = store.claim([lane], 5, worker="far:1:1:1", lease=60)
        if claimed:
            for job in claimed:
                seen(store, job)
            store.finish([JobResult(job, Verdict(Success()), Retry()) for job in claimed])
        elif last:
            return
        time.sleep(0.005)

def fork(children):
    pids = []
    for number, child in enumerate(children):
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                child(number)
                code = 0
            except BaseException:
                import traceback
                traceback.print_exc()
            os._exit(code)
        pids.append(pid)
    return pids

def run(children, worker):
    pids = fork(children)
    flag = os.path.join(folder, "over")
    def work(number):
        worker(lambda: not os.path.exists(flag))
    working = fork([work])
    failed = [pid for pid in pids if os.waitpid(pid, 0)[1]]
    open(flag, "w").close()
    failed += [pid for pid in working if os.waitpid(pid, 0)[1]]
    sys.exit(len(failed))
"""

RACE = (
    HEAD
    + """
def child(number):
    dice = random.Random(number)
    store = JobStore(Database(url))
    engine = create_engine(store.db.url, connect_args={"timeout": 30} if store.db.dialect == "sqlite" else {})
    answers = []
    for call in range(calls):
        n = dice.randrange(prints)
        job = NewJob(lane, [[number, call]], f"f{n}")
        try:
            if dice.random() < 0.5:
                with Session(engine) as session:
                    (found,) = store.enqueue([job], policy, session=session)
                    time.sleep(dice.choice([0, 0.001]))
                    session.rollback()
            else:
                (found,) = store.enqueue([job], policy)
                answers.append([found.id, found.duplicate_of, f"f{n}", number, call])
        except DuplicateJob as error:
            answers.append([error.duplicates[0].id, None, None, number, call])
    with open(os.path.join(folder, f"{number}.json"), "w") as file:
        json.dump(answers, file)
    engine.dispose()
    store.close()

def worker(alive):
    store = JobStore(Database(url))
    drain(store, alive)
    store.close()

run([child] * processes, worker)
"""
)


@pytest.mark.parametrize("mode", ["reject", "discard", "replace", "merge"])
def test_duplicate_race(store: JobStore, database_url: str, tmp_path: Path, mode: str) -> None:
    """Never two queued jobs of one fingerprint, and no answer names a job that was rolled back with somebody else's call."""
    start_audit(store)
    found = run_python(RACE, database_url, mode, str(tmp_path), str(PROCESSES), str(CALLS), str(PRINTS))
    assert found.returncode == 0, found.stderr
    while claimed := take(store, 100, LANE):
        finish(store, *map(done, claimed))
    assert_invariants(store, max_attempts=1)

    jobs = {row["id"]: row for row in query(store, "SELECT id, fingerprint, payload FROM job")}
    stored = {
        row_id: {tuple(part) for part in (json.loads(row["payload"]) if isinstance(row["payload"], str) else row["payload"])}
        for row_id, row in jobs.items()
    }
    answers = [answer for number in range(PROCESSES) for answer in json.loads((tmp_path / f"{number}.json").read_text())]
    fresh = set()
    for job_id, twin, print_, number, call in answers:
        if print_ is None:
            continue
        assert jobs[job_id]["fingerprint"] == print_, "the answer names a job that is not there"
        assert twin in (None, job_id)
        if twin is None:
            assert job_id not in fresh, "two calls were told that the same job is theirs"
            fresh.add(job_id)
        if mode == "merge" or (mode == "discard" and twin is None):
            assert (number, call) in stored[job_id], "a payload was lost"
    assert fresh == set(jobs), "each row is somebody's new job, and nobody's who rolled back"
    assert len(jobs) >= PRINTS


SEEN = (
    HEAD
    + """
def child(number):
    dice = random.Random(number)
    store = JobStore(Database(url))
    engine = create_engine(store.db.url, connect_args={"timeout": 30} if store.db.dialect == "sqlite" else {})
    for call in range(calls):
        n = dice.randrange(3)
        with Session(engine) as session:
            session.execute(text("INSERT INTO fact VALUES (:n)"), {"n": n})
            (found,) = store.enqueue([NewJob(lane, n, f"f{n}")], policy, session=session)
            time.sleep(dice.choice([0, 0.001]))
            if dice.random() < 0.5:
                session.commit()
    engine.dispose()
    store.close()

def note(store, job):
    with store.db.write() as connection:
        n = connection.execute(text("SELECT count(*) FROM fact WHERE n = :n"), {"n": job.payload}).scalar_one()
        connection.execute(text("INSERT INTO seen VALUES (:n, :count)"), {"n": job.payload, "count": n})

def worker(alive):
    store = JobStore(Database(url))
    drain(store, alive, note)
    store.close()

run([child] * processes, worker)
"""
)


@pytest.mark.parametrize("mode", ["discard", "replace"])
def test_no_news_is_lost(store: JobStore, database_url: str, tmp_path: Path, mode: str) -> None:
    """Whatever a caller wrote together with its job, the job that stands for it starts after that and sees it (law 11)."""
    change(store, "CREATE TABLE fact (n INTEGER)")
    change(store, "CREATE TABLE seen (n INTEGER, count INTEGER)")
    found = run_python(SEEN, database_url, mode, str(tmp_path), "4", "150", "3")
    assert found.returncode == 0, found.stderr
    facts = query(store, "SELECT n, count(*) AS count FROM fact GROUP BY n ORDER BY n")
    seen = query(store, "SELECT n, max(count) AS count FROM seen GROUP BY n ORDER BY n")
    assert sum(row["count"] for row in facts) > 200
    assert facts == seen


def test_bulk_calls_that_overlap(store: JobStore, database_url: str, tmp_path: Path) -> None:
    """Calls that hold the same fingerprints in opposite orders both come through."""
    script = (
        HEAD
        + """
def child(number):
    store = JobStore(Database(url))
    for call in range(calls):
        jobs = [NewJob(lane, n, f"{call}/{n}") for n in range(prints)]
        found = store.enqueue(jobs[:: -1 if number % 2 else 1], policy)
        assert len(found) == prints
    store.close()

run([child] * processes, lambda alive: None)
"""
    )
    found = run_python(script, database_url, "discard", str(tmp_path), "4", "20", "50")
    assert found.returncode == 0, found.stderr
    assert query(store, "SELECT count(*) AS n, count(DISTINCT fingerprint) AS prints FROM job") == [{"n": 1000, "prints": 1000}]
