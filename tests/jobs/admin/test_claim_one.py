"""`jobs.admin.claim_one`: taking one job by its id, or being told why not."""

import pytest
from sqlalchemy.exc import IntegrityError

from jobs import Failure, JobNotFound, JobStore, Queue, Rate
from jobs.admin.command_refusals import Refused
from jobs.enqueueing.duplicates import NewJob
from jobs.job import Job, Lane
from jobs.pauses.probe import Probe
from tests.support.store_helpers import change, done, end_probe, enqueue, finish, probe, row, run_out, take, take_one


def one(store: JobStore, job_id: int, *, force: bool = False, probe: Probe | None = None) -> Job | Refused:
    """Take one."""
    return store.single_jobs.claim(job_id, worker="elsewhere:1:1:1", lease=60, force=force, probe=probe)


def why(found: Job | Refused) -> str:
    """Return the reason of a refusal, which it must be."""
    assert isinstance(found, Refused)
    return found.reason


@pytest.mark.rows("AQ-53")
def test_the_very_job_is_taken(store: JobStore) -> None:
    """Whatever waits before it, and also when it is delayed; the claim is like any other."""
    enqueue(store, "abc")
    change(store, "UPDATE job SET available_at = '2999-01-01 00:00:00.000000+00' WHERE id = 2")
    job = one(store, 2)
    assert isinstance(job, Job)
    assert (job.id, job.key, job.claim_no, job.lane.type) == (2, "b", 1, "api.things")
    assert row(store, 2)["state"] == "processing"
    assert store.renew([(2, 1)], lease=60) == {2}
    assert [found.id for found in take(store)] == [1, 3]
    assert finish(store, done(job)) == ["success"]


@pytest.mark.rows("E-16")
def test_other_states_are_refused(store: JobStore) -> None:
    """With the reason, and nothing is written."""
    enqueue(store, "abc")
    first, second = take(store, 2)
    finish(store, done(first), done(second, Failure("no", retry=False)))
    third = take_one(store)
    before = [row(store, number) for number in (1, 2, 3)]
    assert why(one(store, 1)) == "only queued jobs can be processed, it is success"
    assert why(one(store, 2)) == "it has failed; `syncs retry` puts it back"
    assert why(one(store, third.id)) == "it is in processing by elsewhere:4711:1:1"
    assert why(one(store, third.id, force=True)) == "it is in processing by elsewhere:4711:1:1"
    assert [row(store, number) for number in (1, 2, 3)] == before
    with pytest.raises(JobNotFound, match="no job has the id 4711"):
        one(store, 4711)


def test_a_paused_client_is_left_alone(store: JobStore) -> None:
    """Unless a person insists; one whose pause is over, too, but for the job that is its probe."""
    enqueue(store, "abc")
    store.enqueue([NewJob(Lane("default", "b", "b.things"), {})])
    store.pauses.open("api", 3600, cause="person", reason="", set_by="me")
    assert "client api is paused" in why(one(store, 1))
    assert isinstance(one(store, 1, force=True), Job)
    run_out(store)
    store.pauses.open("b", 60, cause="person", reason="", set_by="me")
    assert "waits for its probe" in why(one(store, 2))
    of = probe(store)
    job = one(store, 2, probe=of)
    assert isinstance(job, Job)
    assert job.client_generation == of.generation == 1
    assert "client b is paused" in why(one(store, 4, probe=of))
    end_probe(store, of, None)
    assert "waits for its probe" in why(one(store, 3, probe=of))
    assert end_probe(store, probe(store), True)
    job = one(store, 3)
    assert isinstance(job, Job)
    assert job.client_generation == 2


@pytest.mark.parametrize(
    "queue", [Queue("default", concurrency=1), Queue("default", concurrency=9, rate=Rate(1, 3600))], ids=["slots", "rate"]
)
def test_limits_of_the_queue_hold(store: JobStore, queue: Queue) -> None:
    """It takes a place and counts as a start; where there is none left it is refused, unless a person insists."""
    enqueue(store, "abc")
    store.queues.register(queue, declared=True)
    assert isinstance(one(store, 1), Job)
    assert "its queue default may start nothing more just now" in why(one(store, 2))
    assert take(store) == []
    assert isinstance(one(store, 2, force=True), Job)


@pytest.mark.rows("M11")
def test_serial_keys_hold(store: JobStore) -> None:
    """Never two in processing, whoever insists; and in their order, unless somebody does."""
    enqueue(store, "abc")
    change(store, "UPDATE job SET serial_key = 'k'")
    assert why(one(store, 2)) == "an earlier job of its serial key waits; --force processes this one first"
    job = one(store, 2, force=True)
    assert isinstance(job, Job)
    assert "they run one at a time" in why(one(store, 1))
    assert "they run one at a time" in why(one(store, 3, force=True))
    finish(store, done(job))
    assert isinstance(one(store, 1), Job)
    with pytest.raises(IntegrityError):
        change(store, "UPDATE job SET state = 'processing' WHERE id = 3")
