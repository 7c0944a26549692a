"""Working queues as a daemon: hanging jobs, limits, idling and waking, trouble with the database, bounds."""

import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "e2e"))

from remote import change, query, states

from flows import Client, JobType, PausePolicy, Sync, UnknownName
from flows.duty import duty
from flows.enqueue import enqueue, enqueue_many, using
from flows.registry import Registry
from flows.tracker import Judged, SilentTracker
from flows.work import WorkResult, work
from jobs import Failure, JobStore, KeepPolicy, Queue, Rate, Retry
from jobs.errors import DatabaseLost

NOW = Retry(max_retries=1, delay=0, jitter=False)
NONE = Retry(max_retries=0)


@contextmanager
def _connection(_: Any) -> Iterator[str]:
    yield "connection"


CLIENT = Client("shop", connect=_connection, pause=PausePolicy(after=1000))
OTHER = Client("post", connect=_connection, pause=PausePolicy(after=1000))


def job_type(process: Any, name: str = "shop.order", **options: Any) -> JobType:
    """Declare a job type."""
    return JobType(name, **{"client": CLIENT, "process": process, "retry": NONE, **options})


def declare(*declared: JobType | Sync | Queue) -> Registry:
    """Make a registry of these."""
    return Registry(
        clients={one.client.id: one.client for one in declared if not isinstance(one, Queue)},
        syncs={one.id: one for one in declared if isinstance(one, Sync)},
        job_types={one.id: one for one in declared if isinstance(one, JobType)},
        queues={one.id: one for one in declared if isinstance(one, Queue)},
    )


def add(store: JobStore, kind: JobType, payloads: Any, **options: Any) -> list[int]:
    """Queue jobs; return their ids."""
    with using(store, declare(kind)):
        return [one.id for one in enqueue_many(kind, list(payloads), **options)]


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """What hanging jobs wait for; opened at the end."""
    found = threading.Event()
    yield found
    found.set()


class Daemon:
    """A worker in a thread of its own."""

    def __init__(self, store: JobStore, registry: Registry, **options: Any) -> None:
        self.stop, self.now = threading.Event(), threading.Event()
        self.result: WorkResult | None = None
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, args=(store, registry), kwargs=options, daemon=True)
        self._thread.start()

    def _run(self, store: JobStore, registry: Registry, **options: Any) -> None:
        try:
            self.result = work(store, registry, stop=self.stop, now=self.now, **options)
        except BaseException as error:  # noqa: BLE001 - raised by `join`
            self.error = error

    @property
    def is_running(self) -> bool:
        """Whether it works."""
        return self._thread.is_alive()

    def end(self, *, seconds: float = 20) -> WorkResult:
        """Stop it and return its result."""
        self.stop.set()
        return self.join(seconds=seconds)

    def join(self, *, seconds: float = 20) -> WorkResult:
        """Wait until it ends by itself."""
        self._thread.join(seconds)
        assert not self.is_running, "it does not end"
        if self.error is not None:
            raise self.error
        assert self.result is not None
        return self.result


@pytest.fixture
def daemon() -> Iterator[Callable[..., Daemon]]:
    """Starts workers, and leaves none behind."""
    started: list[Daemon] = []

    def start(store: JobStore, registry: Registry, **options: Any) -> Daemon:
        started.append(Daemon(store, registry, **options))
        return started[-1]

    yield start
    for one in started:
        one.stop.set()
        one.now.set()
        one._thread.join(20)


def eventually(condition: Callable[[], Any], *, seconds: float = 20) -> None:
    """Wait for a condition."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


class Running:
    """Counts what runs at once."""

    def __init__(self, seconds: float = 0.05) -> None:
        self.seconds = seconds
        self.now: Counter[str] = Counter()
        self.most: Counter[str] = Counter()
        self.at: list[tuple[float, Any]] = []
        self._lock = threading.Lock()

    def __call__(self, job: Any, _: Any) -> None:
        """Work a job, which takes its time."""
        keys = ("all", job.type, f"{job.type}:{job.phase}")
        with self._lock:
            self.at.append((time.monotonic(), job.payload))
            self.now.update(keys)
            for key in keys:
                self.most[key] = max(self.most[key], self.now[key])
        time.sleep(self.seconds)
        with self._lock:
            self.now.subtract(keys)


# -- jobs that hang -------------------------------------------------------------------------------------------------------------


@pytest.mark.rows("DS-07", "E-36")
def test_hanging_job_times_out_and_the_worker_lives_on(store: JobStore, gate: threading.Event) -> None:
    """At its time limit a hanging job has state, phase and reason on its row; the same worker works the others."""

    def fetch(job: Any, _: Any) -> None:
        if job.payload == "hangs":
            gate.wait(60)

    kind = job_type({"fetch": fetch, "save": lambda *_: None}, phases=("fetch", "save"), timeout=0.5, retry=NOW)
    (hanging,) = add(store, kind, ["hangs"], priority=5)
    add(store, kind, range(20))
    result = work(store, declare(kind), until_empty=True, concurrency=2)
    found = store.job(hanging)
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
    kind = job_type(lambda job, _: gate.wait(60) if job.payload["hangs"] else None, timeout=0.4)
    add(store, kind, [{"hangs": n < 8} for n in range(40)])
    assert work(store, declare(kind), until_empty=True, concurrency=4).processed == 40
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
    assert ended.wait(10)
    (row,) = query(store, "SELECT state, checkpoint FROM job WHERE id = :id", id=job_id)
    assert row["state"] == "failure"
    assert row["checkpoint"] in (None, "null")


@pytest.mark.rows("DS-07")
def test_timeout_of_a_sync(store: JobStore, gate: threading.Event) -> None:
    """One entity's fetch that hangs fails at its time, in a run and in a worker; the others arrive."""
    from clients import Page
    from flows import engine

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
        sync = Sync("shop.things", CLIENT, listing=listing, fetch=fetch, timeout=0.4, retry=NONE, concurrency=2)
        result = engine.run(sync, store, tracker=tracker, full=True)
        assert (result.succeeded + result.unchanged, result.failed) == (19, 1)
        assert result.failures == (("k3", "timed out after 0.4 s"),)
    later = Sync("shop.things", CLIENT, listing=listing, fetch=fetch, timeout=0.4, retry=NOW, concurrency=2)
    assert work(store, declare(later), until_empty=True).processed == 0


@pytest.mark.rows("E-06")
def test_job_without_timeout_keeps_its_lease(store: JobStore, gate: threading.Event, daemon: Any) -> None:
    """One that hangs without a time limit is held longer than its lease, and nobody else gets it."""
    kind = job_type(lambda *_: gate.wait(60))
    add(store, kind, [1])
    one = daemon(store, declare(kind, Queue("shop", lease=1)))
    eventually(lambda: states(store) == {"processing": 1})
    time.sleep(2.5)
    assert store.rescue(["shop"]) == 0
    assert query(store, "SELECT claim_no AS c FROM job") == [{"c": 1}]
    gate.set()
    eventually(lambda: states(store) == {"success": 1})
    one.end()


def test_connection_that_hangs_keeps_nobody_from_connecting(
    store: JobStore, gate: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job that is given up while it connects does not leave the others waiting for ever."""
    monkeypatch.setattr("flows.connection.CONNECTING", 0.2)
    connects = []

    @contextmanager
    def connect(_: Any) -> Iterator[str]:
        connects.append(1)
        if len(connects) == 1:
            gate.wait(60)
        yield "connection"

    kind = job_type(lambda *_: None, client=Client("shop", connect=connect), timeout=1.0)
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
    monkeypatch.setattr("flows.work.STALLED", 0.5)
    kind = job_type(lambda job, _: gate.wait(60) if job.payload >= 300 else None)
    add(store, kind, range(400))
    daemon(store, declare(kind), concurrency=2)
    eventually(lambda: states(store).get("success") == 300)
    # As long as it remembers how fast it was, it claims some ahead again.
    back = "SELECT count(*) AS n, max(attempts) AS a, max(rescues) AS r FROM job WHERE state = 'queued'"
    eventually(lambda: query(store, back) == [{"n": 98, "a": 0, "r": 0}])


# -- what is served, and how much of it at once ---------------------------------------------------------------------------------


def phased(running: Any, **options: Any) -> JobType:
    """Declare a job type of two phases."""
    return job_type({"fetch": running, "save": running}, phases=("fetch", "save"), **options)


@pytest.mark.rows("DS-12")
def test_hosts_that_serve_one_phase_each(store: JobStore, open_store: Callable[..., JobStore]) -> None:
    """Host A takes two fetches at once and host B one save: each does its phase, and no more of it at once."""
    fetching, saving = Running(), Running()
    kinds = phased(fetching), phased(saving)
    add(store, kinds[0], range(20))
    hosts = [
        Daemon(store, declare(kinds[0]), phases=["fetch"], at_once={"shop.order:fetch": 2}),
        Daemon(open_store(), declare(kinds[1]), phases=["save"], at_once={"shop.order:save": 1}),
    ]
    eventually(lambda: states(store) == {"success": 20})
    for host in hosts:
        host.end()
    assert fetching.most == {"all": 2, "shop.order": 2, "shop.order:fetch": 2}
    assert saving.most == {"all": 1, "shop.order": 1, "shop.order:save": 1}
    assert query(store, "SELECT phase, outcome, count(*) AS n FROM attempt GROUP BY phase, outcome ORDER BY phase") == [
        {"phase": "fetch", "outcome": "phase", "n": 20}, {"phase": "save", "outcome": "success", "n": 20}
    ]  # fmt: skip


@pytest.mark.rows("DS-12")
def test_limit_of_a_phase_holds_for_jobs_that_come_from_the_one_before(store: JobStore) -> None:
    """A job does not slip into a phase that is full because it is in hand already."""
    running = Running(0.02)
    kind = phased(running)
    add(store, kind, range(30))
    work(store, declare(kind), until_empty=True, at_once={"shop.order:save": 1})
    assert running.most["shop.order:save"] == 1
    assert running.most["shop.order:fetch"] > 1
    assert states(store) == {"success": 30}


@pytest.mark.rows("DS-12")
def test_limits_of_types(store: JobStore) -> None:
    """Each type keeps to its own number, declared or given, and all of them together to the number of threads."""
    running = Running(0.02)
    slow = job_type(running, "shop.slow", concurrency=2)
    fast = job_type(running, "shop.fast", concurrency=6)
    both = declare(slow, fast)
    for kind in (slow, fast):
        add(store, kind, range(40))
    work(store, both, until_empty=True)
    assert (running.most["shop.slow"], running.most["all"]) == (2, 6)
    assert running.most["shop.fast"] >= 4
    running.most.clear()
    for kind in (slow, fast):
        add(store, kind, range(40))
    work(store, both, until_empty=True, concurrency=4, at_once={"shop.fast": 1})
    assert running.most["shop.fast"] == 1
    assert running.most["all"] == 4


def test_only_named_types_and_queues(store: JobStore) -> None:
    """A worker serves what it is told to and leaves the rest; syncs have no phases."""
    running = Running(0)
    one, two, three = job_type(running, "shop.a"), job_type(running, "shop.b", queue="b"), phased(running, queue="c")
    all_three = declare(one, two, three)
    for kind in (one, two, three):
        add(store, kind, range(3))
    assert work(store, all_three, until_empty=True, types=["shop.a"]).processed == 3
    assert work(store, all_three, until_empty=True, queues=["b"]).processed == 3
    assert work(store, all_three, until_empty=True, phases=["save"]).processed == 0
    assert work(store, all_three, until_empty=True, phases=["fetch"]).processed == 3
    assert work(store, all_three, until_empty=True).processed == 3
    assert states(store) == {"success": 9}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"queues": ["nope"]}, "no queue is called 'nope'; declared are: declared, shop"),
        ({"types": ["nope"]}, "no sync or job type is called 'nope'; declared are: shop.order"),
        ({"phases": ["nope"]}, "no phase is called 'nope'; declared are: fetch, save"),
        (
            {"at_once": {"nope": 1}},
            "no sync, job type or type:phase served here is called 'nope'; declared are: "
            "shop.order, shop.order:fetch, shop.order:save",
        ),
        ({"at_once": {"shop.order:save": 1}, "phases": ["fetch"]}, "no sync, job type or type:phase served here"),
    ],
    ids=["queue", "type", "phase", "at once", "not served"],
)
def test_unknown_names(options: dict[str, Any], said: str) -> None:
    """What nothing declares is refused, with what there is."""
    with pytest.raises(UnknownName) as refused:
        duty(declare(phased(Running()), Queue("declared")), **options)
    assert str(refused.value).startswith(said)


def test_threads() -> None:
    """By default as many threads as the largest number of the types; one that says nothing follows its declared queue."""
    kinds = [job_type(Running(), "a", concurrency=3), job_type(Running(), "b", queue="wide")]
    assert duty(declare(kinds[0])).threads == 3
    assert duty(declare(*kinds)).threads == 8
    assert duty(declare(*kinds, Queue("wide", concurrency=20))).threads == 20
    assert duty(declare(*kinds), concurrency=5).limits == {}
    assert duty(declare(*kinds), at_once={"a": 50}).threads == 50
    assert duty(declare()).threads == 1


# -- limits of the fleet --------------------------------------------------------------------------------------------------------


@pytest.mark.rows("AQ-49")
def test_full_queue_is_waited_for(store: JobStore, open_store: Callable[..., JobStore]) -> None:
    """`until_empty` waits for its turn in a queue whose places others hold, and the number is never exceeded."""
    running = Running(0.03)
    kind = job_type(running)
    add(store, kind, range(40))
    registry = declare(kind, Queue("shop", concurrency=3))
    workers = [Daemon(one, registry, until_empty=True) for one in (store, open_store())]
    assert sum(one.join().processed for one in workers) == 40
    assert running.most["all"] == 3


def test_rate_is_waited_for(store: JobStore) -> None:
    """`until_empty` waits for the rate of its queue; begins, not only claims, keep to it."""
    running = Running(0)
    kind = job_type(running)
    add(store, kind, range(9))
    began = time.monotonic()
    assert work(store, declare(kind, Queue("shop", rate=Rate(3, 0.6))), until_empty=True).processed == 9
    assert time.monotonic() - began < 10
    starts = [at for at, _ in sorted(running.at)]
    # A thread that was late to begin may bring two begins nearer than their claims were.
    assert all(later - earlier > 0.5 for earlier, later in zip(starts, starts[3:], strict=False)), starts


def test_limited_queue_does_not_starve_behind_a_free_one(store: JobStore) -> None:
    """Jobs of a queue with limits get threads although another queue has enough for all of them, and the other way round."""
    running = Running(0.005)
    free, limited = job_type(running, "a"), job_type(running, "b", queue="limited", client=OTHER)
    add(store, free, [{"free": n} for n in range(600)])
    add(store, limited, [{"limited": n} for n in range(20)])
    work(store, declare(free, limited, Queue("limited", concurrency=1)), until_empty=True, concurrency=4)
    assert running.most["b"] == 1
    last = max(place for place, (_, payload) in enumerate(running.at) if "limited" in payload)
    assert last < 500


@pytest.mark.parametrize("limited", [False, True], ids=["undeclared", "declared"])
def test_run_of_a_sync_in_a_limited_queue(store: JobStore, limited: bool) -> None:
    """A run keeps to the places of its declared queue and does not end before it had its turn; it does not undo them either."""
    from clients import Entity, Page
    from flows import engine

    running = Running(0.01)

    def fetch(_: Any, entity: Any) -> Any:
        running(_Named(), None)
        return {"id": entity.key}

    sync = Sync(
        "shop.things", CLIENT, listing=lambda *_: iter([Page([Entity(f"k{n}") for n in range(40)])]), fetch=fetch, concurrency=8
    )
    result = engine.run(sync, store, queue=Queue("shop", concurrency=2), declared=limited)
    assert (result.state, result.succeeded, result.pending) == ("success", 40, 0)
    assert (running.most["all"] == 2) == limited
    assert query(store, "SELECT slots AS s FROM queue WHERE id = 'shop'") == [{"s": 2 if limited else None}]


def test_run_waits_for_its_turn_in_a_full_queue(store: JobStore, open_store: Callable[..., JobStore], daemon: Any) -> None:
    """A run whose queue is full of somebody else's job does not end before its own jobs had their turn."""
    from clients import Entity, Page
    from flows import engine

    running = Running(1.5)
    kind = job_type(running)
    queue = Queue("shop", concurrency=1)
    add(store, kind, [1])
    daemon(open_store(), declare(kind, queue))
    eventually(lambda: running.now["all"] == 1)
    sync = Sync("shop.things", CLIENT, listing=lambda *_: iter([Page([Entity(f"k{n}") for n in range(5)])]))
    result = engine.run(sync, store, queue=queue, declared=True)
    assert (result.state, result.succeeded, result.pending) == ("success", 5, 0)


class _Named:
    """Stands for a job where an entity is worked."""

    type, phase, payload = "x", "", None


# -- idling ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.rows("AQ-49", "E-31")
def test_daemon_waits_and_wakes(store: JobStore, open_store: Callable[..., JobStore], daemon: Any) -> None:
    """An idle daemon takes up what is enqueued later, by anybody, within a second."""
    running = Running(0)
    kind = job_type(running)
    one = daemon(store, declare(kind))
    time.sleep(1.5)
    waits = []
    for n in range(5):
        elsewhere = open_store()
        began = time.monotonic()
        add(elsewhere, kind, [n])
        eventually(lambda n=n: len(running.at) > n)
        waits.append(running.at[-1][0] - began)
        time.sleep(0.4)
    print(f"\n{store.db.dialect}: begun after {sorted(round(1000 * wait) for wait in waits)} ms")
    assert sorted(waits)[2] < 1
    assert one.is_running
    assert one.end().processed == 5


@pytest.mark.rows("E-09")
def test_idling_does_not_slow_what_comes_after(store: JobStore, daemon: Any) -> None:
    """After an idle while a hundred fast jobs are fast: no pause between any two."""
    running = Running(0)
    kind = job_type(running)
    one = daemon(store, declare(kind))
    time.sleep(1.5)
    began = time.monotonic()
    for n in range(100):
        add(store, kind, [n])
    eventually(lambda: states(store) == {"success": 100})
    seconds = time.monotonic() - began
    print(f"\n100 jobs, one by one: {seconds:.2f} s")
    assert seconds < 15
    one.end()


@pytest.mark.rows("E-59")
def test_delayed_job_is_begun_at_its_time(store: JobStore, daemon: Any) -> None:
    """A job with a delay begins when it is due, not at the next look after that."""
    running = Running(0)
    kind = job_type(running)
    one = daemon(store, declare(kind))
    time.sleep(0.5)
    lates = []
    for n in range(5):
        began = time.monotonic()
        add(store, kind, [n], delay=0.8)
        eventually(lambda n=n: len(running.at) > n)
        lates.append(running.at[-1][0] - began - 0.8)
    assert min(lates) >= -0.05
    print(f"\n{store.db.dialect}: late by {sorted(round(1000 * late) for late in lates)} ms")
    assert sorted(lates)[2] < 0.5
    one.end()


@pytest.mark.rows("E-03")
def test_idle_daemon_takes_back_jobs_of_the_dead(store: JobStore, daemon: Any) -> None:
    """A job of a silent worker is worked within its lease and one look, by a daemon that was idle all the time."""
    running = Running(0)
    kind = job_type(running)
    one = daemon(store, declare(kind))
    time.sleep(1.0)
    add(store, kind, ["delayed"], delay=3600)
    (job_id,) = add(store, kind, [1], delay=3600)
    change(
        store,
        "UPDATE job SET state = 'processing', claim_no = 7, worker = 'elsewhere:1:1:1', started_at = created_at, "
        "available_at = created_at, lease_until = created_at WHERE id = :id",
        id=job_id,
    )
    changed = time.monotonic()
    # Nothing else happens, so that only its own looks can tell it.
    eventually(lambda: running.at, seconds=10)
    assert running.at[0][0] - changed < 5
    eventually(lambda: store.job(job_id).job.state == "success")
    assert store.job(job_id).rescues == 1
    one.end()


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
def test_time_limit_is_looked_at_between_jobs(store: JobStore) -> None:
    """With 2 s and jobs of 1.1 s exactly two are processed: none is cut short, and none begun after the time."""
    running = Running(1.1)
    kind = job_type(running)
    add(store, kind, range(5))
    assert work(store, declare(kind), time_limit=2, concurrency=1).processed == 2
    assert states(store) == {"success": 2, "queued": 3}
    assert query(store, "SELECT sum(attempts) AS a FROM job") == [{"a": 2}]


@pytest.mark.rows("AQ-48", "E-32")
@pytest.mark.parametrize("by_queue", [False, True], ids=["daemon", "scheduled"])
def test_time_limit_of_a_queue(store: JobStore, by_queue: bool) -> None:
    """A scheduled worker leaves a declared queue at its own time limit and goes on with others; a daemon does not."""
    running = Running(0.1)
    first, second = job_type(running, "a"), job_type(running, "b", queue="other")
    registry = declare(first, second, Queue("shop", time_limit=1))
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
def test_grace(store: JobStore, gate: threading.Event, daemon: Any) -> None:
    """After a stop, jobs that end in the grace are finished; those that do not go back, without an attempt, at once."""

    begun: list[str] = []

    def process(job: Any, _: Any) -> None:
        begun.append(job.payload)
        time.sleep(0.5) if job.payload == "short" else gate.wait(60)

    kind = job_type(process)
    add(store, kind, ["short", "long"])
    one = daemon(store, declare(kind), grace=1.5)
    # One that is claimed and has not begun goes back at once.
    eventually(lambda: len(begun) == 2)
    began = time.monotonic()
    result = one.end()
    assert 1.4 <= time.monotonic() - began < 8
    assert result.processed == 1
    rows = query(store, "SELECT state, attempts, claim_no, message FROM job ORDER BY id")
    assert [(row["state"], row["attempts"]) for row in rows] == [("success", 1), ("queued", 0)]
    assert work(store, declare(job_type(lambda *_: None)), until_empty=True).processed == 1
    gate.set()
    time.sleep(0.3)
    assert states(store) == {"success": 2}


def test_job_that_writes_is_put_back_whole(store: JobStore, gate: threading.Event, daemon: Any) -> None:
    """A job that is put back while its session is open leaves nothing of what it wrote, and lets others write."""
    from sqlalchemy import text

    wrote = threading.Event()

    def process(job: Any, _: Any) -> None:
        job.session.execute(text("INSERT INTO maintenance (name, next_at) VALUES ('mine', '2030-01-01 00:00:00.000000+00')"))
        wrote.set()
        gate.wait(60)

    kind = job_type(process)
    add(store, kind, [1])
    one = daemon(store, declare(kind), grace=0.2)
    assert wrote.wait(10)
    # By then the worker itself waits for SQLite's writer, to look for the jobs of dead workers.
    time.sleep(1.5)
    began = time.monotonic()
    assert one.end().processed == 0
    assert time.monotonic() - began < 8
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
    monkeypatch.setattr("jobs.database.BUSY_TIMEOUT", 0.3)
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
    monkeypatch.setattr("jobs.database.BUSY_TIMEOUT", 0.1)
    monkeypatch.setattr("flows.work.ONE_SHOT", 1.0)
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
    monkeypatch.setattr("flows.shift.TIDY_EVERY", 0.2)
    monkeypatch.setattr("flows.maintain.EVERY", 0.2)
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
