"""Jobs that hang, in a real worker: time-outs, leases, and what becomes of the jobs beside them."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from flows import Client, Sync
from flows.progress import SilentTracker
from flows.worker import heartbeat
from flows.worker.queue_processing import work
from jobs import JobStore, Queue
from tests.support.fake_things_api import query, states
from tests.support.worker_bench import CLIENT, NONE, NOW, add, declare, eventually, job_type

# -- jobs that hang -------------------------------------------------------------------------------------------------------------


@pytest.mark.rows("DS-07", "E-36")
def test_hanging_job_times_out_and_the_worker_lives_on(store: JobStore, gate: threading.Event) -> None:
    """At its time limit a hanging job has state, phase and reason on its row; the same worker works the others."""

    def fetch(job: Any, _: Any) -> None:
        if job.payload == "hangs":
            gate.wait(60)

    phases = {"fetch": fetch, "save": lambda *_: None}
    kind = job_type(phases, phases=("fetch", "save"), timeout=0.5, retry=NOW)
    # Those beside it have no limit, so that none is late on a machine that is busy elsewhere.
    other = job_type(phases, "shop.other", phases=("fetch", "save"))
    (hanging,) = add(store, kind, ["hangs"], priority=5)
    add(store, other, range(20))
    result = work(store, declare(kind, other), until_empty=True, concurrency=2)
    found = store.views.job(hanging)
    assert (found.job.state, found.phase, found.job.attempts) == ("failure", "fetch", 2)
    assert found.job.message == "timed out after 0.5 s in phase fetch"
    assert [(one.outcome, one.phase, one.error) for one in found.attempts] == [
        ("retry", "fetch", found.job.message), ("failure", "fetch", found.job.message)
    ]  # fmt: skip
    assert states(store) == {"failure": 1, "success": 20}
    assert (result.processed, result.succeeded, result.failed) == (22, 20, 1)


@pytest.mark.rows("DS-07")
def test_more_hang_than_there_are_threads(store: JobStore, gate: threading.Event) -> None:
    """Each thread that hangs is replaced: twice as many hanging jobs as threads do not end a worker's work."""
    kind, other = job_type(lambda *_: gate.wait(60), timeout=0.4), job_type(lambda *_: None, "shop.other")
    add(store, kind, range(8))
    add(store, other, range(32))
    assert work(store, declare(kind, other), until_empty=True, concurrency=4).processed == 40
    assert states(store) == {"failure": 8, "success": 32}


@pytest.mark.rows("DS-07")
def test_late_writes_come_to_nothing(store: JobStore, gate: threading.Event) -> None:
    """What a job does after its time is up changes nothing, whatever it comes to."""
    ended = threading.Event()

    def process(job: Any, _: Any) -> None:
        gate.wait(60)
        try:
            job.save_checkpoint("late")
        finally:
            ended.set()

    kind = job_type(process, timeout=0.3)
    (job_id,) = add(store, kind, [1])
    work(store, declare(kind), until_empty=True)
    gate.set()
    assert ended.wait(60)
    (row,) = query(store, "SELECT state, checkpoint FROM job WHERE id = :id", id=job_id)
    assert row["state"] == "failure"
    assert row["checkpoint"] in (None, "null")


@pytest.mark.rows("DS-07")
def test_timeout_of_a_sync(store: JobStore, gate: threading.Event) -> None:
    """One entity's fetch that hangs fails at its time, in a run and in a worker; the others arrive."""
    from clients import Page
    from flows.sync import run as engine

    def fetch(_: Any, entity: Any) -> Any:
        if entity.key == "k3":
            gate.wait(60)
        return {"id": entity.key}

    def listing(_: Any, __: Any) -> Iterator[Page]:
        from clients import Entity

        yield Page([Entity(f"k{n}") for n in range(20)])

    class ByEntity(SilentTracker):
        shows_entities = True

    for tracker in (SilentTracker(), ByEntity()):
        sync = Sync("shop.things", CLIENT, listing=listing, fetch=fetch, timeout=1, retry=NONE, concurrency=2)
        result = engine.run(sync, store, tracker=tracker, full=True)
        assert (result.succeeded + result.unchanged, result.failed) == (19, 1)
        assert result.failures == (("k3", "timed out after 1 s"),)
    later = Sync("shop.things", CLIENT, listing=listing, fetch=fetch, timeout=1, retry=NOW, concurrency=2)
    assert work(store, declare(later), until_empty=True).processed == 0


@pytest.mark.rows("E-06")
def test_job_without_timeout_keeps_its_lease(
    store: JobStore, gate: threading.Event, daemon: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lease of one that hangs without a time limit is renewed all the time, and nobody else gets it."""
    monkeypatch.setattr(heartbeat, "RENEWALS", 600)
    kind = job_type(lambda *_: gate.wait(60))
    add(store, kind, [1])
    one = daemon(store, declare(kind, Queue("shop", lease=60)))
    eventually(lambda: states(store) == {"processing": 1})
    lease = "SELECT lease_until FROM job"
    for _ in range(3):
        before = query(store, lease)
        eventually(lambda before=before: query(store, lease) != before)
    assert store.rescues.run(["shop"]) == 0
    assert query(store, "SELECT claim_no AS c FROM job") == [{"c": 1}]
    gate.set()
    eventually(lambda: states(store) == {"success": 1})
    one.end()


def test_connection_that_hangs_keeps_nobody_from_connecting(
    store: JobStore, gate: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job that is given up while it connects does not leave the others waiting for ever."""
    monkeypatch.setattr("flows.execution.connections.CONNECTING", 0.2)
    connects = []

    @contextmanager
    def connect(_: Any) -> Iterator[str]:
        connects.append(1)
        if len(connects) == 1:
            gate.wait(60)
        yield "connection"

    kind = job_type(lambda *_: None, client=Client("shop", connect=connect), timeout=2.0)
    add(store, kind, range(5))
    assert work(store, declare(kind), until_empty=True, concurrency=1).processed == 5
    assert states(store) == {"failure": 1, "success": 4}


def test_slow_job_holds_nobody_back(store: JobStore, gate: threading.Event, daemon: Any) -> None:
    """While one job is slow, the others of its batch are finished, and those behind them flow (M6)."""
    kind = job_type(lambda job, _: gate.wait(60) if job.payload == 0 else None)
    add(store, kind, range(300))
    one = daemon(store, declare(kind), concurrency=3)
    eventually(lambda: states(store) == {"processing": 1, "success": 299})
    assert one.is_running
    gate.set()
    eventually(lambda: states(store) == {"success": 300})
    assert one.end().processed == 300


def test_claims_no_more_than_it_can_begin(store: JobStore, gate: threading.Event, daemon: Any) -> None:
    """Slow jobs are not hoarded: what this worker cannot begin, another one can."""
    kind = job_type(lambda *_: gate.wait(60))
    add(store, kind, range(50))
    daemon(store, declare(kind), concurrency=3)
    eventually(lambda: states(store).get("processing") == 3)
    time.sleep(0.5)
    assert states(store) == {"processing": 3, "queued": 47}


def test_what_was_claimed_ahead_goes_back_when_threads_hang(
    store: JobStore, gate: threading.Event, daemon: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fast jobs are claimed ahead; when all threads hang suddenly, those that were not begun go back to the queue."""
    monkeypatch.setattr("flows.worker.queue_processing.STALLED", 0.5)
    kind = job_type(lambda job, _: gate.wait(60) if job.payload >= 300 else None)
    add(store, kind, range(400))
    daemon(store, declare(kind), concurrency=2)
    eventually(lambda: states(store).get("success") == 300)
    # As long as it remembers how fast it was, it claims some ahead again.
    back = "SELECT count(*) AS n, max(attempts) AS a, max(rescues) AS r FROM job WHERE state = 'queued'"
    eventually(lambda: query(store, back) == [{"n": 98, "a": 0, "r": 0}])
