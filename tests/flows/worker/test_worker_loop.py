"""Working queues as a daemon: hanging jobs, limits, idling and waking, trouble with the database, bounds."""

import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from flows.enqueue import enqueue
from flows.progress import Judged, SilentTracker
from flows.worker import worker_loop
from flows.worker.queue_processing import work
from jobs import Failure, JobStore, KeepPolicy, Queue, Retry
from jobs.errors import DatabaseLost
from tests.support.fake_things_api import change, query, states
from tests.support.worker_bench import Clock, Running, add, declare, eventually, job_type

# -- idling ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.rows("AQ-49", "E-31")
def test_daemon_waits_and_wakes(
    store: JobStore, open_store: Callable[..., JobStore], daemon: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An idle daemon takes up what is enqueued later, by anybody, long before it would look by itself."""
    monkeypatch.setattr(worker_loop, "POLL", 600.0)
    running = Running(0)
    kind = job_type(running)
    one = daemon(store, declare(kind))
    for n in range(3):
        time.sleep(0.2)
        elsewhere = open_store()
        add(elsewhere, kind, [n])
        eventually(lambda n=n: len(running.at) > n)
    assert one.is_running
    assert one.end().processed == 3


@pytest.mark.rows("E-09")
def test_idling_does_not_slow_what_comes_after(store: JobStore, daemon: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """After an idle while a hundred fast jobs are fast: no wait for the next look between any two."""
    monkeypatch.setattr(worker_loop, "POLL", 600.0)
    running = Running(0)
    kind = job_type(running)
    one = daemon(store, declare(kind))
    time.sleep(0.5)
    for n in range(100):
        add(store, kind, [n])
    eventually(lambda: states(store) == {"success": 100})
    one.end()


@pytest.mark.rows("E-59")
def test_delayed_job_is_begun_at_its_time(store: JobStore, daemon: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job with a delay begins when it is due, not at the next look after that."""
    monkeypatch.setattr(worker_loop, "POLL", 600.0)
    running = Running(0)
    kind = job_type(running)
    one = daemon(store, declare(kind))
    for n in range(2):
        began = time.monotonic()
        add(store, kind, [n], delay=0.8)
        # It wakes the daemon, which a delayed job does not do on PostgreSQL.
        add(store, kind, ["now"])
        eventually(lambda n=n: len(running.at) == 2 * (n + 1))
        (at,) = (at for at, payload in running.at if payload == n)
        assert at - began >= 0.7
    one.end()


@pytest.mark.rows("E-03")
def test_idle_daemon_takes_back_jobs_of_the_dead(store: JobStore, daemon: Any) -> None:
    """A job of a silent worker is worked within its lease and one look, by a daemon that was idle all the time."""
    running = Running(0)
    kind = job_type(running)
    one = daemon(store, declare(kind))
    time.sleep(0.3)
    add(store, kind, ["delayed"], delay=3600)
    (job_id,) = add(store, kind, [1], delay=3600)
    change(
        store,
        "UPDATE job SET state = 'processing', claim_no = 7, worker = 'elsewhere:1:1:1', started_at = created_at, "
        "available_at = created_at, lease_until = created_at WHERE id = :id",
        id=job_id,
    )
    # Nothing else happens, so that only its own looks can tell it.
    eventually(lambda: store.views.job(job_id).job.state == "success")
    assert store.views.job(job_id).rescues == 1
    one.end()


@pytest.mark.slow
def test_idle_daemon_costs_little(store: JobStore, daemon: Any) -> None:
    """An idle daemon takes less than a hundredth of a core, also with thousands of delayed jobs."""
    import psutil

    kind = job_type(Running(0))
    add(store, kind, range(5000), delay=3600)
    one = daemon(store, declare(kind))
    time.sleep(2)
    process = psutil.Process()
    before = process.cpu_times()
    time.sleep(10)
    after = process.cpu_times()
    share = (after.user + after.system - before.user - before.system) / 10
    print(f"\n{store.db.dialect}: {100 * share:.2f} % of a core")
    assert share < 0.03
    assert one.end().processed == 0


# -- bounds ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.rows("AQ-46")
def test_processed_counts_every_attempt(store: JobStore) -> None:
    """Four jobs, one of which succeeds, fails, raises and waits for a retry each, are four processed."""
    answers = {"raises": ValueError("no"), "fails": Failure("no", retry=False), "again": Failure("again", delay=3600)}

    def process(job: Any, _: Any) -> Any:
        found = answers.get(job.payload)
        if isinstance(found, Exception):
            raise found
        return found

    kind = job_type(process, retry=Retry(max_retries=1))
    add(store, kind, ["succeeds", *answers])
    result = work(store, declare(kind), until_empty=True)
    assert (result.processed, result.succeeded, result.failed) == (4, 1, 2)
    assert states(store) == {"success": 1, "failure": 2, "queued": 1}


@pytest.mark.rows("AQ-47")
def test_time_limit_is_looked_at_between_jobs(store: JobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job in hand is not cut short, and none is begun after the time."""
    clock = Clock()
    monkeypatch.setattr(worker_loop, "time", clock)

    def process(job: Any, _: Any) -> None:
        if job.payload == 3:
            clock.ahead += 1000
            # What was claimed ahead goes back.
            eventually(lambda: states(store)["processing"] == 1)

    kind = job_type(process)
    add(store, kind, range(30))
    done = work(store, declare(kind), time_limit=600, concurrency=1).processed
    assert 4 <= done < 30
    assert states(store) == {"success": done, "queued": 30 - done}
    assert query(store, "SELECT sum(attempts) AS a FROM job") == [{"a": done}]


@pytest.mark.rows("AQ-48", "E-32")
@pytest.mark.parametrize("by_queue", [False, True], ids=["daemon", "scheduled"])
def test_time_limit_of_a_queue(store: JobStore, by_queue: bool) -> None:
    """A scheduled worker leaves a declared queue at its own time limit and goes on with others; a daemon does not."""
    running = Running(0.04)
    first, second = job_type(running, "a"), job_type(running, "b", queue="other")
    registry = declare(first, second, Queue("shop", time_limit=0.4))
    add(store, first, [{"a": n} for n in range(30)])
    add(store, second, [{"b": n} for n in range(30)])
    result = work(store, registry, until_empty=True, concurrency=1, by_queue=by_queue)
    done = Counter(next(iter(payload)) for _, payload in running.at)
    assert done["b"] == 30
    assert (done["a"] < 30) == by_queue
    assert result.processed == done.total()


@pytest.mark.rows("AQ-48")
def test_zero_is_no_limit(store: JobStore) -> None:
    """A time limit of 0 is none, for the worker and for a queue."""
    kind = job_type(Running(0.1))
    add(store, kind, range(10))
    registry = declare(kind, Queue("shop", time_limit=0))
    assert work(store, registry, time_limit=0, until_empty=True, by_queue=True).processed == 10


@pytest.mark.rows("E-67", "DR-07")
def test_memory_limit(store: JobStore, caplog: pytest.LogCaptureFixture) -> None:
    """A worker that has grown beyond its limit finishes what is in hand and ends; the rest stays for the next one."""
    running = Running(0.01)
    kind = job_type(running)
    add(store, kind, range(50))
    result = work(store, declare(kind), memory_limit=1)
    assert result.processed == len(running.at) < 50
    assert "processing" not in states(store)
    assert "more than 1 MB in memory" in caplog.text
    assert work(store, declare(kind), until_empty=True, memory_limit=100_000).processed == 50 - result.processed


def test_max_jobs_of_a_worker_that_releases(store: JobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """The number counts what was worked, exactly."""
    kind = job_type(Running(0))
    add(store, kind, range(500))
    assert work(store, declare(kind), max_jobs=321).processed == 321
    assert states(store) == {"success": 321, "queued": 179}


@pytest.mark.rows("M18", "T18")
def test_grace(store: JobStore, gate: threading.Event, daemon: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a stop, jobs that end in the grace are finished; those that do not go back, without an attempt, at once."""
    clock = Clock()
    monkeypatch.setattr(worker_loop, "time", clock)
    begun: list[str] = []
    is_stopped = threading.Event()

    def process(job: Any, _: Any) -> None:
        begun.append(job.payload)
        (is_stopped if job.payload == "short" else gate).wait(60)

    kind = job_type(process)
    add(store, kind, ["short", "long"])
    one = daemon(store, declare(kind), grace=600)
    # One that is claimed and has not begun goes back at once.
    eventually(lambda: len(begun) == 2)
    one.stop.set()
    is_stopped.set()
    eventually(lambda: states(store) == {"success": 1, "processing": 1})
    time.sleep(0.3)
    assert one.is_running
    clock.ahead += 1000
    result = one.join()
    assert result.processed == 1
    rows = query(store, "SELECT state, attempts, claim_no, message FROM job ORDER BY id")
    assert [(row["state"], row["attempts"]) for row in rows] == [("success", 1), ("queued", 0)]
    assert work(store, declare(job_type(lambda *_: None)), until_empty=True).processed == 1
    gate.set()
    time.sleep(0.3)
    assert states(store) == {"success": 2}


def test_job_that_writes_is_put_back_whole(
    open_store: Callable[..., JobStore], gate: threading.Event, daemon: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job that is put back while its session is open leaves nothing of what it wrote, and lets others write."""
    from sqlalchemy import text

    # Whoever waits for a writer that is not freed waits long.
    monkeypatch.setattr("jobs.db.database.BUSY_TIMEOUT", 100.0)
    store = open_store()

    wrote = threading.Event()

    def process(job: Any, _: Any) -> None:
        job.session.execute(text("INSERT INTO maintenance (name, next_at) VALUES ('mine', '2030-01-01 00:00:00.000000+00')"))
        wrote.set()
        gate.wait(60)

    kind = job_type(process)
    add(store, kind, [1])
    one = daemon(store, declare(kind), grace=0.2)
    assert wrote.wait(60)
    # By then the worker itself waits for SQLite's writer, to look for the jobs of dead workers.
    time.sleep(1.5)
    assert one.end().processed == 0
    assert query(store, "SELECT name FROM maintenance WHERE name = 'mine'") == []
    assert states(store) == {"queued": 1}


# -- trouble with the database --------------------------------------------------------------------------------------------------


@pytest.mark.rows("T5")
@pytest.mark.parametrize("dialect", ["postgresql"], indirect=True)
def test_daemon_outlives_its_database(
    store: JobStore, open_store: Callable[..., JobStore], daemon: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """A daemon whose connections break again and again says so and works on; nothing is lost or done twice."""
    running = Running(0.01)
    kind = job_type(running)
    registry = declare(kind, Queue("shop", concurrency=4))
    add(store, kind, range(400))
    killer = open_store()
    one = daemon(store, registry)
    end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    for _ in range(12):
        query(killer, end)
        time.sleep(0.15)
    eventually(lambda: query(killer, "SELECT count(*) AS n FROM job WHERE state = 'success'") == [{"n": 400}], seconds=60)
    assert one.is_running
    one.end()
    assert query(killer, "SELECT count(*) AS n FROM attempt WHERE outcome = 'success'") == [{"n": 400}]


@pytest.mark.rows("T10")
@pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)
def test_daemon_waits_for_a_locked_database(
    store: JobStore, open_store: Callable[..., JobStore], daemon: Any, caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Another process that holds the write lock longer than the patience of the driver ends no daemon."""
    monkeypatch.setattr("jobs.db.database.BUSY_TIMEOUT", 0.3)
    impatient = open_store()
    running = Running(0.01)
    kind = job_type(running)
    add(store, kind, range(50))
    with store.db.write():
        one = daemon(impatient, declare(kind))
        eventually(lambda: "the database does not answer" in caplog.text)
        time.sleep(1)
        assert one.is_running
    eventually(lambda: states(store) == {"success": 50})
    assert "the database answers again" in caplog.text
    one.end()


@pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)
def test_one_shot_gives_up(store: JobStore, open_store: Callable[..., JobStore], monkeypatch: pytest.MonkeyPatch) -> None:
    """Work with an end of its own gives up after a while, with an error that is no mistake of the caller's."""
    monkeypatch.setattr("jobs.db.database.BUSY_TIMEOUT", 0.1)
    monkeypatch.setattr("flows.worker.queue_processing.GIVE_UP_AFTER", 1.0)
    impatient = open_store()
    kind = job_type(Running(0))
    add(store, kind, range(5))
    with store.db.write(), pytest.raises(DatabaseLost, match="database is locked"):
        work(impatient, declare(kind), until_empty=True)
    assert states(store) == {"queued": 5}


def test_error_of_ours_ends_the_worker(store: JobStore) -> None:
    """A bug in what watches ends the worker with its error, after what was in hand is finished or put back."""

    class Bad(SilentTracker):
        def batch(self, keys: list[str], work: Any) -> Judged:
            raise RuntimeError("a bug")

    kind = job_type(Running(0))
    add(store, kind, range(5))
    with pytest.raises(RuntimeError, match="a bug"):
        work(store, declare(kind), tracker=Bad())


def test_workers_tidy_up(store: JobStore, daemon: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A daemon removes now and then what its queues keep no longer."""
    monkeypatch.setattr("flows.worker.worker_loop.TIDY_EVERY", 0.2)
    monkeypatch.setattr("flows.maintenance.EVERY", 0.2)
    kind = job_type(Running(0))
    add(store, kind, range(5))
    one = daemon(store, declare(kind, Queue("shop", keep=KeepPolicy(success_days=0.00001))))
    eventually(lambda: states(store) == {})
    one.end()


def test_enqueue_inside_a_job(store: JobStore) -> None:
    """A job may queue further ones; the same worker takes them up before it says that it is empty."""

    def process(job: Any, _: Any) -> None:
        if job.payload:
            enqueue("shop.order", job.payload - 1)

    kind = job_type(process)
    add(store, kind, [20])
    assert work(store, declare(kind), until_empty=True).processed == 21
