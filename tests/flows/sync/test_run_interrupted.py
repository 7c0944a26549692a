"""Findings of a review of the engine, one test each: late answers, poison, broken connections, full runs."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from clients import ConnectFailedError, HttpClient
from flows import PausePolicy
from flows.sync import run as engine
from jobs import JobStore, Retry, Success
from jobs.db.json_codec import encode
from jobs.fingerprint import content_hash
from jobs.job import Content, Job, JobResult, Verdict
from jobs.listing.listing_claim import ListingClaim
from jobs.listing.page_plan import Item
from jobs.process_identity import this_worker
from tests.support.fake_things_api import CLIENT, LANE, SYNC, Fault, Remote, change, declare, query, serving

ELSEWHERE = "elsewhere:4711:1:1"


@pytest.fixture
def remote() -> Iterator[Remote]:
    """A remote system without things."""
    with serving(Remote()) as found:
        yield found


def take(store: JobStore, version: str, key: str = "k0") -> Job:
    """List one entity of a version and claim its job."""
    claim = store.listings.claim(SYNC, CLIENT, worker=ELSEWHERE, lease=60)
    assert isinstance(claim, ListingClaim)
    store.pages.enqueue(claim, LANE, [Item(key, version)], cursor=None, last=True)
    store.listings.release(claim)
    (job,) = store.claim([LANE], 1, worker=ELSEWHERE, lease=60)
    return job


@pytest.mark.rows("DS-10")
def test_older_fetch_does_not_overwrite_a_newer_one(store: JobStore) -> None:
    """Of two jobs of one entity, the follow-up's data stays, also when the older job is finished after it."""

    def done(job: Job, version: str) -> JobResult:
        data = {"version": version}
        return JobResult(job, Verdict(Success()), Retry(), Content(version, content_hash(data), encode(data).decode()))

    older = take(store, "1")
    newer = take(store, "2")
    store.finish([done(newer, "2")])
    store.finish([done(older, "1")])
    assert query(store, "SELECT version FROM record") == [{"version": "2"}]


def test_poison_counts_as_a_failure_of_the_run(store: JobStore, remote: Remote, open_store: Callable[..., JobStore]) -> None:
    """A run that finds an entity poisonous is no plain success."""
    remote.fill(20)
    engine.run(declare(remote.url), store)
    remote.change("k3")
    take(store, "2", "k3")
    dead = f"{this_worker().rpartition(':')[0]}:1"
    change(store, "UPDATE job SET rescues = 2, worker = :dead WHERE state = 'processing'", dead=dead)
    remote.page_faults[0] = Fault(404)
    result = engine.run(declare(remote.url), open_store())
    assert query(store, "SELECT key FROM job WHERE message LIKE 'poison%'") == [{"key": "k3"}]
    assert result.failed == 1


def test_broken_connection_is_opened_again(store: JobStore, remote: Remote) -> None:
    """An adapter of one thread whose connection broke is opened anew for the next try."""
    remote.fill(10)

    class Session(HttpClient):
        thread_safe = False
        used = 0

        def get_json(self, path: str, params: Any = None) -> Any:
            self.used += 1
            if self.used > 3:
                raise ConnectFailedError("the session was closed by the other side")
            return super().get_json(path, params)

    sync = declare(remote.url, client={"connect": lambda _: Session(remote.url)}, pause=PausePolicy(after=1000), concurrency=1)
    assert engine.run(sync, store).state == "success"


def test_full_after_an_interrupted_run_is_full(store: JobStore, remote: Remote) -> None:
    """`--full` works every listed entity, also after a run that was interrupted."""
    remote.fill(30)
    engine.run(declare(remote.url), store)
    remote.page_faults[20] = Fault(500, times=1)
    engine.run(declare(remote.url), store)
    remote.forget()
    engine.run(declare(remote.url), store, full=True)
    assert set(remote.details) == set(remote.things)
