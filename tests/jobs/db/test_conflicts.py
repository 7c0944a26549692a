"""jobs.db.conflicts, and the store under everything at once: pages, claims, finishes, renewals and rescues of the same jobs."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy.exc import IntegrityError, OperationalError

from jobs import Failure, JobStore
from jobs.db.conflicts import MAX_TRIES, is_conflict, retry_on_conflict
from jobs.listing.page_plan import Item
from tests.support.store_helpers import (
    AT_ONCE,
    LANE,
    assert_invariants,
    content,
    done,
    enqueue,
    finish,
    query,
    start_audit,
    states,
    take,
    wait_until,
)


class Refused(Exception):
    """What a driver raises, reduced to what is looked at."""

    def __init__(self, message: str, sqlstate: str | None = None) -> None:
        super().__init__(message)
        self.sqlstate = sqlstate


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (OperationalError("", {}, Refused("deadlock detected", "40P01")), True),
        (OperationalError("", {}, Refused("could not serialize", "40001")), True),
        (OperationalError("", {}, Refused("terminating connection", "57P01")), False),
        (OperationalError("", {}, Refused("database is locked")), False),
        (IntegrityError("", {}, Refused('duplicate key value violates unique constraint "job_twin"', "23505")), True),
        (IntegrityError("", {}, Refused("UNIQUE constraint failed: job.fingerprint, job.queue")), True),
        (IntegrityError("", {}, Refused('duplicate key value violates unique constraint "thing_pkey"', "23505")), False),
    ],
)
def test_what_is_worth_another_try(error: Any, expected: bool) -> None:
    """Only what says that another transaction came in between."""
    assert is_conflict(error) == expected


def test_tries_end() -> None:
    """The last error comes out; another one comes out at once."""
    calls = []

    @retry_on_conflict
    def work(error: Exception) -> None:
        calls.append(1)
        raise error

    with pytest.raises(OperationalError):
        work(OperationalError("", {}, Refused("deadlock detected", "40P01")))
    assert len(calls) == MAX_TRIES
    calls.clear()
    with pytest.raises(OperationalError):
        work(OperationalError("", {}, Refused("disk full", "53100")))
    assert len(calls) == 1


def test_a_page_and_a_retry_meet(open_store: Callable[..., JobStore]) -> None:
    """A page queues the twin of a job that goes back, and commits second or first: no error, one of them gives way."""
    store, other = open_store(), open_store()
    enqueue(store, ["a", "b"])
    jobs = take(store)
    with store.db.write() as connection:
        # The twin is there, but not yet to be seen by others; SQLite makes the others wait.
        from sqlalchemy import text

        connection.execute(
            text(
                "INSERT INTO job (queue, client, type, key, fingerprint, available_at, created_at) VALUES ('default', 'api',"
                " 'api.things', 'a', 'api.things/a', '2020-01-01 00:00:00.000000+00', '2020-01-01 00:00:00.000000+00')"
            )
        )
        found: list[list[str]] = []
        thread = threading.Thread(
            target=lambda: found.append(finish(other, *(done(job, Failure("no"), retry=AT_ONCE) for job in jobs)))
        )
        thread.start()
        time.sleep(0.2)
    thread.join()
    assert found == [["superseded", "queued"]]


def test_everything_at_once(open_store: Callable[..., JobStore]) -> None:  # noqa: C901  # eight threads, five roles
    """Pages of the same entities, claims, failing finishes, renewals, releases and rescues at once: no error, I1 to I7 hold."""
    stores = [open_store(max_rescues=10**6) for _ in range(4)]
    start_audit(stores[0])
    stop = threading.Event()
    errors: list[BaseException] = []
    in_hand: list[tuple[int, int]] = []
    turns: Counter[int] = Counter()

    def guard(work: Callable[[random.Random], None], seed: int) -> threading.Thread:
        def run() -> None:
            dice = random.Random(seed)
            try:
                while not stop.is_set():
                    work(dice)
                    turns[seed] += 1
            except BaseException as error:  # noqa: BLE001  # the test must see it
                errors.append(error)
                stop.set()

        return threading.Thread(target=run)

    def list_(dice: random.Random) -> None:
        sync = f"api.things{dice.randrange(2)}"
        claim = stores[0].listings.claim(sync, "api", worker="far:1:1:1", lease=60)
        if hasattr(claim, "cursor"):
            keys = dice.sample(range(60), 40)
            stores[0].pages.enqueue(claim, LANE, [Item(str(key), str(dice.random())) for key in keys], cursor=1)
            stores[0].listings.release(claim)

    def work(dice: random.Random) -> None:
        store = dice.choice(stores)
        jobs = take(store, dice.randrange(1, 15), suspects=dice.random() < 0.4, lease=dice.choice([0.001, 60]))
        in_hand[:] = [(job.id, job.claim_no) for job in jobs]
        store.renew(list(reversed(in_hand)), lease=60)
        dice.shuffle(jobs)
        half = len(jobs) // 2
        store.release(jobs[:half][:2], reason="stop")
        outcomes = [None, Failure("no"), None]
        store.finish([done(job, dice.choice(outcomes), retry=AT_ONCE, content=content(dice.random())) for job in jobs[half:]])

    def renew(dice: random.Random) -> None:
        stores[2].renew(list(in_hand), lease=dice.choice([60, 0.001]))

    def rescue(_dice: random.Random) -> None:
        stores[3].rescues.run(["default"])

    roles = [list_, list_, work, work, work, work, renew, rescue]
    threads = [guard(role, seed) for seed, role in enumerate(roles)]
    for thread in threads:
        thread.start()
    try:
        wait_until(
            lambda: errors or (min(turns[n] for n in range(len(roles))) >= 3 and turns.total() >= 150 and rescued(stores[0]))
        )
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not errors, repr(errors[0])
    store = stores[0]
    with store.db.write() as connection:
        from sqlalchemy import text

        connection.execute(text("UPDATE job SET lease_until = '2000-01-01 00:00:00.000000+00' WHERE state = 'processing'"))
    store.rescues.run(["default"])
    while jobs := take(store, 500) + take(store, 500, suspects=True):
        store.finish([done(job) for job in jobs])
    assert set(states(store)) <= {"success", "failure", "superseded"}
    assert sum(states(store).values()) >= 60
    assert_invariants(store, max_attempts=4)


def rescued(store: JobStore) -> int:
    """Return how often a job was taken back."""
    found: int = query(store, "SELECT count(*) AS n FROM attempt WHERE outcome = 'rescued'")[0]["n"]
    return found


def test_one_sync_is_run_by_one_process_at_a_time(open_store: Callable[..., JobStore]) -> None:
    """Of many that begin at once exactly one may."""
    stores = [open_store() for _ in range(4)]
    found: list[Any] = []
    threads = [
        threading.Thread(target=lambda store=store: found.append(store.listings.claim("s", "api", worker="far:1:1:1", lease=60)))
        for store in stores
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(hasattr(one, "cursor") for one in found) == 1
    assert len(found) == 4


def test_a_batch_is_finished_while_its_leases_are_renewed(store: JobStore) -> None:
    """The thread that renews and the one that finishes meet on the same rows, in opposite orders."""
    enqueue(store, range(1500))
    errors: list[BaseException] = []
    claims: list[tuple[int, int]] = []
    stop = threading.Event()

    def renew() -> None:
        try:
            while not stop.is_set():
                store.renew(claims[::-1], lease=60)
        except BaseException as error:  # noqa: BLE001  # the test must see it
            errors.append(error)

    threads = [threading.Thread(target=renew) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        while jobs := take(store, 60):
            claims[:] = [(job.id, job.claim_no) for job in jobs]
            batch = [done(job, Failure("no", retry=bool(job.id % 2)), retry=AT_ONCE) for job in reversed(jobs)]
            assert "lost" not in finish(store, *batch)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not errors, repr(errors[0])
    assert states(store) == {"failure": 1500}
