"""jobs.enqueueing.moved_declarations: what queued jobs do when the declaration of their type has moved, on both databases."""

from typing import Any

import pytest

from jobs import JobStore
from jobs.enqueueing import moved_declarations as module
from jobs.enqueueing.duplicates import NewJob
from jobs.enqueueing.moved_declarations import Location
from jobs.job import Lane
from tests.support.store_helpers import ELSEWHERE, query, row, take, take_one

OLD = Lane("old", "api", "c.a")
NEW = Lane("new", "api", "c.a")
HOME = Location("c.a", "new", "api")
PHASED = Location("c.a", "old", "api", ("fetch", "save"))


def put(store: JobStore, n: int = 1, lane: Lane = OLD, **options: Any) -> list[int]:
    """Queue jobs; return their ids."""
    return [one.id for one in store.enqueue([NewJob(lane, number, **options) for number in range(n)], "allow")]


def twin(store: JobStore, lane: Lane, fingerprint: str = "f") -> int:
    """Queue a job of some content; return its id."""
    (found,) = store.enqueue([NewJob(lane, None, fingerprint)], "reject")
    return found.id


@pytest.mark.rows("I1")
def test_another_queue(store: JobStore, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """All queued jobs of the type go there, in several transactions; one line says so; other types and claims stay."""
    monkeypatch.setattr(module, "BATCH", 5)
    other = put(store, 2, Lane("old", "api", "c.b"))
    ids = put(store, 13)
    held = take_one(store, OLD)
    assert store.relocations.apply([HOME]) == 12
    assert caplog.messages == ["moved 12 queued jobs of c.a to queue new"]
    assert row(store, held.id)["queue"] == "old"
    assert {row(store, one)["queue"] for one in other} == {"old"}
    assert {job.id for job in take(store, 100, NEW)} == set(ids) - {held.id}
    assert store.relocations.apply([HOME]) == 0


def test_another_client(store: JobStore) -> None:
    """Likewise; jobs that wait for their time keep it."""
    (now,), (later,) = put(store), put(store, delay=3600)
    at = row(store, later)["available_at"]
    assert store.relocations.apply([Location("c.a", "old", "other")]) == 2
    assert [job.id for job in take(store, 9, Lane("old", "other", "c.a"))] == [now]
    assert row(store, later)["available_at"] == at


@pytest.mark.rows("DS-04")
@pytest.mark.parametrize(
    ("was", "home", "phase", "notes"),
    [
        ("gone", PHASED, "fetch", None),
        ("", PHASED, "fetch", None),
        ("save", PHASED, "save", {"n": 1}),
        ("save", Location("c.a", "old", "api"), "", None),
        ("save", PHASED._replace(queue="new"), "save", {"n": 1}),
    ],
)
def test_other_phases(store: JobStore, was: str, home: Location, phase: str, notes: Any) -> None:
    """A phase that there is no longer becomes the first one, which begins without notes; one that there is stays with its own."""
    (job_id,) = put(store, lane=Lane("old", "api", "c.a", was))
    job = store.checkpoints.save(take_one(store, Lane("old", "api", "c.a", was)), {"n": 1})
    assert store.release([job], reason="stop") == 1
    assert store.relocations.apply([home]) == (home.queue != "old" or phase != was)
    again = take_one(store, Lane(home.queue, "api", "c.a", phase))
    assert (again.id, again.checkpoint) == (job_id, notes)


@pytest.mark.rows("M2", "I7")
@pytest.mark.parametrize("stray_is_older", [True, False])
def test_a_twin_in_the_new_queue(store: JobStore, stray_is_older: bool) -> None:
    """The older of the two gives way to the newer; what has no twin there moves with the others."""
    lanes = (OLD, NEW) if stray_is_older else (NEW, OLD)
    older, newer = (twin(store, lane) for lane in lanes)
    alone = twin(store, OLD, "g")
    assert store.relocations.apply([HOME]) == 2
    assert {job.id for job in take(store, 9, NEW)} == {newer, alone}
    gone = row(store, older)
    assert (gone["state"], gone["superseded_by"], gone["finished_at"] is None) == ("superseded", newer, False)


@pytest.mark.rows("M2")
def test_twins_of_two_old_queues(store: JobStore) -> None:
    """Whichever queue is emptied first, the newest one is left."""
    ids = [twin(store, Lane(queue, "api", "c.a")) for queue in ("z", "a", "m")]
    store.relocations.apply([HOME])
    assert [job.id for job in take(store, 9, NEW)] == [ids[-1]]
    assert query(store, "SELECT count(*) AS n FROM job WHERE state = 'superseded'") == [{"n": 2}]


@pytest.mark.rows("M11")
def test_a_serial_key_that_is_being_worked(store: JobStore) -> None:
    """Its next job follows when that one has ended, and does not run beside it from another queue."""
    first, second = put(store, 2, serial_key="k")
    job = take_one(store, OLD)
    assert (job.id, store.relocations.apply([HOME])) == (first, 0)
    store.commands.cancel([first])
    assert store.relocations.apply([HOME]) == 1
    assert take_one(store, NEW).id == second


def test_only_one_job(store: JobStore) -> None:
    """A person who looks at one job moves that one."""
    first, second = put(store, 2)
    assert store.relocations.apply([HOME], only=second) == 1
    assert [row(store, one)["queue"] for one in (first, second)] == ["old", "new"]
    (job,) = store.claim([OLD], 1, worker=ELSEWHERE, lease=60)
    assert store.relocations.apply([HOME], only=job.id) == 0
