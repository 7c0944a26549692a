"""Runs that wait: for pauses that end by themselves, for retries, for another run of the sync."""

import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from flows import PausePolicy
from flows.execution import outcomes
from flows.pauses import open_pauses
from flows.progress import Progress, SilentTracker
from flows.run_result import RunResult
from flows.sync import listing_thread, pause_gate
from flows.sync import run as engine
from flows.worker import feed, heartbeat
from jobs import JobStore, Queue, Retry, Snooze
from jobs.listing.listing_claim import ListingBusy, ListingClaim
from tests.support.fake_remote import meanwhile, pauses, run_out, until
from tests.support.fake_things_api import CLIENT, SYNC, Fault, Remote, change, declare, live, query, serving

SHORT = PausePolicy(after=2, durations=(0.1,), enforced={401: 0.1})


@pytest.fixture
def remote(monkeypatch: pytest.MonkeyPatch) -> Iterator[Remote]:
    """A remote system with thirty things, whose pauses are short."""
    monkeypatch.setattr(open_pauses, "SHORTEST_PAUSE", 0.1)
    monkeypatch.setattr(pause_gate, "LOOK_EVERY", 0.1)
    monkeypatch.setattr(listing_thread, "PAGE_RETRY", Retry(max_retries=3, delay=0.05, jitter=False))
    with serving(Remote()) as found:
        found.fill(30)
        yield found


def run(
    store: JobStore, remote: Remote, *, wait: float | None = 30, options: dict[str, Any] | None = None, **fields: Any
) -> RunResult:
    """Run the sync of this remote, waiting."""
    return engine.run(declare(remote.url, **{"pause": SHORT, **fields}), store, wait=wait, **(options or {}))


class Watch(SilentTracker):
    """Keeps what was said about waiting, and does something each time that this is something new."""

    def __init__(self, act: Callable[[], object] = lambda: None) -> None:
        self.said: list[str] = []
        self._act = act
        self._last = ""
        self._lock = threading.Lock()

    def progress(self, progress: Progress) -> None:
        """Keep it."""
        with self._lock:
            if (waiting := progress.waiting) == self._last:
                return
            self._last = waiting
            if not waiting:
                return
            self.said.append(waiting)
        self._act()


@pytest.mark.parametrize(
    ("fault", "where"),
    [
        # After so few answers the pace that it teaches is low: it takes a quarter of a minute.
        pytest.param(Fault(429), "page", id="page-asked", marks=pytest.mark.slow),
        pytest.param(Fault(429), "entity", id="entity-asked"),
        pytest.param(Fault(500), "page", id="page-level"),
        pytest.param(Fault(500), "entity", id="entity-level"),
    ],
)
def test_pauses_are_waited_for(store: JobStore, remote: Remote, fault: Fault, where: str) -> None:
    """One run does it all: each page and entity that was answered is asked for once."""
    # Few: the pace that a refusal teaches is kept for a while.
    remote.page_size = 4
    remote.things = dict(list(remote.things.items())[:10])
    if where == "page":
        remote.page_faults[4] = replace(fault, times=2)
    else:
        remote.faults["k3"] = replace(fault, times=2)
    # Each pause ends when the run has said that it waits for it.
    watch = Watch(lambda: (time.sleep(0.1), run_out(store)))
    policy = PausePolicy(after=2, durations=(100, 200, 300))
    result = run(store, remote, wait=900, pause=policy, options={"tracker": watch})
    assert (result.state, result.listed, result.succeeded, result.failed) == ("success", 10, 10, 0)
    assert live(store) == set(remote.things)
    assert {key: n for key, n in remote.details.items() if n > 1} == ({} if where == "page" else {"k3": 3})
    assert (remote.pages[4], remote.pages[8]) == (3 if where == "page" else 1, 1)
    if fault.status == 429:
        assert result.waited >= 0.1
        assert any(re.match(r"paused until [\d:]+, goes on by itself: .*429 Too Many Requests", said) for said in watch.said)
    assert query(store, "SELECT state, worker FROM listing") == [{"state": "complete", "worker": None}]


ASKED = {"retry-after": {"Retry-After": "600"}, "told": {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "600"}}


@pytest.mark.parametrize("headers", ASKED.values(), ids=ASKED)
@pytest.mark.parametrize("where", ["page", "entity"])
def test_a_person_ends_a_long_rate_limit(
    store: JobStore, remote: Remote, where: str, headers: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`syncs resume` after a 429 that asked for ten minutes: the run goes on at once, and does not pause by itself again."""
    fault = Fault(429, headers=headers, times=1)
    (remote.page_faults if where == "page" else remote.faults)[10 if where == "page" else "k3"] = fault  # type: ignore[index]
    resumed: list[float] = []

    def resume() -> None:
        until(store.pauses.in_force)
        resumed.append(time.monotonic())
        store.pauses.resume(CLIENT, by="anna")

    person = threading.Thread(target=resume)
    person.start()
    result = run(store, remote, wait=1000)
    person.join()
    assert time.monotonic() - resumed[0] < 60
    assert (result.state, result.succeeded) == ("success", 30)
    assert [(one.cause, one.ended_by) for one in store.pause_history.latest()] == [("asked", "anna")]


@pytest.mark.parametrize(
    ("cause", "wait"), [("enforced", 30), ("person", 30), ("window", 30), ("asked", 0.05), ("level", 0), ("asked", None)]
)
def test_what_ends_a_run(store: JobStore, remote: Remote, cause: str, wait: float | None) -> None:
    """A refused sign-in, a person and a window end it at once, and so does a pause that is too long."""
    store.pauses.open(CLIENT, 1000, cause=cause, reason="x", set_by="anna")
    result = run(store, remote, wait=wait)
    assert (result.state, result.stopped, result.waited, remote.requests) == ("paused", "paused", 0, 0)


def test_a_refused_sign_in_ends_a_run_under_way(store: JobStore, remote: Remote) -> None:
    """It does not wait for the end of that pause."""
    remote.page_faults[10] = Fault(401)
    result = run(store, remote)
    assert (result.state, result.waited, remote.pages[10], remote.pages[20]) == ("paused", 0, 1, 0)


def test_a_pause_that_is_there_is_waited_for(store: JobStore, remote: Remote) -> None:
    """A run that begins during a pause begins with it; the right to run is its own meanwhile."""
    store.pauses.open(CLIENT, 600, cause="asked", reason="slow down", set_by="elsewhere")
    result = run(store, remote, wait=900, options={"tracker": Watch(lambda: (time.sleep(0.2), run_out(store)))})
    assert (result.state, result.succeeded) == ("success", 30)
    assert 0.2 <= result.waited < result.seconds
    assert pauses(store) == [("asked", 0, 1, "probe")]


def test_a_stop_ends_the_waiting(store: JobStore, remote: Remote) -> None:
    """At once, and what was done stays."""
    remote.page_faults[10] = Fault(429, headers={"Retry-After": "600"})
    stop = threading.Event()
    result = run(store, remote, wait=900, options={"stop": stop, "tracker": Watch(stop.set)})
    assert result.seconds < 300
    assert (result.state, result.listed) == ("paused", 10)
    assert query(store, "SELECT state, worker FROM listing") == [{"state": "listing", "worker": None}]


def test_a_person_ends_the_waiting(store: JobStore, remote: Remote) -> None:
    """Resumed, the run goes on before the pause has run out; paused by a person, it ends."""
    slow_down = {"cause": "asked", "reason": "slow down", "set_by": "elsewhere"}
    store.pauses.open(CLIENT, 600, **slow_down)
    resumed = Watch(lambda: store.pauses.resume(CLIENT, by="anna"))
    result = run(store, remote, wait=900, options={"tracker": resumed})
    assert (result.state, result.succeeded) == ("success", 30)
    store.pauses.open(CLIENT, 600, **slow_down)
    paused = Watch(lambda: store.pauses.open(CLIENT, None, cause="person", reason="stop", set_by="anna"))
    result = run(store, remote, wait=900, options={"tracker": paused})
    assert (result.state, result.paused_until) == ("paused", None)


def test_while_waiting_nothing_is_held(store: JobStore, remote: Remote, monkeypatch: pytest.MonkeyPatch) -> None:
    """No transaction is open, no job is claimed, and the lease of the run is renewed."""
    monkeypatch.setattr(heartbeat, "RENEWALS", 600)
    remote.page_faults[10] = Fault(429, headers={"Retry-After": "600"})
    stop, watch = threading.Event(), Watch()
    found: list[Any] = []

    def look() -> None:
        until(lambda: bool(watch.said))
        (leased,) = query(store, "SELECT lease_until FROM listing")
        until(lambda: query(store, "SELECT lease_until FROM listing") != [leased])
        until(lambda: query(store, "SELECT count(*) AS n FROM job WHERE state = 'processing'") == [{"n": 0}])
        found.append(store.listings.claim(SYNC, CLIENT, worker="elsewhere:1:1:1", lease=60))
        if store.db.dialect == "postgresql":
            # One that is held stays; those of the heartbeat come and go.
            idle = "state LIKE 'idle in%' AND datname = current_database()"
            until(lambda: query(store, f"SELECT count(*) AS n FROM pg_stat_activity WHERE {idle}") == [{"n": 0}])
        with store.db.write():
            pass

    def look_and_stop() -> None:
        try:
            look()
        finally:
            stop.set()

    with meanwhile(look_and_stop):
        run(store, remote, wait=900, options={"stop": stop, "tracker": watch, "queue": Queue(CLIENT, lease=60)})
    assert [type(one) for one in found] == [ListingBusy]


def test_a_page_that_is_never_ready_ends_the_run(store: JobStore, remote: Remote, monkeypatch: pytest.MonkeyPatch) -> None:
    """After ten waits in a row that led to nothing, and `wait` seconds in all; it is not asked hundreds of times."""
    monkeypatch.setattr(listing_thread, "LONGER_EACH_TIME", 0.01)
    monkeypatch.setattr(outcomes, "NOT_READY_DELAY", 0.01)
    remote.page_faults[0] = Fault(202, b"{}")
    result = run(store, remote, wait=0.3)
    assert result.state == "failed"
    assert 10 <= remote.requests <= 20


def test_retries_are_waited_for(store: JobStore, remote: Remote) -> None:
    """Within `wait`; those that are further away are left."""
    remote.faults["k7"] = Fault(500, times=1)
    # The retry is due when the run has said that it waits for it.
    watch = Watch(lambda: change(store, "UPDATE job SET available_at = created_at WHERE state = 'queued'"))
    policy = PausePolicy(after=100)
    retry = Retry(max_retries=1, delay=600, jitter=False)
    result = run(store, remote, wait=900, pause=policy, retry=retry, options={"tracker": watch})
    assert (result.state, result.succeeded, result.pending, result.waited) == ("success", 30, 0, 0)
    assert any(said.startswith("next retry at ") for said in watch.said)
    remote.faults["k7"] = Fault(500, times=1)
    remote.change("k7")
    result = run(store, remote, wait=0.1, pause=policy, retry=Retry(max_retries=1, delay=60, jitter=False))
    assert (result.succeeded, result.pending) == (0, 1)


def test_snoozing_for_ever_is_bounded(store: JobStore, remote: Remote) -> None:
    """A job that only puts itself off does not keep the run from its end."""
    tried: list[str] = []

    def fetch(_: Any, entity: Any) -> Any:
        tried.append(entity.key)
        return Snooze(0.05, "not yet")

    remote.things = {"k0": remote.things["k0"]}
    result = run(store, remote, wait=0.2, fetch=fetch)
    assert result.pending == 1
    assert 10 < len(tried) < 60


def test_tests_without_a_result_are_bounded(store: JobStore, remote: Remote, monkeypatch: pytest.MonkeyPatch) -> None:
    """So is a client whose own test never says whether it is well, while jobs are due."""
    monkeypatch.setattr(feed, "FRUITLESS", 2)
    monkeypatch.setattr(feed, "RETRY_SLACK", 0.1)
    remote.faults["*"] = Fault(500)
    tested: list[int] = []

    def check(_: Any) -> Snooze:
        tested.append(1)
        return Snooze(0.05, "not yet")

    result = run(store, remote, wait=1, client={"check": check}, retry=Retry(max_retries=50, delay=0.05, jitter=False))
    assert tested
    assert (result.state, result.pending > 0) == ("paused", True)
    assert result.seconds < 30


def test_pauses_for_ever_are_bounded(store: JobStore, remote: Remote) -> None:
    """So is a client that answers nothing but errors."""
    remote.page_faults[0] = Fault(500)
    result = run(store, remote, wait=0.3, pause=PausePolicy(after=1, durations=(0.1,)))
    assert result.state == "paused"
    assert 5 < remote.requests < 25


@pytest.mark.parametrize("wait", [None, 60.0])
def test_a_second_run_is_skipped_or_waits_its_turn(store: JobStore, remote: Remote, wait: float | None) -> None:
    """With a `wait` that somebody asked for it waits until the first one has ended; else there is nothing to do."""
    claim = store.listings.claim(SYNC, CLIENT, worker="elsewhere:1:1:1", lease=60)
    assert isinstance(claim, ListingClaim)
    store.listings.complete(claim)
    # The first one ends when the second one has said that it waits.
    watch = Watch(lambda: store.listings.release(claim))
    result = run(store, remote, wait=wait, options={"tracker": watch})
    assert (result.state, result.exit_code) == ("skipped" if wait is None else "success", 0)
    assert (watch.said != []) == (wait is not None)
