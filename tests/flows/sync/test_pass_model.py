"""Runs and workers, interrupted at any step, against a model: each listed entity gets exactly one outcome in each pass."""

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from clients import Entity, GoneError, Page, RateLimitedError, RejectedError, ServerError
from flows import Client, PausePolicy, Sync
from flows.pauses import open_pauses
from flows.project.registry import Registry
from flows.sync import listing_thread
from flows.sync import run as engine
from flows.sync.unfinished_listings import UnfinishedListings
from flows.worker.queue_processing import work
from jobs import JobStore, Retry
from jobs.job import Lane
from jobs.listing.listing_claim import ListingClaim
from jobs.process_identity import this_worker
from jobs.schema.job_tables import metadata
from tests.conftest import Chaos
from tests.support.fake_remote import run_out
from tests.support.fake_things_api import query

SYNC = "api.things"
LANE = Lane("api", "api", SYNC)
KEYS = [f"k{n}" for n in range(11)]
PER_PAGE = 3
SHORT = 0.02
DEAD = f"{this_worker().rpartition(':')[0]}:1"
"""A process of this host that is gone."""

INTERRUPTIONS = ["none", "stop", "asked", "500", "person"]


class Api:
    """A remote system in a Python object: one key is gone, one is refused, and at one request something happens."""

    def __init__(self, store: JobStore) -> None:
        self.store = store
        self.stop = threading.Event()
        self.fetched: Counter[str] = Counter()
        self._countdown, self._happens = -1, "none"
        self._lock = threading.Lock()

    def plan(self, countdown: int, happens: str) -> None:
        """Let this happen at the request of this number."""
        self.stop = threading.Event()
        self._countdown, self._happens = countdown, happens

    def ask(self) -> None:
        """Send a request."""
        with self._lock:
            self._countdown -= 1
            happens = self._happens if self._countdown == 0 else "none"
        match happens:
            case "stop":
                self.stop.set()
            case "asked":
                raise RateLimitedError("slow down", status=429, retry_after=SHORT)
            case "500":
                raise ServerError("500 Internal Server Error", status=500)
            case "person":
                self.store.pauses.open("api", 0.05, cause="person", reason="wait", set_by="anna")

    def page(self, number: int) -> Page:
        """Return a page."""
        self.ask()
        items = [Entity(key, self.version) for key in KEYS[number * PER_PAGE : (number + 1) * PER_PAGE]]
        return Page(items, number + 1 if (number + 1) * PER_PAGE < len(KEYS) else None)

    version: str | None = None

    def fetch(self, entity: Entity) -> Any:
        """Return an entity."""
        self.ask()
        with self._lock:
            self.fetched[entity.key] += 1
        if entity.key == KEYS[4]:
            raise GoneError("404", status=404)
        if entity.key == KEYS[7]:
            raise RejectedError("422", status=422)
        return {"key": entity.key}


class Resumable:
    """A listing that goes on behind a cursor."""

    def __call__(self, api: Api, since: Any) -> Iterator[Page]:
        """Yield all pages."""
        return self.pages(api)

    def pages(self, api: Api, *, cursor: Any = None) -> Iterator[Page]:
        """Yield the pages behind it."""
        number: int | None = cursor or 0
        while number is not None:
            page = api.page(number)
            number = page.cursor
            yield page


def plain(api: Api, _: Any) -> Iterator[Page]:
    """List without cursors."""
    for page in Resumable().pages(api):
        yield Page(page.items)


class Passes(RuleBasedStateMachine):
    """What people and processes do to one sync."""

    store: JobStore
    cursors = True
    versions = False

    def __init__(self) -> None:
        super().__init__()
        with self.store.db.write() as connection:
            for table in reversed(metadata.sorted_tables):
                connection.execute(table.delete())
        self.api = Api(self.store)
        self.api.version = "1" if self.versions else None

        @contextmanager
        def connect(_: Any) -> Iterator[Api]:
            yield self.api

        policy = PausePolicy(after=1000, durations=(SHORT,))
        client = Client("api", connect=connect, pause=policy)
        self.sync = Sync(
            SYNC,
            client,
            listing=Resumable() if self.cursors else plain,
            fetch=lambda api, entity: api.fetch(entity),
            retry=Retry(max_retries=5, delay=0, jitter=False),
            concurrency=2,
            batch=4,
            max_delete_share=1.0,
        )
        self.registry = Registry(clients={"api": client}, syncs={SYNC: self.sync})

    def run(self, **options: Any) -> Any:
        """Run the sync once."""
        run_out(self.store)
        return engine.run(self.sync, self.store, stop=self.api.stop, **options)

    @rule(
        happens=st.sampled_from(INTERRUPTIONS),
        at=st.integers(1, 15),
        full=st.booleans(),
        wait=st.sampled_from([0.0, None]),
    )
    def a_run(self, happens: str, at: int, full: bool, wait: float | None) -> None:
        """One run, with something that happens in it."""
        self.api.plan(at, happens)
        before = self.listing()
        self.run(full=full, wait=wait)
        if before["state"] == "listing" and (before["is_full"] or not full):
            # What is unfinished is continued.
            assert self.listing()["generation"] == before["generation"]

    def listing(self) -> dict[str, Any]:
        """Return how far the listing is."""
        rows = query(self.store, "SELECT state, generation, is_full FROM listing")
        return rows[0] if rows else {"state": "", "generation": 0, "is_full": False}

    @rule(happens=st.sampled_from(INTERRUPTIONS), at=st.integers(1, 15))
    def two_runs(self, happens: str, at: int) -> None:
        """Two processes run it at once."""
        self.api.plan(at, happens)
        run_out(self.store)
        states: list[str] = []
        both = [threading.Thread(target=lambda: states.append(self.run(wait=0.0).state)) for _ in range(2)]
        for one in both:
            one.start()
        for one in both:
            one.join()
        assert len(states) == 2

    @rule(happens=st.sampled_from(INTERRUPTIONS), at=st.integers(1, 15))
    def a_worker(self, happens: str, at: int) -> None:
        """A worker does what is left, of the listing too."""
        self.api.plan(at, happens)
        run_out(self.store)
        work(
            self.store,
            self.registry,
            until_empty=True,
            stop=self.api.stop,
            listings=lambda syncs, halt: UnfinishedListings(self.store, self.registry, syncs, stop=halt),
        )

    @rule(jobs=st.integers(0, 3))
    def a_kill(self, jobs: int) -> None:
        """A process takes the sync and some jobs, and is killed."""
        claim = self.store.listings.claim(SYNC, "api", worker=DEAD, lease=60)
        if isinstance(claim, ListingClaim):
            self.store.claim([LANE], jobs, worker=DEAD, lease=60) if jobs else None

    @invariant()
    def at_most_one_outcome(self) -> None:
        """No entity has two outcomes in one pass."""
        assert {key: n for key, n in self.outcomes().items() if n > 1} == {}

    def outcomes(self) -> Counter[tuple[int, str]]:
        """Count the outcomes by pass and entity."""
        rows = query(
            self.store,
            "SELECT job.generation, job.key, count(*) AS n FROM attempt JOIN job ON job.id = attempt.job_id "
            "WHERE attempt.outcome IN ('success', 'unchanged', 'gone', 'failure') GROUP BY job.generation, job.key",
        )
        return Counter({(row["generation"], row["key"]): row["n"] for row in rows})

    def teardown(self) -> None:
        """Undisturbed, the pass comes to its end: each entity that needed a job in it has one outcome."""
        self.api.plan(-1, "none")
        for _ in range(3):
            result = self.run(wait=None)
            listing = self.listing()
            if listing["state"] == "complete" and not result.pending:
                break
        assert (listing["state"], result.pending) == ("complete", 0)
        self.at_most_one_outcome()
        seen = {key for generation, key in self.outcomes() if generation == listing["generation"]}
        if not self.versions:
            assert seen == set(KEYS)
        live = query(self.store, "SELECT key FROM record WHERE deleted_at IS NULL")
        assert {row["key"] for row in live} == set(KEYS) - {KEYS[4], KEYS[7]}


@pytest.mark.parametrize("versions", [False, True], ids=["", "versions"])
@pytest.mark.parametrize("cursors", [True, False], ids=["cursors", "generator"])
def test_each_entity_has_one_outcome_in_each_pass(
    store: JobStore, chaos: Chaos, cursors: bool, versions: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However runs and workers are interrupted, and however many there are."""
    monkeypatch.setattr(open_pauses, "SHORTEST_PAUSE", SHORT)
    monkeypatch.setattr(listing_thread, "PAGE_RETRY", Retry(max_retries=3, delay=0, jitter=False))
    machine = type("Passes", (Passes,), {"store": store, "cursors": cursors, "versions": versions})
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        machine,
        settings=settings(
            max_examples=chaos.scaled(4, 100),
            stateful_step_count=chaos.scaled(6, 20),
            deadline=None,
            database=None,
            derandomize=not chaos.is_long,
            suppress_health_check=list(HealthCheck),
        ),
    )
