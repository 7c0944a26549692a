"""Incremental listings: what is asked for, when the mark moves, and that nothing is lost over its edge."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clients import Cursor, Entity, HttpClient, Listing, LoopError, Page, ServerError
from flows import Client, DeclarationError, Since, Sync
from flows.sync import run as engine
from flows.sync.watermark import Watermark
from jobs import JobStore
from jobs.job import Lane
from jobs.listing.listing_claim import ListingClaim
from jobs.listing.page_plan import Item
from jobs.process_identity import this_worker
from tests.support.fake_rows_api import CLIENT, SYNC, Rows
from tests.support.fake_things_api import change, query, states

LANE = Lane("shop", "shop", SYNC)


_RECORD = (
    "INSERT INTO record (sync, key, first_seen_at, is_poison, job_generation, job_id) "
    f"VALUES ('{SYNC}', :key, '2024-01-01 00:00:00.000000+00', :poison, 1, :job)"
)


def row(number: int, day: int, **more: Any) -> dict[str, Any]:
    """Return a row that changed on that day of 2024's January."""
    return {"id": f"k{number}", "at": f"2024-01-{day:02}T00:00:00Z", "v": str(day), **more}


def filled(n: int = 5) -> Rows:
    """Return a remote whose row k1 changed on the first of January, and so on."""
    return Rows([row(number, number) for number in range(1, n + 1)])


def mark(store: JobStore) -> Any:
    """Return the value of the mark."""
    (found,) = query(store, "SELECT mark FROM listing")
    stored = found["mark"]
    if isinstance(stored, str):
        import json

        stored = json.loads(stored)
    return None if stored is None else stored["value"]


def keys(store: JobStore) -> set[str]:
    """Return what is in sync."""
    return {one["key"] for one in query(store, "SELECT key FROM record WHERE synced_at IS NOT NULL AND deleted_at IS NULL")}


# -- what is asked for ----------------------------------------------------------------------------------------------------------


def test_equal_times_at_the_mark_are_not_lost(store: JobStore) -> None:
    """The bound is inclusive: a row that got the mark's own time later is found, and those that are known are unchanged."""
    remote = filled()
    assert remote.run(store).succeeded == 5
    assert mark(store) == "2024-01-05T00:00:00Z"
    remote.rows.append(row(6, 5))
    result = remote.run(store)
    assert remote.asked == [None, "2024-01-05T00:00:00Z"]
    assert (result.listed, result.unchanged, result.queued, result.succeeded) == (2, 1, 1, 1)
    assert keys(store) == {f"k{n}" for n in range(1, 7)}
    assert remote.run(store).queued == 0


def test_equal_times_over_the_edge_of_a_page(store: JobStore) -> None:
    """Rows of one time on both sides of a page's edge are all there, also without versions."""
    remote = Rows([{"id": f"k{n}", "at": "2024-01-05T00:00:00Z", "n": n} for n in range(7)], page_size=3)
    remote.run(store, fetch=None)
    remote.rows[6] = {**remote.rows[6], "n": 66}
    result = remote.run(store, fetch=None)
    assert (result.listed, result.unchanged, result.succeeded) == (7, 6, 1)
    assert "66" in str(query(store, "SELECT data FROM record WHERE key = 'k6'"))


def test_late_rows_come_with_an_overlap(store: JobStore) -> None:
    """What becomes visible after the mark has passed its time is found as far as the overlap reaches."""
    remote = filled()
    fields = {"incremental": Since("at", "since", overlap=2 * 86400)}
    remote.run(store, **fields)
    remote.rows += [row(6, 3), row(7, 2)]
    remote.run(store, **fields)
    assert remote.asked[-1] == "2024-01-03T00:00:00Z"
    assert mark(store) == "2024-01-05T00:00:00Z"
    assert keys(store) == {f"k{n}" for n in range(1, 7)}


def test_the_listing_sends_it(store: JobStore) -> None:
    """`Listing` sends it as the declared parameter: in the query, or in the body of a POST; on each page, also a resumed one."""
    seen: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request.url.query.decode() + request.content.decode())
        return httpx.Response(200, json={"data": [{"id": 1, "at": 1700000000}], "next": None})

    client = Client("shop", connect=lambda _: HttpClient("https://api.example", transport=httpx.MockTransport(answer)))
    for listing in (
        Listing("rows", Cursor("next"), items="data", params={"a": "b"}),
        Listing("rows", Cursor("next"), items="data", method="POST", json={"q": 1}),
    ):
        sync = Sync("shop.rows", client, listing=listing, incremental=Since("at", "updated_since", overlap=60))
        engine.run(sync, store)
    assert seen == ["a=b", '{"q":1,"updated_since":1699999940}']


def test_a_plain_generator_gets_it(store: JobStore) -> None:
    """A generator gets `{param: value}`, or `None` for everything."""
    asked = []

    def listing(conn: Any, since: Any) -> Iterator[Page]:
        asked.append(since)
        yield Page([Entity("a", "1", {"at": 7})])

    for _ in range(2):
        engine.run(Sync(SYNC, CLIENT, listing=listing, incremental=Since("at", "from")), store)
    assert asked == [None, {"from": 7}]


@pytest.mark.parametrize(
    "fields", [{"field": "a b c ["}, {"param": ""}, {"overlap": -1}, {"overlap": True}, {"overlap": float("inf")}], ids=str
)
def test_a_wrong_declaration(fields: dict[str, Any]) -> None:
    """What cannot work is refused where it stands."""
    with pytest.raises(DeclarationError, match="Since"):
        Since(**{"field": "at", "param": "since", **fields})


# -- when the mark moves --------------------------------------------------------------------------------------------------------


def test_limit_does_not_move_it(store: JobStore) -> None:
    """A listing that was cut proves nothing."""
    remote = filled()
    assert remote.run(store, limit=3).stopped == "limit"
    assert mark(store) is None
    remote.run(store)
    assert remote.asked == [None, None]
    assert mark(store) == "2024-01-05T00:00:00Z"
    remote.rows += [row(6, 6), row(7, 7), row(8, 8)]
    remote.run(store, limit=2)
    assert mark(store) == "2024-01-05T00:00:00Z"


@pytest.mark.parametrize("how", ["error", "trouble", "loop", "short"])
def test_an_incomplete_listing_does_not_move_it(store: JobStore, how: str) -> None:
    """Nor does one that ends with an error, goes round in circles, or shows less than it announced."""
    remote = filled()
    remote.run(store)
    remote.rows += [row(6, 6), row(7, 7), row(8, 8)]

    def between(number: int) -> None:
        if how == "error":
            raise ValueError("broken")
        if how == "trouble":
            raise ServerError("502", status=502)
        if how == "loop":
            raise LoopError("in circles")

    remote.between = between
    remote.total = 40 if how == "short" else None
    result = remote.run(store)
    assert result.stopped == {"trouble": "error"}.get(how, how)
    assert mark(store) == "2024-01-05T00:00:00Z"


def test_a_resumed_listing_keeps_what_it_has_seen(store: JobStore) -> None:
    """The highest value stands on a page before the interruption; the resumed listing has the same bound, and moves to it."""
    remote = filled(2)
    remote.run(store)
    remote.rows += [row(9, 9), row(3, 3), row(4, 4), row(5, 5)]

    def break_(number: int) -> None:
        if number == 3:
            raise ServerError("502", status=502)

    remote.between = break_
    assert remote.run(store).stopped == "error"
    remote.between = lambda number: None
    result = remote.run(store)
    assert (result.stopped, result.listed) == ("end", 1)
    assert remote.asked == [None, "2024-01-02T00:00:00Z", "2024-01-02T00:00:00Z"]
    assert mark(store) == "2024-01-09T00:00:00Z"
    assert query(store, "SELECT next_mark FROM listing WHERE next_mark IS NOT NULL") == []


def test_each_page_keeps_it(store: JobStore) -> None:
    """What a page has shown is stored with its jobs and its cursor, and with nothing else (law 2)."""
    remote = filled(4)
    seen = []

    def look(number: int) -> None:
        (found,) = query(store, "SELECT next_mark, cursor, (SELECT count(*) FROM job) AS jobs FROM listing")
        seen.append(("2024-01-02" in str(found["next_mark"]), found["jobs"]))

    remote.between = look
    remote.run(store)
    assert seen == [(True, 2)]


def test_a_row_that_changes_while_it_is_listed(store: JobStore) -> None:
    """A row on a page that was read changes, and a later page shows a later change: both come again the next time."""
    long_ago = datetime(2024, 1, 1, tzinfo=UTC)

    def at(when: datetime) -> str:
        return f"{when.astimezone(UTC):%Y-%m-%dT%H:%M:%S.%f}Z"

    remote = Rows([{"id": f"k{n}", "at": at(long_ago), "v": "1"} for n in range(4)])

    def between(number: int) -> None:
        now = datetime.now(UTC)
        remote.rows[0] = {"id": "k0", "at": at(now), "v": "2"}
        remote.rows[3] = {"id": "k3", "at": at(now + timedelta(microseconds=50)), "v": "2"}

    remote.between = between
    remote.run(store)
    remote.between = lambda number: None
    remote.run(store)
    assert {one["key"]: one["version"] for one in query(store, "SELECT key, version FROM record")} == {
        "k0": "2", "k1": "1", "k2": "1", "k3": "2",
    }  # fmt: skip


def test_a_date_in_the_future(store: JobStore) -> None:
    """One row of the year 2099 does not hide what changes until then, and is worth a word."""
    remote = Rows([row(1, 1), {"id": "k2", "at": "2099-01-01T00:00:00Z", "v": "1"}])
    before = datetime.now(UTC)
    result = remote.run(store)
    assert (result.state, "lies in the future" in result.message) == ("success", True)
    assert f"{before:%Y-%m-%d}" <= mark(store) <= f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"


def test_numbers_out_of_order(store: JobStore) -> None:
    """Without a clock only the first page is sure, where the numbers are in no order and no overlap is declared."""
    numbers = [{"id": f"k{n}", "at": n, "v": str(n)} for n in (5, 1, 9, 2)]
    result = Rows(numbers).run(store)
    assert mark(store) == 5
    assert "not in order of 'at'" in result.message
    assert Rows(numbers).run(store, incremental=Since("at", "since", overlap=3)).message == ""
    assert mark(store) == 9


def test_it_does_not_go_back(store: JobStore) -> None:
    """Also where the remote side shows what is below the mark, in no order."""
    numbers = [{"id": f"k{n}", "at": n, "v": str(n)} for n in (1, 5, 9)]
    Rows(numbers).run(store)
    change(store, "UPDATE listing SET mark = :mark", mark='{"of": "at", "value": 10}')
    Rows(numbers[::-1], page_size=1).run(store, listing=lambda conn, since: Rows(numbers[::-1], page_size=1)(conn))
    assert mark(store) == 10


def test_numbers_in_order(store: JobStore) -> None:
    """The highest number counts where the listing is sorted by it."""
    remote = Rows([{"id": f"k{n}", "at": n, "v": str(n)} for n in (1, 2, 9, 9, 11)])
    assert remote.run(store).message == ""
    assert mark(store) == 11


def test_items_without_the_field(store: JobStore) -> None:
    """They are seen like the others; the mark moves by those that have it, and the run says so."""
    remote = Rows([row(1, 1), {"id": "k2", "v": "1"}, row(3, 3), {"id": "k4", "at": None, "v": "1"}, row(5, 2)])
    result = remote.run(store)
    assert (result.state, result.succeeded, mark(store)) == ("success", 5, "2024-01-03T00:00:00Z")
    assert result.message == "incremental: of 5 listed items, 2 have none at 'at', and the mark moves without them"


def test_values_of_two_kinds(store: JobStore) -> None:
    """What cannot be compared with the mark does not move it."""
    remote = Rows([row(1, 1), {"id": "k2", "at": 1_900_000_000, "v": "1"}, {"id": "k3", "at": "soon", "v": "1"}])
    result = remote.run(store)
    assert (result.succeeded, mark(store)) == (3, "2024-01-01T00:00:00Z")
    assert "2 have another kind of value at 'at'" in result.message


def test_a_field_that_is_nowhere(store: JobStore) -> None:
    """A misspelt field lists everything each time, and says so."""
    remote = filled()
    for _ in range(2):
        result = remote.run(store, incremental=Since("updated", "since"))
        assert "so the next run lists everything again" in result.message
    assert remote.asked == [None, None]


def test_a_mark_of_another_field(store: JobStore) -> None:
    """A changed declaration does not go on from a mark that is of something else."""
    remote = Rows([row(1, 1, seq=7)])
    remote.run(store)
    remote.run(store, incremental=Since("seq", "since"))
    assert remote.asked == [None, None]
    assert mark(store) == 7


def test_what_is_left_for_later_holds_it(store: JobStore) -> None:
    """An item that is left for a later run must be listed by that one."""

    def listing(conn: Any, since: Any) -> Iterator[Page]:
        yield Page([Entity("a", "1", {"at": 7})], later=["b"])

    engine.run(Sync(SYNC, CLIENT, listing=listing, incremental=Since("at", "from")), store)
    assert mark(store) is None


def test_a_doubt_holds_it(store: JobStore) -> None:
    """What a listing may not have shown must be listed by the next one."""

    def listing(conn: Any, since: Any) -> Iterator[Page]:
        yield Page([Entity("a", "1", {"at": 7})], doubt="maybe not all")

    result = engine.run(Sync(SYNC, CLIENT, listing=listing, incremental=Since("at", "from")), store)
    assert mark(store) is None
    assert result.message == "maybe not all; nothing was deleted"


# -- entities that failed -------------------------------------------------------------------------------------------------------


def test_failed_entities_are_asked_for_again(store: JobStore) -> None:
    """The listing shows them no more; the next incremental run asks for them all the same, and forgets none, new or known."""
    remote = filled()
    remote.failing = {"k1", "k2"}
    first = remote.run(store)
    assert (first.failed, first.succeeded, mark(store)) == (2, 3, "2024-01-05T00:00:00Z")
    second = remote.run(store)
    assert (second.listed, second.queued, second.failed) == (1, 2, 2)
    remote.failing = {"k2"}
    assert (remote.run(store).succeeded, remote.fetched["k1"]) == (1, 3)
    assert keys(store) == {"k1", "k3", "k4", "k5"}
    remote.failing = set()
    remote.run(store)
    result = remote.run(store)
    assert (result.queued, keys(store)) == (0, {"k1", "k2", "k3", "k4", "k5"})
    assert query(store, "SELECT count(*) AS n FROM job") == [{"n": 5}]


def test_a_failed_entity_that_changed_again(store: JobStore) -> None:
    """Asked for again and listed anew in one run, it ends with what the listing says, whichever comes first."""
    remote = filled(2)
    remote.failing = {"k1"}
    remote.run(store)
    remote.failing = set()
    remote.rows[0] = row(1, 8)
    assert remote.run(store).state == "success"
    assert query(store, "SELECT version FROM record WHERE key = 'k1'") == [{"version": "8"}]
    # Superseded where the one that was asked for again was still being worked when the listed one was finished.
    found = dict(states(store))
    assert found.pop("superseded", 0) <= 1
    assert set(found) == {"success"}


def test_who_is_not_asked_again(store: JobStore) -> None:
    """Poison, jobs that a person cancelled, and what was saved since by another job."""
    remote = filled(4)
    remote.failing = {"k1", "k2", "k3", "k4"}
    remote.run(store)
    change(store, _RECORD, key="k1", poison=True, job=None)
    change(store, "UPDATE job SET state = 'cancelled' WHERE key = 'k2'")
    change(store, _RECORD, key="k3", poison=False, job=99)
    assert store.failed_entities.count(LANE) == 1
    assert store.failed_entities.requeue(LANE) == 1
    assert query(store, "SELECT key, retries FROM job WHERE state = 'queued'") == [{"key": "k4", "retries": 0}]
    assert store.failed_entities.requeue(LANE) == 0


def test_of_two_failures_the_newer_one(store: JobStore) -> None:
    """An entity that failed in two listings is asked for once, as the later one showed it; not while it is being worked."""
    remote = filled(2)
    remote.failing = {"k1"}
    remote.run(store, incremental=None)
    remote.rows[0] = row(1, 8)
    remote.run(store, incremental=None)
    assert states(store) == {"success": 1, "failure": 2}
    assert store.failed_entities.count(LANE) == store.failed_entities.requeue(LANE) == 1
    (queued,) = query(store, "SELECT id, payload FROM job WHERE state = 'queued'")
    assert '"8"' in str(queued["payload"]).replace("'", '"')
    change(store, "UPDATE job SET state = 'failure' WHERE id = :id", id=queued["id"])
    change(store, "UPDATE job SET state = 'processing' WHERE key = 'k1' AND id < :id", id=queued["id"])
    assert store.failed_entities.requeue(LANE) == 0


def test_a_full_listing_needs_no_asking(store: JobStore) -> None:
    """It shows them itself."""
    remote = filled()
    remote.failing = {"k1"}
    remote.run(store, incremental=None)
    assert remote.run(store, incremental=None).queued == 1


def test_it_is_bounded(store: JobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run asks for so many and no more; those that failed the longest time ago first, so that each has its turn."""

    monkeypatch.setattr("jobs.listing.failed_entities.REQUEUED", 2)
    limited = JobStore(store.db)
    remote = filled()
    remote.failing = {"k1", "k2", "k3"}
    remote.run(limited)
    assert [remote.run(limited).queued for _ in range(3)] == [2, 2, 2]
    assert min(remote.fetched.values()) == 1
    assert min(remote.fetched[key] for key in remote.failing) == 2


# -- all of it ------------------------------------------------------------------------------------------------------------------


def test_full_lists_everything_and_moves_the_mark(store: JobStore) -> None:
    """`--full` ignores the mark, and puts it where it belongs."""
    remote = filled()
    remote.run(store)
    remote.rows[0] = row(1, 9)
    result = remote.run(store, full=True)
    assert (remote.asked, result.listed, mark(store)) == ([None, None], 5, "2024-01-09T00:00:00Z")


def test_only_a_full_listing_deletes(store: JobStore) -> None:
    """An incremental one shows a part, and sweeps nothing, however few are missing; a full one does."""
    remote = filled()
    fields = {"delete_missing": True, "max_delete_share": 0.9}
    remote.run(store, **fields)
    del remote.rows[0]
    result = remote.run(store, **fields)
    assert (result.state, result.deleted, len(keys(store))) == ("success", 0, 5)
    assert remote.run(store, full=True, **fields).deleted == 1
    assert keys(store) == {"k2", "k3", "k4", "k5"}


def test_an_interrupted_part_is_not_taken_for_all(store: JobStore) -> None:
    """A listing that asked only for what is new begins anew when the declaration no longer does, or it would delete the rest."""
    remote = filled()
    remote.run(store)
    remote.rows += [row(6, 6), row(7, 7)]

    def break_(number: int) -> None:
        raise ServerError("502", status=502)

    remote.between = break_
    remote.run(store)
    remote.between = lambda number: None
    result = remote.run(store, incremental=None, delete_missing=True)
    assert (result.listed, result.deleted, len(keys(store))) == (7, 0, 7)


def test_the_database_itself_refuses(store: JobStore) -> None:
    """Whatever the caller believes, a listing that was filtered or had flaws is no proof."""
    remote = filled()
    remote.run(store)
    for flaw in ("is_filtered = true", "flawed = 1"):
        claim = store.listings.claim(SYNC, "shop", worker=this_worker(), lease=60)
        assert isinstance(claim, ListingClaim)
        store.pages.enqueue(claim, LANE, [Item("k1", "1")], cursor=None, last=True)
        change(store, f"UPDATE listing SET {flaw}")
        assert store.sweeps.run(claim, LANE, max_share=1.0).deleted == 0
        store.listings.release(claim)
    assert len(keys(store)) == 5


def test_flaws_before_an_interruption_count(store: JobStore) -> None:
    """An item without a key on a page before the interruption keeps the resumed listing from deleting it."""
    remote = filled(6)
    remote.run(store, incremental=None)
    claim = store.listings.claim(SYNC, "shop", worker=this_worker(), lease=60)
    assert isinstance(claim, ListingClaim)
    store.pages.enqueue(claim, LANE, [Item("k1", "1")], cursor=2, flawed=1)
    store.listings.release(claim)
    result = remote.run(store, incremental=None, delete_missing=True)
    assert (result.state, result.deleted) == ("partial", 0)
    assert "before it was interrupted" in result.message


# -- a way to confirm -----------------------------------------------------------------------------------------------------------


def test_a_refused_sweep_says_how_to_confirm(store: JobStore) -> None:
    """Above the share nothing goes until a person says so, for one run; tombstones first."""
    remote = filled(10)
    fields: dict[str, Any] = {"delete_missing": True, "incremental": None}
    remote.run(store, **fields)
    del remote.rows[:6]
    refused = remote.run(store, **fields)
    assert (refused.state, refused.deleted) == ("partial", 0)
    assert refused.message == (
        "6 of 10 records are missing, more than the allowed 20%; all were kept; "
        "`syncs run shop.rows --allow-deletes` deletes them"
    )
    allowed = remote.run(store, allow=True, **fields)
    assert (allowed.state, allowed.deleted, len(keys(store))) == ("success", 6, 4)
    assert query(store, "SELECT count(*) AS n FROM record WHERE deleted_at IS NOT NULL AND data IS NOT NULL") == [{"n": 6}]


def test_an_empty_listing(store: JobStore) -> None:
    """It deletes nothing by itself, and everything when a person says so."""
    remote = filled(3)
    fields: dict[str, Any] = {"delete_missing": True, "incremental": None}
    remote.run(store, **fields)
    remote.rows.clear()
    refused = remote.run(store, **fields)
    assert (refused.state, refused.deleted) == ("partial", 0)
    assert "came back empty; 3 records were kept; `syncs run shop.rows --allow-deletes`" in refused.message
    assert remote.run(store, allow=True, **fields).deleted == 3


def test_confirming_an_incremental_sync(store: JobStore) -> None:
    """There only `--full` deletes, and the message says so."""
    remote = filled(4)
    remote.run(store, delete_missing=True)
    del remote.rows[:3]
    assert "--full --allow-deletes" in remote.run(store, full=True, delete_missing=True).message
    assert remote.run(store, allow=True, delete_missing=True).deleted == 0
    assert remote.run(store, full=True, allow=True, delete_missing=True).deleted == 3


def test_404_above_the_share(store: JobStore) -> None:
    """What answers 404 above the share stays, too, and goes with the same word."""
    from clients import GoneError

    remote = filled(6)
    remote.run(store, incremental=None)
    for one in remote.rows:
        one["v"] = "new"

    def fetch(conn: Any, entity: Entity) -> Any:
        raise GoneError("gone", status=404)

    refused = remote.run(store, incremental=None, fetch=fetch)
    assert (refused.gone, refused.failed) == (1, 5)
    assert "--allow-deletes" in refused.failures[0][1]
    assert remote.run(store, incremental=None, fetch=fetch, allow=True).gone == 6


# -- times that say no zone --------------------------------------------------------------------------------------------------

ZONES = [
    "Etc/GMT+12",
    "America/New_York",
    "America/St_Johns",
    "UTC",
    "Europe/Berlin",
    "Australia/Lord_Howe",
    "Pacific/Kiritimati",
]
CLOCKS_GO_BACK = datetime(2024, 11, 3, 6, tzinfo=UTC)
"""In New York; in Berlin a week before."""


@pytest.mark.parametrize("declared", [True, False])
@pytest.mark.parametrize("zone", ZONES)
@settings(max_examples=40, deadline=None)
@given(
    began=st.timedeltas(timedelta(days=-8), timedelta(days=1)),
    shown=st.timedeltas(timedelta(days=-2), timedelta(hours=3)),
    later=st.timedeltas(timedelta(0), timedelta(days=1)),
    overlap=st.sampled_from([0, 60, 7200]),
    form=st.sampled_from(["%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M", "%Y-%m-%d"]),
)
def test_no_change_is_lost_over_a_time_without_a_zone(
    declared: bool, zone: str, began: timedelta, shown: timedelta, later: timedelta, overlap: int, form: str
) -> None:
    """What changes once the listing has begun is written as a time from which the next one asks, also when clocks go back."""

    def local(when: datetime) -> str:
        return when.astimezone(ZoneInfo(zone)).strftime(form)

    start = CLOCKS_GO_BACK + began
    since = Since("at", "since", overlap=overlap, zone=zone if declared else None)
    listing = Watermark(since, mark=None, kept=None, now=start)
    listing.observe([{"at": local(start + shown)}, {"at": local(start - timedelta(days=3))}])
    moved = listing.value().mark
    following = Watermark(since, mark=moved["value"], kept=None, now=start + timedelta(days=2)).ask
    assert following is not None
    assert following["since"] <= local(start + later)
    if shown <= timedelta(0):
        # At most 26 hours are asked for again, the hour that comes twice, and of dates the rest of the day.
        hours = 27 if "H" in form else 51
        assert following["since"] >= local(start + shown - timedelta(hours=hours, seconds=overlap))


@pytest.mark.parametrize("zone", ["America/New_York", "Asia/Tokyo"])
def test_an_unknown_zone_is_said_once(store: JobStore, zone: str) -> None:
    """The first run says what it costs and how to declare it; east of Greenwich nothing lies in the future."""
    now = datetime.now(UTC).astimezone(ZoneInfo(zone))
    remote = Rows([{"id": "k1", "at": f"{now - timedelta(minutes=5):%Y-%m-%dT%H:%M:%S}", "v": "1"}])
    first, second = remote.run(store), remote.run(store)
    assert "at 'at' say no zone" in first.message
    assert "zone=" in first.message
    assert (first.state, second.state, second.message) == ("success", "success", "")


def test_a_declared_zone(store: JobStore) -> None:
    """The mark moves to the beginning of the listing, as the remote side writes it, and nothing is said."""
    now = datetime.now(UTC).astimezone(ZoneInfo("Asia/Tokyo"))
    shown = f"{now - timedelta(minutes=5):%Y-%m-%dT%H:%M:%S}"
    remote = Rows([{"id": "k1", "at": shown, "v": "1"}])
    result = remote.run(store, incremental=Since("at", "since", zone="Asia/Tokyo"))
    assert (result.message, mark(store)) == ("", shown)


@pytest.mark.parametrize("zone", ["Berlin", "", 1, "../etc/passwd", "+02:00"])
def test_what_is_no_zone(zone: Any) -> None:
    """It is refused where it is declared."""
    with pytest.raises(DeclarationError, match="must name a time zone"):
        Since("at", "since", zone=zone)
