"""Declarations that were edited while jobs wait: workers, `maintain` and `process` bring the jobs to where they belong now."""

from typing import Any

import pytest

from flows import JobType, Sync, UnknownName
from flows.declarations.client import Client
from flows.enqueue import enqueue, using
from flows.maintenance import maintain
from flows.project.registry import Registry
from flows.worker.queue_processing import work
from flows.worker.single_job import process
from flows.worker.worker_config import choose
from jobs import JobStore
from jobs.enqueueing.duplicates import NewJob
from jobs.job import Lane
from tests.support.job_bench import CLIENT, Bench

OTHER = Client("other", connect=CLIENT.connect)


@pytest.fixture
def bench(store: JobStore) -> Bench:
    """A bench on a fresh database."""
    return Bench(store)


def declare(*job_types: JobType, sync: Sync | None = None) -> Registry:
    """Make a registry of these."""
    return Registry(
        clients={one.client.id: one.client for one in job_types},
        job_types={one.id: one for one in job_types},
        syncs={} if sync is None else {sync.id: sync},
    )


def job_type(ran: list[Any], phases: tuple[str, ...] = (), name: str = "shop.order", **options: Any) -> JobType:
    """Declare a job type that notes what it is called with."""

    def note(job: Any, connection: Any) -> None:
        ran.append((job.phase, job.payload))

    return JobType(
        name, **{"client": CLIENT, "process": dict.fromkeys(phases, note) if phases else note, **options}, phases=phases
    )


PHASED = {"phases": ("fetch", "save")}
EDITS = [
    ({}, {"queue": "elsewhere"}, [None]),
    ({}, {"client": OTHER}, [None]),
    ({}, PHASED, ["fetch", "save"]),
    (PHASED, {}, [None]),
    (PHASED, {"phases": ("load", "save")}, ["load", "save"]),
]
IDS = ["queue", "client", "phases", "no phases", "other phases"]


@pytest.mark.rows("E-44", "I1")
@pytest.mark.parametrize(("before", "after", "phases"), EDITS, ids=IDS)
def test_a_worker_brings_them_home(bench: Bench, before: dict[str, Any], after: dict[str, Any], phases: list[Any]) -> None:
    """What was queued before the edit is worked after it, and keeps no twin out."""
    ran: list[Any] = []
    options = {"duplicates": "discard"}
    with using(bench.store):
        old = enqueue(job_type(ran, **options, **before), "payload").id
    new = job_type(ran, **options, **after)
    assert work(bench.store, declare(new), until_empty=True).succeeded == 1
    assert ran == [(phase, "payload") for phase in phases]
    assert bench.store.views.job(old).job.state == "success"


def test_a_job_of_a_sync_too(bench: Bench) -> None:
    """The jobs of a sync whose queue has changed go along."""
    sync = Sync("shop.things", CLIENT, listing=lambda connection, since: iter(()), fetch=lambda *_: {"a": 1}, queue="elsewhere")
    bench.store.enqueue([NewJob(Lane("shop", "shop", "shop.things"), {"listed": {}}, key="k")], "allow")
    assert work(bench.store, declare(sync=sync), until_empty=True).processed == 1


def test_only_what_it_serves(bench: Bench) -> None:
    """A worker of one type leaves the jobs of another one where they are."""
    kinds = [job_type([], name=name) for name in ("shop.order", "shop.letter")]
    with using(bench.store):
        for kind in kinds:
            enqueue(kind, 1)
    moved = declare(*(job_type([], name=kind.id, queue="elsewhere") for kind in kinds))
    assert work(bench.store, moved, types=["shop.letter"], until_empty=True).processed == 1
    rows = bench.query("SELECT type, queue, state FROM job ORDER BY id")
    assert [tuple(one.values()) for one in rows] == [("shop.order", "shop", "queued"), ("shop.letter", "elsewhere", "success")]


def test_maintain_brings_all_home(bench: Bench) -> None:
    """And says how many; also what a dead worker has in hand, and nothing where no declarations are at hand."""
    with using(bench.store):
        for number in range(3):
            enqueue(job_type([]), number)
    bench.store.claim([Lane("shop", "shop", "shop.order")], 1, worker="elsewhere:1:1:1", lease=60)
    with bench.store.db.write() as connection:
        connection.exec_driver_sql("UPDATE job SET lease_until = '2000-01-01 00:00:00.000000+00' WHERE state = 'processing'")
    done = maintain(bench.store, declare(job_type([], queue="elsewhere")))
    assert (done.rescued, done.moved) == (1, 3)
    assert "3 jobs moved to where they are declared now" in str(done)
    assert bench.query("SELECT DISTINCT queue FROM job") == [{"queue": "elsewhere"}]
    assert maintain(bench.store).moved == 0


@pytest.mark.rows("AQ-53", "E-44")
@pytest.mark.parametrize(("before", "after", "phases"), EDITS, ids=IDS)
def test_process_begins_where_it_can(bench: Bench, before: dict[str, Any], after: dict[str, Any], phases: list[Any]) -> None:
    """A job in a phase that there is no longer begins with the first one; it does not fail for good."""
    ran: list[Any] = []
    with using(bench.store):
        old = enqueue(job_type(ran, **before), 1).id
    assert process(bench.store, declare(job_type(ran, **after)), old).state == "success"
    assert [phase for phase, _ in ran] == phases


@pytest.mark.rows("DS-12")
@pytest.mark.parametrize("options", [{"types": ["shop.plain"]}, {"queues": ["plain"], "types": ["shop.plain"]}])
def test_types_and_phases_that_serve_nothing(options: dict[str, Any]) -> None:
    """It is refused in one line: a worker that can never do anything is a mistake."""
    registry = declare(job_type([], **PHASED), job_type([], name="shop.plain", queue="plain"))
    with pytest.raises(UnknownName, match=r"nothing that is declared fits .*type shop.plain, phase fetch together") as caught:
        choose(registry, phases=["fetch"], **options)
    assert "\n" not in str(caught.value)
    assert choose(registry, types=["shop.order", "shop.plain"], phases=["fetch"]).lanes
