"""Keeping claims alive, against a real store."""

import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "e2e"))

from remote import CLIENT, LANE, SYNC, change, query

from flows.lease import LeaseKeeper
from jobs import Failure, JobStore, Retry
from jobs.job import Done, Job, Verdict
from jobs.listing import ListingClaim
from jobs.page import Item

ME = "elsewhere:4711:1:1"


def take(store: JobStore, n: int = 3) -> list[Job]:
    """Queue and claim jobs."""
    claim = store.begin_listing(SYNC, CLIENT, worker=ME, lease=60)
    assert isinstance(claim, ListingClaim)
    store.enqueue_page(claim, LANE, [Item(f"k{number}") for number in range(n)], cursor=None, last=True)
    store.release_listing(claim)
    return store.claim([LANE], n, worker=ME, lease=0.6)


def wait_until(condition: object, *, seconds: float = 5) -> None:
    """Wait for a condition."""
    assert callable(condition)
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_held_claims_outlive_their_lease(store: JobStore) -> None:
    """What is held is renewed, and what is dropped is not."""
    held, dropped, _ = take(store)
    with LeaseKeeper(store, lease=0.6) as keeper:
        keeper.hold([held, dropped])
        keeper.drop([dropped])
        time.sleep(1.0)
        store.rescue([LANE.queue])
    found = {row["id"]: row["state"] for row in query(store, "SELECT id, state FROM job")}
    assert found[held.id] == "processing"
    assert found[dropped.id] == "queued"
    assert not keeper.is_lost(held)


def test_lost_claim_is_noticed(store: JobStore) -> None:
    """A job that another worker took is lost, and no other."""
    lost, kept, _ = take(store)
    with LeaseKeeper(store, lease=0.3) as keeper:
        keeper.hold([lost, kept])
        change(store, "UPDATE job SET claim_no = claim_no + 1 WHERE id = :id", id=lost.id)
        wait_until(lambda: keeper.is_lost(lost))
        assert not keeper.is_lost(kept)


def test_dropping_an_old_claim_keeps_the_new_one(store: JobStore) -> None:
    """A job that went back and was claimed again is held under its new claim when the old one is dropped."""
    job = take(store, 1)[0]
    with LeaseKeeper(store, lease=0.6) as keeper:
        keeper.hold([job])
        store.finish([Done(job, Verdict(Failure("again")), Retry(delay=0, jitter=False))])
        (again,) = store.claim([LANE], 1, worker=ME, lease=0.6)
        keeper.hold([again])
        keeper.drop([job])
        time.sleep(1.0)
        assert store.rescue([LANE.queue]) == 0
        assert not keeper.is_lost(again)


def test_run_that_was_taken_is_told_once(store: JobStore) -> None:
    """When another process takes the run, whoever keeps it is told, once."""
    claim = store.begin_listing(SYNC, CLIENT, worker=ME, lease=60)
    assert isinstance(claim, ListingClaim)
    told: list[int] = []
    with LeaseKeeper(store, lease=0.15, listing=claim, on_lost=lambda: told.append(1)):
        change(store, "UPDATE listing SET claim_no = claim_no + 1")
        time.sleep(0.5)
    assert told == [1]


@pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)
def test_database_trouble_is_survived(store: JobStore, caplog: pytest.LogCaptureFixture) -> None:
    """A renewal that fails is logged without particulars, and the next one comes."""
    (job,) = take(store, 1)
    with LeaseKeeper(store, lease=0.3) as keeper:
        keeper.hold([job])
        change(store, "ALTER TABLE job RENAME TO away")
        wait_until(lambda: "leases not renewed" in caplog.text)
        change(store, "ALTER TABLE away RENAME TO job")
        time.sleep(0.3)
        assert store.renew([(job.id, job.claim_no)], lease=1) == {job.id}
