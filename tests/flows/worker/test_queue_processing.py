"""Working queues without listing, against a real API and both databases."""

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from flows import UnknownName
from flows.declarations.sync import Sync
from flows.project.registry import Registry
from flows.sync import run as engine
from flows.worker.queue_processing import work
from jobs import JobStore, Retry
from jobs.listing.listing_claim import ListingClaim
from jobs.listing.page_plan import Item
from tests.support.fake_things_api import CLIENT, LANE, Fault, Remote, change, declare, live, query, serving, states

LATER = Retry(max_retries=3, delay=3600, jitter=False)


@pytest.fixture
def remote() -> Iterator[Remote]:
    """A remote system without things."""
    with serving(Remote()) as found:
        yield found


def registry(*syncs: Sync) -> Registry:
    """Make a registry of these."""
    return Registry(clients={sync.client.id: sync.client for sync in syncs}, syncs={sync.id: sync for sync in syncs})


def enqueue(store: JobStore, remote: Remote) -> None:
    """Queue all things without working them."""
    claim = store.listings.claim(LANE.type, CLIENT, worker="elsewhere:1:1:1", lease=60)
    assert isinstance(claim, ListingClaim)
    store.pages.enqueue(claim, LANE, [Item(key, "1") for key in remote.things], cursor=None, last=True)
    store.listings.release(claim)


def test_until_empty(store: JobStore, remote: Remote) -> None:
    """All due jobs are worked, then it ends."""
    remote.fill(250)
    enqueue(store, remote)
    result = work(store, registry(declare(remote.url)), until_empty=True)
    assert (result.processed, result.succeeded, result.failed) == (250, 250, 0)
    assert live(store) == set(remote.things)
    assert not remote.pages


def test_delayed_retries_of_a_run(store: JobStore, remote: Remote) -> None:
    """What a run left for later is worked off when it is due, and not before."""
    remote.fill(20)
    remote.faults["k3"] = Fault(500, times=1)
    sync = declare(remote.url, retry=LATER)
    assert engine.run(sync, store).pending == 1
    assert work(store, registry(sync), until_empty=True).processed == 0
    change(store, "UPDATE job SET available_at = '2000-01-01 00:00:00.000000+00' WHERE state = 'queued'")
    assert work(store, registry(sync), until_empty=True).succeeded == 1
    assert live(store) == set(remote.things)


@pytest.mark.parametrize("most", [1, 7, 100, 130])
def test_max_jobs(store: JobStore, remote: Remote, most: int) -> None:
    """It takes exactly so many jobs."""
    remote.fill(150)
    enqueue(store, remote)
    assert work(store, registry(declare(remote.url)), max_jobs=most).processed == most
    assert states(store) == {"success": most, "queued": 150 - most}


@pytest.mark.rows("CR-12")
def test_time_limit(store: JobStore, remote: Remote) -> None:
    """It ends at its time also when nothing is to be done."""
    started = time.monotonic()
    assert work(store, registry(declare(remote.url)), time_limit=0.3).processed == 0
    assert 0.3 <= time.monotonic() - started < 30


@pytest.mark.parametrize("which", ["stop", "now"])
def test_stop(store: JobStore, remote: Remote, which: str) -> None:
    """A stop finishes what was begun, a second one puts that back too; nothing stays in processing, no attempt is used."""
    remote.fill(150)
    enqueue(store, remote)
    event, is_over = threading.Event(), threading.Event()

    def ask_to_stop(asked: int) -> None:
        if asked == 4:
            event.set()
        # Nothing is answered before it has left; or each of the four at once.
        is_over.wait(60) if which == "now" else event.wait(60)

    remote.on_detail = ask_to_stop
    try:
        result = work(store, registry(declare(remote.url)), **{which: event})
    finally:
        is_over.set()
    found = states(store)
    assert set(found) == ({"success", "queued"} if which == "stop" else {"queued"})
    begun = remote.details.total()
    done = found.get("success", 0)
    assert done == result.succeeded == result.processed
    assert (begun - done > 0) == (which == "now")
    assert query(store, "SELECT max(rescues) AS r, sum(attempts) AS a FROM job") == [{"r": 0, "a": done}]


def test_401_pauses_and_others_go_on(store: JobStore, remote: Remote) -> None:
    """A client that refuses the sign-in is paused; with nothing else due, `until_empty` ends."""
    remote.fill(150)
    remote.faults["*"] = Fault(401)
    enqueue(store, remote)
    checked = {"check": lambda http: http.get_json("things/k0")}
    result = work(store, registry(declare(remote.url, client=checked)), until_empty=True)
    assert result.succeeded == result.failed == 0
    assert remote.details.total() <= 4 + 1
    assert states(store) == {"queued": 150}
    assert store.pauses.current(CLIENT) is not None


def test_unknown_queue(store: JobStore, remote: Remote) -> None:
    """A queue that nobody declares is refused, with those that are."""
    with pytest.raises(UnknownName, match=f"no queue is called 'nope'; declared are: {CLIENT}"):
        work(store, registry(declare(remote.url)), queues=["nope"], until_empty=True)


def test_nothing_declared(store: JobStore) -> None:
    """Without a sync there is nothing to do, and it says so by ending."""
    assert work(store, registry(), until_empty=True).processed == 0


def test_jobs_of_others_stay(store: JobStore, remote: Remote) -> None:
    """Jobs of a type that is not declared here stay where they are."""
    remote.fill(5)
    enqueue(store, remote)
    change(store, "UPDATE job SET type = 'shop.other' WHERE key = 'k1'")
    assert work(store, registry(declare(remote.url)), until_empty=True).processed == 4
    assert states(store) == {"success": 4, "queued": 1}


def test_two_workers(store: JobStore, remote: Remote, open_store: Callable[..., JobStore]) -> None:
    """Two workers on one queue fetch each entity once."""
    remote.fill(400)
    enqueue(store, remote)
    stores: list[Any] = [store, open_store()]
    threads = [
        threading.Thread(target=work, args=(one, registry(declare(remote.url))), kwargs={"until_empty": True}) for one in stores
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert live(store) == set(remote.things)
    assert set(remote.details.values()) == {1}
