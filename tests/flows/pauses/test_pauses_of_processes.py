"""Pauses over several processes: a window that an API asks for is kept by all, and nothing depends on any of them living."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest

from jobs import JobStore
from jobs.listing.listing_claim import ListingClaim
from jobs.listing.page_plan import Item
from tests.support.fake_remote import pauses, run_out, until
from tests.support.fake_things_api import CLIENT, LANE, Fault, Remote, query, serving, states

WORKERS = """
import json, sys, threading
from tests.support.fake_things_api import declare
from flows import PausePolicy
from flows.project.registry import Registry
from flows.worker.queue_processing import work
from jobs import Database, JobStore, Queue

given = json.loads(sys.argv[1])
sync = declare(given["api"], concurrency=1, pause=PausePolicy(durations=(given["seconds"],)))
declared = Registry(clients={sync.client.id: sync.client}, syncs={sync.id: sync}, queues={})
stop = threading.Event()
def one():
    work(JobStore(Database(given["database"])), declared, stop=stop)
threads = [threading.Thread(target=one) for _ in range(given["workers"])]
for thread in threads: thread.start()
print("up", flush=True)
sys.stdin.read()
stop.set()
for thread in threads: thread.join()
"""


@dataclass
class Limited(Remote):
    """A remote system that asks everybody to stay away for a while, once, and notes when it was asked."""

    #: After so many requests, as soon as each of so many threads waits for an answer: none is on its way then.
    at: int = 40
    threads: int = 8
    seconds: int = 3
    ends: float = 0.0
    #: When, and with what status: by `time.monotonic`.
    arrivals: list[tuple[float, int]] = field(default_factory=list)
    _door: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self._all_wait = threading.Barrier(self.threads, timeout=5)

    def answer(self, path: str, query: Any, authorization: str | None) -> tuple[Fault | None, Any]:
        """Return the fault, if one is due, and the right document."""
        with self._door:
            is_refused = len(self.arrivals) >= self.at and not self.ends
            self.arrivals.append((time.monotonic(), 429 if is_refused else 200))
        if is_refused:
            with suppress(threading.BrokenBarrierError):
                self._all_wait.wait()
            self.ends = time.monotonic() + self.seconds
            return Fault(429, headers={"Retry-After": str(self.seconds)}), None
        return super().answer(path, query, authorization)


@dataclass
class Failing(Remote):
    """A remote system that fails by itself after so many things, before its jobs can run out, until `faults` are cleared."""

    at: int = 20

    def answer(self, path: str, query: Any, authorization: str | None) -> tuple[Fault | None, Any]:
        """Return the fault, if one is due, and the right document."""
        if 0 < self.at <= self.details.total():
            self.at = 0
            # The listing, too: else the client is in order, and only its entities are not.
            self.faults["*"] = self.page_faults[0] = Fault(503)
        return super().answer(path, query, authorization)


@contextmanager
def workers(database_url: str, api: str, *, count: int = 4, seconds: float = 60) -> Iterator["subprocess.Popen[str]"]:
    """A process with so many workers, each with one thread; it is told to stop at the end of the block."""
    given = {"database": database_url, "api": api, "workers": count, "seconds": seconds}
    process = subprocess.Popen(
        [sys.executable, "-c", WORKERS, json.dumps(given)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "up\n"
        yield process
    finally:
        process.stdin.close()
        try:
            process.wait(60)
        finally:
            if process.poll() is None:
                process.kill()
            process.stdout.close()


def enqueue(store: JobStore, remote: Remote) -> None:
    """Queue all things."""
    claim = store.listings.claim(LANE.type, CLIENT, worker="elsewhere:1:1:1", lease=60)
    assert isinstance(claim, ListingClaim)
    store.pages.enqueue(claim, LANE, [Item(key, "1") for key in remote.things], cursor=None, last=True)
    store.listings.release(claim)


@pytest.mark.slow
@pytest.mark.rows("E-27")
def test_eight_workers_keep_the_window_that_an_api_asks_for(store: JobStore, database_url: str) -> None:
    """429 with Retry-After: nobody of two processes asks in the window, then one does, then all, and nothing is wasted."""
    api = Limited(delay=0.1)
    api.fill(120)
    enqueue(store, api)
    with serving(api), workers(database_url, api.url) as _, workers(database_url, api.url) as _:
        until(lambda: states(store) == {"success": 120})
    refused = [at for at, status in api.arrivals if status == 429]
    assert 1 <= len(refused) <= 8
    probe, *others = [at for at, _ in api.arrivals[api.at + len(refused) :]]
    assert probe >= api.ends
    assert min(others) - probe >= 0.1
    assert len(api.arrivals) == 120 + len(refused)
    # Who reads the answer seconds after the others may pause the client once more.
    assert set(pauses(store)) == {("asked", 0, 1, "probe")}
    assert query(store, "SELECT sum(attempts) AS n, max(retries) AS r FROM job") == [{"n": 120, "r": 0}]


@pytest.mark.slow
@pytest.mark.rows("T15", "M8")
def test_a_pause_outlives_everybody(store: JobStore, database_url: str) -> None:
    """All workers are killed in the middle of a pause; those that come later keep it, and are back at its end."""
    api = Failing(delay=0.02)
    api.fill(120)
    enqueue(store, api)
    with serving(api):
        with workers(database_url, api.url, seconds=600) as first, workers(database_url, api.url, seconds=600) as second:
            until(store.pauses.in_force)
            for one in (first, second):
                os.killpg(one.pid, signal.SIGKILL)
                one.wait()
        assert store.pauses.in_force()
        all_dead = store.views.now()
        api.faults.clear()
        api.page_faults.clear()
        asked = api.details.total()
        with workers(database_url, api.url, seconds=600):
            # Some looks of everybody at the queue.
            time.sleep(1)
            assert api.details.total() == asked
            ends = store.views.now()
            run_out(store)
            until(lambda: states(store) == {"success": 120})
    # By the database's own clock: no claim of those that came later before the end of the pause.
    moments = [_moment(one["started_at"]) for one in query(store, "SELECT started_at FROM attempt")]
    assert not [at for at in moments if all_dead < at < ends]
    assert pauses(store) == [("level", 1, 1, "probe")]


def _moment(value: Any) -> datetime:
    found = datetime.fromisoformat(value) if isinstance(value, str) else value
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)
