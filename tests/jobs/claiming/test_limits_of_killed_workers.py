"""Limits that hold while workers are killed: six real processes, and what the database itself wrote down (T14, I8)."""

from __future__ import annotations

import random
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from jobs import JobStore, Queue, Rate
from jobs.enqueueing.duplicates import NewJob
from jobs.job import Lane
from tests.support.store_helpers import (
    LANE,
    OTHER,
    assert_invariants,
    bring_forward,
    forked_workers,
    query,
    start_audit,
    states,
    wait_until,
)

pytestmark = pytest.mark.slow

WORKERS = 6
SECOND = Lane("second", "other-api", "other.things")
#: On SQLite the audit's clock shows milliseconds.
_MILLISECOND = timedelta(milliseconds=1)


def storm(
    store: JobStore, url: str, effects: Path, lanes: list[Lane], *, jobs: list[NewJob], kills: int, is_full: Callable[[], bool]
) -> int:
    """Work off jobs with six workers and a batch of ten, a random one killed again and again; return the kills.

    The jobs are queued again whenever few are left, until there were enough kills and the limits were used up: how long that
    takes, and which of the workers have taken a job when they die, depends on the machine.
    """
    dice = random.Random(14)

    def top_up() -> None:
        if states(store).get("queued", 0) < len(jobs) // 2:
            store.enqueue(jobs)

    # So that no worker ends before the storm does.
    store.enqueue([NewJob(lanes[0], None, key="last", delay=3600)])
    with forked_workers(url, effects, max_rescues=10**6, pace=0.02, batch=10, lanes=lanes) as children:
        workers = [children.spawn() for _ in range(WORKERS)]
        while len(children.killed) < kills or rescues(store) < kills // 4:
            top_up()
            before = starts(store)
            wait_until(lambda before=before: starts(store) > before)  # type: ignore[misc]
            victim = dice.randrange(WORKERS)
            children.kill(workers[victim])
            workers[victim] = children.spawn()
        while not is_full():
            top_up()
            time.sleep(0.08)
        bring_forward(store)
    assert states(store).keys() == {"success"}
    # Without the effects: they are held against the ledger of one sync.
    assert_invariants(store, killed=children.killed)
    return len(children.killed)


def rescues(store: JobStore) -> int:
    """Return how many jobs were taken back from the dead."""
    found: int = query(store, "SELECT sum(rescues) AS n FROM job")[0]["n"]
    return found


def starts(store: JobStore) -> int:
    """Return how often a job was claimed."""
    found: int = query(store, "SELECT count(*) AS n FROM audit WHERE new_state = 'processing'")[0]["n"]
    return found


def most_at_once(store: JobStore, queue: str) -> int:
    """Return how many jobs of a queue were in processing at most."""
    now = most = 0
    for entry in query(store, "SELECT * FROM audit WHERE queue = :queue ORDER BY n", queue=queue):
        now += (entry["new_state"] == "processing") - (entry["old_state"] == "processing")
        most = max(most, now)
    return most


def assert_rate(store: JobStore, queue: str, rate: Rate) -> int:
    """Hold every window against the rate; return how many windows were full."""
    claims = query(store, "SELECT at FROM audit WHERE queue = :queue AND new_state = 'processing' ORDER BY at", queue=queue)
    starts = [datetime.fromisoformat(found["at"]) for found in claims]
    spans = [later - first for first, later in zip(starts, starts[rate.n :], strict=False)]
    assert min(spans, default=timedelta.max) >= timedelta(seconds=rate.per_seconds) - _MILLISECOND, f"over {rate.n} starts"
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
    n, kills = chaos.scaled((60, 20), (600, 120))
    start_audit(store)
    store.queues.register(Queue("default", concurrency=3), declared=True)
    store.queues.register(Queue("second", concurrency=2), declared=True)
    jobs = [NewJob(LANE if i % 2 else OTHER, None, key=f"{i}", serial_key=f"key {i % 6}" if i % 5 else None) for i in range(n)]
    jobs += [NewJob(SECOND, None, key=f"{i}") for i in range(n)]

    def is_full() -> bool:
        return (most_at_once(store, "default"), most_at_once(store, "second")) >= (3, 2)

    killed = storm(store, database_url, effects, [LANE, OTHER, SECOND], jobs=jobs, kills=kills, is_full=is_full)
    assert most_at_once(store, "default") == 3
    assert most_at_once(store, "second") == 2
    assert_one_at_a_time(store)
    chaos.tell("SIGKILL, slots and serial keys", jobs=states(store)["success"], trouble=killed)


@pytest.mark.rows("T14")
def test_rate_and_slots(store: JobStore, database_url: str, effects: Path, chaos: Any) -> None:
    """Ten starts in any second, retries and rescued jobs among them, and four at once."""
    n, kills = chaos.scaled((20, 20), (200, 120))
    start_audit(store)
    rate = Rate(10, 1.0)
    store.queues.register(Queue("default", concurrency=4, rate=rate), declared=True)
    jobs = [NewJob(LANE if i % 2 else OTHER, None, key=f"{i}") for i in range(n)]

    def is_full() -> bool:
        return assert_rate(store, "default", rate) > 10

    killed = storm(store, database_url, effects, [LANE, OTHER], jobs=jobs, kills=kills, is_full=is_full)
    assert most_at_once(store, "default") <= 4
    assert_rate(store, "default", rate)
    chaos.tell("SIGKILL, rate and slots", jobs=states(store)["success"], trouble=killed)
