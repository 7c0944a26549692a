"""jobs.reading.records: pages by key, filters, and the entities that fail now. On both databases."""

from __future__ import annotations

from typing import Any

import pytest

from jobs import Failure, FilterError, Gone, JobStore
from jobs.reading import records as module
from jobs.reading.records import RecordFilter, all_records, find_record
from tests.support.store_helpers import LANE, content, done, enqueue, finish, reading, take

FAILS = Failure("no such thing", retry=False)


@pytest.fixture
def full(store: JobStore) -> JobStore:
    """Store ten records, of which one is deleted, one fails now, and fail one entity that was never stored, twice."""
    enqueue(store, [f"k{n}" for n in range(10)])
    finish(
        store, *(done(job, content=content({"n": int(job.key[1:]), "kind": "a:b", "tags": ["x"]}, "v1")) for job in take(store))
    )
    for outcomes in ({"k3": Gone(), "k5": FAILS, "new": FAILS}, {"new": FAILS}):
        enqueue(store, outcomes, full=True)
        finish(store, *(done(job, outcomes[job.key]) for job in take(store)))
    return store


def keys(store: JobStore, *, limit: int | None = None, **how: Any) -> list[str]:
    """Return the keys of the records that are found."""
    with reading(store) as reader:
        return [one.key for page in all_records(reader, RecordFilter(LANE.type, **how), limit=limit) for one in page]


def test_pages_in_the_order_of_keys(full: JobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """However large a page is, each record comes once; deleted ones only if asked for."""
    wanted = [f"k{n}" for n in range(10) if n != 3]
    for size in (1, 3, 9, 100):
        monkeypatch.setattr(module, "PAGE", size)
        assert keys(full) == wanted
        assert keys(full, limit=4) == wanted[:4]
        assert keys(full, failing=True) == ["k5", "new"]
    assert keys(full, deleted=True) == [f"k{n}" for n in range(10)]


def test_values_in_the_data(full: JobStore) -> None:
    """As `--where` of jobs: numbers however they are written, lists by index, and a colon or percent sign is one."""
    assert keys(full, where={"n": "4.0"}) == ["k4"]
    assert keys(full, where={"kind": "a:b", "tags.0": "x", "n": "7"}) == ["k7"]
    assert keys(full, where={"kind": "%"}) == []
    assert keys(full, where={"n": "5"}, failing=True) == ["k5"]
    with pytest.raises(FilterError, match="no path"):
        keys(full, where={"a..b": "1"})


def test_one_entity(full: JobStore) -> None:
    """Stored, deleted, or never stored; `None` of one that nobody knows."""
    with reading(full) as reader:
        stored, gone, never = (find_record(reader, LANE.type, key) for key in ("k5", "k3", "new"))
        assert find_record(reader, LANE.type, "nix") is None
    assert stored is not None
    assert (stored.data, stored.version, stored.last_error) == ({"n": 5, "kind": "a:b", "tags": ["x"]}, "v1", "no such thing")
    assert gone is not None
    assert gone.deleted_at is not None
    assert never is not None
    assert (never.data, never.synced_at, never.last_error) == (None, None, "no such thing")
    assert never.last_error_at is not None
