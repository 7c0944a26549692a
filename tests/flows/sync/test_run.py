"""Runs of the engine against a real HTTP API and both databases: what arrives, what is counted, what is kept."""

import dataclasses
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from clients import Bearer, Entity, HttpClient, Page
from flows.progress import Judged, Progress, SilentTracker
from flows.run_result import RunResult
from flows.sync import run as engine
from jobs import JobStore, Success
from jobs.listing.listing_claim import ListingClaim
from tests.support.fake_remote import until
from tests.support.fake_things_api import CLIENT, LANE, SYNC, Fault, Remote, change, declare, dump, live, query, serving, states

ELSEWHERE = "elsewhere:4711:1:1"


@pytest.fixture
def remote() -> Iterator[Remote]:
    """A remote system without things."""
    with serving(Remote()) as found:
        yield found


def run(store: JobStore, remote: Remote, *, options: dict[str, Any] | None = None, **fields: Any) -> RunResult:
    """Run the sync of this remote; `options` are the run's."""
    return engine.run(declare(remote.url, **fields), store, **(options or {}))


def counts(result: RunResult, names: str) -> tuple[Any, ...]:
    """Return several fields at once."""
    return tuple(getattr(result, name) for name in names.split())


def records(store: JobStore) -> dict[str, dict[str, Any]]:
    """Return the records by key."""
    return {row["key"]: row for row in query(store, "SELECT * FROM record")}


# -- what arrives ---------------------------------------------------------------------------------------


def test_everything_arrives_exactly_once(store: JobStore, remote: Remote) -> None:
    """Each entity is fetched once and stored as it came; each page is asked for once; the numbers say so."""
    remote.fill(47)
    result = run(store, remote)
    assert counts(result, "state stopped pages listed queued succeeded unchanged failed pending message") == (
        "success", "end", 5, 47, 47, 47, 0, 0, 0, "",
    )  # fmt: skip
    assert result.requests == remote.requests == 52
    assert set(remote.details.values()) == set(remote.pages.values()) == {1}
    found = query(store, "SELECT key, version, data FROM record")
    assert {row["key"]: row["version"] for row in found} == dict.fromkeys(remote.things, "1")
    assert live(store) == set(remote.things)
    assert states(store) == {"success": 47}


@pytest.mark.rows("DS-10")
def test_second_run_is_unchanged(store: JobStore, remote: Remote) -> None:
    """A second run lists, fetches nothing and writes no record anew."""
    remote.fill(25)
    run(store, remote)
    before = records(store)
    remote.forget()
    result = run(store, remote)
    assert counts(result, "state listed queued succeeded unchanged") == ("success", 25, 0, 0, 25)
    assert not remote.details
    assert {key: row["changed_at"] for key, row in records(store).items()} == {k: row["changed_at"] for k, row in before.items()}


def test_changed_version_is_fetched_again(store: JobStore, remote: Remote) -> None:
    """Only what changed by its version is fetched, and only that record changes."""
    remote.fill(25)
    run(store, remote)
    before = records(store)
    remote.forget()
    remote.change("k3")
    result = run(store, remote)
    assert counts(result, "queued succeeded unchanged") == (1, 1, 24)
    assert dict(remote.details) == {"k3": 1}
    after = records(store)
    assert {key for key in after if after[key]["changed_at"] != before[key]["changed_at"]} == {"k3"}
    assert "thing 3!" in str(after["k3"]["data"])
    assert after["k3"]["first_seen_at"] == before["k3"]["first_seen_at"]


def test_full_works_everything(store: JobStore, remote: Remote) -> None:
    """A full run fetches and saves every entity; `changed_at` moves only where the content did."""
    remote.fill(12)
    run(store, remote)
    remote.forget()
    remote.things["k3"]["name"] = "changed in secret"
    before = records(store)
    result = run(store, remote, options={"full": True})
    assert counts(result, "queued succeeded unchanged") == (12, 12, 0)
    assert remote.details.total() == 12
    after = records(store)
    assert {key for key in after if after[key]["changed_at"] != before[key]["changed_at"]} == {"k3"}


def test_without_fetch_the_item_is_the_record(store: JobStore, remote: Remote) -> None:
    """Without `fetch` no detail is asked for, and the content decides what changed."""
    from clients import Cursor, Listing

    plain = {"fetch": None, "listing": Listing("things", Cursor("next"), items="data", key="id")}
    remote.fill(25)
    assert counts(run(store, remote, **plain), "succeeded unchanged requests") == (25, 0, 3)
    assert counts(run(store, remote, **plain), "queued succeeded unchanged") == (0, 0, 25)
    remote.change("k3")
    assert counts(run(store, remote, **plain), "queued succeeded unchanged") == (1, 1, 24)
    assert not remote.details
    assert live(store) == set(remote.things)


def test_without_version_a_fetch_tells(store: JobStore, remote: Remote) -> None:
    """A listing without versions fetches everything each time, and stores only what differs."""
    from clients import Cursor, Listing

    plain = {"listing": Listing("things", Cursor("next"), items="data", key="id")}
    remote.fill(12)
    run(store, remote, **plain)
    remote.change("k3")
    result = run(store, remote, **plain)
    assert counts(result, "queued succeeded unchanged") == (12, 1, 11)


@pytest.mark.rows("E-70")
def test_empty_listing(store: JobStore, remote: Remote) -> None:
    """A listing without entities is a success of one page."""
    assert counts(run(store, remote), "state stopped pages listed queued") == ("success", "end", 1, 0, 0)


def test_generator_listing(store: JobStore, remote: Remote) -> None:
    """A listing may be any function that yields pages, without cursors, with keys and versions that are no text."""
    remote.fill(30)

    def listing(http: HttpClient, since: Any) -> Iterator[Page]:
        for start in range(0, 30, 10):
            yield Page([Entity(f"k{n}", 1, {"n": n}) for n in range(start, start + 10)])  # type: ignore[arg-type]

    assert counts(run(store, remote, listing=listing), "state stopped pages succeeded") == ("success", "end", 3, 30)
    assert counts(run(store, remote, listing=listing), "state succeeded unchanged") == ("success", 0, 30)
    assert not remote.pages


def test_item_twice_in_a_listing(store: JobStore, remote: Remote) -> None:
    """An entity that a page lists twice, and a later page again, is stored once."""
    remote.fill(20)
    remote.extra = {0: [{"id": "k1", "v": 1}], 10: [{"id": "k2", "v": 1}]}
    result = run(store, remote)
    assert result.state == "success"
    assert live(store) == set(remote.things)
    assert len(query(store, "SELECT key FROM record")) == 20


# -- limits and looking ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limit", "pages", "stopped"), [(1, 1, "limit"), (10, 1, "limit"), (15, 2, "limit"), (25, 3, "end"), (99, 3, "end")]
)
def test_limit(store: JobStore, remote: Remote, limit: int, pages: int, stopped: str) -> None:
    """A limit stops the listing after exactly so many entities; the next run lists from the start."""
    remote.fill(25)
    result = run(store, remote, options={"limit": limit})
    assert counts(result, "state stopped pages listed succeeded") == ("success", stopped, pages, min(limit, 25), min(limit, 25))
    assert remote.pages.total() == pages
    result = run(store, remote)
    assert counts(result, "stopped listed unchanged") == ("end", 25, min(limit, 25))
    assert live(store) == set(remote.things)


def test_dry_run_writes_nothing(store: JobStore, remote: Remote) -> None:
    """A dry run lists and compares; not one row of any table differs afterwards."""
    remote.fill(25)
    empty = dump(store)
    result = run(store, remote, options={"dry_run": True})
    assert counts(result, "state stopped listed queued unchanged succeeded") == ("success", "end", 25, 25, 0, 0)
    assert dump(store) == empty
    run(store, remote)
    remote.change("k3")
    remote.forget()
    before = dump(store)
    assert counts(run(store, remote, options={"dry_run": True}), "listed queued unchanged") == (25, 1, 24)
    assert counts(run(store, remote, options={"dry_run": True, "full": True}), "listed queued unchanged") == (25, 25, 0)
    assert counts(run(store, remote, options={"dry_run": True, "limit": 7}), "stopped listed") == ("limit", 7)
    assert dump(store) == before
    assert not remote.details


@pytest.mark.parametrize("fault", [Fault(500), Fault(401), Fault(200, b"<html>")], ids=["500", "401", "html"])
def test_dry_run_of_a_broken_listing(store: JobStore, remote: Remote, fault: Fault) -> None:
    """A dry run that meets trouble says so, and writes nothing about it either."""
    remote.fill(25)
    remote.page_faults[10] = fault
    before = dump(store)
    result = run(store, remote, options={"dry_run": True})
    assert result.state == "failed"
    assert result.message
    assert dump(store) == before


def test_dry_run_of_a_paused_client(store: JobStore, remote: Remote) -> None:
    """A dry run asks a paused client nothing."""
    remote.fill(5)
    store.pauses.open(CLIENT, 600, cause="person", reason="maintenance", set_by="me")
    assert run(store, remote, options={"dry_run": True}).state == "paused"
    assert remote.requests == 0


# -- two at once, and stopping --------------------------------------------------------------------------


@pytest.mark.rows("E-62")
def test_second_run_at_the_same_time_is_skipped(store: JobStore, remote: Remote, open_store: Callable[..., JobStore]) -> None:
    """While one process runs a sync, another says so, does nothing, and exits 0."""
    remote.fill(5)
    claim = store.listings.claim(SYNC, CLIENT, worker=ELSEWHERE, lease=60)
    assert isinstance(claim, ListingClaim)
    result = run(open_store(), remote)
    assert counts(result, "state stopped exit_code") == ("skipped", "running", 0)
    assert ELSEWHERE in result.message
    assert remote.requests == 0
    store.listings.release(claim)
    assert run(store, remote).state == "success"


def test_two_runs_race(store: JobStore, remote: Remote, open_store: Callable[..., JobStore]) -> None:
    """Of two runs that start together one works and one is skipped."""
    remote.fill(30)
    stores = [store, open_store()]
    results: list[RunResult] = []
    # The one that works gets its first page when the other one has ended, so that both are there at the same time.
    remote.on_page = lambda asked: until(lambda: results)
    threads = [threading.Thread(target=lambda one=one: results.append(run(one, remote))) for one in stores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(result.state for result in results) == ["skipped", "success"]
    assert set(remote.details.values()) == {1}


class StopAt(SilentTracker):
    """Stops a run as soon as so many entities have arrived."""

    def __init__(self, number: int, stop: threading.Event) -> None:
        self._number, self._stop = number, stop

    def progress(self, progress: Progress) -> None:
        """Look."""
        if progress.succeeded >= self._number:
            self._stop.set()


def test_stop_mid_run(store: JobStore, remote: Remote) -> None:
    """A stop finishes what is in hand and releases the rest; the next run completes, and what was done is not done again."""
    remote.fill(120)
    remote.delay = 0.02
    stop = threading.Event()
    result = run(store, remote, batch=20, options={"stop": stop, "tracker": StopAt(20, stop)})
    assert 0 < result.succeeded < 120
    assert "processing" not in states(store)
    assert set(states(store)) <= {"queued", "success"}
    assert result.pending == states(store)["queued"]
    done = live(store)
    remote.delay = 0
    result = run(store, remote)
    assert result.state == "success"
    assert live(store) == set(remote.things)
    assert {remote.details[key] for key in done} == {1}
    assert query(store, "SELECT max(attempts) AS n, max(rescues) AS r FROM job") == [{"n": 1, "r": 0}]


def test_stop_while_listing(store: JobStore, remote: Remote) -> None:
    """A listing that was stopped goes on behind its last stored page."""
    remote.fill(100)
    stop = threading.Event()
    remote.on_page = lambda asked: stop.set() if asked == 4 else None
    result = run(store, remote, delete_missing=True, options={"stop": stop})
    assert counts(result, "stopped pages deleted") == ("stop", 4, 0)
    assert counts(run(store, remote, delete_missing=True), "state stopped") == ("success", "end")
    assert remote.pages == dict.fromkeys(range(0, 100, 10), 1)
    assert live(store) == set(remote.things)


def test_stop_before_a_single_job_begins(store: JobStore, remote: Remote) -> None:
    """A claim of one job that is stopped before it began goes back like any other."""
    remote.fill(1)
    stop = threading.Event()

    class Watching(SilentTracker):
        def batch(self, keys: list[str], work: Callable[[], Judged]) -> Judged:
            stop.set()
            return work()

    run(store, remote, options={"stop": stop, "tracker": Watching()})
    assert states(store) == {"queued": 1}
    (job,) = store.claim([LANE], 1, worker="another", lease=60)
    assert (job.key, job.attempts, job.rescues) == ("k0", 0, 0)


def test_entities_one_by_one(store: JobStore, remote: Remote) -> None:
    """A tracker that shows entities sees the first ones by themselves, the rest as batches, and every page."""
    remote.fill(60)
    seen: dict[str, list[Any]] = {"page": [], "entity": [], "batch": []}

    class Showing(SilentTracker):
        shows_entities = True

        def page(self, number: int, work: Callable[[], Any]) -> Any:
            seen["page"].append(number)
            return work()

        def entity(self, key: str, work: Callable[[], Judged]) -> Judged:
            seen["entity"].append(key)
            return work()

        def batch(self, keys: list[str], work: Callable[[], Judged]) -> Judged:
            seen["batch"] += keys
            return work()

    result = run(store, remote, entity_task_runs=25, batch=10, options={"tracker": Showing()})
    assert counts(result, "state succeeded") == ("success", 60)
    assert seen["page"][:6] == [1, 2, 3, 4, 5, 6]
    assert len(seen["entity"]) == 25
    assert sorted(seen["entity"] + seen["batch"]) == sorted(remote.things)


def test_stop_with_entities_one_by_one(store: JobStore, remote: Remote) -> None:
    """Also when entities are shown one by one, a stop leaves nothing in hand."""
    remote.fill(60)
    remote.delay = 0.02

    class Showing(StopAt):
        shows_entities = True

    stop = threading.Event()
    result = run(store, remote, options={"tracker": Showing(10, stop), "stop": stop})
    assert 0 < result.succeeded < 60
    assert set(states(store)) == {"queued", "success"}


# -- connections and threads ----------------------------------------------------------------------------


class Plain:
    """An adapter that is not thread safe, and notices when it is treated as if it were."""

    def __init__(self, remote: Remote, opened: list["Plain"]) -> None:
        self._http = HttpClient(remote.url)
        self._opened = opened
        self.threads: set[int] = set()
        self.closed = 0

    def __enter__(self) -> "Plain":
        self._opened.append(self)
        return self

    def __exit__(self, *_: object) -> None:
        self.closed += 1
        self._http.close()

    def get_json(self, path: str) -> Any:
        """Get."""
        self.threads.add(threading.get_ident())
        time.sleep(0.005)
        return self._http.get_json(path)


def test_a_connection_for_each_thread(store: JobStore, remote: Remote) -> None:
    """An adapter that does not say it is thread safe serves one thread only, and is closed once."""
    remote.fill(40)
    opened: list[Plain] = []
    pages = [Page([Entity(key, "1") for key in remote.things])]
    result = run(
        store, remote, client={"connect": lambda _: Plain(remote, opened)}, listing=lambda conn, since: iter(pages), concurrency=4
    )
    assert counts(result, "state succeeded") == ("success", 40)
    assert all(len(one.threads) <= 1 and one.closed == 1 for one in opened)
    assert 2 <= len(opened) <= 4 + 1


def test_one_connection_for_all_threads(store: JobStore, remote: Remote) -> None:
    """An adapter that is thread safe is opened once."""
    remote.fill(40)
    opened: list[HttpClient] = []

    @contextmanager
    def connect(_: Any) -> Iterator[HttpClient]:
        with HttpClient(remote.url) as http:
            opened.append(http)
            yield http

    assert run(store, remote, client={"connect": connect}).state == "success"
    assert len(opened) == 1


def test_connection_that_cannot_be_closed(store: JobStore, remote: Remote, caplog: pytest.LogCaptureFixture) -> None:
    """A run whose work is done is a success, whatever the farewell to the remote side comes to."""
    remote.fill(10)

    class Rude(HttpClient):
        def __exit__(self, *_: object) -> None:
            self.close()
            raise ConnectionResetError("no goodbye")

    assert run(store, remote, client={"connect": lambda _: Rude(remote.url)}).state == "success"
    assert "shop: a connection could not be closed: ConnectionResetError" in caplog.text


def test_concurrency_is_bounded(store: JobStore, remote: Remote) -> None:
    """No more fetches at once than declared, although two batches are in hand."""
    remote.fill(60)
    lock, now, most = threading.Lock(), 0, 0
    all_there = threading.Event()

    def fetch(http: HttpClient, entity: Entity) -> Any:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
            if now == 3:
                all_there.set()
        assert all_there.wait(30)
        time.sleep(0.003)
        with lock:
            now -= 1
        return {"id": entity.key}

    run(store, remote, fetch=fetch, concurrency=3, batch=10)
    assert most == 3


def test_listing_and_working_overlap(store: JobStore, remote: Remote) -> None:
    """Entities of the first page are worked while later pages are still to come."""
    remote.fill(50)
    early: list[int] = [0]
    # The last page comes when what three others have shown is done.
    remote.on_page = lambda asked: until(lambda: max(early) >= 30) if asked == 5 else None

    class Watching(SilentTracker):
        def progress(self, progress: Progress) -> None:
            if not progress.listing_ended:
                early.append(progress.succeeded)

    run(store, remote, options={"tracker": Watching()})
    assert max(early) >= 30


# -- secrets --------------------------------------------------------------------------------------------


def test_secrets_are_in_no_table(store: JobStore, remote: Remote, caplog: pytest.LogCaptureFixture) -> None:
    """After runs with every kind of error the token stands in no row, no result and no log."""
    from pydantic import SecretStr
    from pydantic_settings import BaseSettings

    secret = "t0p-s3cret/&"

    class Settings(BaseSettings):
        token: SecretStr = SecretStr(secret)

    remote.fill(40)
    remote.faults = {"k1": Fault(500), "k2": Fault(422), "k3": Fault(200, b"<html>"), "k4": Fault(404)}

    def fetch(http: HttpClient, entity: Entity) -> Any:
        if entity.key == "k5":
            raise ValueError(f"bad token {secret}")
        if entity.key == "k6":
            http.get_json("things/k1", {"api_key": secret})
        if entity.key == "k7":
            return Success(f"done with {secret}")
        return http.get_json(f"things/{entity.key}")

    of_client = {"settings": Settings, "connect": lambda s: HttpClient(remote.url, auth=Bearer(s.token))}
    results = [run(store, remote, client=of_client, fetch=fetch)]
    remote.faults = {"k8": Fault(401)}
    remote.change("k8")
    store.pauses.resume(CLIENT, by="me")
    results.append(run(store, remote, client=of_client, fetch=fetch))
    store.pauses.resume(CLIENT, by="me")
    remote.page_faults = {10: Fault(403)}
    results.append(run(store, remote, client=of_client, fetch=fetch))
    assert remote.authorizations == {f"Bearer {secret}"}
    # Of the listing: the entity that is refused fails by itself.
    assert len(query(store, "SELECT * FROM pause")) >= 1
    everything = f"{dump(store)}{[dataclasses.asdict(result) for result in results]}{caplog.text}"
    assert "bad token ***" in everything
    assert secret not in everything
    assert "t0p-s3cret" not in everything


# -- the database fails ---------------------------------------------------------------------------------


@pytest.mark.parametrize("table", ["job", "record", "listing", "attempt"])
def test_database_failure_ends_the_run(store: JobStore, remote: Remote, table: str) -> None:
    """A table that vanishes mid-run ends the run with the database's error, soon, and leaves no thread behind."""
    from sqlalchemy.exc import SQLAlchemyError

    remote.fill(200)
    before = threading.active_count()
    remote.on_detail = lambda asked: change(store, f"DROP TABLE {table}") if asked == 20 else None
    started = time.monotonic()
    with pytest.raises(SQLAlchemyError):
        run(store, remote)
    assert time.monotonic() - started < 60
    left = [thread.name for thread in threading.enumerate() if thread.name.startswith("syncs")]
    assert not left, before


def test_run_that_was_taken_over(store: JobStore, remote: Remote) -> None:
    """A run whose right another process took ends as failed, says so, and leaves nothing in hand."""
    remote.fill(60)
    taken = f"UPDATE listing SET claim_no = claim_no + 1, worker = '{ELSEWHERE}'"
    remote.on_page = lambda asked: change(store, taken) if asked == 3 else None
    result = run(store, remote, delete_missing=True)
    assert counts(result, "state deleted") == ("failed", 0)
    assert "another process" in result.message
    assert "processing" not in states(store)
    assert query(store, "SELECT worker FROM listing") == [{"worker": ELSEWHERE}]


def test_lane_of_the_declaration(store: JobStore, remote: Remote) -> None:
    """Jobs wait in the declared queue with the declared priority."""
    remote.fill(3)
    run(store, remote, queue="slow", priority=7)
    found = query(store, "SELECT DISTINCT queue, client, type, priority FROM job")
    assert found == [{"queue": "slow", "client": LANE.client, "type": LANE.type, "priority": 7}]
