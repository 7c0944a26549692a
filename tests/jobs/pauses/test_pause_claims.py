"""Pauses and what is claimed: nothing of a paused client begins, nothing is lost, and nobody else is held up (I9)."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from jobs import JobStore, Pause, Queue
from jobs.job import Lane
from tests.support.store_helpers import (
    LANE,
    OTHER,
    assert_invariants,
    done,
    end_probe,
    enqueue,
    finish,
    outcomes,
    probe,
    row,
    run_out,
    start_audit,
    states,
    take,
    wait_until,
)

STRANGER = Lane("default", "b", "b.things")
ELSEWHERE_LANE = Lane("second", "api", "api.more")


@pytest.mark.rows("SC-14", "SC-29")
def test_a_pause_is_of_a_client_in_every_queue(store: JobStore) -> None:
    """Its jobs stay, of every type and in every queue; other clients in the same queue go on."""
    enqueue(store, "abc")
    enqueue(store, "de", OTHER)
    enqueue(store, "f", ELSEWHERE_LANE)
    enqueue(store, "st", STRANGER)
    lanes = (LANE, OTHER, ELSEWHERE_LANE, STRANGER)
    before = [(view.queue, view.queued) for view in store.views.queues()]
    store.pauses.open("api", 60, cause="person", reason="", set_by="me")
    assert [(view.queue, view.queued) for view in store.views.queues()] == before
    assert take(store, 100, *lanes[:3]) == []
    assert [job.key for job in take(store, 100, *lanes)] == ["s", "t"]
    assert take(store, 100, *lanes, suspects=True) == []
    run_out(store)
    assert take(store, 100, *lanes) == []
    assert end_probe(store, probe(store), True)
    assert sorted(job.key or "" for job in take(store, 100, *lanes)) == list("abcdef")


@pytest.mark.rows("SC-15", "E-97", "E-92", "M7")
def test_a_job_pauses_its_own_client(store: JobStore) -> None:
    """Two of five: it goes back, no attempt used; what others have in hand may finish; the rest is left where it is."""
    enqueue(store, range(5))
    first, second, third = take(store, 3)
    generation = second.client_generation
    pausing = store.pauses.open("api", 60, cause="asked", reason="429", set_by="w", generation=generation)
    assert pausing is not None
    assert finish(store, done(second, Pause(60, "429"))) == ["queued"]
    assert finish(store, done(first)) == ["success"]
    assert store.release([third], reason="paused") == 1
    assert take(store) == []
    assert states(store) == {"success": 1, "queued": 4}
    for job in (second, third):
        found = row(store, job.id)
        assert (found["attempts"], found["retries"], found["rescues"]) == (0, 0, 0)
    assert (outcomes(store, second.id), outcomes(store, third.id)) == (["pause"], ["released"])
    # A resume by hand frees all of them at once: none was put off to the end of the pause.
    store.pauses.resume("api", by="me")
    assert sorted(job.key or "" for job in take(store)) == ["1", "2", "3", "4"]


@pytest.mark.rows("SC-14")
def test_a_pause_holds_with_limits_and_serial_keys_too(store: JobStore) -> None:
    """Every way of claiming asks for the pause: slots, ageing, suspects, serial keys, several lanes."""
    from jobs.enqueueing.duplicates import NewJob

    store.queues.register(Queue("default", concurrency=50), declared=True)
    store.enqueue([NewJob(LANE, {}, serial_key=f"k{n % 2}", priority=n % 3) for n in range(9)])
    store.enqueue([NewJob(OTHER, {}, priority=-5)])
    store.pauses.open("api", 60, cause="person", reason="", set_by="me")
    for is_over in (False, True):
        if is_over:
            run_out(store)
        for _ in range(2):
            store._claims._checked_at.clear()
            store._claims._aged_at.clear()
            assert take(store, 3, LANE) == take(store, 3, LANE, OTHER) == take(store, 1, OTHER, suspects=True) == []
    store.pauses.resume("api", by="me")
    assert len(take(store, 9, LANE, OTHER)) == 3


@pytest.mark.rows("I9", "M8")
def test_nothing_begins_after_the_commit_of_a_pause(open_store: Callable[..., JobStore]) -> None:
    """Six claimers, a client that is paused and resumed all the time: no claim that begins in a pause takes one of its jobs."""
    stores = [open_store() for _ in range(3)]
    store = stores[0]
    start_audit(store)
    enqueue(store, range(400))
    enqueue(store, range(400), STRANGER)
    stop = threading.Event()
    #: Of each claim: when it began, when it was over, how many jobs of either client.
    claims: list[tuple[float, float, int, int]] = []
    #: Of each pause: when its commit was over, when its end began.
    pauses: list[tuple[float, float]] = []
    errors: list[BaseException] = []

    def claim(number: int) -> None:
        try:
            while not stop.is_set():
                began = time.monotonic()
                jobs = take(stores[number % 3], 3, *((LANE, STRANGER) if number % 2 else (LANE,)))
                ours = sum(job.lane == LANE for job in jobs)
                claims.append((began, time.monotonic(), ours, len(jobs) - ours))
                stores[number % 3].release(jobs, reason="again")
        except BaseException as error:  # noqa: BLE001  # the test must see it
            errors.append(error)

    threads = [threading.Thread(target=claim, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()

    def until_claimed(after: float, place: int) -> None:
        """Wait for a claim of either client, 2 for ours and 3 for the other, that began after a moment."""
        wait_until(lambda: errors or any(one[0] > after and one[place] for one in list(claims)))

    try:
        for turn in range(25):
            pausing: Any = store.pauses.open("api", 0.02 if turn % 2 else None, cause="asked", reason="", set_by="w")
            paused_at = time.monotonic()
            until_claimed(paused_at, 3)
            if turn % 2:  # it has run out, and waits for its probe
                wait_until(store.probes.due)
            pauses.append((paused_at, time.monotonic()))
            if pausing.until is None:
                store.pauses.resume("api", by="me")
            else:
                assert end_probe(store, probe(store), True)
            until_claimed(time.monotonic(), 2)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not errors
    inside = _within(claims, pauses)
    assert sum(ours for ours, _ in inside) == 0, "jobs of a paused client were claimed"
    assert sum(theirs for _, theirs in inside) > 0, "the other client was held up"
    assert sum(ours for _, _, ours, _ in claims) > 0
    left = take(store, 1000, LANE, STRANGER)
    finish(store, *(done(job) for job in left))
    assert_invariants(store)


def _within(claims: list[tuple[float, float, int, int]], pauses: list[tuple[float, float]]) -> list[tuple[int, int]]:
    """Return what the claims took that began and ended in a pause."""
    return [
        (ours, theirs)
        for began, ended, ours, theirs in list(claims)
        if any(first < began and ended < last for first, last in pauses)
    ]
