"""The Queue API of Drupal's core, row by row: items, claims, and what the exceptions of a queue worker are here."""

import threading
import time
from typing import Any

import pytest

from flows.worker.queue_processing import work
from jobs import Failure, JobStore, Pause, Queue, Retry, Snooze, Success
from jobs.admin.filters import Filter
from jobs.job import JobResult, Verdict
from tests.support.seed_helpers import (
    AT_ONCE,
    ELSEWHERE,
    POST,
    Log,
    Project,
    add,
    declare,
    drain,
    eventually,
    kind,
    lane,
    move,
    states,
    take,
    together,
    wait,
)

ORDERS = """
from contextlib import nullcontext
from flows import Client, JobType

def process(job, _):
    if job.payload == "wrong":
        raise ValueError("no such order")

shop = Client("shop", connect=lambda _: nullcontext())
orders = JobType("shop.order", shop, process=process)
"""


def counts(store: JobStore) -> tuple[int, int, int]:
    """Count due, delayed and leased items of the only queue."""
    (queue,) = store.views.queues()
    return queue.queued, queue.delayed, queue.processing


@pytest.mark.rows("QA-01", "AQ-31", "QA-08")
def test_items_are_made_claimed_released_and_deleted(store: JobStore) -> None:
    """The whole interface: an item has an id and is counted; who claims it has it alone, gives it back, claims and ends it."""
    items = kind()
    first, second = add(store, items, "a", "b")
    assert counts(store) == (2, 0, 0)
    (item,) = take(store, items)
    assert (item.id, item.payload, counts(store)) == (first, "a", (1, 0, 1))
    assert store.release([item], reason="not now") == 1
    assert counts(store) == (2, 0, 0)
    # What was given back is due from now on, so behind the other.
    (item,) = take(store, items)
    assert item.id == second
    (settled,) = store.finish([JobResult(item, Verdict(Success()), Retry())])
    assert (settled.state, counts(store)) == ("success", (1, 0, 0))
    assert store.commands.delete([first]).done == 1
    assert counts(store) == (0, 0, 0)
    assert take(store, items) == []


@pytest.mark.rows("QA-02")
def test_an_item_outlives_whoever_claimed_it(store: JobStore) -> None:
    """A worker that goes silent after its claim loses nothing: the item comes back and is worked by another."""
    log = Log()
    items = kind(log)
    (item,) = add(store, items, "a")
    assert len(take(store, items)) == 1
    assert drain(store, items).processed == 0
    move(store, item, "lease_until", -1)
    assert drain(store, items).succeeded == 1
    assert log.payloads == ["a"]


@pytest.mark.rows("QA-03")
def test_first_in_first_out(store: JobStore) -> None:
    """Items are worked in the order they came."""
    log = Log()
    items = kind(log)
    add(store, items, *range(10))
    add(store, items, *range(10, 20))
    drain(store, items)
    assert log.payloads == list(range(20))


@pytest.mark.rows("QA-04")
def test_two_claims_are_two_items(store: JobStore) -> None:
    """Each claim gives another item, under the lease that was asked for."""
    items = kind()
    add(store, items, *range(3))
    claimed = [take(store, items, lease=lease)[0] for lease in (100, 1000, 10000)]
    assert len({one.id for one in claimed}) == 3
    left = [store.views.job(one.id).lease_until - store.views.now() for one in claimed]  # type: ignore[operator]
    assert [one.total_seconds() < lease for one, lease in zip(left, (100, 1000, 10000), strict=True)] == [True] * 3
    assert [one.total_seconds() > lease - 90 for one, lease in zip(left, (100, 1000, 10000), strict=True)] == [True] * 3
    assert take(store, items) == []


@pytest.mark.rows("QA-06", "E-58")
def test_items_in_hand_are_counted_apart(store: JobStore) -> None:
    """Of three, one is claimed: three are there, two of them to be had; who works until it is empty does not wait for the one."""
    items = kind()
    add(store, items, *range(3))
    take(store, items)
    assert counts(store) == (2, 0, 1)
    assert drain(store, items).processed == 2
    assert counts(store) == (0, 0, 1)


@pytest.mark.rows("QA-07")
def test_a_delay_puts_an_item_off(store: JobStore) -> None:
    """A delayed item is not to be had before its time; a negative delay is an error that names it."""
    items = kind()
    (item,) = add(store, items, "a", delay=300)
    assert counts(store) == (0, 1, 0)
    assert 200 < wait(store, item) <= 300
    assert drain(store, items).processed == 0
    move(store, item, "available_at", -1)
    assert drain(store, items).processed == 1
    with pytest.raises(ValueError, match="-1"):
        Snooze(-1)


@pytest.mark.rows("QA-11")
def test_a_worker_that_is_declared_processes(here: Project) -> None:
    """A job type in a file of `syncs/` is all it takes: what is queued under its name is worked by it."""
    here.write(ORDERS)
    assert here.syncs("enqueue", "shop.order", '"right"')[0] == 0
    assert here.document("work", "--until-empty")["succeeded"] == 1
    assert states(here.store) == {"success": 1}


@pytest.mark.rows("QA-12")
def test_a_normal_return_ends_the_item(store: JobStore) -> None:
    """What is returned without a word is a success; it waits no longer, and stays to be looked at."""
    items = kind(lambda *_: None)
    add(store, items, "a", "b")
    drain(store, items, max_jobs=1)
    assert (counts(store), states(store)) == ((1, 0, 0), {"success": 1, "queued": 1})


@pytest.mark.rows("QA-13")
def test_a_delayed_requeue_comes_back_later(store: JobStore) -> None:
    """`Snooze(300)` puts an item back for five minutes and uses no attempt; the run goes on with the others."""
    items = kind(Log(answer=lambda job: Snooze(300, "not yet") if job.payload == "a" else None))
    (item, _) = add(store, items, "a", "b")
    assert drain(store, items).processed == 2
    assert 200 < wait(store, item) <= 300
    found = store.views.job(item)
    assert (found.job.state, found.job.attempts, found.snoozes, found.job.message) == ("queued", 0, 1, "not yet")


@pytest.mark.rows("QA-14", "E-60")
def test_a_requeue_comes_back_at_once(store: JobStore) -> None:
    """`Snooze(0)`, and a delay of 0, mean now: once put back and then done, in the same run."""
    answers = [Snooze(0), Success("at last")]
    items = kind(lambda *_: answers.pop(0))
    (item,) = add(store, items, "a", delay=0)
    assert drain(store, items).processed == 2
    assert (store.views.job(item).job.message, store.views.job(item).job.attempts, answers) == ("at last", 1, [])


@pytest.mark.rows("QA-15")
def test_suspending_leaves_the_rest_of_the_queue(store: JobStore) -> None:
    """The first of three pauses its client: three are left, none has failed, and the next queue is worked."""
    log = Log(answer=lambda _: Pause(3600, "the API is down"))
    items, letters = kind(log), kind(Log(), "post.letter", client=POST)
    add(store, items, 1, 2, 3)
    add(store, letters, 1, 2, 3)
    drain(store, items, letters)
    assert log.payloads == [1]
    shop, post = sorted(store.views.queues(), key=lambda queue: queue.queue != "shop")
    assert (shop.queued, shop.failure, shop.paused, post.success, post.paused) == (3, 0, True, 3, False)
    assert {store.views.job(one.id).job.attempts for one in store.views.jobs(Filter(queue="shop"))} == {0}


@pytest.mark.rows("QA-16", "E-54")
def test_suspending_for_half_a_second(store: JobStore) -> None:
    """A worker that stays takes the queue up again when the pause is over: not before half a second."""
    at: list[float] = []

    def process(*_: Any) -> Any:
        at.append(time.monotonic())
        return Pause(0.5) if len(at) == 1 else None

    items = kind(process)
    add(store, items, "a")
    work(store, declare(items), time_limit=100, max_jobs=2)
    assert 0.49 <= at[1] - at[0] < 60
    assert states(store) == {"success": 1}


@pytest.mark.rows("QA-16")
def test_suspending_for_ten_minutes_ends_a_run(store: JobStore) -> None:
    """A run that ends when nothing is due does not wait for a long pause."""
    items = kind(lambda *_: Pause(600))
    add(store, items, "a")
    began = time.monotonic()
    assert drain(store, items).processed == 1
    assert time.monotonic() - began < 100
    assert states(store) == {"queued": 1}


@pytest.mark.rows("QA-18", "E-52", "QA-17")
def test_draining_ends_although_an_item_fails_for_ever(store: JobStore) -> None:
    """An item that never succeeds is tried as often as its type says, and then it is a failure; the others are done."""
    log = Log(answer=lambda job: Failure("no") if job.payload == "bad" else None)
    items = kind(log, retry=AT_ONCE)
    add(store, items, "a", "bad", "b")
    result = drain(store, items)
    assert (result.succeeded, result.failed, states(store)) == (2, 1, {"success": 2, "failure": 1})
    assert log.payloads.count("bad") == 3


@pytest.mark.rows("QA-19")
def test_garbage_is_collected(here: Project) -> None:
    """`maintain` removes what ended long ago and takes back what dead workers hold."""
    items = kind()
    add(here.store, items, *range(3))
    drain(here.store, items, max_jobs=1)
    (claimed,) = take(here.store, items)
    (old,) = here.store.views.jobs(Filter(state="success"))
    move(here.store, old.id, "finished_at", -8 * 86400)
    move(here.store, claimed.id, "lease_until", -1)
    found = here.document("maintain")
    assert (found["rescued"], found["pruned"]) == (1, {"success": 1})
    assert states(here.store) == {"queued": 2}


@pytest.mark.rows("QA-20")
def test_tables_are_made_when_they_are_needed(empty_database_url: str) -> None:
    """In a database without tables nothing is queued, and the first item can be."""
    store = JobStore.open(empty_database_url)
    try:
        assert store.views.queues() == []
        add(store, kind(), "a")
        assert counts(store) == (1, 0, 0)
    finally:
        store.close()


@pytest.mark.rows("QA-21")
def test_a_queue_is_inspected_and_processed_to_its_end(here: Project) -> None:
    """`queues` counts, `work Q --until-empty -v` says what happens while it happens, and ends when nothing is left."""
    here.write(ORDERS)
    here.syncs("enqueue", "shop.order", '["a", "wrong", "b"]', "--many")
    assert here.document("queues")[0]["queued"] == 3
    code, out, err = here.syncs("work", "shop", "--until-empty", "--verbose")
    assert (code, out.split(" jobs")[0]) == (0, "Processed 3")
    assert "no such order" in err
    (queue,) = here.document("queues")
    assert (queue["queued"], queue["success"], queue["failure"]) == (0, 2, 1)


@pytest.mark.rows("QA-22")
def test_a_stale_entry_is_renewed_at_once(store: JobStore) -> None:
    """While the nightly queue is long, an edit asks for one entry: exactly one job of it, which goes first."""
    log = Log()
    entries = kind(log, duplicates="replace")
    add(store, entries, *[{"entry": n} for n in range(50)])
    for _ in range(3):
        add(store, entries, {"entry": 33}, priority=10)
    assert counts(store) == (50, 0, 0)
    drain(store, entries, max_jobs=2)
    assert log.payloads == [{"entry": 33}, {"entry": 0}]
    assert counts(store) == (48, 0, 0)


@pytest.mark.rows("E-63")
def test_queues_are_worked_at_the_same_time(store: JobStore) -> None:
    """Jobs of two queues, which wait for each other, are both in hand of one worker."""
    met: list[Any] = []

    def process(job: Any, _: Any) -> None:
        met.append(job.queue)
        eventually(lambda: len(met) == 2)

    first, second = kind(process, queue="a"), kind(process, "shop.other", queue="b")
    add(store, first, 1)
    add(store, second, 2)
    assert drain(store, first, second, concurrency=2).succeeded == 2
    assert sorted(met) == ["a", "b"]


@pytest.mark.rows("QA-02", "DS-01", "DS-14")
def test_servers_share_what_there_is(store: JobStore, open_store: Any) -> None:
    """Two machines on one database: each gets some of the jobs, none is worked twice, and each attempt says by whom."""
    items = kind()
    add(store, items, *range(200))

    both_have_begun = threading.Barrier(2)

    def server(name: str, own: JobStore) -> list[int]:
        done: list[int] = []
        while jobs := own.claim([lane(items)], 5, worker=f"{name}:1:1:1", lease=60):
            if not done:
                both_have_begun.wait(60)
            own.finish([JobResult(job, Verdict(Success()), Retry()) for job in jobs])
            done += [job.id for job in jobs]
            time.sleep(0.002)
        return done

    one, two = together(lambda: server("one", store), lambda: server("two", open_store()))
    assert len(one) + len(two) == len({*one, *two}) == 200
    assert min(len(one), len(two)) > 0
    assert store.views.job(one[0]).attempts[0].worker == "one:1:1:1"
    assert ELSEWHERE not in {attempt.worker for job in (one[0], two[0]) for attempt in store.views.job(job).attempts}


@pytest.mark.rows("E-51")
def test_lease_and_time_limit_have_nothing_to_do_with_each_other(store: JobStore) -> None:
    """In a run of a minute a claim has its queue's lease; a queue's time limit shortens no lease either."""
    leases: list[float] = []

    def process(job: Any, _: Any) -> None:
        detail = store.views.job(job.id)
        assert detail.lease_until is not None
        leases.append((detail.lease_until - store.views.now()).total_seconds())

    items = kind(process)
    add(store, items, "a")
    drain(store, items, Queue("shop", lease=1000, time_limit=70), time_limit=60)
    assert 900 < leases[0] <= 1000
