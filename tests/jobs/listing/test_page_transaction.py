"""jobs.listing.progress on both databases: the run's lock, the page transaction, the cursor."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.exc import DBAPIError

from jobs import Failure, JobStore, LostLease, PayloadError
from jobs.listing.listing_claim import ListingBusy, ListingClaim
from jobs.listing.page_plan import Item, KnownRecord, is_unchanged
from jobs.process_identity import this_worker
from tests.support.store_helpers import (
    ELSEWHERE,
    LANE,
    ManualClock,
    begin,
    change,
    content,
    done,
    enqueue,
    finish,
    query,
    record,
    run_python,
    run_script,
    states,
    take,
    take_one,
)

TEXT = st.text(st.characters(codec="utf-8"))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=8,
)


@pytest.mark.parametrize(
    ("version", "item_hash", "known", "expected"),
    [
        ("1", None, None, False),
        (None, "h", None, False),
        ("1", None, KnownRecord("1", "h", 4, in_sync=True), True),
        ("2", None, KnownRecord("1", "h", 4, in_sync=True), False),
        ("1", None, KnownRecord(None, "h", 4, in_sync=True), False),
        ("1", None, KnownRecord("1", "h", 5, in_sync=False), False),
        ("1", "other", KnownRecord("1", "h", 4, in_sync=True), True),
        (None, "h", KnownRecord("1", "h", 4, in_sync=True), True),
        (None, "other", KnownRecord("1", "h", 5, in_sync=True), False),
        (None, "h", KnownRecord(None, None, 4, in_sync=True), False),
        (None, None, KnownRecord(None, "h", 4, in_sync=True), False),
        (None, None, KnownRecord(None, "h", 5, in_sync=True), True),
        (None, None, KnownRecord(None, "h", 5, in_sync=False), False),
    ],
)
def test_what_needs_no_job(version: str | None, item_hash: str | None, known: KnownRecord | None, expected: bool) -> None:
    """The version decides; without one the hash of the item; without both only what this generation has seen already."""
    assert is_unchanged(Item("k", version), known, generation=5, item_hash=item_hash) == expected


def test_a_page_queues_its_entities(store: JobStore) -> None:
    """New entities are queued in the order of the page, and the listing moves with them."""
    claim = begin(store)
    page = [Item("b", "1", {"z": 1, "a": 2**70}), Item("a"), Item("ä/€ 𝄞")]
    result = store.pages.enqueue(claim, LANE, page, cursor={"page": 2}, priority=3)
    assert (result.listed, result.queued, result.unchanged) == (3, 3, 0)
    jobs = take(store)
    assert [job.key for job in jobs] == ["b", "a", "ä/€ 𝄞"]
    assert jobs[0].payload == {"version": "1", "data": {"z": 1, "a": 2**70}}
    assert list(jobs[0].payload["data"]) == ["z", "a"]
    assert {job.generation for job in jobs} == {1}
    (found,) = query(store, "SELECT pages, listed, state FROM listing")
    assert found == {"pages": 1, "listed": 3, "state": "listing"}
    assert store.views.job(jobs[0].id).priority == 3


def test_an_empty_page_moves_the_cursor(store: JobStore) -> None:
    """A page without entities is a page."""
    claim = begin(store)
    assert store.pages.enqueue(claim, LANE, [], cursor=2).listed == 0
    assert query(store, "SELECT pages, listed FROM listing") == [{"pages": 1, "listed": 0}]


_BREAK_SQLITE = """CREATE TRIGGER broken BEFORE UPDATE OF cursor ON listing WHEN NEW.pages > OLD.pages
BEGIN SELECT RAISE(ABORT, 'power cut'); END"""
_BREAK_POSTGRESQL = """CREATE FUNCTION broken() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN IF NEW.pages > OLD.pages THEN RAISE 'power cut'; END IF; RETURN NEW; END $$
----
CREATE TRIGGER broken BEFORE UPDATE ON listing FOR EACH ROW EXECUTE FUNCTION broken()"""


@pytest.mark.rows("E-95")
def test_a_page_is_one_transaction(store: JobStore, dialect: str) -> None:
    """An error in the page's last statement leaves nothing of the page: no job, no generation, no cursor (law 2)."""
    enqueue(store, [Item("old", "1")])
    finish(store, done(take_one(store), content=content({}, "1")))
    claim = begin(store)
    before = (query(store, "SELECT * FROM record"), query(store, "SELECT * FROM listing"), states(store))
    run_script(store, _BREAK_SQLITE if dialect == "sqlite" else _BREAK_POSTGRESQL)
    with pytest.raises(DBAPIError, match="power cut"):
        store.pages.enqueue(claim, LANE, [Item("old", "1"), Item("new", "1")], cursor=2)
    assert before == (query(store, "SELECT * FROM record"), query(store, "SELECT * FROM listing"), states(store))
    change(store, "DROP TRIGGER broken" + (" ON listing" if dialect == "postgresql" else ""))
    assert store.pages.enqueue(claim, LANE, [Item("old", "1"), Item("new", "1")], cursor=2).queued == 1


def test_of_two_with_one_key_the_last_counts(store: JobStore) -> None:
    """A page that lists an entity twice queues it once."""
    claim = begin(store)
    result = store.pages.enqueue(claim, LANE, [Item("a", "1"), Item("b", "1"), Item("a", "2")], cursor=None)
    assert (result.listed, result.queued) == (2, 2)
    assert {job.key: job.payload["version"] for job in take(store)} == {"a": "2", "b": "1"}


def test_a_queued_twin_is_replaced_in_place(store: JobStore) -> None:
    """The newer listing's word, the older place."""
    enqueue(store, [Item("a", "1", {"n": 1}), Item("b")])
    enqueue(store, [Item("c"), Item("a", "2", {"n": 2})])
    jobs = take(store)
    assert [job.key for job in jobs] == ["a", "b", "c"]
    assert jobs[0].payload == {"version": "2", "data": {"n": 2}}
    assert (jobs[0].generation, jobs[1].generation) == (2, 1)


def test_a_twin_in_processing_gets_exactly_one_follow_up(store: JobStore) -> None:
    """News about an entity that is being worked is kept, once (law 11)."""
    enqueue(store, [Item("a", "1")])
    first = take_one(store)
    for version in ("2", "3", "4"):
        enqueue(store, [Item("a", version)])
    assert states(store) == {"processing": 1, "queued": 1}
    second = take_one(store)
    assert second.payload["version"] == "4"
    enqueue(store, [Item("a", "5")])
    assert states(store) == {"processing": 2, "queued": 1}
    assert finish(store, done(first), done(second), done(take_one(store))) == ["success"] * 3


def test_an_entity_whose_version_is_known_needs_no_job(store: JobStore) -> None:
    """Unchanged entities are seen by the generation and confirmed, nothing else."""
    enqueue(store, [Item("a", "1"), Item("b", "1")])
    finish(store, *(done(job, content=content({"k": job.key}, "1")) for job in take(store)))
    before = record(store, "a")
    result = enqueue(store, [Item("a", "1"), Item("b", "2")])
    assert (result.listed, result.queued, result.unchanged) == (2, 1, 1)
    after = record(store, "a")
    assert before is not None
    assert after is not None
    assert after["synced_at"] > before["synced_at"]
    assert after["changed_at"] == before["changed_at"]
    assert (before["generation"], after["generation"]) == (1, 2)
    assert [job.key for job in take(store)] == ["b"]


def test_an_item_that_is_the_record_is_compared_by_hash(store: JobStore) -> None:
    """Where the listing brings the record itself, equal content needs no job."""
    enqueue(store, [Item("a", data={"x": 1, "y": 2})], item_is_record=True)
    finish(store, done(take_one(store), content=content({"x": 1, "y": 2})))
    assert enqueue(store, [Item("a", data={"y": 2, "x": 1})], item_is_record=True).unchanged == 1
    assert enqueue(store, [Item("a", data={"y": 3, "x": 1})], item_is_record=True).queued == 1


def test_a_full_run_asks_for_every_entity(store: JobStore) -> None:
    """`full` queues what is unchanged, too."""
    enqueue(store, [Item("a", "1")])
    finish(store, done(take_one(store), content=content({}, "1")))
    assert enqueue(store, [Item("a", "1")], full=True).queued == 1


def test_a_deleted_or_failed_entity_is_asked_for_again(store: JobStore) -> None:
    """What is not in sync needs a job whatever its version."""
    enqueue(store, [Item("a", "1"), Item("b", "1")])
    finish(store, *(done(job, content=content({}, "1")) for job in take(store)))
    change(store, "UPDATE record SET deleted_at = synced_at WHERE key = 'a'")
    enqueue(store, [Item("b", "2")])
    finish(store, done(take_one(store), Failure("no", retry=False)))
    assert enqueue(store, [Item("a", "1"), Item("b", "2")]).queued == 2


@pytest.mark.parametrize("key", ["a\0b", "\0", "a\ud800"], ids=["nul", "only nul", "half a pair"])
def test_a_key_that_no_database_holds_keeps_its_own_job(store: JobStore, key: str) -> None:
    """Such a key is written with U+FFFD; it neither fails the page nor runs into another entity."""
    assert enqueue(store, [Item("a", data=1), Item(key, data=2), Item("", data=3)]).queued == 3
    jobs = take(store)
    assert [job.payload["data"] for job in jobs] == [1, 2, 3]
    assert len({job.key for job in jobs}) == 3


@pytest.mark.parametrize("data", [object(), {"a": {1}}, "\ud800"], ids=["object", "set", "half a pair"])
def test_an_item_that_is_not_json_is_refused(store: JobStore, data: Any) -> None:
    """A page that cannot be stored is an error of its own, and nothing is written."""
    claim = begin(store)
    with pytest.raises(PayloadError):
        store.pages.enqueue(claim, LANE, [Item("a"), Item("b", data=data)], cursor=2)
    assert states(store) == {}
    assert query(store, "SELECT pages FROM listing") == [{"pages": 0}]


@pytest.mark.parametrize(
    "cursor", [1, "x", {"b": [1, None, "ä\0"], "a": 1.5}, [], 0, False, "", 2**62, {"page": 2**63}, "null", "\u2028"], ids=repr
)
def test_cursors_come_back_as_they_went(store: JobStore, cursor: Any) -> None:
    """A resumed listing begins exactly where the last page left it."""
    claim = begin(store)
    assert (claim.cursor, claim.resumed) == (None, False)
    store.pages.enqueue(claim, LANE, [Item("a")], cursor=cursor)
    store.listings.release(claim)
    again = begin(store)
    assert (again.cursor, again.resumed) == (cursor, True)
    assert type(again.cursor) is type(cursor)
    assert (again.generation, again.pages, again.listed, again.claim_no) == (1, 1, 1, 2)


@given(st.lists(JSON, min_size=1, max_size=20))
def test_payloads_come_back_as_they_went(values: list[Any]) -> None:
    """Encoding and decoding are each other's inverse, for any JSON."""
    from jobs.db.json_codec import decode, encode

    for value in values:
        assert decode(encode(value)) == value


def test_a_complete_listing_begins_the_next_generation(store: JobStore) -> None:
    """A complete pass has its number; the next one starts at the first page."""
    claim = begin(store)
    store.pages.enqueue(claim, LANE, [Item("a")], cursor=9)
    store.listings.complete(claim)
    store.listings.release(claim)
    again = begin(store)
    assert (again.generation, again.cursor, again.resumed, again.pages, again.listed) == (2, None, False, 0, 0)


def test_the_last_page_completes_in_its_own_transaction(store: JobStore) -> None:
    """With `last` there is no moment between the last page and the complete listing."""
    claim = begin(store)
    store.pages.enqueue(claim, LANE, [Item("a")], cursor=2)
    store.pages.enqueue(claim, LANE, [Item("b")], cursor=None, last=True)
    store.listings.release(claim)
    assert query(store, "SELECT state, pages FROM listing") == [{"state": "complete", "pages": 2}]
    assert begin(store).generation == 2


def test_an_abandoned_listing_is_not_resumed(store: JobStore) -> None:
    """Given up, it begins anew in the next generation."""
    claim = begin(store)
    store.pages.enqueue(claim, LANE, [Item("a")], cursor=2)
    store.listings.abandon(claim)
    store.listings.release(claim)
    again = begin(store)
    assert (again.generation, again.cursor, again.resumed) == (2, None, False)
    with pytest.raises(LostLease):
        store.listings.abandon(claim)


def test_a_second_run_is_told_that_one_is_running(store: JobStore) -> None:
    """The right to run belongs to one process, even twice within one."""
    for worker in (ELSEWHERE, this_worker()):
        claim = begin(store, worker=worker)
        busy = store.listings.claim(LANE.type, "api", worker="elsewhere:9:9:9", lease=60)
        assert isinstance(busy, ListingBusy)
        assert busy.worker == worker
        assert busy.since.tzinfo is not None
        store.listings.release(claim)


def test_the_right_of_a_dead_process_is_taken_at_once(store: JobStore) -> None:
    """On this host nobody waits for the lease of a process that is gone."""
    gone = run_python("from jobs.process_identity import this_worker; print(this_worker())").stdout.strip()
    old = begin(store, worker=gone)
    store.pages.enqueue(old, LANE, [Item("a")], cursor=2)
    claim = begin(store)
    assert (claim.resumed, claim.cursor) == (True, 2)


def test_another_hosts_lease_is_respected_until_it_ends(store: JobStore) -> None:
    """What happens there cannot be known; the lease decides."""
    old = begin(store, worker="far-away:1:1:1")
    assert isinstance(store.listings.claim(LANE.type, "api", worker=ELSEWHERE, lease=60), ListingBusy)
    change(store, "UPDATE listing SET lease_until = '2000-01-01 00:00:00.000000+00'")
    claim = begin(store)
    assert claim.claim_no == old.claim_no + 1
    with pytest.raises(LostLease):
        store.pages.enqueue(old, LANE, [Item("stale")], cursor=7)
    with pytest.raises(LostLease):
        store.listings.complete(old)
    assert not store.listings.renew(old, lease=60)
    store.listings.release(old)
    assert states(store) == {}
    assert store.listings.renew(claim, lease=60)
    assert isinstance(store.listings.claim(LANE.type, "api", worker="far-away:1:1:1", lease=60), ListingBusy)


def test_a_renewed_right_lasts(tmp_path: Any) -> None:
    """Renewal moves the end of the lease; without it the right ends by the clock."""
    clock = ManualClock()
    store = JobStore.open(f"sqlite:///{tmp_path}/a.db", clock=clock)
    claim = begin(store)
    clock.forward(50)
    assert store.listings.renew(claim, lease=60)
    clock.forward(50)
    assert isinstance(store.listings.claim(LANE.type, "api", worker=ELSEWHERE, lease=60), ListingBusy)
    clock.forward(11)
    assert isinstance(store.listings.claim(LANE.type, "api", worker=ELSEWHERE, lease=60), ListingClaim)
    store.close()


def test_a_page_after_the_end_is_refused(store: JobStore) -> None:
    """A complete listing takes no further page."""
    claim = begin(store)
    store.listings.complete(claim)
    with pytest.raises(LostLease):
        store.pages.enqueue(claim, LANE, [Item("a")], cursor=1)


def test_a_preview_writes_nothing(store: JobStore) -> None:
    """It counts what a page would come to."""
    enqueue(store, [Item("a", "1")])
    finish(store, done(take_one(store), content=content({}, "1")))
    before = [query(store, f"SELECT * FROM {table}") for table in ("job", "record", "listing")]
    found = store.pages.preview(LANE.type, [Item("a", "1"), Item("b", "1"), Item("b", "2")])
    assert (found.listed, found.queued, found.unchanged) == (2, 1, 1)
    assert before == [query(store, f"SELECT * FROM {table}") for table in ("job", "record", "listing")]
