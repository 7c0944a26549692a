"""An older version never overwrites a newer one (DS-10), whatever the order in which jobs of one entity end."""

import pytest

from jobs import Failure, Gone, JobStore
from jobs.admin.filters import Filter
from jobs.job import Job, JobResult
from jobs.listing.page_plan import Item
from tests.support.store_helpers import (
    AT_ONCE,
    LANE,
    change,
    content,
    done,
    enqueue,
    finish,
    query,
    record,
    states,
    take,
    take_one,
)

pytestmark = pytest.mark.rows("DS-10")


def listed(store: JobStore, version: str) -> None:
    """Let a listing show the entity in this version."""
    enqueue(store, [Item("a", version, {"version": version})])


def saved(job: Job) -> JobResult:
    """Say that what the job's listing showed was saved."""
    version = job.payload["version"]
    return done(job, content=content({"version": version}, version), retry=AT_ONCE)


def version(store: JobStore) -> str | None:
    """Return the version of the record."""
    found = record(store, "a")
    return None if found is None else found["version"]


def test_a_slow_fetch_behind_a_newer_job(store: JobStore) -> None:
    """Job 1 is slow; job 2 of a later listing ends first; job 1 is dropped."""
    listed(store, "1")
    slow = take_one(store)
    listed(store, "2")
    assert finish(store, saved(take_one(store))) == ["success"]
    assert finish(store, saved(slow)) == ["superseded"]
    assert version(store) == "2"


def test_a_retry_that_takes_in_a_later_listing(store: JobStore) -> None:
    """Job 1 waits for its retry when job 2 is done; a third listing's word goes to job 1, which is newer than job 2 then."""
    listed(store, "1")
    slow = take_one(store)
    listed(store, "2")
    second = take_one(store)
    assert finish(store, done(slow, Failure("try again"), retry=AT_ONCE)) == ["queued"]
    assert finish(store, saved(second)) == ["success"]
    listed(store, "3")
    (job,) = take(store)
    assert (job.id, job.payload["version"]) == (slow.id, "3")
    assert finish(store, saved(job)) == ["success"]
    assert version(store) == "3"


def test_the_same_while_the_second_is_still_at_work(store: JobStore) -> None:
    """The third listing comes before job 2 ends: what job 2 brings later does not come over job 1."""
    listed(store, "1")
    slow = take_one(store)
    listed(store, "2")
    second = take_one(store)
    finish(store, done(slow, Failure("try again"), retry=AT_ONCE))
    listed(store, "3")
    assert finish(store, saved(take_one(store))) == ["success"]
    assert finish(store, saved(second)) == ["superseded"]
    assert version(store) == "3"


def test_a_job_that_a_person_retries(store: JobStore) -> None:
    """It failed, a later one succeeded: what it says is old news."""
    listed(store, "1")
    finish(store, done(take_one(store), Failure("no", retry=False)))
    listed(store, "2")
    finish(store, saved(take_one(store)))
    store.commands.retry(Filter(state="failure"))
    assert finish(store, saved(take_one(store))) == ["superseded"]
    assert version(store) == "2"


def test_gone_before_an_older_success(store: JobStore) -> None:
    """An entity that a later job found gone is not brought back by an older answer."""
    listed(store, "0")
    finish(store, saved(take_one(store)))
    listed(store, "1")
    slow = take_one(store)
    listed(store, "2")
    finish(store, done(take_one(store), Gone()))
    assert finish(store, saved(slow)) == ["superseded"]
    found = record(store, "a")
    assert found is not None
    assert found["deleted_at"] is not None


def test_an_old_failure_does_not_blame_a_newer_success(store: JobStore) -> None:
    """The ledger of an entity that is in sync names no error of a job before."""
    listed(store, "0")
    finish(store, saved(take_one(store)))
    listed(store, "1")
    slow = take_one(store)
    listed(store, "2")
    finish(store, saved(take_one(store)))
    assert finish(store, done(slow, Failure("no", retry=False))) == ["failure"]
    assert query(store, "SELECT last_error FROM record") == [{"last_error": None}]


def test_two_jobs_of_one_listing(store: JobStore) -> None:
    """An entity that a listing shows twice: of its two jobs the later one counts."""
    from tests.support.store_helpers import begin

    claim = begin(store)
    store.pages.enqueue(claim, LANE, [Item("a", "1")], cursor=1)
    slow = take_one(store)
    store.pages.enqueue(claim, LANE, [Item("a", "2")], cursor=2)
    assert finish(store, saved(take_one(store))) == ["success"]
    assert finish(store, saved(slow)) == ["superseded"]
    assert version(store) == "2"


@pytest.mark.parametrize("runner", ["queued", "processing"])
def test_an_item_that_turns_back(store: JobStore, runner: str) -> None:
    """The item is the record, changes, and is as before while its job is not done: it needs a job, or the change would stay."""
    options = {"item_is_record": True}
    enqueue(store, [Item("a", None, {"n": 1})], **options)
    finish(store, done(take_one(store), content=content({"n": 1})))
    enqueue(store, [Item("a", None, {"n": 2})], **options)
    slow = take_one(store) if runner == "processing" else None
    assert enqueue(store, [Item("a", None, {"n": 1})], **options).queued == 1
    if slow is not None:
        finish(store, done(slow, content=content({"n": 2})))
    for job in take(store):
        finish(store, done(job, content=content(job.payload["data"])))
    assert "1" in str(query(store, "SELECT data FROM record")[0]["data"])
    assert enqueue(store, [Item("a", None, {"n": 1})], **options).unchanged == 1
    assert "queued" not in states(store)


def test_a_record_from_before_the_upgrade(store: JobStore) -> None:
    """One that says nothing of its listing is older than whatever comes."""
    listed(store, "1")
    finish(store, saved(take_one(store)))
    change(store, "UPDATE record SET job_generation = 0, job_id = 999")
    listed(store, "2")
    assert finish(store, saved(take_one(store))) == ["success"]
