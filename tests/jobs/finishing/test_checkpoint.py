"""`jobs.finishing.checkpoint`: how far a job has come is durable at once, fenced, and moves together with what it wrote."""

import threading
from typing import Any

import pytest
from sqlalchemy import insert, text
from sqlalchemy.exc import IntegrityError

from jobs import Failure, JobStore, LostLease, PayloadError
from jobs.db.json_codec import decode
from jobs.job import Job, Lane
from jobs.schema.job_tables import maintenance
from tests.support.store_helpers import bring_forward, done, enqueue, expire, finish, outcomes, query, row, take_one

PHASED = Lane("default", "api", "api.phased", "fetch")


@pytest.fixture
def job(store: JobStore) -> Job:
    """One claimed job."""
    enqueue(store, ["a"])
    return take_one(store)


def phased(store: JobStore) -> Job:
    """Return a claimed job in its first phase."""
    with store.db.write() as connection:
        connection.execute(
            text(
                "INSERT INTO job (queue, client, type, phase, available_at, created_at, fingerprint)"
                " VALUES ('default', 'api', 'api.phased', 'fetch', '2000-01-01 00:00:00+00', '2000-01-01 00:00:00+00', 'f')"
            )
        )
    return take_one(store, PHASED)


def note(store: JobStore, unit: Any, name: str) -> None:
    """Write a row of some table through a job's session."""
    unit.session.execute(insert(maintenance).values(name=name, next_at=store.views.now()))


def noted(store: JobStore) -> list[str]:
    """Return the rows that were written."""
    return sorted(found["name"] for found in query(store, "SELECT name FROM maintenance"))


EXACT = decode('{"a":1884518522.1684267241}')


@pytest.mark.parametrize("value", [float("nan"), {"a": float("inf")}, {1}, 0.0029830558082336372])
def test_what_json_does_not_have(store: JobStore, job: Job, value: Any) -> None:
    """It is refused, as in payloads and records, and the checkpoint before it stays."""
    store.checkpoints.save(job, 1)
    with pytest.raises(PayloadError):
        store.checkpoints.save(job, value)
    assert query(store, "SELECT CAST(checkpoint AS TEXT) AS c FROM job")[0]["c"] == "1"


@pytest.mark.parametrize("value", [None, 0, 7, 1.5, True, False, "", "x\0y", [], {"cursor": {"a": [1, None]}}, 2**70, EXACT])
def test_any_json_is_kept(store: JobStore, job: Job, value: Any) -> None:
    """It is on the row at once, and the next attempt has it."""
    assert store.checkpoints.save(job, value).checkpoint == value
    assert store.checkpoints.save(job, value).checkpoint == value
    finish(store, done(job, Failure("later")))
    bring_forward(store)
    assert take_one(store).checkpoint == value


@pytest.mark.rows("BA-04", "BA-07")
def test_a_retry_goes_on_from_the_checkpoint(store: JobStore, job: Job) -> None:
    """What a failed attempt noted is there for the next one; the payload is as it was."""
    store.checkpoints.save(job, {"cursor": 2})
    finish(store, done(job, Failure("later")))
    bring_forward(store)
    again = take_one(store)
    assert again.checkpoint == {"cursor": 2}
    assert again.payload == job.payload


@pytest.mark.rows("BA-07", "E-71")
def test_a_killed_worker_leaves_its_checkpoint(store: JobStore, job: Job) -> None:
    """It was durable at once: the job that is rescued goes on from there."""
    store.checkpoints.save(job, 1)
    store.checkpoints.save(job, 2)
    expire(store, job)
    store.rescues.run(["default"])
    assert take_one(store, suspects=True).checkpoint == 2


@pytest.mark.rows("BA-07", "DS-09")
def test_position_and_results_move_together(store: JobStore, job: Job) -> None:
    """What was written before a checkpoint stays with it, what came after it goes when the attempt fails (law 2)."""
    unit = store.checkpoints.unit_of_work(job)
    note(store, unit, "page 1")
    job = store.checkpoints.save(job, 1, unit)
    assert noted(store) == ["page 1"]
    note(store, unit, "page 2")
    unit.discard()
    finish(store, done(job, Failure("no page 3")))
    assert noted(store) == ["page 1"]
    bring_forward(store)
    assert take_one(store).checkpoint == 1


def test_the_session_goes_on_after_a_checkpoint(store: JobStore, job: Job) -> None:
    """In a new transaction, which the finish commits."""
    unit = store.checkpoints.unit_of_work(job)
    for number in range(3):
        note(store, unit, f"page {number}")
        job = store.checkpoints.save(job, number, unit)
    note(store, unit, "page 3")
    assert len(noted(store)) == 3
    assert store.checkpoints.finish(done(job), unit).state == "success"
    assert len(noted(store)) == 4


def test_results_that_cannot_be_stored_keep_the_checkpoint_back(store: JobStore, job: Job) -> None:
    """A flush that fails moves nothing on."""
    unit = store.checkpoints.unit_of_work(job)
    note(store, unit, "page 1")
    job = store.checkpoints.save(job, 1, unit)
    with pytest.raises(IntegrityError):
        note(store, unit, "page 1")
    unit.session.rollback()
    assert row(store, job.id)["checkpoint"] in (1, "1")


@pytest.mark.rows("E-05")
@pytest.mark.parametrize("with_session", [False, True])
def test_a_lost_claim_notes_nothing(store: JobStore, job: Job, with_session: bool) -> None:
    """The next worker's position is not written over, and what the late one wrote is dropped."""
    expire(store, job)
    store.rescues.run(["default"])
    again = take_one(store, suspects=True)
    store.checkpoints.save(again, "newer")
    unit = store.checkpoints.unit_of_work(job)
    if with_session:
        note(store, unit, "late")
    with pytest.raises(LostLease, match=f"job {job.id} belongs to another worker now"):
        store.checkpoints.save(job, "older", unit)
    assert noted(store) == []
    finish(store, done(again, Failure("later")))
    bring_forward(store)
    assert take_one(store, suspects=True).checkpoint == "newer"


def test_a_job_that_was_given_up_notes_nothing(store: JobStore, job: Job) -> None:
    """Its thread hung and comes back: the checkpoint of the next attempt stays."""
    unit = store.checkpoints.unit_of_work(job)
    unit.abandon()
    with pytest.raises(LostLease):
        store.checkpoints.save(job, 1, unit)
    assert row(store, job.id)["checkpoint"] is None


@pytest.mark.rows("E-72")
@pytest.mark.parametrize(
    ("value", "says"), [({1, 2}, "not JSON"), ("x" * 1024 * 1024, r"1,048,578 bytes; at most 1,048,576"), ("\ud800", "not JSON")]
)
def test_what_cannot_be_kept_is_refused(store: JobStore, job: Job, value: Any, says: str) -> None:
    """The one before stays, and so does what the session has."""
    unit = store.checkpoints.unit_of_work(job)
    store.checkpoints.save(job, 1)
    note(store, unit, "page 1")
    with pytest.raises(PayloadError, match=says):
        store.checkpoints.save(job, value, unit)
    assert store.checkpoints.finish(done(job), unit).state == "success"
    assert noted(store) == ["page 1"]


def test_what_is_changed_later_was_not_kept(store: JobStore, job: Job) -> None:
    """The job's own list goes on growing; its checkpoint does not."""
    value = [1]
    kept = store.checkpoints.save(job, value)
    value.append(2)
    assert kept.checkpoint == [1]


@pytest.mark.rows("DS-04")
def test_a_phase_ends_in_one_transaction(store: JobStore) -> None:
    """JsonRows, next phase and cleared checkpoint are there together; the claim goes on."""
    job = phased(store)
    unit = store.checkpoints.unit_of_work(job)
    job = store.checkpoints.save(job, "half", unit)
    note(store, unit, "fetched")
    following = store.checkpoints.advance(job, "save", unit, '[{"request": "GET /", "response": "200"}]')
    assert noted(store) == ["fetched"]
    assert (following.lane.phase, following.checkpoint, following.claim_no) == ("save", None, job.claim_no)
    assert (row(store, job.id)["phase"], row(store, job.id)["checkpoint"]) == ("save", None)
    assert row(store, job.id)["state"] == "processing"
    assert row(store, job.id)["attempts"] == 0
    assert store.renew([(job.id, job.claim_no)], lease=60) == {job.id}
    assert finish(store, done(following)) == ["success"]
    assert outcomes(store, job.id) == ["phase", "success"]
    tries = query(store, "SELECT phase, started_at, ended_at, exchanges FROM attempt ORDER BY id")
    assert [one["phase"] for one in tries] == ["fetch", "save"]
    assert "GET /" in str(tries[0]["exchanges"])
    assert str(tries[0]["started_at"]) < str(tries[0]["ended_at"]) <= str(tries[1]["started_at"])


@pytest.mark.rows("DS-04", "E-05")
def test_a_lost_claim_goes_no_further(store: JobStore) -> None:
    """A late worker moves no phase, writes no attempt and no row."""
    job = phased(store)
    expire(store, job)
    store.rescues.run(["default"])
    again = take_one(store, PHASED, suspects=True)
    unit = store.checkpoints.unit_of_work(job)
    note(store, unit, "late")
    with pytest.raises(LostLease):
        store.checkpoints.advance(job, "save", unit)
    with pytest.raises(LostLease):
        store.checkpoints.advance(job, "save")
    assert noted(store) == []
    assert row(store, job.id)["phase"] == "fetch"
    assert outcomes(store, job.id) == ["rescued"]
    assert store.checkpoints.advance(again, "save").lane.phase == "save"


@pytest.mark.rows("DS-04")
def test_put_back_for_its_next_phase_with_what_it_wrote(store: JobStore) -> None:
    """A worker that does not serve the next phase gives the job back, in the transaction of its session."""
    job = phased(store)
    unit = store.checkpoints.unit_of_work(job)
    note(store, unit, "fetched")
    assert store.checkpoints.finish(done(job, to_phase="save"), unit).state == "queued"
    assert noted(store) == ["fetched"]
    assert take_one(store, PHASED._replace(phase="save")).id == job.id


def test_put_back_while_a_twin_arrives(store: JobStore) -> None:
    """A queued twin of the same content is the newer information: the job gives way to it, and its writes stay."""
    job = phased(store)
    twin = phased(store)
    finish(store, done(twin, Failure("later")))
    unit = store.checkpoints.unit_of_work(job)
    note(store, unit, "fetched")
    assert store.checkpoints.finish(done(job, to_phase="save"), unit).state == "superseded"
    assert noted(store) == ["fetched"]


@pytest.mark.rows("DS-07")
def test_a_job_that_is_given_up_while_it_waits_notes_nothing(store: JobStore, job: Job) -> None:
    """Its checkpoint waited for another transaction; what it says after it was given up does not count."""
    unit = store.checkpoints.unit_of_work(job)
    raised: list[BaseException] = []

    def save() -> None:
        try:
            store.checkpoints.save(job, 1, unit)
        except LostLease as error:
            raised.append(error)

    thread = threading.Thread(target=save)
    with store.db.write() as connection:
        connection.execute(text("UPDATE job SET priority = priority"))
        thread.start()
        thread.join(0.3)
        assert thread.is_alive()
        unit.abandon()
    thread.join(60)
    assert "was given up" in str(raised[0])
    assert row(store, job.id)["checkpoint"] is None
