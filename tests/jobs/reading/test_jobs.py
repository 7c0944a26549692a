"""jobs.reading.jobs: orders, pages, times and payloads. On both databases."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from jobs import Failure, JobNotFound, JobStore
from jobs.admin.filters import Filter
from jobs.reading import jobs as module
from jobs.reading.jobs import SORTS, JobQuery, job_list
from tests.support.store_helpers import LANE, OTHER, change, content, done, enqueue, finish, reading, take


@pytest.fixture
def full(store: JobStore) -> JobStore:
    """Leave twelve jobs of two syncs: some fail, some succeed, some wait."""
    for lane in (LANE, OTHER):
        enqueue(store, range(6), lane)
        for job in take(store, 4, lane):
            finish(store, done(job, Failure("no", retry=False)) if job.key == "1" else done(job, content=content({})))
    change(store, "UPDATE job SET attempts = id % 3")
    return store


def listed(store: JobStore, **how: Any) -> list[dict[str, Any]]:
    """Return the jobs."""
    with reading(store) as reader:
        return job_list(reader, JobQuery(**how))


def test_it_finds_what_the_store_finds(full: JobStore) -> None:
    """By each column and by values in the payload, in the same order."""
    for how in ({}, {"type": LANE.type}, {"state": "failure"}, {"queue": "nix"}, {"key": "3"}, {"where": {"version": "null"}}):
        assert [one["id"] for one in listed(full, **how)] == [one.id for one in full.views.jobs(Filter(**how))], how
    (first,) = listed(full, limit=1, payload=True)
    view = full.views.jobs(limit=1)[0]
    assert {name: first[name] for name in ("id", "type", "key", "state", "created_at", "finished_at", "message")} == {
        name: getattr(view, name) for name in ("id", "type", "key", "state", "created_at", "finished_at", "message")
    }
    assert first["payload"] == full.views.job(first["id"]).payload
    assert "payload" not in listed(full, limit=1)[0]


@pytest.mark.parametrize("sort", SORTS)
@pytest.mark.parametrize("ascending", [False, True])
def test_pages_of_each_order(full: JobStore, sort: str, ascending: bool) -> None:
    """Page by page each job comes once, in the order of the whole."""
    change(full, "UPDATE job SET key = NULL WHERE id % 5 = 0")
    whole = listed(full, sort=sort, ascending=ascending)
    values = [(one[sort], one["id"]) for one in whole if one[sort] is not None]
    assert len(whole) == (8 if sort == "finished_at" else 12)
    assert values == sorted(values, reverse=not ascending)
    pages: list[dict[str, Any]] = []
    while page := listed(full, sort=sort, ascending=ascending, limit=5, after=pages[-1]["id"] if pages else None):
        pages += page
    assert pages == whole


@pytest.mark.parametrize("few", [1, 10_000])
def test_since(full: JobStore, few: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was queued or has finished since then, be it few or many: an old job that has failed today is there."""
    monkeypatch.setattr(module, "FEW", few)
    old = {"sqlite": "'2000-01-01 00:00:00.000000'", "postgresql": "'2000-01-01 00:00:00+00'"}[full.db.dialect]
    now = datetime.now(UTC)
    assert len(listed(full, since=now - timedelta(hours=1))) == 12
    assert listed(full, since=now + timedelta(hours=1)) == []
    change(full, f"UPDATE job SET created_at = {old} WHERE id <= 4")
    change(full, f"UPDATE job SET finished_at = {old} WHERE id IN (1, 2)")
    assert sorted(one["id"] for one in listed(full, since=now - timedelta(hours=1))) == [3, 4, *range(5, 13)]


def test_behind_a_job_that_is_gone(full: JobStore) -> None:
    """By ids it does not matter; by other columns nobody knows where that was."""
    assert [one["id"] for one in listed(full, after=3)] == [2, 1]
    assert listed(full, after=99_999, limit=1)[0]["id"] == 12
    with pytest.raises(JobNotFound, match="99999"):
        listed(full, sort="attempts", after=99_999)
