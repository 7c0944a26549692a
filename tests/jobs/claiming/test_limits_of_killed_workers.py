"""Limits that hold while workers are killed: six real processes, and what the database itself wrote down (T14, I8)."""

from __future__ import annotations

import random
import time
from collections import Counter, defaultdict
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from jobs import JobStore, Queue, Rate
from jobs.enqueueing.duplicates import NewJob
from jobs.job import Lane
from tests.support.store_helpers import LANE, OTHER, assert_invariants, forked_workers, query, start_audit, states

pytestmark = pytest.mark.slow

WORKERS = 6
SECOND = Lane("second", "other-api", "other.things")
#: On SQLite the audit's clock shows milliseconds.
_MILLISECOND = timedelta(milliseconds=1)


def storm(store: JobStore, url: str, effects: Path, lanes: list[Lane], *, kills: int) -> int:
    """Work everything off with six workers and a batch of ten, a random one killed every 80 ms and replaced; return the kills."""
    dice = random.Random(14)
    with forked_workers(url, effects, max_rescues=10**6, pace=0.02, batch=10, lanes=lanes) as children:
        workers = [children.spawn() for _ in range(WORKERS)]
        # On a busy machine some workers die before they have taken a job; those kills prove nothing.
        while len(children.killed) < kills or rescues(store) < kills // 4:
            assert states(store).keys() - {"success"}, "the storm was over too late"
            time.sleep(0.08)
            victim = dice.randrange(WORKERS)
            children.kill(workers[victim])
            workers[victim] = children.spawn()
    assert states(store).keys() == {"success"}
    # Without the effects: they are held against the ledger of one sync.
    assert_invariants(store, killed=children.killed)
    return len(children.killed)


def rescues(store: JobStore) -> int:
    """Return how many jobs were taken back from the dead."""
    found: int = query(store, "SELECT sum(rescues) AS n FROM job")[0]["n"]
    return found


def most_at_once(store: JobStore, queue: str) -> int:
    """Return how many jobs of a queue were in processing at most."""
    now = most = 0
    for entry in query(store, "SELECT * FROM audit WHERE queue = :queue ORDER BY n", queue=queue):
        now += (entry["new_state"] == "processing") - (entry["old_state"] == "processing")
        most = max(most, now)
    assert now == 0
    return most


def assert_rate(store: JobStore, queue: str, rate: Rate) -> int:
    """Hold every window against the rate; return how many windows were full."""
    claims = query(store, "SELECT at FROM audit WHERE queue = :queue AND new_state = 'processing' ORDER BY at", queue=queue)
    starts = [datetime.fromisoformat(found["at"]) for found in claims]
    spans = [later - first for first, later in zip(starts, starts[rate.n :], strict=False)]
    assert min(spans) >= timedelta(seconds=rate.per_seconds) - _MILLISECOND, f"{rate.n + 1} starts within {min(spans)}"
    return sum(span < timedelta(seconds=1.5 * rate.per_seconds) for span in spans)


def assert_one_at_a_time(store: JobStore) -> None:
    """Hold the jobs of each serial key against their order."""
    key_of = {found["id"]: found["serial_key"] for found in query(store, "SELECT id, serial_key FROM job")}
    unfinished: defaultdict[str | None, list[int]] = defaultdict(list)
    for job_id, key in sorted(key_of.items()):
        unfinished[key].append(job_id)
    running: Counter[str] = Counter()
    for entry in query(store, "SELECT * FROM audit ORDER BY n"):
        job_id, key = entry["job_id"], key_of[entry["job_id"]]
        if key is None:
            continue
        running[key] += (entry["new_state"] == "processing") - (entry["old_state"] == "processing")
        assert running[key] <= 1, f"two jobs of {key} at once"
        if entry["new_state"] == "processing":
            assert unfinished[key][0] == job_id, f"job {job_id} of {key} overtook {unfinished[key][0]}"
        elif entry["new_state"] == "success":
            unfinished[key].remove(job_id)


@pytest.fixture
def effects(tmp_path: Path) -> Path:
    """Return the file to which the jobs themselves write."""
    path = tmp_path / "effects"
    path.touch()
    return path


@pytest.mark.rows("T14", "DS-12")
def test_slots_and_serial_keys(store: JobStore, database_url: str, effects: Path, chaos: Any) -> None:
    """Two queues, of two and three slots; in one of them six serial keys in two types, some jobs without one."""
    n, kills = chaos.scaled((90, 20), (600, 120))
    start_audit(store)
    store.queues.register(Queue("default", concurrency=3), declared=True)
    store.queues.register(Queue("second", concurrency=2), declared=True)
    jobs = [NewJob(LANE if i % 2 else OTHER, None, key=f"{i}", serial_key=f"key {i % 6}" if i % 5 else None) for i in range(n)]
    store.enqueue([*jobs, *(NewJob(SECOND, None, key=f"{i}") for i in range(n))])
    killed = storm(store, database_url, effects, [LANE, OTHER, SECOND], kills=kills)
    assert most_at_once(store, "default") == 3
    assert most_at_once(store, "second") == 2
    assert_one_at_a_time(store)
    chaos.tell("SIGKILL, slots and serial keys", jobs=2 * n, trouble=killed)


@pytest.mark.rows("T14")
def test_rate_and_slots(store: JobStore, database_url: str, effects: Path, chaos: Any) -> None:
    """Ten starts in any second, retries and rescued jobs among them, and four at once."""
    n, kills = chaos.scaled((70, 20), (400, 120))
    start_audit(store)
    # A slow machine whose workers are killed all the time starts more than ten jobs a second, too.
    rate = Rate(10, 1.0)
    store.queues.register(Queue("default", concurrency=4, rate=rate), declared=True)
    store.enqueue([NewJob(LANE if i % 2 else OTHER, None, key=f"{i}") for i in range(n)])
    killed = storm(store, database_url, effects, [LANE, OTHER], kills=kills)
    assert most_at_once(store, "default") <= 4
    assert assert_rate(store, "default", rate) > 10, "the rate was hardly ever used up"
    chaos.tell("SIGKILL, rate and slots", jobs=n, trouble=killed)
