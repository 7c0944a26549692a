"""jobs.admin.forget: what a name has left goes, in bounded transactions, and nothing of another name. On both databases."""

from __future__ import annotations

import pytest

from jobs import Failure, JobStore, Queue
from jobs.admin import forget as module
from jobs.admin.forget import Kept
from jobs.listing.runs import COUNTS
from tests.support.store_helpers import ELSEWHERE, LANE, OTHER, content, done, enqueue, finish, query, take

LEFT = "SELECT (SELECT count(*) FROM job) AS jobs, (SELECT count(*) FROM record) AS records, (SELECT count(*) FROM run) AS runs"


@pytest.fixture
def full(store: JobStore, monkeypatch: pytest.MonkeyPatch) -> JobStore:
    """Leave seven records, eight jobs and three runs of one sync, and as many of another."""
    monkeypatch.setattr(module, "BATCH", 3)
    store.queues.register(Queue("default"), declared=True)
    for lane in (LANE, OTHER):
        enqueue(store, range(8), lane)
        for job in take(store, 100, lane):
            finish(store, done(job, Failure("no", retry=False)) if job.key == "7" else done(job, content=content({})))
        for _ in range(3):
            run = store.runs.begin(lane.type, lane.client, lane.queue, worker=ELSEWHERE, started_by="hand")
            store.runs.end(run, {"state": "success", "stopped": "end", "message": "", **dict.fromkeys(COUNTS, 0)})
    return store


def test_all_of_a_name_goes(full: JobStore) -> None:
    """Counted before, gone afterwards; the other sync has all of its own; a name that has nothing is nothing."""
    before = full.forgetting.kept(LANE.type, is_queue=False)
    assert (before.records, before.jobs, before.runs, before.others) == (7, 8, 3, 2)
    assert str(before) == "7 records, 8 jobs, 3 runs, 2 other rows"
    assert full.forgetting.forget(LANE.type, is_queue=False)
    assert full.forgetting.kept(LANE.type, is_queue=False) == Kept()
    assert query(full, LEFT) == [{"jobs": 8, "records": 7, "runs": 3}]
    assert query(full, "SELECT count(*) AS n FROM attempt") == [{"n": 8}]
    assert query(full, "SELECT sync FROM listing") == [{"sync": OTHER.type}]


def test_a_queue_goes_with_its_jobs(full: JobStore) -> None:
    """Its row and its jobs; the records of the entities stay."""
    assert full.forgetting.types_in("default") == [OTHER.type, LANE.type]
    assert full.forgetting.forget("default", is_queue=True)
    assert query(full, LEFT) == [{"jobs": 0, "records": 14, "runs": 6}]
    assert full.views.queues() == []


def test_what_a_worker_has_stays(full: JobStore) -> None:
    """Its job is not deleted; the answer says so, and the same again goes on."""
    enqueue(full, ["busy"])
    (job,) = take(full)
    assert not full.forgetting.forget(LANE.type, is_queue=False)
    assert full.forgetting.kept(LANE.type, is_queue=False).jobs == 1
    finish(full, done(job))
    assert full.forgetting.forget(LANE.type, is_queue=False)


def test_it_stops_when_asked(full: JobStore) -> None:
    """After the transaction that runs; the rest is still found."""
    asked = iter([False, True])
    assert not full.forgetting.forget(LANE.type, is_queue=False, stop=lambda: next(asked))
    assert full.forgetting.kept(LANE.type, is_queue=False).jobs == 5
    assert full.forgetting.forget(LANE.type, is_queue=False)
