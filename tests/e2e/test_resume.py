"""Kill a run with SIGKILL wherever it is, start it again: nothing is lost, stuck or stored twice (issue 2, point 9).

The runs are real processes of the real engine, the remote counts what it is asked, and the database itself writes an audit.
"""

import itertools
import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psutil
import pytest

from jobs import JobStore
from tests import ROOT
from tests.support import store_helpers
from tests.support.fake_things_api import LANE, SYNC, Fault, Remote, live, query, states

pytestmark = pytest.mark.slow


class EngineProcesses:
    """Runs of the engine as processes of their own."""

    def __init__(self, process: "subprocess.Popen[str]", remote: Remote, database: str, folder: Path) -> None:
        self._process = process
        self._order = {"url": remote.url, "database": database}
        self._folder = folder
        self._numbers = itertools.count(1)
        self._results: dict[int, Path] = {}
        self.killed: list[int] = []

    def start(self, **order: Any) -> int:
        """Start a run and return its process id."""
        assert self._process.stdin
        assert self._process.stdout
        result = self._folder / f"result-{next(self._numbers)}.json"
        self._process.stdin.write(json.dumps({**self._order, "result": str(result), **order}) + "\n")
        self._process.stdin.flush()
        pid = int(self._process.stdout.readline())
        self._results[pid] = result
        return pid

    def is_running(self, pid: int) -> bool:
        """Tell whether a run still lives; the dead stay zombies, as under careless parents."""
        try:
            return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False

    def wait(self, pid: int, *, timeout: float = 50) -> None:
        """Wait until a run has ended."""
        end = time.monotonic() + timeout
        while self.is_running(pid):
            assert time.monotonic() < end, "the run hangs"
            time.sleep(0.01)

    def kill(self, pid: int) -> None:
        """SIGKILL a run."""
        os.kill(pid, signal.SIGKILL)
        self.killed.append(pid)
        self.wait(pid)

    def result(self, pid: int, *, timeout: float = 50) -> dict[str, Any]:
        """Wait for a run that must end by itself, and return its result."""
        self.wait(pid, timeout=timeout)
        assert self._results[pid].exists(), "the run ended with an error, see stderr"
        found: dict[str, Any] = json.loads(self._results[pid].read_text())
        return found

    def complete(self, **order: Any) -> dict[str, Any]:
        """Run to the end."""
        return self.result(self.start(**order))

    def has_result(self, pid: int) -> bool:
        """Tell whether a run came to its end."""
        return self._results[pid].exists()

    def die(self, **order: Any) -> None:
        """Run until it kills itself, which it must."""
        pid = self.start(**order)
        self.wait(pid)
        assert not self._results[pid].exists(), "it should have died"
        self.killed.append(pid)

    def close(self) -> None:
        """Leave no run behind."""
        for pid in self._results:
            if self.is_running(pid):
                os.kill(pid, signal.SIGKILL)


@pytest.fixture(scope="session")
def forking_engine() -> Iterator["subprocess.Popen[str]"]:
    """The process that forks the runs."""
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "tests" / "support" / "forking_engine.py")], env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdin
    assert process.stdout
    try:
        yield process
    finally:
        process.stdin.close()
        process.wait(20)
        process.stdout.close()


@pytest.fixture
def engines(
    forking_engine: "subprocess.Popen[str]", remote: Remote, database_url: str, tmp_path: Path
) -> Iterator[EngineProcesses]:
    """Runs of this remote's sync."""
    found = EngineProcesses(forking_engine, remote, database_url, tmp_path)
    try:
        yield found
    finally:
        found.close()


@pytest.fixture
def audited(open_store: Callable[..., JobStore]) -> JobStore:
    """A store whose database writes down every change of a job's state."""
    store = open_store()
    store_helpers.start_audit(store)
    return store


def assert_complete(store: JobStore, remote: Remote, engines: EngineProcesses) -> None:
    """Hold what is left against the promises of a resume, and the audit against I1 to I7."""
    unfinished = query(
        store, "SELECT key, state, attempts, rescues, message FROM job WHERE state NOT IN ('success', 'superseded')"
    )
    assert not unfinished
    rows = query(store, "SELECT key FROM record WHERE sync = :sync", sync=SYNC)
    assert sorted(row["key"] for row in rows) == sorted(remote.things), "every entity is stored exactly once"
    assert live(store) == set(remote.things)
    assert query(store, "SELECT worker, state FROM listing") == [{"worker": None, "state": "complete"}]
    store_helpers.assert_invariants(store, killed=engines.killed)


def jobs_of_each_entity(store: JobStore) -> list[dict[str, Any]]:
    """Return the entities that have more than one job of one generation."""
    return query(store, "SELECT key, generation, count(*) AS n FROM job GROUP BY key, generation HAVING count(*) > 1")


def until(condition: Callable[[], bool], *, timeout: float = 50) -> None:
    """Wait for a condition."""
    end = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.005)


class Hold:
    """From the nth page, detail, or request of either kind on, no answer comes until the end."""

    def __init__(self, remote: Remote, n: int, *, of: str = "") -> None:
        self._over = threading.Event()
        if of != "detail":
            remote.on_page = lambda asked: (asked if of else remote.requests) < n or self._over.wait(50)
        if of != "page":
            remote.on_detail = lambda asked: (asked if of else remote.requests) < n or self._over.wait(50)

    def end(self) -> None:
        """Let the answers come."""
        self._over.set()


def stop_between_transactions(store: JobStore, pid: int) -> None:
    """SIGSTOP a run while it keeps nobody from writing."""
    while True:
        os.kill(pid, signal.SIGSTOP)
        until(lambda: psutil.Process(pid).status() == psutil.STATUS_STOPPED)
        if store.db.dialect == "postgresql":
            open_ones = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND state LIKE 'idle in transaction%'"
            is_free = not query(store, open_ones)
        else:
            with closing(sqlite3.connect(str(store.db.url.database), timeout=0, isolation_level=None)) as other:
                try:
                    other.execute("BEGIN IMMEDIATE")
                    is_free = True
                except sqlite3.OperationalError:
                    is_free = False
        if is_free:
            return
        os.kill(pid, signal.SIGCONT)
        time.sleep(0.02)


@pytest.mark.rows("E-95")
def test_killed_while_it_lists(audited: JobStore, remote: Remote, engines: EngineProcesses) -> None:
    """The next run goes on behind the last stored page: at most the page in flight is asked for again."""
    remote.fill(100)
    held = Hold(remote, 5, of="page")
    pid = engines.start()
    until(lambda: remote.pages.total() == 5)
    engines.kill(pid)
    held.end()
    asked = dict(remote.pages)
    # It waits for less than the lease of a minute.
    result = engines.complete()
    assert (result["state"], result["stopped"]) == ("success", "end")
    assert set(remote.pages) == set(range(0, 100, 10))
    again = {page for page, n in remote.pages.items() if n > 1}
    assert again <= {max(asked)}
    assert remote.pages.total() <= 11
    assert not jobs_of_each_entity(audited)
    assert_complete(audited, remote, engines)


def test_killed_while_it_works(audited: JobStore, remote: Remote, engines: EngineProcesses) -> None:
    """Jobs in the hands of a process that is gone go back at once and not after the lease; others are not fetched twice."""
    remote.fill(100)
    remote.page_size = 100
    held = Hold(remote, 45, of="detail")
    pid = engines.start(sync={"batch": 20})
    until(lambda: remote.details.total() >= 45 and bool(live(audited)))
    engines.kill(pid)
    held.end()
    done = live(audited)
    assert 0 < len(done) < 100
    remote.details.clear()
    # It waits for less than the lease of a minute: jobs of a dead process do not wait for its end.
    result = engines.complete(sync={"batch": 20})
    assert result["state"] == "success"
    assert not done & set(remote.details), "what was done is not done again"
    assert_complete(audited, remote, engines)


def test_killed_between_listing_and_working(audited: JobStore, remote: Remote, engines: EngineProcesses) -> None:
    """A complete listing whose jobs are left is worked off by the next run."""
    remote.fill(60)
    held = Hold(remote, 1, of="detail")
    pid = engines.start()
    until(lambda: query(audited, "SELECT state FROM listing") == [{"state": "complete"}])
    engines.kill(pid)
    held.end()
    assert sum(states(audited).values()) == 60
    assert engines.complete()["state"] == "success"
    # The listing was complete: the next run begins a new one, and each page is asked for once by each.
    assert set(remote.pages.values()) == {2}
    assert_complete(audited, remote, engines)


POINTS = [
    "page:1",
    "page:3",
    "page_done:1",
    "page_done:3",
    "page_done:6",
    "batch:1",
    "batch:2",
    "batch:3",
    "batch_done:1",
    "batch_done:2",
]


@pytest.mark.parametrize("point", POINTS)
def test_killed_at_each_step(audited: JobStore, remote: Remote, engines: EngineProcesses, point: str) -> None:
    """Killed before or after any page and any batch, the next run completes without help (T3)."""
    remote.fill(60)
    engines.die(die=point, sync={"batch": 15})
    result = engines.complete(sync={"batch": 15})
    assert (result["state"], result["failed"]) == ("success", 0)
    # Only a listing that was complete is begun anew.
    assert remote.pages.total() <= 6 + 1 or all(n <= 2 for n in remote.pages.values())
    assert_complete(audited, remote, engines)


def test_killed_again_and_again(audited: JobStore, remote: Remote, engines: EngineProcesses) -> None:
    """Killed after every few requests, the runs get there, and every invariant holds (T1)."""
    remote.fill(300)
    remote.page_size = 20
    for turn in range(10):
        # It gets two to twelve answers, and no more.
        n = remote.requests + 3 + turn * 7 % 11
        held = Hold(remote, n)
        pid = engines.start(sync={"batch": 10})
        until(lambda n=n: remote.requests >= n)  # type: ignore[misc]
        engines.kill(pid)
        held.end()
    pid = engines.start(sync={"batch": 10})
    assert engines.result(pid)["state"] == "success"
    assert_complete(audited, remote, engines)
    # Pages that were stored are not asked for again while their listing is going on.
    generations = query(audited, "SELECT generation FROM listing")[0]["generation"]
    assert remote.pages.total() <= 15 * generations + len(engines.killed)


def deaths_until_a_run_ends(engines: EngineProcesses, *, most: int, **order: Any) -> int:
    """Run until a run comes to its end; return how many died before it."""
    for deaths in range(most + 1):
        pid = engines.start(**order)
        engines.wait(pid)
        if engines.has_result(pid):
            return deaths
        engines.killed.append(pid)
    raise AssertionError(f"{most + 1} runs died, and there is no end")


def test_poison(audited: JobStore, remote: Remote, engines: EngineProcesses) -> None:
    """An entity that kills whoever fetches it ends as poison after five deaths, and takes no other with it."""
    remote.fill(60)
    remote.delay = 0.3
    engines.die(die="page_done:6", sync={"batch": 20})
    remote.delay = 0
    # The listing breaks from now on: these runs only work what is left.
    remote.page_faults[0] = Fault(404)
    assert 4 <= deaths_until_a_run_ends(engines, most=5, poison="k33", sync={"batch": 20}) <= 5
    bad = query(audited, "SELECT key, message FROM job WHERE state = 'failure'")
    assert [row["key"] for row in bad] == ["k33"]
    assert bad[0]["message"].startswith("poison: 5 workers died")
    assert live(audited) == set(remote.things) - {"k33"}
    assert not {"processing", "queued"} & set(states(audited))
    store_helpers.assert_invariants(audited, killed=engines.killed)


@pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)
def test_poison_that_is_listed_again(audited: JobStore, remote: Remote, engines: EngineProcesses) -> None:
    """Also an entity that each run lists again while it is in hand ends as poison: its follow-up is as suspect as it was."""
    remote.fill(10)
    assert deaths_until_a_run_ends(engines, most=7, poison="k3", dying=0.3) <= 6


def test_poison_that_is_worked_by_a_worker(audited: JobStore, remote: Remote, engines: EngineProcesses) -> None:
    """The same for a process that only works queues."""
    remote.fill(30)
    claim = store_helpers.begin(audited, SYNC)
    audited.pages.enqueue(claim, LANE, [store_helpers.Item(key, "1") for key in remote.things], cursor=None, last=True)
    audited.listings.release(claim)
    for _ in range(5):
        engines.die(role="work", poison="k3")
    engines.complete(role="work", poison="k3")
    assert [row["key"] for row in query(audited, "SELECT key FROM job WHERE state = 'failure'")] == ["k3"]
    assert live(audited) == set(remote.things) - {"k3"}


def test_silent_process_loses_its_run(audited: JobStore, remote: Remote, engines: EngineProcesses) -> None:
    """A run that sleeps through its lease is taken over; when it wakes, nothing of it is written (T2)."""
    remote.fill(60)
    # Its listing is not complete, so that there is something to lose.
    listing, held = Hold(remote, 4, of="page"), Hold(remote, 10, of="detail")
    pid = engines.start(sync={"batch": 10})
    until(lambda: remote.details.total() >= 10)
    stop_between_transactions(audited, pid)
    listing.end()
    held.end()
    # Its lease ends, and that of what it has in hand.
    store_helpers.expire(audited)
    store_helpers.change(audited, "UPDATE listing SET lease_until = '2000-01-01 00:00:00.000000+00'")
    # The other one does not end before the sleeper has found out; which may ask for what it has in hand, and is answered.
    last = remote.held["k59"] = threading.Event()
    other = engines.start(sync={"batch": 10})
    until(lambda: len(live(audited)) > 40 and "queued" not in states(audited))
    os.kill(pid, signal.SIGCONT)
    assert engines.result(pid)["state"] == "failed"
    last.set()
    assert engines.result(other)["state"] == "success"
    assert engines.complete()["state"] == "success"
    assert_complete(audited, remote, engines)
