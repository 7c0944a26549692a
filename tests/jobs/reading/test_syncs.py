"""jobs.reading.syncs: how syncs stand, from the tables. On both databases."""

from __future__ import annotations

from jobs import Failure, Gone, JobStore
from jobs.listing.runs import COUNTS
from jobs.reading.syncs import SyncState, paused_clients, sync_states
from tests.support.store_helpers import AT_ONCE, LANE, OTHER, content, done, enqueue, finish, reading, take


def state(store: JobStore, sync: str = LANE.type) -> SyncState:
    """Return how a sync stands."""
    with reading(store) as reader:
        return sync_states(reader, [sync])[sync]


def work(store: JobStore, **outcomes: object) -> None:
    """Queue entities and finish each as it is said; `None` stores it."""
    enqueue(store, outcomes, full=True)
    for job in take(store):
        outcome = outcomes[job.key or ""]
        finish(store, done(job, content=content({"id": job.key})) if outcome is None else done(job, outcome))


def end(store: JobStore, state: str, stopped: str = "end") -> None:
    """Leave a run that has ended so."""
    run = store.runs.begin(LANE.type, LANE.client, LANE.queue, worker="w", started_by="hand")
    store.runs.end(run, {"state": state, "stopped": stopped, "message": "", **dict.fromkeys(COUNTS, 0)})


def test_records_and_entities_that_fail_now(store: JobStore) -> None:
    """Stored ones count until they are deleted; one fails until it succeeds, whether it was ever stored or not."""
    failure = Failure("no", retry=False)
    assert state(store) == SyncState()
    work(store, a=None, b=None, c=failure, d=None)
    assert (state(store).records, state(store).failing) == (3, 1)
    work(store, a=failure, b=Gone(), c=failure)
    assert (state(store).records, state(store).failing) == (2, 2)
    work(store, a=None, c=None)
    assert (state(store).records, state(store).failing) == (3, 0)
    assert state(store, OTHER.type) == SyncState()


def test_an_attempt_that_is_tried_again_fails_now(store: JobStore) -> None:
    """A stored entity whose last attempt failed counts before its retries are used up, and not when it is gone."""
    work(store, a=None)
    enqueue(store, ["a"], full=True)
    (job,) = take(store)
    finish(store, done(job, Failure("later"), retry=AT_ONCE))
    assert state(store).failing == 1
    (job,) = take(store)
    finish(store, done(job, Gone()))
    assert (state(store).records, state(store).failing) == (0, 0)


def test_the_last_run_and_the_last_success(store: JobStore) -> None:
    """A skipped run is none; a success of a part is no success of the sync."""
    end(store, "success")
    whole = state(store)
    assert whole.last_state == "success"
    assert whole.last_success_at is not None
    end(store, "success", "limit")
    end(store, "failed", "error")
    end(store, "skipped", "running")
    found = state(store)
    assert (found.last_state, found.last_success_at) == ("failed", whole.last_success_at)
    assert found.last_run_at is not None
    assert whole.last_run_at is not None
    assert found.last_run_at >= whole.last_run_at


def test_paused_clients(store: JobStore) -> None:
    """Those in force: with their end, or `None` for one that waits for a person."""
    store.pauses.open("a", 600, cause="person", reason="", set_by="anna")
    store.pauses.open("b", None, cause="person", reason="", set_by="anna")
    store.pauses.open("c", -1, cause="person", reason="", set_by="anna")
    with reading(store) as reader:
        found = paused_clients(reader)
    assert set(found) == {"a", "b"}
    assert found["b"] is None
    assert found["a"] is not None
