"""Serial keys on both databases: jobs of one key one at a time, in the order they came (M11)."""

from __future__ import annotations

import random
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable

import pytest
from sqlalchemy.exc import IntegrityError

from jobs import Failure, JobStore, Queue, Snooze
from jobs.claiming.claim_statement import NEAR
from jobs.claiming.serial_keys import KEYS, QUERIES
from jobs.db.conflicts import is_conflict
from jobs.enqueueing.duplicates import NewJob
from jobs.job import Job, Lane
from tests.support.store_helpers import (
    AT_ONCE,
    LANE,
    OTHER,
    assert_invariants,
    change,
    done,
    enqueue,
    expire,
    finish,
    query,
    row,
    start_audit,
    states,
    take,
    wait_until,
)


def put(store: JobStore, *keys: str | None, lane: Lane = LANE, priority: int = 0) -> list[int]:
    """Queue one job for each serial key, in this order; `None` is a job without one."""
    jobs = [NewJob(lane, None, priority=priority, key=str(key), serial_key=key) for key in keys]
    return [one.id for one in store.enqueue(jobs)]


def look(store: JobStore) -> None:
    """Let the next claim look at its queues."""
    store._claims._checked_at.clear()


def ids(jobs: Iterable[Job]) -> list[int]:
    """Return the ids of jobs."""
    return [job.id for job in jobs]


@pytest.mark.rows("DS-18")
@pytest.mark.parametrize("looked", [False, True], ids=["unaware", "aware"])
def test_one_at_a_time_and_in_order(store: JobStore, looked: bool) -> None:
    """Of each key only the first is claimed, in one batch too; whether or not the process has heard of serial keys."""
    take(store)
    a1, b1, a2, free, a3, b2 = put(store, "a", "b", "a", None, "a", "b")
    if looked:
        look(store)
    first = take(store)
    assert ids(first) == [a1, b1, free]
    assert take(store) == []
    finish(store, done(first[0]))
    second = take(store)
    assert ids(second) == [a2]
    finish(store, done(second[0]), done(first[1]))
    assert ids(take(store)) == [a3, b2]
    assert states(store) == {"success": 3, "processing": 3}


def test_order_is_that_of_the_ids(store: JobStore) -> None:
    """Neither priority nor an earlier time lets a later job of the key go first."""
    first, second, third = put(store, "a"), put(store, "a", priority=9), put(store, "a")
    change(store, "UPDATE job SET available_at = '2000-01-01 00:00:00.000000+00' WHERE id = :id", id=third[0])
    for expected in (first, second, third):
        jobs = take(store)
        assert ids(jobs) == expected
        finish(store, done(jobs[0]))


@pytest.mark.parametrize("looked", [False, True], ids=["unaware", "aware"])
def test_what_waits_holds_back_what_came_later(store: JobStore, looked: bool) -> None:
    """A delayed retry, a snooze and a rescued job keep their place before the later ones; a release too."""
    first, second = put(store, "a", "a")
    (job,) = take(store)
    for outcome, retry in ((Failure("no"), None), (Snooze(3600), None)):
        finish(store, done(job, outcome) if retry is None else done(job, outcome, retry=retry))
        if looked:
            look(store)
        assert take(store) == []
        change(store, "UPDATE job SET available_at = '2000-01-01 00:00:00.000000+00' WHERE id = :id", id=first)
        (job,) = take(store)
        assert job.id == first
    store.release([job], reason="stop")
    (job,) = take(store)
    assert job.id == first
    expire(store)
    store.rescues.run(["default"])
    assert take(store) == [], "a suspect of the key waits, and is to be taken apart"
    (job,) = take(store, 1, suspects=True)
    assert job.id == first
    assert take(store) == take(store, suspects=True) == []
    finish(store, done(job, Failure("no", retry=False)))
    assert ids(take(store)) == [second]


def test_the_key_counts_in_its_queue(store: JobStore) -> None:
    """Two types of one queue share the order of a key; two queues do not."""
    a = put(store, "a")
    b = put(store, "a", lane=OTHER)
    c = put(store, "a", lane=Lane("another", "api", "api.else"))
    jobs = take(store, 10, LANE, OTHER, Lane("another", "api", "api.else"))
    assert sorted(ids(jobs)) == [*a, *c]
    finish(store, *(done(job) for job in jobs))
    assert ids(take(store, 10, LANE, OTHER)) == b


def test_a_paused_clients_job_holds_back_its_key(store: JobStore) -> None:
    """Order is order: what came first cannot be overtaken because its client is paused."""
    stranger = Lane("default", "other-api", "other.things")
    put(store, "a")
    later = put(store, "a", "b", lane=stranger)
    store.pauses.open("api", None, cause="person", reason="", set_by="me")
    assert ids(take(store, 10, LANE, stranger)) == [later[1]]


def test_serial_and_slots_go_together(store: JobStore) -> None:
    """A limited queue gives what both allow."""
    store.queues.register(Queue("default", concurrency=3), declared=True)
    put(store, *"aabbccddee")
    jobs = take(store)
    assert [store.views.job(job.id).serial_key for job in jobs] == ["a", "b", "c"]
    finish(store, done(jobs[1]))
    (job,) = take(store)
    assert store.views.job(job.id).serial_key == "b"


def test_priority_counts_among_keys(store: JobStore) -> None:
    """Free keys go by priority, in one lane and over lanes."""
    put(store, "a", "b")
    urgent = put(store, "c", "d", lane=OTHER, priority=5)
    look(store)
    assert ids(take(store, 2, LANE, OTHER)) == urgent
    assert len(take(store, 10, LANE, OTHER)) == 2


# -- long backlogs --------------------------------------------------------------------------------------------------------------


def test_a_backlog_of_one_key_hides_nobody(store: JobStore) -> None:
    """Behind more jobs of one key than a claim walks, other keys are found all the same."""
    put(store, *["a"] * (2 * NEAR), "b", "c")
    look(store)
    jobs = take(store)
    assert sorted(store.views.job(job.id).serial_key or "" for job in jobs) == ["a", "b", "c"]
    assert take(store) == []


def test_more_keys_than_a_look(store: JobStore) -> None:
    """Where the walk sees nothing and the keys are more than one look, each still has its turn."""
    keys = 2 * KEYS + 50
    blocked = Lane("default", "api", "api.nobody")
    # The first jobs of the first keys belong to a type that nobody works: their later ones are in nobody's turn.
    put(store, *(f"{n:05}" for n in range(KEYS + 10)), lane=blocked)
    put(store, *(f"{n:05}" for n in range(keys)))
    look(store)
    seen: list[Job] = []
    for _ in range(8):
        jobs = take(store, 200)
        seen += jobs
        finish(store, *(done(job) for job in jobs))
    assert len(seen) == keys - KEYS - 10
    assert keys < QUERIES * KEYS


def test_a_claim_of_a_long_backlog_stays_short(store: JobStore) -> None:
    """Its cost does not grow with the backlog: twenty times the jobs take less than five times as long."""

    def best(n: int) -> float:
        put(store, *["a"] * n)
        look(store)
        take(store)
        found = 9.0
        for _ in range(20):
            began = time.perf_counter()
            assert take(store) == []
            found = min(found, time.perf_counter() - began)
        return found

    short = best(NEAR)
    assert best(20 * NEAR) < 5 * short


#: Whether somebody waits for a lock, in PostgreSQL.
WAITS = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"


# -- races ----------------------------------------------------------------------------------------------------------------------


def test_the_index_has_the_last_word(store: JobStore) -> None:
    """Whatever a statement does, two jobs of one key are never in processing; the error is known as contention."""
    put(store, "a", "b")
    take(store)
    with pytest.raises(IntegrityError) as caught:
        change(store, "UPDATE job SET serial_key = 'a'")
    assert is_conflict(caught.value)


@pytest.mark.parametrize("dialect", ["postgresql"], indirect=True)
def test_a_claim_that_meets_another_of_its_key_is_done_again(store: JobStore) -> None:
    """Where the look and the lock are two moments: a job of the key that started in between is seen on the next try."""
    first, second = put(store, "a", "a")
    finish(store, done(take(store)[0], Failure("no", retry=False)))
    with store.db.engine.connect() as connection:
        # A person has it retried and a worker claims it, in a transaction that nobody sees yet.
        connection.exec_driver_sql(f"UPDATE job SET state = 'processing', claim_no = 2, finished_at = NULL WHERE id = {first}")
        met = threading.Event()

        def commit_when_met() -> None:
            wait_until(lambda: query(store, WAITS))
            met.set()
            connection.commit()

        thread = threading.Thread(target=commit_when_met)
        thread.start()
        assert take(store) == []
        assert met.is_set(), "the claim met nobody"
        thread.join()
    assert row(store, second)["state"] == "queued"


@pytest.mark.parametrize("limited", [False, True])
def test_many_workers_keep_the_order(open_store: Callable[..., JobStore], limited: bool) -> None:
    """Six claimers, twelve keys, retries, snoozes, releases and rescues: each key one at a time, and in order."""
    stores = [open_store(max_rescues=10**6) for _ in range(6)]
    if limited:
        stores[0].queues.register(Queue("default", concurrency=5), declared=True)
    start_audit(stores[0])
    keys = [f"key {n % 12}" if n % 7 else None for n in range(240)]
    put(stores[0], *keys)
    errors: list[BaseException] = []

    def work(number: int) -> None:
        try:
            muddle(stores[number], random.Random(number))
        except BaseException as error:  # noqa: BLE001  # the test must see it
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors, repr(errors[0])
    assert_in_turn(stores[0])
    assert_invariants(stores[0])


def muddle(store: JobStore, dice: random.Random) -> None:
    """Work until nothing is left, with everything that can happen to a claim."""
    while states(store).keys() - {"success", "failure"}:
        for job in take(store, 10) + take(store, 2, suspects=True):
            luck = dice.random()
            if luck < 0.05:
                store.release([job], reason="stop")
            elif luck < 0.18:
                outcome = Snooze(0.01) if luck < 0.1 else Failure("no") if luck < 0.15 else None
                if outcome is None:
                    expire(store, job)
                    store.rescues.run(["default"])
                else:
                    finish(store, done(job, outcome, retry=AT_ONCE))
            else:
                finish(store, done(job))


def assert_in_turn(store: JobStore) -> None:
    """Hold the audit against the order of the keys."""
    key_of = {found["id"]: found["serial_key"] for found in query(store, "SELECT id, serial_key FROM job")}
    state: dict[int, str] = {}
    by_key: dict[str, list[int]] = defaultdict(list)
    for job_id, key in sorted(key_of.items()):
        if key is not None:
            by_key[key].append(job_id)
    claims = 0
    for entry in query(store, "SELECT * FROM audit ORDER BY n"):
        job_id, key = entry["job_id"], key_of[entry["job_id"]]
        if entry["new_state"] == "processing" and key is not None:
            claims += 1
            before = [other for other in by_key[key] if other < job_id and state.get(other) in ("queued", "processing")]
            assert not before, f"job {job_id} of {key} began before {before}"
            beside = [other for other in by_key[key] if state.get(other) == "processing"]
            assert not beside, f"job {job_id} of {key} ran beside {beside}"
        state[job_id] = entry["new_state"]
    assert claims >= len([key for key in key_of.values() if key is not None])


def test_enqueue_of_other_lanes_is_not_disturbed(store: JobStore) -> None:
    """Jobs without keys in a queue with keys are claimed as ever."""
    put(store, *"aabb")
    enqueue(store, range(30), OTHER)
    look(store)
    assert len(take(store, 100, OTHER)) == 30
