"""Workers that are killed, stopped and woken, as real processes on both databases (T1, T2, T3, T17); see `forking_worker.py`."""

from __future__ import annotations

import itertools
import os
import random
import signal
import time
from collections.abc import Generator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from jobs import JobStore
from jobs.claiming.claim import RESCUE_EVERY
from jobs.enqueueing.duplicates import NewJob
from tests.support.store_helpers import (
    LANE,
    assert_invariants,
    bring_forward,
    enqueue,
    forked_workers,
    outcomes,
    query,
    row,
    start_audit,
    states,
)

pytestmark = pytest.mark.slow


@pytest.fixture
def audited(store: JobStore) -> JobStore:
    """Return a store whose database writes down every change of state."""
    start_audit(store)
    return store


@pytest.fixture
def effects(tmp_path: Path) -> Path:
    """Return the file to which the jobs themselves write."""
    path = tmp_path / "effects"
    path.touch()
    return path


def waited_for_rescue(store: JobStore, died: dict[int, datetime]) -> float:
    """Return the longest time in seconds that a job stayed with a dead worker, or with a sleeping one beyond its lease."""
    longest = 0.0
    for entry in query(store, "SELECT worker, at, old_lease FROM audit WHERE rescued > 0"):
        until = datetime.fromisoformat(entry["old_lease"]).replace(tzinfo=None)
        since = min(until, died.get(int(entry["worker"].split(":")[-2]), until))
        longest = max(longest, (datetime.fromisoformat(entry["at"]).replace(tzinfo=None) - since).total_seconds())
    return longest


def topped_up(store: JobStore, n: int) -> Generator[None]:
    """Queue jobs whenever few are left; until closed, one is left for later, so that no worker ends by itself."""
    store.enqueue([NewJob(LANE, None, key="last", delay=3600)])
    numbers = itertools.count()
    try:
        while True:
            if states(store).get("queued", 0) < n // 2:
                enqueue(store, itertools.islice(numbers, n))
            yield
    finally:
        bring_forward(store)


@pytest.mark.rows("T1", "AQ-36", "AQ-52", "E-03", "E-08", "LK-06")
def test_a_storm_of_kills(audited: JobStore, database_url: str, effects: Path, chaos: Any) -> None:
    """T1: three workers, a random one killed every 120 ms and replaced, 300 jobs: all done, none twice, nothing stuck."""
    n, kills = chaos.scaled((150, 20), (600, 60))
    keys = topped_up(audited, n)
    dice = random.Random(1)
    with forked_workers(database_url, effects, max_rescues=10**6, pace=0.02, batch=8) as children:
        workers = [children.spawn() for _ in range(3)]
        # On a busy machine some workers die before they have taken a job; those kills prove nothing.
        while len(children.killed) < kills or query(audited, "SELECT sum(rescues) AS n FROM job")[0]["n"] < 10:
            next(keys)
            time.sleep(0.12)
            victim = dice.randrange(3)
            children.kill(workers[victim])
            workers[victim] = children.spawn()
        keys.close()
        began = time.monotonic()
    assert time.monotonic() - began < 90
    assert states(audited).keys() == {"success"}
    assert_invariants(audited, effects, killed=children.killed)
    waited = waited_for_rescue(audited, children.died)
    # The lease is a minute.
    assert waited < 30
    chaos.tell("SIGKILL", jobs=states(audited)["success"], trouble=len(children.killed), seconds=waited)


@pytest.mark.rows("T2", "E-05")
def test_zombies(audited: JobStore, database_url: str, effects: Path, chaos: Any) -> None:
    """T2: workers stopped for longer than their lease and then woken write nothing over their successors."""
    n, turns = chaos.scaled((80, 2), (200, 18))
    keys = topped_up(audited, n)
    lease = 0.6
    with forked_workers(database_url, effects, max_rescues=10**6, lease=lease, pace=0.05, batch=4) as children:
        workers = [children.spawn() for _ in range(4)]
        for turn in itertools.count():
            next(keys)
            time.sleep(0.3)
            sleepers = [workers[(turn + n) % 4] for n in range(3)]
            for pid in sleepers:
                os.kill(pid, signal.SIGSTOP)
                time.sleep(0.05)
            time.sleep(1.6 * lease + RESCUE_EVERY)
            for pid in sleepers:
                os.kill(pid, signal.SIGCONT)
            # Who slept without a job in hand proves nothing.
            rescued = query(audited, "SELECT count(*) AS n FROM attempt WHERE outcome = 'rescued'")[0]["n"]
            if turn + 1 >= turns and rescued >= 4:
                break
        keys.close()
    assert states(audited).keys() == {"success"}
    assert_invariants(audited, effects)
    chaos.tell(
        "SIGSTOP for 1.6 leases", jobs=states(audited)["success"], trouble=3 * (turn + 1), seconds=waited_for_rescue(audited, {})
    )


@pytest.mark.parametrize(
    "fault",
    [
        "claim_open",
        "after_claim",
        "after_effect:3",
        "before_finish",
        "finish_open",
        "before_commit:2",
        "after_finish",
        "between:2",
    ],
)
def test_a_kill_at_each_step_of_work(audited: JobStore, database_url: str, effects: Path, fault: str) -> None:
    """T3: wherever a worker dies, the next one finds everything in order and finishes it at once."""
    enqueue(audited, range(24))
    with forked_workers(database_url, effects, pace=0) as children:
        pid = children.spawn("work", fault)
        children.killed.append(pid)
        children.wait(pid)
        left = states(audited)
        assert left != {"success": 24}, "the fault was never reached"
        if fault in ("after_claim", "after_effect:3", "before_finish", "finish_open"):
            assert left["processing"] == 8, "the worker had nothing in hand"
        # It waits for less than the lease of a minute, as jobs of a dead process of this host do.
        children.wait(children.spawn())
    assert states(audited) == {"success": 24}
    assert_invariants(audited, effects, killed=children.killed)


@pytest.mark.parametrize(
    ("fault", "pages"), [("page_open:3", 2), ("before_commit:4", 3), ("between_pages:3", 2), ("before_complete", 5)]
)
def test_a_kill_at_each_step_of_listing(audited: JobStore, database_url: str, effects: Path, fault: str, pages: int) -> None:
    """T3: a page is there with its cursor, or not at all; the next lister goes on behind it, and no page comes twice."""
    with forked_workers(database_url, effects) as children:
        pid = children.spawn("list", fault)
        children.killed.append(pid)
        children.wait(pid)
        assert query(audited, "SELECT pages, listed, state FROM listing") == [
            {"pages": pages, "listed": pages * 20, "state": "listing"}
        ]
        assert states(audited) == {"queued": pages * 20}
        children.wait(children.spawn("list"))
        assert query(audited, "SELECT pages, listed, state, generation, claim_no FROM listing") == [
            {"pages": 5, "listed": 100, "state": "complete", "generation": 1, "claim_no": 2}
        ]
        assert states(audited) == {"queued": 100}
        children.wait(children.spawn())
    assert states(audited) == {"success": 100}
    assert query(audited, "SELECT count(*) AS n FROM record") == [{"n": 100}]
    assert_invariants(audited, effects, killed=children.killed)


@pytest.mark.rows("T17", "E-04", "E-56")
def test_poison(audited: JobStore, database_url: str, effects: Path) -> None:
    """T17: a job that kills its worker ends as poison; its neighbours, taken along at first, finish."""
    enqueue(audited, [*range(10), "poison", *range(10, 20)])
    (poison,) = query(audited, "SELECT id FROM job WHERE key = 'poison'")
    with forked_workers(database_url, effects, pace=0, batch=25) as children:
        for _ in range(3):
            pid = children.spawn()
            children.killed.append(pid)
            children.wait(pid)
        assert row(audited, poison["id"])["state"] == "processing"
        children.wait(children.spawn())
    found = row(audited, poison["id"])
    assert (found["state"], found["rescues"], found["attempts"]) == ("failure", 3, 0)
    assert found["message"].startswith("poison")
    assert outcomes(audited, poison["id"]) == ["rescued"] * 3
    assert states(audited) == {"success": 20, "failure": 1}
    assert max(job["rescues"] for job in query(audited, "SELECT rescues FROM job WHERE key <> 'poison'")) == 1
    assert_invariants(audited, effects, killed=children.killed)


def test_the_invariants_notice(audited: JobStore, database_url: str, effects: Path) -> None:
    """What asserts the invariants fails when they are broken: one wrong row or line each."""
    from tests.support.store_helpers import change

    enqueue(audited, range(8))
    with forked_workers(database_url, effects, pace=0) as children:
        children.spawn()
    assert_invariants(audited, effects)

    def broken(statement: str, undo: str, name: str) -> None:
        change(audited, statement)
        with pytest.raises(AssertionError, match=name):
            assert_invariants(audited, effects)
        change(audited, undo)

    lines = effects.read_text().splitlines(keepends=True)
    later = {"old_state": "'processing'", "new_state": "'success'", "claim_no": "1", "old_claim": "1"}

    def entry(**values: Any) -> str:
        columns = {"job_id": "1", "queue": "'default'", "at": "'2020-01-01'", "rescued": "0", **later, **values}
        return f"INSERT INTO audit ({', '.join(columns)}) VALUES ({', '.join(columns.values())})"

    last = "DELETE FROM audit WHERE at = '2020-01-01'"
    broken(entry(job_id="4711", old_state="NULL", new_state="'queued'"), last, "I1")
    broken("UPDATE job SET attempts = 2 WHERE id = 1", "UPDATE job SET attempts = 1 WHERE id = 1", "I5")
    broken("UPDATE attempt SET claim_no = 2 WHERE job_id = 1", "UPDATE attempt SET claim_no = 1 WHERE job_id = 1", "I3")
    broken(entry(), last, "I2")
    broken(entry(old_state="'success'", new_state="'processing'", claim_no="2"), last, "I4")
    for changed in (lines[1:], [*lines, lines[0]]):
        effects.write_text("".join(changed))
        with pytest.raises(AssertionError, match="I6"):
            assert_invariants(audited, effects)
    effects.write_text("".join(lines))
    assert_invariants(audited, effects)
