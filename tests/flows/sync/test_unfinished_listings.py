"""Workers that continue the listings that others left."""

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic_settings import BaseSettings

from clients import Cursor, Listing
from flows import PausePolicy
from flows.project.registry import Registry
from flows.sync import run as engine
from flows.sync.unfinished_listings import UnfinishedListings
from flows.worker.queue_processing import WorkResult, work
from jobs import JobStore
from tests.support.fake_things_api import CLIENT, SYNC, Fault, Remote, declare, dump, live, query, serving

CALM = PausePolicy(after=1000)
FULL = Listing("things", Cursor("next"), items="data", key="id")


@pytest.fixture
def remote() -> Iterator[Remote]:
    """A remote system with thirty things in three pages."""
    with serving(Remote()) as found:
        found.fill(30)
        yield found


def worker(
    store: JobStore,
    remote: Remote,
    *,
    stop: threading.Event | None = None,
    halts: list[threading.Event] | None = None,
    **fields: Any,
) -> WorkResult:
    """Work what is due, as `syncs work --until-empty` does, or until stopped; `halts` gets what ends its listings."""
    sync = declare(remote.url, **{"pause": CALM, "listing": FULL, **fields})
    registry = Registry(clients={CLIENT: sync.client}, syncs={SYNC: sync})

    def listings(syncs: list[str], halt: threading.Event) -> UnfinishedListings:
        if halts is not None:
            halts.append(halt)
        return UnfinishedListings(store, registry, syncs, stop=halt)

    return work(
        store,
        registry,
        until_empty=stop is None,
        stop=stop,
        listings=listings,
    )


def interrupt(store: JobStore, remote: Remote, **fields: Any) -> None:
    """Leave a listing that has shown two of three pages."""
    remote.page_faults[20] = Fault(500, times=1)
    assert engine.run(declare(remote.url, **{"pause": CALM, "listing": FULL, **fields}), store).pages == 2
    remote.page_faults.clear()


def test_a_worker_continues_a_listing(store: JobStore, remote: Remote) -> None:
    """Behind the last page, with its jobs and with the sweep at its end."""
    assert engine.run(declare(remote.url, listing=FULL), store).state == "success"
    del remote.things["k29"]
    remote.forget()
    interrupt(store, remote)
    result = worker(store, remote, delete_missing=True)
    assert (result.processed, result.failed) == (9, 0)
    assert dict(remote.pages) == {0: 1, 10: 1, 20: 2}
    assert set(remote.details.values()) == {1}
    assert live(store) == set(remote.things)
    assert query(store, "SELECT state, worker FROM listing") == [{"state": "complete", "worker": None}]
    # There is nothing left to continue.
    remote.forget()
    assert worker(store, remote).processed == 0
    assert remote.requests == 0


def test_one_that_somebody_has_in_hand_is_left(store: JobStore, remote: Remote) -> None:
    """And one of a client that is paused, and one of a sync that this worker does not serve."""
    interrupt(store, remote)
    remote.forget()
    claim = store.listings.claim(SYNC, CLIENT, worker="elsewhere:1:1:1", lease=60)
    worker(store, remote)
    assert remote.requests == 0
    store.listings.release(claim)  # type: ignore[arg-type]
    store.pauses.open(CLIENT, 60, cause="asked", reason="slow down", set_by="w")
    worker(store, remote)
    assert remote.requests == 0
    store.pauses.resume(CLIENT, by="anna")
    registry = Registry()
    assert UnfinishedListings(store, registry, [], stop=threading.Event()).due() == []


def test_a_page_that_fails_is_not_tried_at_once(store: JobStore, remote: Remote) -> None:
    """The worker comes to its end; the next one tries again, and gives up in the end."""
    interrupt(store, remote)
    remote.forget()
    remote.page_faults[20] = Fault(500)
    for _ in range(8):
        worker(store, remote)
    assert query(store, "SELECT state FROM listing") == [{"state": "abandoned"}]
    assert (remote.pages[0], remote.pages[10], remote.pages[20]) == (1, 1, 5)


def test_a_stop_ends_it(store: JobStore, remote: Remote) -> None:
    """After the page in hand, and it is continued later."""
    interrupt(store, remote)
    remote.forget()
    remote.page_size = 1
    stop, halts = threading.Event(), list[threading.Event]()

    def stop_it(_: int) -> None:
        stop.set()
        # The worker passes it on within a tenth of a second; the page in hand comes after that.
        assert halts[0].wait(30)

    remote.on_page = stop_it
    worker(store, remote, stop=stop, halts=halts)
    assert remote.pages.total() == 1
    assert query(store, "SELECT state, worker FROM listing") == [{"state": "listing", "worker": None}]


def test_a_missing_setting_leaves_the_rest_alone(store: JobStore, remote: Remote) -> None:
    """What keeps a listing from being continued is no reason to end the worker."""

    class Settings(BaseSettings, env_prefix="NOT_THERE_"):
        token: str

    interrupt(store, remote)
    registry = Registry(syncs={SYNC: declare(remote.url, client={"settings": Settings})})
    listings = UnfinishedListings(store, registry, [SYNC], stop=threading.Event())
    assert listings.due() == [SYNC]
    assert listings.run(SYNC) is None
    assert listings.due() == []
    assert query(store, "SELECT state, worker FROM listing") == [{"state": "listing", "worker": None}]


@pytest.mark.parametrize("other", [{}, {"listing": Listing("things", Cursor("next"), items="data", key="id", version="v")}])
def test_nothing_is_begun_that_nobody_asked_for(store: JobStore, remote: Remote, other: dict[str, Any]) -> None:
    """A worker that comes second to a listing, or has another version of its declaration, sends and writes nothing."""
    registry = Registry(syncs={SYNC: declare(remote.url, **{"listing": FULL, **other})})
    listings = UnfinishedListings(store, registry, [SYNC], stop=threading.Event())
    # Not even a row.
    assert listings.run(SYNC) is None
    assert query(store, "SELECT sync FROM listing") == []
    interrupt(store, remote)
    listings = UnfinishedListings(store, registry, [SYNC], stop=threading.Event())
    assert listings.due() == [SYNC]
    if not other:
        # Another worker is quicker.
        assert engine.run(declare(remote.url, pause=CALM, listing=FULL), store).state == "success"
    remote.forget()
    before = dump(store)
    assert listings.run(SYNC) is None
    assert remote.requests == 0
    assert dump(store) == before
