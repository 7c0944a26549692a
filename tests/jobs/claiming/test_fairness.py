"""Who comes first, on both databases: priority, time due, arrival; lanes in turn, and who has waited long (M9, T8, T16)."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest

from jobs import JobStore, Queue, Snooze
from jobs.claiming.claim import LANES
from jobs.claiming.fairness import AGED_SHARE, AGEING, Rotation, outranking
from jobs.claiming.priorities import Level
from jobs.enqueueing.duplicates import NewJob
from jobs.job import Job, Lane
from tests.support.store_helpers import LANE, OTHER, ManualClock, change, done, expire, finish, query, run_script, take, take_one

BIG = Lane("default", "big", "big.things")
SMALL = Lane("default", "small", "small.things")
NEVER = 10.0**9


def put(store: JobStore, lane: Lane, *priorities: int) -> None:
    """Queue one job of each priority."""
    store.enqueue([NewJob(lane, None, priority=priority) for priority in priorities])


def left(store: JobStore) -> Counter[int]:
    """Count the queued jobs by priority."""
    return Counter({row["priority"]: row["n"] for row in query(
        store, "SELECT priority, count(*) AS n FROM job WHERE state = 'queued' GROUP BY priority"
    )})  # fmt: skip


# -- priority over lanes --------------------------------------------------------------------------------------------------------


def test_a_lanes_lower_jobs_wait_for_another_lanes_higher(store: JobStore) -> None:
    """What is urgent in one lane takes nothing less urgent along while another lane has something in between."""
    put(store, LANE, 9, 1, 1, 1, 1)
    put(store, OTHER, 5, 5, 2)
    before = left(store)
    for n, expected in ((2, {9: 1, 5: 1}), (3, {5: 1, 2: 1, 1: 1}), (10, {1: 3})):
        take(store, n, LANE, OTHER)
        after = left(store)
        assert before - after == expected
        before = after


@pytest.mark.parametrize("seed", range(4))
def test_no_claim_leaves_anything_more_urgent(store: JobStore, seed: int) -> None:
    """Whatever waits in whichever lanes: a claim takes nothing that is less urgent than what it leaves."""
    dice = random.Random(seed)
    lanes = [Lane("default", f"client {n % 3}", f"type {n}", "" if n % 2 else "phase") for n in range(6)]
    for lane in lanes:
        put(store, lane, *(dice.randrange(6) for _ in range(dice.randrange(25))))
    before = left(store)
    while before:
        n = dice.choice((1, 2, 5, 20))
        jobs = take(store, n, *lanes)
        after = left(store)
        taken = before - after
        assert len(jobs) == min(n, before.total()) == taken.total()
        assert not after or min(taken) >= max(after)
        before = after


def test_more_priorities_than_a_claim_goes_down(store: JobStore) -> None:
    """Two lanes whose jobs all differ in priority are still taken in order, if in more claims."""
    put(store, LANE, *range(0, 100, 2))
    put(store, OTHER, *range(1, 100, 2))
    rest = 100
    while rest:
        jobs = take(store, 100, LANE, OTHER)
        assert jobs
        rest -= len(jobs)
        assert sorted(left(store)) == list(range(rest))


def test_suspects_do_not_hide_priorities(store: JobStore) -> None:
    """A lane whose most urgent job is a suspect counts with the first one that can be had."""
    put(store, LANE, 9)
    expire(store, *take(store))
    store.rescues.run(["default"])
    put(store, LANE, 1)
    put(store, OTHER, 5)
    assert [job.lane for job in take(store, 2, LANE, OTHER)] == [OTHER, LANE]
    assert [job.lane for job in take(store, 2, LANE, OTHER, suspects=True)] == [LANE]


# -- time -----------------------------------------------------------------------------------------------------------------------


@pytest.mark.rows("AQ-37", "AQ-36")
def test_what_is_due_earlier_goes_first(store: JobStore) -> None:
    """Of two delayed jobs the one that became due first, to the microsecond; of two due at once the one that came first."""
    now = store.views.now()
    moments = [now - timedelta(seconds=s) for s in (1, 2, 1.000001, 0.5, 0.5)]
    ids = [one.id for one in store.enqueue([NewJob(LANE, None, available_at=moment) for moment in moments])]
    assert [job.id for job in take(store)] == [ids[1], ids[2], ids[0], ids[3], ids[4]]


@pytest.mark.rows("AQ-28")
def test_delays_of_less_than_a_second(store: JobStore) -> None:
    """A job that is due in three tenths of a second is not claimed before, and is then."""
    began = time.monotonic()
    store.enqueue([NewJob(LANE, None, delay=0.3)])
    while not (jobs := take(store)):
        assert time.monotonic() - began < 60
        time.sleep(0.01)
    assert time.monotonic() - began >= 0.29
    began = time.monotonic()
    finish(store, done(jobs[0], Snooze(0.2)))
    while not take(store):
        assert time.monotonic() - began < 60
        time.sleep(0.01)
    assert time.monotonic() - began >= 0.19


@pytest.mark.rows("T8", "E-40")
@pytest.mark.parametrize("dialect", ["postgresql"], indirect=True)
def test_no_workers_clock_counts_on_postgresql(open_store: Callable[..., JobStore]) -> None:
    """Hosts that are decades apart claim the same jobs at the same time, in the same order."""
    past: JobStore = open_store(clock=lambda: datetime.fromisoformat("1970-01-01T00:00:00+00:00"))
    future: JobStore = open_store(clock=lambda: datetime.fromisoformat("2199-01-01T00:00:00+00:00"))
    past.enqueue([NewJob(LANE, None, delay=3600)])
    future.enqueue([NewJob(LANE, None, delay=3600)])
    assert take(future) == take(past) == []
    store = open_store()
    put(past, LANE, 0)
    put(future, LANE, 0)
    first, second = take_one(past), take_one(future)
    assert first.id < second.id
    assert store.rescues.run(["default"]) == future.rescues.run(["default"]) == past.rescues.run(["default"]) == 0
    assert finish(past, done(first, Snooze(0.2))) == ["queued"]
    time.sleep(0.25)
    assert take_one(past).id == first.id


@pytest.mark.rows("T8")
@pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)
def test_a_step_back_delays_and_doubles_nothing(open_store: Callable[..., JobStore]) -> None:
    """On SQLite, whose clock is the host's: work in hand stays in hand, what was due waits, and order is kept."""
    clock = ManualClock()
    store, other = open_store(clock=clock), open_store(clock=clock)
    put(store, LANE, 0, 0, 0)
    first = take_one(store, lease=60)
    clock.forward(-3600)
    assert take(other) == []
    assert other.rescues.run(["default"]) == 0
    assert store.renew([(first.id, first.claim_no)], lease=60) == {first.id}
    assert finish(store, done(first)) == ["success"]
    clock.forward(3600)
    jobs = take(other)
    assert [job.id for job in jobs] == [first.id + 1, first.id + 2]
    assert {job.claim_no for job in jobs} == {1}


# -- lanes in turn --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def crowded(store: JobStore) -> JobStore:
    """Return a store with 100,000 jobs of one client, and 10 that another one queued after them."""
    numbers = "(WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < 100000) SELECT n FROM c)"
    when = "'2020-01-01 00:00:00.000000+00'"
    if store.db.dialect == "postgresql":
        numbers, when = "generate_series(1, 100000) AS s(n)", f"{when}::timestamptz"
    run_script(
        store,
        f"""
        INSERT INTO job (queue, client, type, key, state, available_at, created_at)
        SELECT 'default', 'big', 'big.things', 'k' || n, 'queued', {when}, {when} FROM {numbers}
        """,
    )
    put(store, SMALL, *[0] * 10)
    return store


@pytest.mark.rows("T16")
@pytest.mark.parametrize(("n", "claims"), [(1, 20), (8, 3), (100, 1)])
def test_a_hundred_thousand_jobs_do_not_hide_ten(crowded: JobStore, n: int, claims: int) -> None:
    """The ten are in the first claims, however small these are, and whichever lane is named first."""
    found: Counter[str] = Counter()
    for _ in range(claims):
        found.update(job.lane.client for job in take(crowded, n, BIG, SMALL))
    assert found["small"] == 10
    assert found["big"] == claims * n - 10


@pytest.mark.rows("T16")
def test_nor_do_they_in_a_queue_with_few_slots(crowded: JobStore) -> None:
    """Where two may run at once, each client has one of them, or its turn."""
    crowded.queues.register(Queue("default", concurrency=2), declared=True)
    found: Counter[str] = Counter()
    for _ in range(10):
        jobs = take(crowded, 100, BIG, SMALL)
        found.update(job.lane.client for job in jobs)
        finish(crowded, *(done(job) for job in jobs))
    assert found == {"big": 10, "small": 10}


def test_clients_take_turns_before_lanes(store: JobStore) -> None:
    """A client with many lanes has no more turns than a client with one."""
    lanes = [Lane("default", "big", f"big.{n}") for n in range(5)]
    for lane in (*lanes, SMALL):
        put(store, lane, *[0] * 50)
    found = Counter(take_one(store, *lanes, SMALL).lane for _ in range(20))
    assert found == {SMALL: 10, **dict.fromkeys(lanes, 2)}


def test_more_lanes_than_share_a_claim(store: JobStore) -> None:
    """Those that were left out come first in the next claim."""
    lanes = [Lane("default", f"client {n}", "t") for n in range(2 * LANES)]
    for lane in lanes:
        put(store, lane, *[0] * 20)
    first, second = (Counter(job.lane for job in take(store, LANES, *lanes)) for _ in range(2))
    assert first + second == dict.fromkeys(lanes, 1)
    assert sum(Counter(job.lane for job in take(store, 1000, *lanes)).values()) == 2 * LANES * 19


# -- who has waited long --------------------------------------------------------------------------------------------------------


def test_rank_grows_with_waiting() -> None:
    """A minute counts as one step of priority; what does not outrank the most urgent ones is not aged."""
    high, low, lower = Level(LANE, 10, 0.0), Level(LANE, 0, 601.0), Level(OTHER, -5, 1000.0)
    assert outranking([high, low, lower], AGEING) == [lower, low]
    assert outranking([high, low._replace(waited=599.0)], AGEING) == []
    assert outranking([high._replace(waited=2.0), low], AGEING) == []
    assert outranking([low], AGEING) == outranking([], AGEING) == []


def test_aged_jobs_get_their_share_and_no_more() -> None:
    """After each aged job three urgent ones go first."""
    turns = Rotation()
    assert turns.may_age
    turns.count(0, aged=2)
    turns.count(AGED_SHARE + 1)
    assert not turns.may_age
    turns.count(1)
    assert turns.may_age
    turns.count(1000)
    turns.count(0, aged=1)
    assert not turns.may_age


def flow(
    store: JobStore, steps: int, *, n: int = 8, lanes: tuple[Lane, ...] = (LANE,), step: Callable[[], Any]
) -> list[Counter[int]]:
    """Let as many urgent jobs come as can be worked, and return what was worked in each step, by priority."""
    found = []
    for _ in range(steps):
        put(store, LANE, *[10] * n)
        before = left(store)
        # Looks for suspects come before, as a worker's do, and must not use up the looks for who has waited.
        take(store, 1, *lanes, suspects=True)
        jobs: list[Job] = take(store, n, *lanes)
        finish(store, *(done(job) for job in jobs))
        found.append(before - left(store))
        step()
    return found


@pytest.mark.rows("T16", "E-19")
@pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)
@pytest.mark.parametrize("lanes", [(LANE,), (LANE, OTHER)], ids=["one lane", "two lanes"])
def test_a_steady_flow_does_not_starve_what_is_less_urgent(open_store: Callable[..., JobStore], lanes: tuple[Lane, ...]) -> None:
    """Priority 10 has all places for ten minutes; from then on priority 0 has one in four, and never more."""
    clock = ManualClock()
    store = open_store(clock=clock, check_every=0)
    put(store, lanes[-1], *[0] * 200)
    worked = flow(store, 40, lanes=lanes, step=lambda: clock.forward(AGEING))
    assert [step[0] for step in worked[:10]] == [0] * 10
    assert [step[0] for step in worked[11:]] == [2] * 29
    assert all(step.total() == 8 for step in worked)


@pytest.mark.rows("T16")
def test_ageing_fires_in_real_time(open_store: Callable[..., JobStore]) -> None:
    """With the database's own clock: what has waited long gets two places in each look for it, and none in between."""
    store = open_store(ageing=0.01, check_every=600.0)
    put(store, LANE, *[0] * 200)
    time.sleep(0.2)
    for _ in range(3):
        store._claims._aged_at.clear()  # a second has passed
        worked = [step[0] for step in flow(store, 6, step=lambda: None)]
        assert worked == [2, 0, 0, 0, 0, 0]


@pytest.mark.rows("T16")
def test_priority_wins_where_nobody_ages(open_store: Callable[..., JobStore]) -> None:
    """What the tests above would be without ageing: the old ones wait as long as urgent ones come."""
    store = open_store(ageing=NEVER, check_every=0)
    put(store, LANE, *[0] * 50)
    change(store, "UPDATE job SET available_at = '2000-01-01 00:00:00.000000+00'")
    assert sum(flow(store, 20, step=lambda: None), Counter()) == {10: 160}


def test_single_places_are_shared_too(open_store: Callable[..., JobStore]) -> None:
    """A worker that takes one job at a time gives every fourth place to the old ones."""
    store = open_store(ageing=0.001, check_every=0)
    put(store, LANE, *[0] * 50)
    change(store, "UPDATE job SET available_at = '2000-01-01 00:00:00.000000+00'")
    worked = sum(flow(store, 40, n=1, step=lambda: None), Counter())
    assert worked == {10: 30, 0: 10}


def test_ageing_keeps_to_the_limits(open_store: Callable[..., JobStore]) -> None:
    """An aged job is one of those that the queue may start, not one more; a paused client's do not age into a claim."""
    store = open_store(ageing=0.001, check_every=0)
    store.queues.register(Queue("default", concurrency=2), declared=True)
    put(store, LANE, *[10] * 20)
    put(store, BIG, *[0] * 20)
    put(store, SMALL, *[-1] * 20)
    change(store, "UPDATE job SET available_at = '2000-01-01 00:00:00.000000+00' WHERE priority < 10")
    store.pauses.open("big", None, cause="person", reason="", set_by="me")
    jobs = take(store, 10, LANE, BIG, SMALL)
    assert [job.lane for job in jobs] == [SMALL, LANE]
    assert take(store, 10, LANE, BIG, SMALL) == []
