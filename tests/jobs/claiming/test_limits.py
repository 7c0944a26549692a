"""jobs.claiming.limits on both databases: slots and rates that all workers share, and never exceed."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

import pytest
from sqlalchemy import event

from jobs import Failure, JobStore, KeepPolicy, Queue, Rate, Snooze
from jobs.job import Job, Lane
from tests.support.store_helpers import (
    AT_ONCE,
    LANE,
    OTHER,
    ManualClock,
    change,
    done,
    enqueue,
    expire,
    finish,
    query,
    states,
    take,
)

THREE = Queue("default", concurrency=3)
MINUTE = Queue("default", rate=Rate(5, 60))
ELSE = Lane("another", "api", "api.else")


def later(store: JobStore, seconds: float) -> None:
    """Let time pass, as far as starts know."""
    if store.db.dialect == "sqlite":
        change(store, f"UPDATE start SET at = strftime('%Y-%m-%d %H:%M:%f', at, '-{seconds} seconds') || '000'")
    else:
        change(store, f"UPDATE start SET at = at - interval '{seconds} seconds'")


# -- what is declared -----------------------------------------------------------------------------------------------------------


def served(store: JobStore, queue: str = "default") -> dict[str, Any]:
    """Return the row of a queue."""
    (found,) = query(store, "SELECT * FROM queue WHERE id = :id", id=queue)
    return found


def test_a_declared_queue_has_its_limits_in_the_table(store: JobStore) -> None:
    """Concurrency, rate and retention stand where every worker and every cleaner reads them."""
    keep = KeepPolicy(success_days=None, failure_days=1.5, max_items=10)
    store.queues.register(Queue("default", concurrency=4, rate=Rate(10, 0.5), keep=keep), declared=True)
    found = served(store)
    assert (found["slots"], found["concurrency"], found["rate_n"], found["rate_seconds"]) == (4, 4, 10, 0.5)
    assert (found["keep_success_days"], found["keep_failure_days"], found["keep_max_items"]) == (None, 1.5, 10)


def test_what_nobody_declared_has_no_slots(store: JobStore) -> None:
    """The default of a client's queue limits nothing; a queue that is no longer declared neither."""
    store.queues.register(Queue("default"))
    assert (served(store)["slots"], served(store)["rate_n"]) == (None, None)
    store.queues.register(THREE, declared=True)
    assert served(store)["slots"] == 3
    store.queues.register(Queue("default"))
    assert served(store)["slots"] is None


def test_an_unchanged_declaration_writes_nothing(store: JobStore) -> None:
    """Of NULLs too: each field that changes is written, and nothing else moves the row."""
    declarations = [
        Queue("default"),
        Queue("default", rate=Rate(1, 60)),
        Queue("default", rate=Rate(1, 61)),
        Queue("default", keep=KeepPolicy(success_days=None)),
        Queue("default", keep=KeepPolicy(max_items=5)),
        Queue("default", lease=5),
    ]
    for queue in declarations:
        store.queues.register(queue, declared=True)
        rate, keep, found = queue.rate, queue.keep, served(store)
        assert (found["rate_n"], found["rate_seconds"]) == ((rate.n, rate.per_seconds) if rate else (None, None))
        assert (found["keep_success_days"], found["keep_max_items"]) == (keep.success_days, keep.max_items)
        assert found["lease"] == queue.lease
        change(store, "UPDATE queue SET updated_at = '2000-01-01 00:00:00.000000+00'")
        before = served(store)
        store.queues.register(queue, declared=True)
        assert served(store) == before


# -- slots ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.rows("DS-12", "T14", "E-38")
def test_slots_hold_over_all_workers(open_store: Callable[..., JobStore]) -> None:
    """No more than three are in processing, whoever claims; each one that ends makes room for one."""
    one, other = open_store(), open_store()
    one.queues.register(THREE, declared=True)
    enqueue(one, range(10))
    first = take(one, 2)
    second = take(other, 100)
    assert (len(first), len(second)) == (2, 1)
    assert take(one) == []
    assert take(other) == []
    assert finish(other, done(second[0]), *(done(job) for job in first[:1])) == ["success"] * 2
    assert len(take(one)) == 2
    assert one.queues.wait_hint(["default"]) is None


@pytest.mark.rows("DS-12")
def test_slots_belong_to_one_queue(store: JobStore) -> None:
    """Another queue is not held back, in the same claim neither; nor is a queue without a declaration."""
    store.queues.register(THREE, declared=True)
    store.queues.register(Queue("another"))
    enqueue(store, range(10))
    enqueue(store, range(20), ELSE)
    jobs = take(store, 20, LANE, ELSE)
    assert sum(job.lane == LANE for job in jobs) == 3
    assert sum(job.lane == ELSE for job in jobs) == 17
    assert [job.lane for job in take(store, 20, LANE, ELSE)] == [ELSE] * 3


def test_whatever_ends_a_claim_frees_its_slot(store: JobStore) -> None:
    """A retry, a snooze, a release and a rescue give their places back; a job in a dead hand keeps its place until then."""
    store.queues.register(Queue("default", concurrency=4), declared=True)
    enqueue(store, range(12))
    a, b, c, d = take(store)
    assert take(store) == []
    finish(store, done(a, Failure("no"), retry=AT_ONCE), done(b, Snooze(60)))
    store.release([c], reason="stop")
    assert len(take(store, 2)) == 2
    expire(store, d)
    # Its lease has ended, but nobody took it back: as far as anyone knows it is running.
    assert len(take(store)) == 1
    assert take(store) == []
    assert store.rescues.run(["default"]) == 1
    assert len(take(store)) == 1
    assert states(store)["processing"] == 4


def test_rescue_in_the_claim_frees_slots_for_that_claim(open_store: Callable[..., JobStore]) -> None:
    """What a claim rescues on its way it may count as free at once."""
    store = open_store()
    store.queues.register(Queue("default", concurrency=2), declared=True)
    enqueue(store, range(6))
    take(store)
    expire(store)
    other = open_store()
    assert len(take(other)) == 2
    assert states(other) == {"processing": 2, "queued": 4}


def test_suspects_need_slots_too(open_store: Callable[..., JobStore]) -> None:
    """A suspect is claimed like any other: within the limits."""
    store = open_store(check_every=0)
    store.queues.register(Queue("default", concurrency=2, rate=Rate(3, 60)), declared=True)
    enqueue(store, range(6))
    take(store)
    expire(store)
    (suspect,) = take(store, 1, suspects=True)
    assert len(take(store)) == 0
    finish(store, done(suspect))
    assert query(store, "SELECT sum(count) AS n FROM start") == [{"n": 3}]
    assert take(store, suspects=True) == []


def test_a_smaller_limit_holds_at_once(open_store: Callable[..., JobStore]) -> None:
    """What is running goes on; nothing starts before it is fewer than the new limit. A larger one opens at once."""
    store, other = open_store(), open_store()
    store.queues.register(Queue("default", concurrency=6), declared=True)
    enqueue(store, range(20))
    jobs = take(other, 5)
    store.queues.register(THREE, declared=True)
    assert take(other) == []
    finish(other, *(done(job) for job in jobs[:2]))
    assert take(other) == []
    finish(other, done(jobs[2]))
    assert len(take(other)) == 1
    store.queues.register(Queue("default", concurrency=5), declared=True)
    assert len(take(other)) == 2


def test_a_new_limit_is_never_missed(open_store: Callable[..., JobStore]) -> None:
    """A process that saw no limits a moment ago claims nothing past a new one; it reads it with its next check."""
    store, other = open_store(), open_store(check_every=600.0)
    store.queues.register(Queue("default"))
    enqueue(store, range(20))
    enqueue(store, range(5), OTHER)
    assert len(take(other, 1)) == len(take(other, 1, OTHER)) == 1
    store.queues.register(THREE, declared=True)
    assert take(other, 10) == take(other, 10, LANE, OTHER) == []
    other._claims._checked_at.clear()
    assert len(take(other, 10)) == 1


def test_lanes_share_what_is_free(store: JobStore) -> None:
    """With fewer places than lanes each lane has its turn."""
    lanes = [Lane("default", f"client {n}", "t") for n in range(5)]
    store.queues.register(Queue("default", concurrency=2), declared=True)
    for lane in lanes:
        enqueue(store, [f"{lane.client} {n}" for n in range(20)], lane._replace(type=f"t{lane.client}"))
    lanes = [lane._replace(type=f"t{lane.client}") for lane in lanes]
    turns: list[str] = []
    for _ in range(5):
        jobs = take(store, 100, *lanes)
        assert len({job.lane for job in jobs}) == 2
        turns += [job.lane.client for job in jobs]
        finish(store, *(done(job) for job in jobs))
    assert sorted(turns) == sorted(2 * [lane.client for lane in lanes])


def test_an_unlimited_queue_pays_nothing(open_store: Callable[..., JobStore]) -> None:
    """Its claim stays one statement; only now and then there is a look."""
    store = open_store(check_every=600.0)
    store.queues.register(Queue("default"))
    enqueue(store, range(10))
    take(store, 1)
    seen: list[str] = []
    event.listen(store.db.engine, "before_cursor_execute", lambda _c, _u, statement, *_: seen.append(statement))
    take(store, 1)
    assert [statement for statement in seen if not statement.startswith(("BEGIN", "COMMIT"))] == [seen[-1]]
    assert "claim_no=(job.claim_no" in seen[-1]


@pytest.mark.rows("T14", "DS-12")
def test_threads_do_not_overrun_the_slots(open_store: Callable[..., JobStore]) -> None:
    """Six claimers at once, each with a store of its own as processes have: never more than three in hand."""
    stores = [open_store() for _ in range(6)]
    stores[0].queues.register(THREE, declared=True)
    enqueue(stores[0], range(150))
    in_hand, most, lock = 0, 0, threading.Lock()
    errors: list[BaseException] = []

    def work(store: JobStore) -> None:
        nonlocal in_hand, most
        try:
            while states(store).get("queued"):
                jobs = take(store, 10)
                with lock:
                    in_hand += len(jobs)
                    most = max(most, in_hand)
                time.sleep(0.001)
                with lock:
                    in_hand -= len(jobs)
                finish(store, *(done(job) for job in jobs))
        except BaseException as error:  # noqa: BLE001  # the test must see it
            errors.append(error)

    run(work, stores)
    assert not errors
    assert most == 3
    assert states(stores[0]) == {"success": 150}


def run(work: Callable[[Any], None], arguments: list[Any]) -> None:
    """Run a function in threads, one for each argument."""
    threads = [threading.Thread(target=work, args=(argument,)) for argument in arguments]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


# -- rate -----------------------------------------------------------------------------------------------------------------------


@pytest.mark.rows("E-38")
def test_a_rate_counts_starts(open_store: Callable[..., JobStore]) -> None:
    """Five in a minute: the sixth waits, however soon the others are done, and whoever asks."""
    store, other = open_store(), open_store()
    store.queues.register(MINUTE)
    enqueue(store, range(20))
    jobs = take(store, 3)
    finish(store, *(done(job) for job in jobs))
    assert len(take(other, 10)) == 2
    assert take(store) == take(other) == []
    hint = store.queues.wait_hint(["default", "no such queue"])
    assert hint is not None
    assert 30 < hint <= 60


def test_the_window_slides(store: JobStore) -> None:
    """Each start is free again when its own minute is over, not at the turn of some minute."""
    store.queues.register(MINUTE)
    enqueue(store, range(40))
    assert len(take(store, 2)) == 2
    later(store, 30)
    assert len(take(store, 10)) == 3
    assert take(store) == []
    later(store, 10)
    assert take(store) == []
    hint = store.queues.wait_hint(["default"])
    assert hint is not None
    assert 0 <= hint <= 20
    later(store, 20)
    assert len(take(store, 10)) == 2
    later(store, 30)
    assert len(take(store, 10)) == 3


def test_retries_and_releases_are_starts(store: JobStore) -> None:
    """What counts is the claim: work that was begun again was begun again, and what was given back may have been begun."""
    store.queues.register(MINUTE)
    enqueue(store, range(3))
    for _ in range(2):
        (job,) = take(store, 1)
        finish(store, done(job, Failure("no"), retry=AT_ONCE))
    store.release(take(store, 2), reason="stop")
    assert len(take(store)) == 1


def test_the_hint_is_for_those_that_wait(store: JobStore) -> None:
    """No hint while a start is free, nor for queues without a rate; of several that wait the first counts."""
    assert store.queues.wait_hint([]) is None
    store.queues.register(MINUTE)
    store.queues.register(Queue("another", rate=Rate(1, 10)))
    enqueue(store, range(20))
    enqueue(store, range(20), ELSE)
    assert store.queues.wait_hint(["default", "another"]) is None
    take(store, 5)
    take(store, 5, ELSE)
    both = store.queues.wait_hint(["default", "another"])
    assert both is not None
    assert both <= 10
    alone = store.queues.wait_hint(["default"])
    assert alone is not None
    assert alone > 30


def test_old_starts_are_deleted(open_store: Callable[..., JobStore]) -> None:
    """The table holds what the window looks back on, and some of the last second."""
    store = open_store(check_every=0)
    store.queues.register(Queue("default", rate=Rate(5, 60)))
    enqueue(store, range(100))
    for _ in range(4):
        take(store, 3)
        take(store, 3)
        later(store, 60)
    take(store, 1)
    assert query(store, "SELECT sum(count) AS n FROM start") == [{"n": 1}]


@pytest.mark.rows("T14")
@pytest.mark.parametrize("n", [1, 10])
def test_no_window_has_more_starts_than_the_rate(open_store: Callable[..., JobStore], n: int) -> None:
    """Four claimers as fast as they can for some windows: between any start and the seventh after it lies a window."""
    window = 0.25
    stores = [open_store() for _ in range(4)]
    stores[0].queues.register(Queue("default", rate=Rate(7, window)))
    enqueue(stores[0], range(500))
    until = time.monotonic() + 60
    worked: list[int] = []

    def work(store: JobStore) -> None:
        while len(worked) < 5 * 7 and time.monotonic() < until:
            for job in take(store, n):
                worked.append(job.id)
                finish(store, done(job))
            time.sleep(min(0.01, store.queues.wait_hint(["default"]) or 0))

    run(work, stores)
    starts = sorted(started(stores[0]))
    assert len(starts) >= 4 * 7
    assert min(later - first for first, later in zip(starts, starts[7:], strict=False)) >= window


def started(store: JobStore) -> list[float]:
    """Return when each job was claimed, in seconds."""
    moments = query(store, "SELECT started_at AS at FROM job WHERE state <> 'queued'")
    if store.db.dialect == "sqlite":
        return [datetime.fromisoformat(found["at"] + "+00:00").timestamp() for found in moments]
    return [found["at"].timestamp() for found in moments]


# -- clock ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.rows("T8")
def test_a_clock_that_goes_back_delays_and_never_doubles(tmp_path: Any) -> None:
    """On SQLite the host's clock counts: after a step back the window is still full, until time has caught up."""
    clock = ManualClock()
    store = JobStore.open(f"sqlite:///{tmp_path}/a.db", clock=clock)
    store.queues.register(MINUTE)
    enqueue(store, range(50))
    change(store, "UPDATE job SET available_at = '2000-01-01 00:00:00.000000'")
    assert len(take(store)) == 5
    clock.forward(-600)
    assert take(store) == []
    clock.forward(600 + 59.9)
    assert take(store) == []
    clock.forward(0.1)
    assert len(take(store)) == 5
    clock.forward(-60)
    assert take(store) == []
    clock.forward(120)
    assert len(take(store)) == 5
    store.close()


@pytest.mark.rows("T8", "E-40")
@pytest.mark.parametrize("dialect", ["postgresql"], indirect=True)
def test_on_postgresql_no_workers_clock_counts(open_store: Callable[..., JobStore]) -> None:
    """Workers whose clocks are years apart share one window there."""
    past, future = open_store(clock=ManualClock()), open_store(clock=lambda: ManualClock()().replace(year=1990))
    past.queues.register(MINUTE)
    enqueue(past, range(50))
    assert len(take(past, 3)) == 3
    assert len(take(future, 10)) == 2
    assert take(past) == take(future) == []
    for store in (past, future):
        hint = store.queues.wait_hint(["default"])
        assert hint is not None
        assert 30 < hint <= 60


# -- a claim that hangs ---------------------------------------------------------------------------------------------------------


class Hanging:
    """A store whose claim hangs with the queue's row locked until told to go on."""

    def __init__(self, store: JobStore) -> None:
        self.store = store
        self.hangs, self.go = threading.Event(), threading.Event()
        self._is_locked = False
        event.listen(store.db.engine, "before_cursor_execute", self._stop)

    def _stop(self, _connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if "FOR UPDATE" in statement and "set_config" in statement:
            self._is_locked = True
        elif self._is_locked and "count(*)" in statement:
            self.hangs.set()
            self.go.wait(60)


@pytest.fixture
def hanging(open_store: Callable[..., JobStore]) -> Iterator[Hanging]:
    """Only its own transactions end after being idle: those of others may be slow, on a busy machine."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("jobs.claiming.limits.IDLE_IN_TRANSACTION", "300ms")
        found = Hanging(open_store())
    yield found
    found.go.set()


@pytest.mark.parametrize("dialect", ["postgresql"], indirect=True)
def test_a_frozen_claim_does_not_lock_the_queue_for_ever(hanging: Hanging, open_store: Callable[..., JobStore]) -> None:
    """PostgreSQL ends a transaction that went silent with the row locked; the others go on, and the frozen one took nothing."""
    frozen, other = hanging.store, open_store()
    frozen.queues.register(THREE, declared=True)
    enqueue(frozen, range(10))
    errors: list[BaseException] = []
    jobs: list[Job] = []

    def claim() -> None:
        try:
            jobs.extend(take(frozen))
        except BaseException as error:  # noqa: BLE001  # the test must see it
            errors.append(error)

    thread = threading.Thread(target=claim)
    thread.start()
    assert hanging.hangs.wait(60)
    assert len(take(other, 2)) == 2
    hanging.go.set()
    thread.join()
    assert len(errors) == 1
    assert "idle-in-transaction" in str(errors[0])
    assert jobs == []
    assert len(take(other)) == 1
    assert states(frozen) == {"processing": 3, "queued": 7}
