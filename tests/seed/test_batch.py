"""The Batch API, row by row: a batch is a job, its operations are phases, its sandbox is the checkpoint."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import text

from clients import Entity, Page
from flows import Sync
from flows.cli.sync_commands.run_summary import summary
from flows.events import Event, subscribe
from flows.orchestration.tracking.progress_artifact import percentage
from flows.progress import Progress
from flows.sync import run as engine
from jobs import Failure, JobStore, Snooze, Success
from tests.support.seed_helpers import SHOP, Log, Project, add, declare, drain, eventually, kind, query, states

OPERATIONS = ("first", "second", "third")

BATCH = """
from contextlib import nullcontext
from flows import Client, JobType

def operation(job, _):
    with open("log", "a") as file:
        print(job.phase, job.payload, file=file)

shop = Client("shop", connect=lambda _: nullcontext())
batch = JobType("shop.batch", shop, process={"a": operation, "b": operation}, phases=("a", "b"))
"""


def keep(job: Any, name: str) -> None:
    """Write a result through the job's session; some table that is there already serves."""
    job.session.execute(text(f"INSERT INTO maintenance (name, next_at) VALUES ('{name}', '2030-01-01 00:00:00.000000+00')"))


def results(store: JobStore) -> list[str]:
    """Return what was kept."""
    return sorted(row["name"] for row in query(store, "SELECT name FROM maintenance WHERE name LIKE 'result%'"))


@contextmanager
def hearing(*kinds: str) -> Iterator[list[Event]]:
    """Collect events."""
    heard: list[Event] = []
    end = subscribe(heard.append, *kinds)
    try:
        yield heard
    finally:
        end()


@pytest.mark.rows("BA-03", "BA-04")
def test_each_operation_has_its_sandbox_and_all_share_the_results(store: JobStore) -> None:
    """Operations run in their order; what one notes the next does not see; what they write is there together at the end."""
    seen: list[tuple[str, Any]] = []

    def operation(job: Any, _: Any) -> None:
        seen.append((job.phase, job.checkpoint))
        job.save_checkpoint({"note of": job.phase})
        assert job.checkpoint == {"note of": job.phase}
        keep(job, f"result {job.phase}")

    batch = kind(dict.fromkeys(OPERATIONS, operation), phases=OPERATIONS)
    add(store, batch, None)
    drain(store, batch)
    assert seen == [("first", None), ("second", None), ("third", None)]
    assert results(store) == ["result first", "result second", "result third"]


def slices(size: int) -> Any:
    """Return an operation over `payload` items, so many in each pass, which keeps each of them once."""

    def operation(job: Any, _: Any) -> Any:
        done = job.checkpoint or 0
        for number in range(done, min(done + size, job.payload)):
            keep(job, f"result {number:03}")
        done = min(done + size, job.payload)
        job.save_checkpoint(done)
        return Success(f"{done} of {job.payload}") if done >= job.payload else Snooze(0, f"{done} of {job.payload}")

    return operation


@pytest.mark.rows("BA-05", "BA-09", "BA-19")
@pytest.mark.parametrize(("items", "size", "passes"), [(10, 3, 4), (100, 5, 20), (0, 5, 1)])
def test_an_operation_is_called_until_it_is_done(store: JobStore, items: int, size: int, passes: int) -> None:
    """Ten items by threes are four passes, a hundred by fives twenty, none is one; each pass says how far it came."""
    with hearing("snooze", "success") as heard:
        batch = kind(slices(size))
        add(store, batch, items)
        assert drain(store, batch).processed == passes
    assert results(store) == [f"result {number:03}" for number in range(items)]
    # Each event comes after its commit, when the next pass may have begun already.
    assert sorted(one.message for one in heard) == sorted(f"{min(n * size, items)} of {items}" for n in range(1, passes + 1))
    assert [one.message for one in heard if one.kind == "success"] == [f"{items} of {items}"]
    (found,) = store.views.jobs()
    assert found.attempts == 1
    assert [one.outcome for one in store.views.job(found.id).attempts] == ["snooze"] * (passes - 1) + ["success"]


@pytest.mark.rows("BA-08")
def test_progress_is_not_whole_before_the_end() -> None:
    """999 of 1,000 is less than 100 %; so is all of what is known while more may come."""
    assert 99 < percentage(Progress(queued=1000, succeeded=999, listing_ended=True)) < 100
    assert percentage(Progress(listed=10, queued=10, succeeded=10)) < 100
    assert percentage(Progress(queued=1000, succeeded=1000, listing_ended=True)) == 100


@pytest.mark.rows("BA-10")
def test_who_waits_for_the_end_hears_of_success_and_failure(store: JobStore) -> None:
    """Each batch that ends calls once: with its results where it succeeded, with its reason where it failed."""
    failed: list[Any] = []

    def operation(job: Any, _: Any) -> Any:
        return Success("12 imported, 3 skipped") if job.payload == "good" else Failure("disk full", retry=False)

    batch = kind(operation, on_failure=failed.append)
    with hearing("success", "failure") as heard:
        good, bad = add(store, batch, "good", "bad")
        drain(store, batch)
    told = sorted((one.job_id, one.kind, one.message) for one in heard)
    assert told == [(good, "success", "12 imported, 3 skipped"), (bad, "failure", "disk full")]
    assert [(one.id, one.payload, one.message, one.attempt) for one in failed] == [(bad, "bad", "disk full", 1)]
    (attempt,) = store.views.job(good).attempts
    assert attempt.started_at is not None
    assert attempt.started_at <= attempt.ended_at


@pytest.mark.rows("BA-11", "BA-19")
def test_what_remains_after_a_failure(store: JobStore) -> None:
    """An operation that raises ends the batch, which says where; what depends on it does not run, until it is retried."""
    calls: list[str] = []
    failed: list[Any] = []
    broken = [True]

    def operation(job: Any, _: Any) -> None:
        calls.append(job.phase)
        if job.phase == "second" and broken:
            raise ZeroDivisionError(broken.pop())

    batch = kind(dict.fromkeys(OPERATIONS, operation), phases=OPERATIONS, on_failure=failed.append)
    (job_id,) = add(store, batch, None)
    drain(store, batch)
    (one,) = failed
    remaining = batch.phases[batch.phases.index(one.phase) :]
    assert (store.views.job(job_id).job.state, one.message) == ("failure", "ZeroDivisionError: True")
    assert (calls, remaining) == (["first", "second"], ("second", "third"))
    assert store.commands.retry([job_id]).done == 1
    drain(store, batch)
    assert calls == ["first", "second", "second", "third"]
    assert states(store) == {"success": 1}


@pytest.mark.rows("BA-15")
def test_a_batch_is_started_by_a_program_and_by_hand(here: Project) -> None:
    """From a program a worker takes it up by itself; on the command line it is queued and worked; each way it runs once."""
    from flows import enqueue
    from flows.project.registry import load
    from flows.worker.queue_processing import work

    here.write(BATCH)
    stop = threading.Event()
    worker = threading.Thread(target=lambda: work(here.store, load(), stop=stop), daemon=True)
    worker.start()
    try:
        enqueue("shop.batch", "by a program")
        eventually(lambda: states(here.store) == {"success": 1})
    finally:
        stop.set()
        worker.join(60)
    assert here.syncs("enqueue", "shop.batch", '"by hand"')[0] == 0
    assert here.syncs("work", "--until-empty")[0] == 0
    lines = (here.folder / "log").read_text().splitlines()
    assert lines == ["a by a program", "b by a program", "a by hand", "b by hand"]


def mirror(pages: list[list[int]], *, fails: bool = False) -> Sync:
    """Declare a sync of a paged source, whose last page may fail."""

    def listing(*_: Any) -> Iterator[Page]:
        for keys in pages:
            yield Page([Entity(str(key), "1", {"id": key}) for key in keys])
        if fails:
            raise ConnectionError("cut off")

    return Sync("shop.things", SHOP, listing=listing, delete_missing=True, max_delete_share=0.5)


def live(store: JobStore) -> list[str]:
    """Return the keys that are not deleted."""
    return sorted(row["key"] for row in query(store, "SELECT key FROM record WHERE deleted_at IS NULL"))


@pytest.mark.rows("BA-20", "E-78")
def test_what_a_paged_source_no_longer_has_is_deleted_last(store: JobStore) -> None:
    """Two less and one new: exactly two are deleted, after everything was imported; by a cut or empty listing none."""
    engine.run(mirror([[1, 2, 3, 4], [5, 6, 7, 8]]), store)
    assert live(store) == list("12345678")
    # The empty one after the cut one starts over: what the cut one saw does not make it whole.
    for less in (mirror([[1, 2, 3, 4]], fails=True), mirror([]), mirror([])):
        assert engine.run(less, store).deleted == 0
        assert live(store) == list("12345678")
    result = engine.run(mirror([[1, 2, 4], [5, 7, 8, 9]]), store)
    assert (result.deleted, result.succeeded, live(store)) == (2, 1, list("1245789"))
    (order,) = query(
        store, "SELECT (SELECT min(deleted_at) FROM record) >= (SELECT synced_at FROM record WHERE key = '9') AS last"
    )
    assert order["last"]


@pytest.mark.rows("BA-21")
@pytest.mark.parametrize(("pending", "line"), [(0, None), (1, "1 job waits for later"), (1200, "1,200 jobs wait for later")])
def test_the_summary_counts_in_singular_and_plural(store: JobStore, pending: int, line: str | None) -> None:
    """What was deleted, what failed and what is left is told in words that fit the number; what is nothing is left out."""
    from dataclasses import replace

    engine.run(mirror([[1, 2, 3, 4]]), store)
    result = engine.run(mirror([[1, 2, 3]]), store)
    assert "3 unchanged, 0 failed, 1 deleted" in summary(result)
    assert "deleted" not in summary(engine.run(mirror([[1, 2, 3]]), store))
    told = summary(replace(result, pending=pending)).splitlines()[1:]
    assert [one.split(";")[0] for one in told] == ([line] if line else [])


@pytest.mark.rows("BA-12")
def test_a_batch_that_is_added_by_another_follows_it(store: JobStore) -> None:
    """Batches of one serial key run one after the other; one that an operation adds comes behind those that wait, as it came."""
    log = Log()

    def operation(job: Any, connection: Any) -> None:
        log(job, connection)
        if job.payload == "one":
            add(store, batch, "added")

    batch = kind(operation, serial=lambda _: "batches")
    add(store, batch, "one", "two")
    drain(store, batch, concurrency=4)
    assert (log.payloads, log.most) == (["one", "two", "added"], 1)
    assert declare(batch).job_types[batch.id] is batch
