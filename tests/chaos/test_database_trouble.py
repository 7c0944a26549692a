"""Workers whose database fails, blocks, fills up, restarts or loses its last writes (T4 to T6, T9 to T11)."""

from __future__ import annotations

import math
import random
import resource
import shutil
import sqlite3
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy.exc import OperationalError

from jobs import Database, JobStore, Queue
from jobs.schema import upgrade as schema
from tests.support.store_helpers import assert_invariants, expire, query, run_python, states

pytestmark = pytest.mark.slow

SOON = Queue("ordeal", concurrency=64, lease=3)
"""What was in hand when the trouble came is taken by others after three seconds."""


def until(condition: Callable[[], bool], *, seconds: float = 60) -> float:
    """Wait for something, and return how long that took."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < seconds, "it does not come to an end"
        time.sleep(0.02)
    return time.monotonic() - began


def left(store: JobStore) -> int:
    """Count what is not finished; a database that is away has everything left."""
    try:
        found = states(store)
    except Exception:  # noqa: BLE001  # whatever the driver says while the server is away
        return 1
    return found.get("queued", 0) + found.get("processing", 0)


class Flaky(JobStore):
    """A store each of whose calls may fail: before it did anything, or after it was committed, when nobody can tell."""

    CALLS = ("claim", "finish", "renew", "release", "rescues.run", "pauses.record_answers", "queues.register")
    share = 0.05
    dice = random.Random(4)
    failed: int = 0

    def __init__(self, db: Database, **options: Any) -> None:
        super().__init__(db, **options)
        for path in self.CALLS:
            part, _, name = path.rpartition(".")
            owner = getattr(self, part) if part else self
            setattr(owner, name, self._failing(path, getattr(owner, name)))

    def _failing(self, path: str, found: Any) -> Any:
        def call(*args: Any, **options: Any) -> Any:
            roll = self.dice.random()
            if roll < self.share / 2:
                self.failed += 1
                raise OperationalError(path, {}, Exception("chaos: the server closed the connection unexpectedly"))
            result = found(*args, **options)
            if roll < self.share:
                self.failed += 1
                raise OperationalError(path, {}, Exception("chaos: no answer to the commit"))
            return result

        return call


@pytest.mark.rows("T4")
def test_any_call_may_fail(store: JobStore, database_url: str, ordeal: Any, chaos: Any) -> None:
    """T4: one call in twenty fails, half of them after their commit; every job ends once all the same."""
    n = chaos.scaled(300, 3000)
    ordeal.fill(store, n)
    stores = [Flaky(Database(database_url), max_rescues=10**6) for _ in range(2)]
    # A claim that was committed and not answered is in nobody's hands until its lease has ended.
    ordeal.declare(Queue("ordeal", lease=1.5, concurrency=1000))
    with ordeal.working(*stores):
        seconds = until(lambda: left(store) == 0, seconds=90)
    assert states(store) == {"success": n}
    assert_invariants(store)
    failures = sum(one.failed for one in stores)
    assert failures >= 2
    chaos.tell("every call may fail", jobs=n, trouble=failures, seconds=seconds)
    for one in stores:
        one.close()


@pytest.mark.rows("T5")
@pytest.mark.timeout(300)
def test_the_server_restarts(own_postgres: Any, ordeal: Any, chaos: Any) -> None:
    """T5: PostgreSQL is stopped at once, is away for a moment and comes back; the workers go on and nothing is lost."""
    with psycopg.connect(own_postgres.get_uri(), autocommit=True) as connection:
        connection.execute("DROP DATABASE IF EXISTS restarts")
        connection.execute("CREATE DATABASE restarts")
    url = own_postgres.get_uri(database="restarts")
    stores = [JobStore(Database(url), max_rescues=10**6) for _ in range(3)]
    schema.upgrade(stores[0].db)
    n, restarts = chaos.scaled(1500, 12_000), chaos.scaled(2, 10)
    ordeal.declare(SOON)
    ordeal.fill(stores[0], n)
    # So that it is not over too soon, whatever this process does meanwhile.
    ordeal.limit = n - 50
    stop = [str(own_postgres.bin_path / "pg_ctl"), "-w", "-D", str(own_postgres.pgdata), "-m", "immediate", "stop"]
    with ordeal.working(*stores[1:]):
        for turn in range(restarts):
            until(lambda turn=turn: n - left(stores[0]) > n * turn // (2 * restarts))
            subprocess.run(stop, check=True, stdout=subprocess.DEVNULL, user=own_postgres.system_user)
            time.sleep(0.5 * turn)
            own_postgres.ensure_postgres_running()
        ordeal.limit = math.inf
        seconds = until(lambda: left(stores[0]) == 0, seconds=200)
    assert states(stores[0]) == {"success": n}
    assert_invariants(stores[0])
    chaos.tell("PostgreSQL restarts", jobs=n, trouble=restarts, seconds=seconds)
    for one in stores:
        one.close()


@pytest.mark.rows("T6")
@pytest.mark.parametrize("dialect", ["postgresql"], indirect=True)
def test_connections_are_cut(store: JobStore, database_url: str, several: Any, ordeal: Any, chaos: Any) -> None:
    """T6: the server ends a connection of ours again and again, also in the middle of a transaction."""
    n = chaos.scaled(1000, 8000)
    ordeal.fill(store, n)
    ordeal.limit = n - 50
    cut = 0
    with ordeal.working(*several(2)), psycopg.connect(database_url, autocommit=True) as connection:
        while left(store):
            found = connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()"
                " AND pid <> pg_backend_pid() ORDER BY random() LIMIT 1"
            ).fetchall()
            cut += len(found)
            if cut >= 3:
                ordeal.limit = math.inf
            time.sleep(0.2)
    assert states(store) == {"success": n}
    assert_invariants(store)
    chaos.tell("connections cut", jobs=n, trouble=cut)


@pytest.mark.rows("T9")
@pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)
def test_the_disk_is_full(store: JobStore, database_url: str, ordeal: Any, chaos: Any) -> None:
    """T9: no byte can be written; pages, claims and finishes fail whole, and go on when there is room again."""
    script = """
import resource, sys
from jobs import Database, JobStore
from jobs.listing.page_plan import Item
from tests.support.store_helpers import LANE, begin, done, take
from sqlalchemy.exc import OperationalError
store = JobStore(Database(sys.argv[1]))
claim = begin(store)
store.pages.enqueue(claim, LANE, [Item(f"a{n}") for n in range(50)], cursor=1)
jobs = take(store, 20)
soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (1, hard))
refused = 0
for attempt in (
    lambda: store.pages.enqueue(claim, LANE, [Item(f"b{n}" , data="x" * 5000) for n in range(200)], cursor=2),
    lambda: take(store, 5),
    lambda: store.finish([done(job) for job in jobs]),
):
    try:
        attempt()
    except OperationalError:
        refused += 1
resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
assert refused == 3, refused
settled = store.finish([done(job) for job in jobs])
assert [one.state for one in settled] == ["success"] * 20
store.pages.enqueue(claim, LANE, [Item(f"b{n}") for n in range(10)], cursor=2, last=True)
store.close()
"""
    result = run_python(script, database_url)
    assert result.returncode == 0, result.stderr
    assert states(store) == {"success": 20, "queued": 40}
    assert query(store, "SELECT pages, listed FROM listing") == [{"pages": 2, "listed": 60}]
    assert query(store, "PRAGMA integrity_check") == [{"integrity_check": "ok"}]
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 1
    chaos.tell("disk full", jobs=60, trouble=3)


@pytest.mark.rows("T10")
@pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)
def test_somebody_else_holds_the_file(store: JobStore, database_url: str, several: Any, ordeal: Any, chaos: Any) -> None:
    """T10: another program holds a write and a long read transaction; the workers wait, lose no lease and go on."""
    n, held = chaos.scaled(300, 1000), chaos.scaled(3.0, 12.0)
    ordeal.fill(store, n)
    path = database_url.removeprefix("sqlite:///")
    reader = sqlite3.connect(path, isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM job").fetchall()
    with ordeal.working(*several(1)):
        until(lambda: left(store) < n)
        writer = sqlite3.connect(path, isolation_level=None, timeout=15)
        writer.execute("BEGIN IMMEDIATE")
        time.sleep(held)
        writer.execute("ROLLBACK")
        writer.close()
        seconds = until(lambda: left(store) == 0)
    reader.close()
    assert states(store) == {"success": n}
    assert query(store, "SELECT sum(rescues) AS n FROM job") == [{"n": 0}], "a lease was lost to a lock"
    assert_invariants(store)
    chaos.tell("file held by another", jobs=n, trouble=1, seconds=seconds)


@pytest.mark.rows("T11")
@pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)
def test_power_cut(store: JobStore, database_url: str, several: Any, ordeal: Any, chaos: Any, tmp_path: Path) -> None:
    """T11: the file with a write-ahead log cut off anywhere is sound, and the queue drains from the state it had then."""
    n, cuts = chaos.scaled(400, 1200), chaos.scaled(6, 60)
    dice = random.Random(11)
    ordeal.declare(SOON)
    ordeal.fill(store, n)
    path = Path(database_url.removeprefix("sqlite:///"))
    copies: list[Path] = []
    ordeal.limit = n - 50
    with ordeal.working(*several(1)):
        while len(copies) < cuts:
            folder = tmp_path / f"cut-{len(copies)}"
            folder.mkdir()
            # Between two commits of ours nobody writes, as in the moment of a power cut.
            with store.db.write():
                for suffix in ("", "-wal"):
                    shutil.copy(f"{path}{suffix}", folder / f"syncs.db{suffix}")
            copies.append(folder / "syncs.db")
            threading.Event().wait(0.03)
    for copy in copies:
        wal = Path(f"{copy}-wal")
        with wal.open("r+b") as file:
            file.truncate(dice.randrange(wal.stat().st_size + 1))
        after = JobStore(Database(f"sqlite:///{copy}"), max_rescues=10**6)
        assert query(after, "PRAGMA integrity_check") == [{"integrity_check": "ok"}]
        if query(after, "SELECT name FROM sqlite_master WHERE name = 'audit'"):
            expire(after)
            with ordeal.working(after):
                until(lambda after=after: left(after) == 0)
            # The cut may lie between two pages of the listing; what a page listed is there with it.
            [listed] = query(after, "SELECT coalesce(sum(listed), 0) AS n FROM listing")
            assert states(after) == ({"success": listed["n"]} if listed["n"] else {})
            assert listed["n"] in {*range(0, n, 500), n}
            assert_invariants(after)
        after.close()
    chaos.tell("power cut", jobs=n * cuts, trouble=cuts)
