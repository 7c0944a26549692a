"""Keeping claims alive, against a real store."""

import time

import pytest

from flows.worker import heartbeat as heartbeat_of
from flows.worker.heartbeat import Heartbeat
from jobs import Failure, JobStore, Retry
from jobs.job import Job, JobResult, Verdict
from jobs.listing.listing_claim import ListingClaim
from jobs.listing.page_plan import Item
from tests.support.fake_remote import PAST
from tests.support.fake_things_api import CLIENT, LANE, SYNC, change, query

ME = "elsewhere:4711:1:1"


LEASE = 60.0
"""Seconds."""


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Renew ten times a second."""
    monkeypatch.setattr(heartbeat_of, "RENEWALS", 600)


def expire(store: JobStore) -> None:
    """End the leases of all jobs."""
    change(store, f"UPDATE job SET lease_until = '{PAST}' WHERE state = 'processing'")


def renewed(store: JobStore) -> list[int]:
    """Return the ids of the jobs whose lease was renewed since."""
    return [row["id"] for row in query(store, f"SELECT id FROM job WHERE lease_until > '{PAST}'")]


def take(store: JobStore, n: int = 3) -> list[Job]:
    """Queue and claim jobs."""
    claim = store.listings.claim(SYNC, CLIENT, worker=ME, lease=60)
    assert isinstance(claim, ListingClaim)
    store.pages.enqueue(claim, LANE, [Item(f"k{number}") for number in range(n)], cursor=None, last=True)
    store.listings.release(claim)
    return store.claim([LANE], n, worker=ME, lease=LEASE)


def wait_until(condition: object, *, seconds: float = 60) -> None:
    """Wait for a condition."""
    assert callable(condition)
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_held_claims_outlive_their_lease(store: JobStore) -> None:
    """What is held is renewed, and what is dropped is not."""
    held, *dropped = take(store)
    with Heartbeat(store, lease=LEASE) as heartbeat:
        heartbeat.add([held, dropped[0]])
        heartbeat.remove([dropped[0]])
        expire(store)
        wait_until(lambda: renewed(store))
        assert renewed(store) == [held.id]
        assert store.rescues.run([LANE.queue]) == 2
    found = {row["id"]: row["state"] for row in query(store, "SELECT id, state FROM job")}
    assert found == {held.id: "processing", **{one.id: "queued" for one in dropped}}
    assert not heartbeat.is_lost(held)


def test_lost_claim_is_noticed(store: JobStore) -> None:
    """A job that another worker took is lost, and no other."""
    lost, kept, _ = take(store)
    with Heartbeat(store, lease=LEASE) as heartbeat:
        heartbeat.add([lost, kept])
        change(store, "UPDATE job SET claim_no = claim_no + 1 WHERE id = :id", id=lost.id)
        wait_until(lambda: heartbeat.is_lost(lost))
        assert not heartbeat.is_lost(kept)


def test_dropping_an_old_claim_keeps_the_new_one(store: JobStore) -> None:
    """A job that went back and was claimed again is held under its new claim when the old one is dropped."""
    job = take(store, 1)[0]
    with Heartbeat(store, lease=LEASE) as heartbeat:
        heartbeat.add([job])
        store.finish([JobResult(job, Verdict(Failure("again")), Retry(delay=0, jitter=False))])
        (again,) = store.claim([LANE], 1, worker=ME, lease=LEASE)
        heartbeat.add([again])
        heartbeat.remove([job])
        expire(store)
        wait_until(lambda: renewed(store))
        assert store.rescues.run([LANE.queue]) == 0
        assert not heartbeat.is_lost(again)


def test_run_that_was_taken_is_told_once(store: JobStore) -> None:
    """When another process takes the run, whoever keeps it is told, once."""
    claim = store.listings.claim(SYNC, CLIENT, worker=ME, lease=60)
    assert isinstance(claim, ListingClaim)
    told: list[int] = []
    with Heartbeat(store, lease=LEASE, listing=claim, on_lost=lambda: told.append(1)):
        change(store, "UPDATE listing SET claim_no = claim_no + 1")
        wait_until(lambda: told)
        time.sleep(0.3)
    assert told == [1]


@pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)
def test_database_trouble_is_survived(store: JobStore, caplog: pytest.LogCaptureFixture) -> None:
    """A renewal that fails is logged without particulars, and the next one comes."""
    (job,) = take(store, 1)
    with Heartbeat(store, lease=LEASE) as heartbeat:
        heartbeat.add([job])
        change(store, "ALTER TABLE job RENAME TO away")
        wait_until(lambda: "leases not renewed" in caplog.text)
        change(store, "ALTER TABLE away RENAME TO job")
        time.sleep(0.3)
        assert store.renew([(job.id, job.claim_no)], lease=1) == {job.id}
