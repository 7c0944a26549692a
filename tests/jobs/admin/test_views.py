"""jobs.admin.views: what people ask of the tables."""

from collections import Counter
from typing import Any

import pytest

from jobs import Failure, JobNotFound, JobStore, Snooze
from jobs.admin.filters import Filter
from jobs.admin.views import LaneView
from jobs.job import Lane
from tests.support.store_helpers import (
    LANE,
    OTHER,
    change,
    done,
    enqueue,
    finish,
    query,
    take,
    take_one,
)

STRANGER = Lane("second", "other-api", "other.things")


@pytest.fixture
def full(store: JobStore) -> JobStore:
    """Fill a store with jobs in every state of work."""
    enqueue(store, range(10))
    jobs = take(store, 7)
    finish(store, done(jobs[0]), done(jobs[1]), done(jobs[2], Failure("no", retry=False)), done(jobs[3], Snooze(60)))
    enqueue(store, ["x"], STRANGER)
    enqueue(store, ["y", "z"], OTHER)
    return store


def test_a_lane_is_counted(full: JobStore) -> None:
    """What is due, what waits, and what is in hand."""
    assert full.views.lane(LANE) == LaneView(due=3, delayed=1, processing=3)
    assert full.views.lane(OTHER) == LaneView(due=2, delayed=0, processing=0)
    assert full.views.lane(Lane("default", "api", "api.nothing")) == LaneView(0, 0, 0)


@pytest.mark.rows("E-58")
def test_queues_are_counted(full: JobStore) -> None:
    """The counts in the view are the counts in the table (I10)."""
    default, second = full.views.queues()
    assert (default.queue, default.clients, second.queue, second.clients) == ("default", ["api"], "second", ["other-api"])
    assert (default.queued, default.delayed, default.processing, default.success, default.failure) == (5, 1, 3, 2, 1)
    assert (second.queued, second.processing) == (1, 0)
    counted = Counter(
        {found["state"]: found["n"] for found in query(full, "SELECT state, count(*) AS n FROM job GROUP BY state")}
    )
    views = full.views.queues()
    assert counted["queued"] == sum(view.queued + view.delayed for view in views)
    assert counted["processing"] == sum(view.processing for view in views)
    assert counted["success"] == sum(view.success for view in views)
    assert counted["failure"] == sum(view.failure for view in views)


def test_queues_know_their_age_and_pauses(full: JobStore) -> None:
    """The oldest due job's age, and when the last pause of its clients ends."""
    change(full, "UPDATE job SET available_at = '2020-01-01 00:00:00.000000+00' WHERE key = '9'")
    pausing = full.pauses.open("api", 60, cause="asked", reason="", set_by="w")
    default, second = full.views.queues()
    assert default.oldest_seconds is not None
    assert default.oldest_seconds > 10**8
    assert (default.paused, default.paused_until) == (True, pausing.until)
    assert (second.paused, second.paused_until) == (False, None)
    full.pauses.open("api", None, cause="person", reason="", set_by="w")
    assert (full.views.queues()[0].paused, full.views.queues()[0].paused_until) == (True, None)


@pytest.mark.rows("E-35")
@pytest.mark.parametrize(
    ("filters", "n"),
    [({}, 13), ({"queue": "second"}, 1), ({"client": "api"}, 12), ({"type": OTHER.type}, 2), ({"state": "success"}, 2),
     ({"state": "queued", "type": LANE.type}, 4), ({"limit": 5}, 5), ({"queue": "none"}, 0)],
    ids=str,
)  # fmt: skip
def test_jobs_are_filtered(full: JobStore, filters: dict[str, Any], n: int) -> None:
    """Filters narrow, the newest comes first."""
    limit = filters.get("limit", 50)
    found = full.views.jobs(Filter(**{name: value for name, value in filters.items() if name != "limit"}), limit=limit)
    assert len(found) == n
    assert [job.id for job in found] == sorted((job.id for job in found), reverse=True)


def test_a_job_is_told_whole(full: JobStore) -> None:
    """One job with its attempts; an unknown id is an error that says so."""
    job = take_one(full, STRANGER)
    detail = full.views.job(job.id)
    assert (detail.job.key, detail.job.state, detail.payload, detail.attempts) == (
        "x",
        "processing",
        {"version": None, "data": None},
        [],
    )
    with pytest.raises(JobNotFound, match="4711"):
        full.views.job(4711)


def test_an_empty_store_has_no_queues(store: JobStore) -> None:
    """Nothing is nothing."""
    assert (store.views.queues(), store.views.jobs(), store.pauses.in_force()) == ([], [], [])
