"""Waking up when jobs may have come, and knowing when the next one is due."""

import statistics
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from jobs import Failure, JobStore, Retry
from jobs.db.change_listener import SLICE, ChangeListener
from jobs.enqueueing.duplicates import NewJob
from jobs.job import Lane
from tests.support import store_helpers
from tests.support.store_helpers import LANE, change, end_probe, enqueue, probe, run_out, take

Later = Callable[[float, Callable[[], object]], None]
NEVER = threading.Event()
OTHER = Lane("other", "api", "api.other")


@pytest.fixture
def wakes(store: JobStore) -> Iterator[ChangeListener]:
    """What wakes this thread."""
    with ChangeListener(store.db) as found:
        while found.wait(0, NEVER):
            pass
        yield found


def add(store: JobStore, *lanes: Lane, delay: float | None = None, priority: int = 0) -> None:
    """Queue jobs as `flows.enqueue` does."""
    store.enqueue([NewJob(lane, {}, delay=delay, priority=priority) for lane in lanes])


def elapsed(wait: Callable[[], bool]) -> tuple[bool, float]:
    """Return what a wait says, and how long it took."""
    began = time.monotonic()
    return wait(), time.monotonic() - began


def test_nothing_is_no_hint(store: JobStore, wakes: ChangeListener) -> None:
    """Without news a wait lasts as long as it was asked to; reading is no news, nor is a claim that finds nothing."""
    store.views.queues()
    take(store)
    take(store)
    assert not wakes.wait(0, NEVER)
    hint, seconds = elapsed(lambda: wakes.wait(0.5, NEVER))
    assert not hint
    assert 0.5 <= seconds < 20


def test_stop_ends_a_wait(wakes: ChangeListener, later: Later) -> None:
    """A stop ends a wait soon, and keeps the next one from beginning."""
    stop = threading.Event()
    later(0.2, stop.set)
    hint, seconds = elapsed(lambda: wakes.wait(60, stop))
    assert not hint
    assert seconds < 30
    assert elapsed(lambda: wakes.wait(60, stop))[1] < 30


def test_poke(wakes: ChangeListener, later: Later) -> None:
    """Another thread wakes the wait; a poke in between is not lost, and many are one."""
    later(0.2, wakes.wake)
    hint, seconds = elapsed(lambda: wakes.wait(60, NEVER))
    assert hint
    assert seconds < 30
    for _ in range(100_000):
        wakes.wake()
    assert wakes.wait(60, NEVER)
    assert not wakes.wait(0.3, NEVER)


def test_commit_before_the_wait_counts(wakes: ChangeListener, open_store: Callable[..., JobStore]) -> None:
    """What others enqueued since the last wait is a hint at once: between a claim and a wait nothing is missed."""
    add(open_store(), LANE)
    hint, seconds = elapsed(lambda: wakes.wait(60, NEVER))
    assert hint
    assert seconds < 30


def test_own_writes_are_seen_too(store: JobStore, wakes: ChangeListener, later: Later) -> None:
    """An enqueue by a thread of the same process wakes as well."""
    later(0.2, lambda: add(store, LANE))
    assert wakes.wait(60, NEVER)


_ENQUEUE = """
import sys, time
from jobs import Database, JobStore
from jobs.enqueueing.duplicates import NewJob
from jobs.job import Lane
store = JobStore(Database(sys.argv[1]))
store.views.queues()
for line in sys.stdin:
    store.enqueue([NewJob(Lane("default", "api", "api.things"), {})])
    print(time.time(), flush=True)
"""


def test_enqueue_by_another_process(store: JobStore, wakes: ChangeListener, database_url: str) -> None:
    """An enqueue by another process is heard of in some hundredths of a second: 0.2 s on PostgreSQL, 0.5 s on SQLite."""
    import subprocess
    import sys

    waits = []
    with subprocess.Popen(
        [sys.executable, "-c", _ENQUEUE, database_url], env=store_helpers.environment(), text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    ) as process:  # fmt: skip
        assert process.stdin
        assert process.stdout
        for _ in range(10):
            while wakes.wait(0.05, NEVER):
                pass
            process.stdin.write("\n")
            process.stdin.flush()
            assert wakes.wait(60, NEVER)
            heard = time.time()
            waits.append(heard - float(process.stdout.readline()))
        process.stdin.close()
    print(f"\n{store.db.dialect}: heard after {1000 * statistics.median(waits):.0f} ms, at most {1000 * max(waits):.0f}")
    # The shortest one: on a machine with other things to do all others may be late.
    assert min(waits) < (0.2 if store.db.dialect == "postgresql" else 0.5)


@pytest.mark.parametrize("dialect", ["postgresql"], indirect=True)
def test_lost_connection_is_a_hint_and_comes_back(
    store: JobStore, wakes: ChangeListener, monkeypatch: pytest.MonkeyPatch, later: Later
) -> None:
    """When the listening connection breaks, the wait ends, polling goes on, and later it listens again."""
    monkeypatch.setattr("jobs.db.change_listener.RECONNECT", 0.5)
    end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN%' AND datname = current_database()"
    store_helpers.query(store, end)
    assert wakes.wait(60, NEVER)
    assert not wakes.wait(1, NEVER)
    later(0.2, lambda: add(store, LANE))
    hint, seconds = elapsed(lambda: wakes.wait(60, NEVER))
    assert hint
    assert seconds < 30


@pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)
def test_file_that_goes_away(store: JobStore, wakes: ChangeListener, tmp_path: Path) -> None:
    """A database file that cannot be asked is no news, and no error: the claim will tell."""
    assert wakes._reader is not None
    wakes._reader.close()
    wakes._reader = None
    wakes._db.url = wakes._db.url.set(database=str(tmp_path / "no" / "such.db"))
    assert not wakes.wait(0.4, NEVER)


def test_idle_costs_little(wakes: ChangeListener, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wait looks twice in each slice of it, and sleeps in between."""
    looks: list[float] = []
    look = wakes._hint

    def note(seconds: float) -> bool:
        looks.append(seconds)
        return look(seconds)

    monkeypatch.setattr(wakes, "_hint", note)
    assert not wakes.wait(1.5, NEVER)
    assert len(looks) <= 2 * (1.5 / SLICE + 2)
    assert sum(looks) >= 1.0


# -- the next one due ---------------------------------------------------------------------------------------------------------


def test_next_due(store: JobStore) -> None:
    """It is the first delayed job of any priority in these lanes; what is due already does not hide it."""
    assert store.due_times.next([]) is None
    assert store.due_times.next([LANE]) is None
    add(store, LANE)
    assert store.due_times.next([LANE]) is None
    add(store, LANE, delay=600, priority=5)
    add(store, LANE, delay=60, priority=-3)
    add(store, LANE, delay=300)
    add(store, OTHER, delay=5)
    add(store, LANE._replace(phase="two"), delay=7)
    assert store.due_times.next([LANE]) == pytest.approx(60, abs=10)
    assert store.due_times.next([LANE, OTHER]) == pytest.approx(5, abs=4.9)
    assert store.due_times.next([LANE], since=60) == 0.0, "it became due behind the back of who looked a minute ago"
    take(store)
    assert store.due_times.next([LANE]) == pytest.approx(60, abs=10)


def test_next_due_after_a_retry(store: JobStore) -> None:
    """A failed job that waits for its retry is due then."""
    enqueue(store, "a")
    (job,) = take(store)
    store_helpers.finish(store, store_helpers.done(job, Failure("no"), retry=Retry(delay=30, jitter=False)))
    assert store.due_times.next([LANE]) == pytest.approx(30, abs=5)


def test_pause_ends(store: JobStore) -> None:
    """While a client is paused its jobs are not asked for; the end of the pause is a time to look."""
    add(store, LANE, delay=20)
    store.pauses.open("api", 100, cause="person", reason="", set_by="me")
    assert store.due_times.next([LANE]) == pytest.approx(100, abs=10)
    store.pauses.open("api", None, cause="person", reason="", set_by="me")
    assert store.due_times.next([LANE]) is None
    store.pauses.resume("api", by="me")
    assert store.due_times.next([LANE]) == pytest.approx(20, abs=10)


def test_a_probe_ends(store: JobStore) -> None:
    """When a pause has run out, its delayed jobs are a time to look; while somebody probes, the end of that is."""
    add(store, LANE, delay=20)
    store.pauses.open("api", 100, cause="asked", reason="", set_by="me")
    run_out(store)
    assert store.due_times.next([LANE]) == pytest.approx(20, abs=10)
    of = probe(store, lease=300)
    assert store.due_times.next([LANE]) == pytest.approx(300, abs=10)
    assert store.due_times.next([Lane("default", "b", "b")]) is None
    end_probe(store, of, None)
    assert store.due_times.next([LANE]) == pytest.approx(20, abs=10)


@pytest.mark.rows("AQ-49")
def test_is_due(store: JobStore) -> None:
    """Due is what waits for nothing but room: not a delayed job, not one of a paused client."""
    assert not store.due_times.is_due([])
    assert not store.due_times.is_due([LANE])
    add(store, LANE, delay=60)
    assert not store.due_times.is_due([LANE])
    add(store, OTHER)
    assert store.due_times.is_due([LANE, OTHER])
    assert not store.due_times.is_due([LANE])
    store.pauses.open("api", 60, cause="person", reason="", set_by="me")
    assert not store.due_times.is_due([OTHER])
    run_out(store)
    assert not store.due_times.is_due([OTHER])
    assert store.due_times.is_due([OTHER], probing=True)
    assert not store.due_times.is_due([LANE], probing=True)


def test_is_due_in_turn(store: JobStore) -> None:
    """A job behind a delayed one of its serial key is not due."""
    first = NewJob(LANE, {}, delay=60, serial_key="a")
    store.enqueue([first, NewJob(LANE, {}, serial_key="a")])
    assert not store.due_times.is_due([LANE])
    change(store, "UPDATE job SET available_at = '2000-01-01 00:00:00.000000+00'")
    assert store.due_times.is_due([LANE])
