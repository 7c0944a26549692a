"""What every test does to a store, in short functions; the audit of state changes, and the invariants it must meet."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
import psycopg
from sqlalchemy import select, text

from jobs import JobStore, Retry, Success
from jobs.db.change_listener import CHANNEL
from jobs.db.json_codec import encode
from jobs.fingerprint import content_hash
from jobs.job import Content, Job, JobResult, Lane, Verdict
from jobs.listing.listing_claim import ListingClaim
from jobs.listing.page_plan import Item, PageResult
from jobs.pauses.pause import OpenPause
from jobs.pauses.probe import Probe
from jobs.reading.reader import Reader, open_reader
from jobs.reading.runs import RunView, latest_runs
from jobs.schema.job_tables import record as table
from tests import ROOT

LANE = Lane("default", "api", "api.things")
OTHER = Lane("default", "api", "api.others")
#: A worker of another host: never known to be gone.
ELSEWHERE = "elsewhere:4711:1:1"
EVEN = Retry(max_retries=3, delay=10, factor=1, jitter=False)
AT_ONCE = Retry(max_retries=3, delay=0, jitter=False)
LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)


class ManualClock:
    """A clock that goes when told to, for SQLite."""

    def __init__(self) -> None:
        self.moment = datetime(2030, 1, 1, 12, tzinfo=UTC)

    def __call__(self) -> datetime:
        """Return the moment it shows."""
        return self.moment

    def forward(self, seconds: float) -> None:
        """Let time pass."""
        self.moment += timedelta(seconds=seconds)


def begin(store: JobStore, sync: str = LANE.type, worker: str = ELSEWHERE) -> ListingClaim:
    """Take the right to list, which must be free."""
    claim = store.listings.claim(sync, LANE.client, worker=worker, lease=60)
    assert isinstance(claim, ListingClaim), claim
    return claim


def enqueue(store: JobStore, keys: Iterable[Any], lane: Lane = LANE, **options: Any) -> PageResult:
    """Queue one job for each key or item, as one page of a listing that is then let go."""
    claim = begin(store, lane.type)
    items = [key if isinstance(key, Item) else Item(str(key)) for key in keys]
    result = store.pages.enqueue(claim, lane, items, cursor=None, **options)
    store.listings.complete(claim)
    store.listings.release(claim)
    return result


def take(
    store: JobStore, n: int = 100, *lanes: Lane, worker: str = ELSEWHERE, lease: float = 60, suspects: bool = False
) -> list[Job]:
    """Claim."""
    return store.claim(lanes or (LANE,), n, worker=worker, lease=lease, suspects=suspects)


def take_one(store: JobStore, *lanes: Lane, **options: Any) -> Job:
    """Claim one job, which must be there."""
    (job,) = take(store, 1, *lanes, **options)
    return job


def done(job: Job, outcome: Any = None, *, retry: Retry = EVEN, traceback: str | None = None, **options: Any) -> JobResult:
    """Say what came of a job; success if nothing is said."""
    return JobResult(job, Verdict(Success() if outcome is None else outcome, traceback), retry, **options)


def content(data: Any, version: str | None = None) -> Content:
    """Make the content of a ledger row."""
    return Content(version, content_hash(data), encode(data).decode())


def finish(store: JobStore, *dones: JobResult) -> list[str]:
    """Finish and return the new states."""
    return [settled.state for settled in store.finish(dones)]


def reading(store: JobStore) -> Reader:
    """Open a store's database as the commands do that only ask."""
    found = open_reader(store.db.url.render_as_string(hide_password=False), project=None)
    assert found is not None
    return found


def runs(store: JobStore, sync: str | None = None, *, limit: int = 50) -> list[RunView]:
    """Return the history of runs, the newest first."""
    with reading(store) as reader:
        return latest_runs(reader, sync, limit=limit)


def query(store: JobStore, statement: str, **values: Any) -> list[dict[str, Any]]:
    """Return rows of a query."""
    with store.db.read() as connection:
        return [dict(row) for row in connection.execute(text(statement), values).mappings()]


def change(store: JobStore, statement: str, **values: Any) -> None:
    """Run a statement that writes."""
    with store.db.write() as connection:
        connection.execute(text(statement), values)


def run_script(store: JobStore, script: str) -> None:
    """Run statements that are separated by lines of dashes."""
    with store.db.write() as connection:
        for statement in script.split("\n----\n"):
            connection.exec_driver_sql(statement)


def row(store: JobStore, job_id: int) -> dict[str, Any]:
    """Return one job's row."""
    (found,) = query(store, "SELECT * FROM job WHERE id = :id", id=job_id)
    return found


def expire(store: JobStore, *jobs: Job) -> None:
    """Let the leases of these jobs, or of all, have ended long ago."""
    for one in jobs:
        change(store, "UPDATE job SET lease_until = '2000-01-01 00:00:00.000000+00' WHERE id = :id", id=one.id)
    if not jobs:
        change(store, "UPDATE job SET lease_until = '2000-01-01 00:00:00.000000+00' WHERE state = 'processing'")


def run_out(store: JobStore, client: str = LANE.client) -> None:
    """Let the clock have ended the pause of a client long ago."""
    change(store, "UPDATE pause SET until = '2000-01-01 00:00:00.000000+00' WHERE ended_at IS NULL AND client = :id", id=client)


def probe(store: JobStore, client: str = LANE.client, *, worker: str = ELSEWHERE, lease: float = 60) -> Probe:
    """Take the right to probe a client, which must be free."""
    found = store.probes.begin(client, worker=worker, lease=lease)
    assert found is not None
    return found


def end_probe(store: JobStore, of: Probe, well: bool | None, **options: Any) -> OpenPause | None:
    """Say how a probe went."""
    return store.probes.end(of, well, **{"durations": [10, 60, 600], "reason": "timeouts", "set_by": "w", **options})


def bring_forward(store: JobStore) -> None:
    """Let every delayed job be due."""
    change(store, "UPDATE job SET available_at = '2000-01-01 00:00:00.000000+00' WHERE state = 'queued'")


def states(store: JobStore) -> dict[str, int]:
    """Count jobs by state."""
    return {found["state"]: found["n"] for found in query(store, "SELECT state, count(*) AS n FROM job GROUP BY state")}


def outcomes(store: JobStore, job_id: int) -> list[str]:
    """Return the outcomes of a job's attempts, in order."""
    return [attempt.outcome for attempt in store.views.job(job_id).attempts]


def record(store: JobStore, key: str, sync: str = LANE.type) -> dict[str, Any] | None:
    """Return what the ledger says of an entity."""
    with store.db.read() as connection:
        found = connection.execute(select(table).where(table.c.sync == sync, table.c.key == key)).mappings().one_or_none()
    return None if found is None else dict(found)


# -- audit ---------------------------------------------------------------------------------------------------------------------

_COLUMNS = """
    job_id BIGINT NOT NULL, old_state TEXT, new_state TEXT NOT NULL, old_claim INTEGER, claim_no INTEGER NOT NULL,
    queue TEXT NOT NULL, fingerprint TEXT, worker TEXT, old_lease TEXT, at TEXT NOT NULL, rescued INTEGER NOT NULL
"""
_AUDIT_SQLITE = f"""
CREATE TABLE audit (n INTEGER PRIMARY KEY AUTOINCREMENT, {_COLUMNS})
----
CREATE TRIGGER audit_insert AFTER INSERT ON job BEGIN
    INSERT INTO audit (job_id, old_state, new_state, claim_no, queue, fingerprint, worker, at, rescued)
    VALUES (NEW.id, NULL, NEW.state, NEW.claim_no, NEW.queue, NEW.fingerprint, NEW.worker,
            strftime('%Y-%m-%d %H:%M:%f', 'now'), 0);
END
----
CREATE TRIGGER audit_update AFTER UPDATE ON job WHEN OLD.state <> NEW.state OR OLD.claim_no <> NEW.claim_no BEGIN
    INSERT INTO audit (job_id, old_state, new_state, old_claim, claim_no, queue, fingerprint, worker, old_lease, at, rescued)
    VALUES (NEW.id, OLD.state, NEW.state, OLD.claim_no, NEW.claim_no, NEW.queue, NEW.fingerprint, NEW.worker, OLD.lease_until,
            strftime('%Y-%m-%d %H:%M:%f', 'now'), NEW.rescues - OLD.rescues);
END
"""
_AUDIT_POSTGRESQL = f"""
CREATE TABLE audit (n BIGSERIAL PRIMARY KEY, {_COLUMNS})
----
CREATE FUNCTION audit_job() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        INSERT INTO audit (job_id, old_state, new_state, claim_no, queue, fingerprint, worker, at, rescued)
        VALUES (NEW.id, NULL, NEW.state, NEW.claim_no, NEW.queue, NEW.fingerprint, NEW.worker,
                to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US'), 0);
    ELSIF OLD.state <> NEW.state OR OLD.claim_no <> NEW.claim_no THEN
        INSERT INTO audit (job_id, old_state, new_state, old_claim, claim_no, queue, fingerprint, worker, old_lease, at, rescued)
        VALUES (NEW.id, OLD.state, NEW.state, OLD.claim_no, NEW.claim_no, NEW.queue, NEW.fingerprint, NEW.worker,
                to_char(OLD.lease_until AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US'),
                to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US'), NEW.rescues - OLD.rescues);
    END IF;
    RETURN NULL;
END $$
----
CREATE TRIGGER audit_job AFTER INSERT OR UPDATE ON job FOR EACH ROW EXECUTE FUNCTION audit_job()
"""


def start_audit(store: JobStore) -> None:
    """Let the database itself write down every change of state, whoever makes it."""
    run_script(store, _AUDIT_SQLITE if store.db.dialect == "sqlite" else _AUDIT_POSTGRESQL)


FINISHED = {"success", "failure", "superseded", "cancelled"}
COUNTED = ("success", "unchanged", "gone", "failure", "retry", "superseded")
#: From state to state, as the store may move a job; `None` is the insert.
WAYS = {
    (None, "queued"), ("queued", "processing"), ("processing", "queued"), ("processing", "success"), ("processing", "failure"),
    ("processing", "superseded"),
}  # fmt: skip
_MILLISECOND = timedelta(milliseconds=1)


def assert_invariants(store: JobStore, effects: Path | None = None, *, max_attempts: int = 4, killed: Iterable[int] = ()) -> None:
    """Hold the tables, the audit and the effects file against I1 to I7 of queue.md, after everything has drained.

    Args:
        store: whose audit was started before its first job.
        effects: lines "job claim_no worker", written by the jobs themselves.
        max_attempts: that the retry policy of the jobs allows.
        killed: process ids; only their jobs may be taken back before the lease has ended.
    """
    jobs = {found["id"]: found for found in query(store, "SELECT * FROM job")}
    audit = query(store, "SELECT * FROM audit ORDER BY n")
    attempts: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for attempt in query(store, "SELECT * FROM attempt ORDER BY id"):
        attempts[attempt["job_id"]].append(attempt)

    enqueued = {entry["job_id"] for entry in audit if entry["old_state"] is None}
    assert enqueued == set(jobs), "I1: a job vanished"
    left = {job_id: job["state"] for job_id, job in jobs.items() if job["state"] not in FINISHED}
    assert not left, f"I1: not finished {left}"

    successes = Counter(entry["job_id"] for entry in audit if entry["new_state"] == "success")
    assert not [job_id for job_id, n in successes.items() if n > 1], "I2: a job succeeded twice"
    assert {job_id for job_id, job in jobs.items() if job["state"] == "success"} == set(successes), "I2: a success was undone"

    _assert_claims(jobs, audit, attempts, {str(pid) for pid in killed})
    for job_id, job in jobs.items():
        tries = Counter(attempt["outcome"] for attempt in attempts[job_id])
        assert job["attempts"] == sum(tries[outcome] for outcome in COUNTED) <= max_attempts, f"I5: attempts of {job_id}"
        # A job takes over the count of one that gave way to it: their content is the same, and so is the suspicion.
        inherited = max((old["rescues"] for old in jobs.values() if old["superseded_by"] == job_id), default=0)
        assert tries["rescued"] <= job["rescues"] <= tries["rescued"] + inherited, f"I5: rescues of {job_id}"

    queued: Counter[tuple[str, str]] = Counter()
    for entry in audit:
        twin = (entry["queue"], entry["fingerprint"])
        queued[twin] += (entry["new_state"] == "queued") - (entry["old_state"] == "queued")
        assert queued[twin] <= 1 or twin[1] is None, f"I7: two queued jobs of {twin}"

    if effects is not None:
        _assert_effects(jobs, attempts, effects)
        _assert_ledger(store, jobs)


def _assert_claims(
    jobs: dict[int, dict[str, Any]], audit: Sequence[dict[str, Any]], attempts: dict[int, list[dict[str, Any]]], killed: set[str]
) -> None:
    seen: dict[int, tuple[str, int]] = {}
    for entry in audit:
        job_id, way = entry["job_id"], (entry["old_state"], entry["new_state"])
        assert way in WAYS, f"I4: job {job_id} went {way}"
        if entry["old_state"] is not None:
            assert seen[job_id] == (entry["old_state"], entry["old_claim"]), f"I4: the audit of job {job_id} has a gap"
            claimed = way == ("queued", "processing")
            assert entry["claim_no"] == entry["old_claim"] + claimed, f"I4: claim number of job {job_id}"
        seen[job_id] = (entry["new_state"], entry["claim_no"])
        if entry["rescued"] and entry["worker"].split(":")[-2] not in killed:
            early = _naive(entry["old_lease"]) - _naive(entry["at"])
            assert early <= _MILLISECOND, f"I4: job {job_id} was taken back {early} before its lease ended"
    for job_id, job in jobs.items():
        # Every claim ended once: claims 1, 2, …, n have one attempt each, and a success is the last and current one.
        numbers = [attempt["claim_no"] for attempt in attempts[job_id]]
        assert numbers == list(range(1, job["claim_no"] + 1)), f"I3: claims of job {job_id} ended as {numbers}"
        wins = [attempt["claim_no"] for attempt in attempts[job_id] if attempt["outcome"] in ("success", "unchanged", "gone")]
        assert wins == ([job["claim_no"]] if job["state"] == "success" else []), f"I3: job {job_id} was finished by {wins}"


def _naive(when: str) -> datetime:
    return datetime.fromisoformat(when).replace(tzinfo=None)


def _assert_effects(jobs: dict[int, dict[str, Any]], attempts: dict[int, list[dict[str, Any]]], effects: Path) -> None:
    done: dict[int, list[int]] = defaultdict(list)
    for line in effects.read_text().splitlines():
        job_id, claim_no, _worker = line.split()
        done[int(job_id)].append(int(claim_no))
    for job_id, job in jobs.items():
        if job["state"] == "success":
            assert job["claim_no"] in done[job_id], f"I6: job {job_id} succeeded without its effect"
        assert len(done[job_id]) == len(set(done[job_id])), f"I6: one claim of job {job_id} worked twice"
        ends = {attempt["claim_no"]: attempt["outcome"] for attempt in attempts[job_id]}
        again = [claim_no for claim_no in done[job_id] if claim_no != job["claim_no"]]
        assert {ends[claim_no] for claim_no in again} <= {"rescued", "retry", "released"}, (
            f"I6: job {job_id} ran again for no reason"
        )


def _assert_ledger(store: JobStore, jobs: dict[int, dict[str, Any]]) -> None:
    last = {(job["key"], job["type"]): job for _, job in sorted(jobs.items()) if job["state"] == "success"}
    for (key, sync), job in last.items():
        found = record(store, key, sync)
        assert found is not None, f"I3: {key} succeeded and has no record"
        assert found["data"] == {"claim_no": job["claim_no"]}, f"I3: the record of {key} is another claim's"
        assert found["deleted_at"] is None


# -- processes -----------------------------------------------------------------------------------------------------------------


def wait_until(is_true: Callable[[], object], seconds: float = 60) -> None:
    """Wait until something is true, with time enough for a machine that stalls."""
    end = time.monotonic() + seconds
    while not is_true():
        assert time.monotonic() < end, "it did not come true"
        time.sleep(0.01)


def heard(listener: psycopg.Connection[Any]) -> list[str]:
    """Return what a connection that listens has been told. They come in the order of the commits, so its own is the last."""
    listener.execute(f"SELECT pg_notify('{CHANNEL}', 'the end')")
    found: list[str] = []
    while "the end" not in found:
        found += [note.payload for note in listener.notifies(timeout=60, stop_after=1)]
    return found[:-1]


def environment(**more: str) -> dict[str, str]:
    """Return the environment of a process that imports our packages."""
    return {**os.environ, "PYTHONPATH": str(ROOT), **more}


def run_python(script: str, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    """Run a piece of Python in a process of its own."""
    return subprocess.run(
        [sys.executable, "-P", "-c", script, *arguments],
        env=environment(**more),
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def copy_package(folder: Path) -> Path:
    """Copy `jobs` into a folder that then serves as PYTHONPATH, for tests that change the code."""
    copy = folder / "jobs"
    shutil.copytree(ROOT / "jobs", copy, ignore=shutil.ignore_patterns("__pycache__"))
    return copy


def replace(path: Path, old: str, new: str) -> None:
    """Change one place of a file, which must be there."""
    text_ = path.read_text()
    assert text_.count(old) == 1, f"{path.name} has no longer: {old}"
    path.write_text(text_.replace(old, new))


class _ForkingProcess:
    """The process of `forking_worker.py`, started once: it has imported everything, so children start within milliseconds."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[str] | None = None

    def ask(self, **command: Any) -> Any:
        """Send a command and return the answer."""
        if self.process is None:
            script = str(Path(__file__).with_name("forking_worker.py"))
            self.process = subprocess.Popen(
                [sys.executable, script], env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(command) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def close(self) -> None:
        """End it."""
        if self.process is not None:
            with self.process:
                pass
            self.process = None


forking_process = _ForkingProcess()


class ForkedWorkers:
    """Forks workers and listers for one test; see `forking_worker.py`."""

    def __init__(self, url: str, effects: Path, **options: Any) -> None:
        self._options = {"url": url, "effects": str(effects), **options}
        self._children: list[int] = []
        self.killed: list[int] = []
        self.died: dict[int, datetime] = {}

    def spawn(self, role: str = "work", fault: str = "") -> int:
        """Start a worker or a lister and return its process id."""
        pid: int = forking_process.ask(role=role, fault=fault, options=self._options)
        self._children.append(pid)
        return pid

    def wait(self, pid: int, *, timeout: float = 40) -> None:
        """Wait until a child has ended. It stays a zombie until the test ends: dead workers do, under careless parents."""
        deadline = time.monotonic() + timeout
        while psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
            assert time.monotonic() < deadline, f"process {pid} did not end"
            time.sleep(0.005)

    def kill(self, pid: int) -> None:
        """SIGKILL a child."""
        os.kill(pid, signal.SIGKILL)
        self.killed.append(pid)
        self.died[pid] = datetime.now(UTC).replace(tzinfo=None)

    def close(self) -> None:
        """Wait until every child has ended by itself."""
        for pid in self._children:
            self.wait(pid, timeout=60)
        assert not any(os.WIFEXITED(code) and os.WEXITSTATUS(code) for code in self._reap()), (
            "a worker ended with an error, see above"
        )

    def _reap(self) -> list[int]:
        children, self._children = self._children, []
        codes: list[int] = forking_process.ask(reap=children) if children else []
        return codes

    def abandon(self) -> None:
        """Kill what is left, after a failed test."""
        for pid in self._children:
            os.kill(pid, signal.SIGKILL)
        self._reap()


@contextmanager
def forked_workers(url: str, effects: Path, **options: Any) -> Iterator[ForkedWorkers]:
    """Run workers, and leave no process behind."""
    found = ForkedWorkers(url, effects, **options)
    try:
        yield found
        found.close()
    finally:
        found.abandon()
