"""jobs.listing.etags on both databases: validators come and go with the content they stand for."""

from typing import Any

import pytest

from jobs import Failure, Gone, JobStore, Success, Unchanged
from jobs.job import StoredValidator
from tests.support.store_helpers import LANE, change, content, done, enqueue, finish, query, take

ETAG = StoredValidator("me", "GET", "https://api.example/a?x=1", '"1"', None)


def worked(store: JobStore, outcome: Any = None, validators: Any = (ETAG,), keys: str = "a", **options: Any) -> list[str]:
    """Queue entities and finish them."""
    enqueue(store, keys)
    return finish(store, *(done(job, outcome, content=content({}, "1"), validators=validators, **options) for job in take(store)))


def test_stored_with_the_success(store: JobStore) -> None:
    """A success stores them, under the client of the job."""
    assert worked(store) == ["success"]
    assert store.etags.of(LANE.type, ["a", "a", "b"]) == {"a": [ETAG]}
    assert store.etags.of("api.others", ["a"]) == {}
    (row,) = query(store, "SELECT client, sync, key, stored_at FROM validator")
    assert (row["client"], row["sync"], row["key"]) == (LANE.client, LANE.type, "a")


@pytest.mark.parametrize("outcome", [Success(), Unchanged()])
def test_a_later_success_replaces_them(store: JobStore, outcome: Any) -> None:
    """All of the entity's, and nobody else's."""
    worked(store, keys="ab", validators=[ETAG])
    worked(store, outcome, [ETAG._replace(url="https://api.example/other", etag=None, modified="then")])
    found = store.etags.of(LANE.type, ["a", "b"])
    assert [(one.url, one.etag, one.modified) for one in found["a"]] == [("https://api.example/other", None, "then")]


@pytest.mark.parametrize(("outcome", "validators", "left"), [
    (Success(), None, 1), (Success(), (), 0), (Unchanged(), None, 1), (Unchanged(), (), 0), (Gone(), (), 0),
    (Failure("no", retry=False), (), 1), (Failure("no", retry=False), [ETAG._replace(etag='"2"')], 1), (Failure("later"), (), 1),
])  # fmt: skip
def test_who_changes_them(store: JobStore, outcome: Any, validators: Any, left: int) -> None:
    """`None` leaves them, nothing else than a success touches them."""
    worked(store)
    worked(store, outcome, validators)
    rows = query(store, "SELECT etag FROM validator")
    assert rows == [{"etag": '"1"'}] * left


def test_a_lost_claim_stores_none(store: JobStore) -> None:
    """The finish of a stale worker writes nothing."""
    enqueue(store, "a")
    (job,) = take(store)
    change(store, "UPDATE job SET claim_no = claim_no + 1")
    assert finish(store, done(job, content=content({}), validators=[ETAG])) == ["lost"]
    assert query(store, "SELECT * FROM validator") == []


def test_a_late_answer_stores_none(store: JobStore) -> None:
    """A slow answer that a later job has overtaken keeps its validator to itself."""
    enqueue(store, "a")
    (slow,) = take(store)
    worked(store, validators=[ETAG._replace(etag='"2"')])
    assert finish(store, done(slow, content=content({"old": 1}), validators=[ETAG])) == ["superseded"]
    assert store.etags.of(LANE.type, ["a"])["a"][0].etag == '"2"'


@pytest.mark.parametrize("wound", ["deleted_at = synced_at", "synced_at = NULL", "changed_at = '2999-01-01 00:00:00.000000+00'"])
def test_offered_only_while_the_record_stands_by_it(store: JobStore, wound: str) -> None:
    """Deleted, never in sync, or changed since without one: nothing is offered."""
    worked(store)
    change(store, f"UPDATE record SET {wound}")
    assert store.etags.of(LANE.type, ["a"]) == {}


def test_one_url_for_two_entities(store: JobStore) -> None:
    """It belongs to the last one; two at once in one batch do no harm."""
    worked(store, keys="abc")
    rows = query(store, "SELECT url FROM validator")
    assert rows == [{"url": ETAG.url}]
    assert sum(len(one) for one in store.etags.of(LANE.type, "abc").values()) == 1


def test_many(store: JobStore) -> None:
    """A batch of any size, with keys and values that are no plain text."""
    enqueue(store, [f"k{n}" for n in range(300)])
    jobs = take(store, 300)
    finish(store, *(
        done(job, content=content({}), validators=[ETAG._replace(url=f"https://x/{job.key}/ü\u2603", etag=f'W/"{job.key}"')])
        for job in jobs
    ))  # fmt: skip
    found = store.etags.of(LANE.type, [job.key or "" for job in jobs])
    assert len(found) == 300
    assert found["k7"] == [StoredValidator("me", "GET", "https://x/k7/ü\u2603", 'W/"k7"', None)]
