"""What a run may conclude from a remote side that misbehaves: found by a review that tried to lose and to delete too much."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from clients import (
    Bearer,
    Cursor,
    Entity,
    HttpClient,
    Listing,
    Nested,
    NextLink,
    PageNumber,
)
from flows import Client, Since, Sync
from flows.run_result import RunResult
from flows.sync import run as engine
from flows.sync.watermark import Watermark
from jobs import JobStore, Retry
from syncs_testing import Reply, Seen, serving
from tests.support.fake_things_api import query

SYNC = "odd.things"


class Remote:
    """A server that answers what a test says, and the sync of it."""

    def __init__(self, store: JobStore) -> None:
        self.store = store
        self.respond: Callable[[Seen], Reply] = lambda seen: Reply({"data": []})
        self.asked: list[str] = []
        self.url = ""

    def answer(self, seen: Seen) -> Reply:
        """Answer."""
        self.asked.append(seen.target)
        return self.respond(seen)

    def run(self, listing: Any, *, full: bool = False, allow: bool = False, dry_run: bool = False, **fields: Any) -> RunResult:
        """Run the sync."""
        client = Client("odd", connect=lambda _: HttpClient(self.url, auth=Bearer("t0ken-of-twelve"), timeout=5))
        sync = Sync(SYNC, client, listing=listing, retry=Retry(max_retries=0), **fields)
        return engine.run(sync, self.store, full=full, allow_deletes=allow, dry_run=dry_run)

    def live(self) -> set[str]:
        """Return the keys that are there."""
        return {one["key"] for one in query(self.store, "SELECT key FROM record WHERE deleted_at IS NULL")}


@pytest.fixture
def remote(store: JobStore) -> Iterator[Remote]:
    """A server on loopback, and a database."""
    found = Remote(store)
    with serving(found.answer) as server:
        found.url = server.url
        yield found


def rows(*keys: Any, **more: Any) -> Reply:
    """Answer rows with these keys."""
    return Reply({"data": [{"id": key} for key in keys], **more})


# -- what is deleted ------------------------------------------------------------------------------------------------------------


def test_an_error_with_a_good_status_deletes_nothing(remote: Remote) -> None:
    """The last of ten pages is `{"message": …}` with status 200: its ten rows are not gone."""
    broken = False

    def respond(seen: Seen) -> Reply:
        page = int(seen.query.get("cursor", 0))
        if page == 9 and broken:
            return Reply({"message": "Internal error"})
        return rows(*range(page * 10, page * 10 + 10), next=page + 1 if page < 9 else None)

    remote.respond = respond
    listing = Listing("things", Cursor("next"), items="data")
    assert remote.run(listing, delete_missing=True).state == "success"
    broken = True
    result = remote.run(listing, delete_missing=True)
    assert (result.state, result.stopped, result.deleted) == ("partial", "short", 0)
    assert "maybe an error with a good status" in result.message
    assert len(remote.live()) == 100


def test_an_api_that_begins_to_page_deletes_nothing(remote: Remote) -> None:
    """A listing without a paginator whose answer begins to name a next page has not shown all."""
    remote.respond = lambda seen: rows(*range(120))
    remote.run(Listing("things", items="data"), delete_missing=True)
    remote.respond = lambda seen: rows(*range(101), next="/things?page=2")
    result = remote.run(Listing("things", items="data"), delete_missing=True)
    assert (result.state, result.stopped, result.deleted) == ("partial", "short", 0)
    assert len(remote.live()) == 120


def test_the_newest_hundred_delete_nothing(remote: Remote) -> None:
    """A listing that asks for 20 rows, gets 20 and has no paginator may show the newest 20 only; a person may say otherwise."""
    first = 0
    remote.respond = lambda seen: rows(*range(first, first + 20))
    listing = Listing("things", items="data", params={"limit": 20})
    remote.run(listing, delete_missing=True)
    first = 1
    dry = remote.run(listing, delete_missing=True, dry_run=True)
    result = remote.run(listing, delete_missing=True)
    for one in (dry, result):
        assert one.state == "partial"
        assert "exactly 20 rows came, and the listing has no paginator" in one.message
        assert "1 of 2" in one.message
        assert "--allow-deletes" in one.message
    assert (dry.would_delete, result.deleted, len(remote.live())) == (0, 0, 21)
    assert remote.run(listing, delete_missing=True, allow=True).deleted == 1


def test_what_comes_makes_no_room_for_what_goes(remote: Remote) -> None:
    """An API that gave all things new keys: the share counts those that were there before, so all are kept; a dry run agrees."""
    remote.respond = lambda seen: rows(*(f"old-{n}" for n in range(10)))
    listing = Listing("things", items="data")
    remote.run(listing, delete_missing=True)
    remote.respond = lambda seen: rows(*(f"new-{n}" for n in range(91)))
    dry = remote.run(listing, delete_missing=True, dry_run=True)
    result = remote.run(listing, delete_missing=True)
    assert (result.state, result.deleted) == ("partial", 0)
    assert "10 of 10 records are missing, more than the allowed 20%" in result.message
    assert "10 of 10 records are missing, more than the allowed 20%" in dry.message
    assert len(remote.live()) == 101


def test_a_dry_run_counts_nothing_twice(remote: Remote) -> None:
    """What a listing shows on two pages is created once."""
    remote.respond = lambda seen: rows(*[[1, 2, 2], [2, 3], [], []][min(int(seen.query["page"]), 4) - 1])
    listing = Listing("things", PageNumber(), items="data", recheck=0)
    dry = remote.run(listing, dry_run=True)
    assert (dry.created, dry.examples["created"]) == (3, ("1", "2", "3"))
    assert remote.run(listing).distinct == 3


def test_twice_in_one_page_is_not_short(remote: Remote) -> None:
    """Three things, one of them twice on its page, and a total of three: the listing is complete."""
    pages: list[list[int]] = [[1, 1, 2], [3], [], []]
    remote.respond = lambda seen: rows(*pages[min(int(seen.query["page"]), 4) - 1], total=3)
    listing = Listing("things", PageNumber(), items="data", total="total", recheck=0)
    result = remote.run(listing, delete_missing=True)
    assert (result.state, result.stopped, result.distinct) == ("success", "end", 3)


def test_doubt_goes_through_nested_listings(remote: Remote) -> None:
    """Also where it is one parent's children of which nobody knows whether they are all."""
    shown = [1, 2]

    def respond(seen: Seen) -> Reply:
        return rows("p", "q") if seen.path == "/parents" else rows(*shown) if "/p/" in seen.path else rows(1)

    remote.respond = respond
    listing = Nested(
        Listing("parents", items="data"),
        lambda parent: Listing(f"parents/{parent.key}/things", items="data", params={"limit": 2}),
    )
    assert remote.run(listing, delete_missing=True).succeeded == 3
    shown = [2, 3]
    result = remote.run(listing, delete_missing=True, max_delete_share=1.0)
    assert (result.state, result.deleted) == ("partial", 0)
    assert "children of p: exactly 2 rows came" in result.message


def test_a_path_that_is_wrong_is_no_success(remote: Remote) -> None:
    """Rows that are not where the listing looks for them fail the run, which says where they are."""
    remote.respond = lambda seen: Reply({"results": [{"id": 1}], "count": 1})
    result = remote.run(Listing("things", PageNumber(), items="data"), delete_missing=True)
    assert (result.state, result.listed) == ("failed", 0)
    assert "the body has no 'data'; rows are at 'results'" in result.message


@pytest.mark.parametrize(("refusal", "said"), [(404, "404 Not Found"), (410, "410 Gone")])
def test_a_listing_that_is_gone_is_named(remote: Remote, refusal: int, said: str) -> None:
    """A wrong `base_url`, or a wrong path: the message has the URL that was asked for, in a dry run, too."""
    remote.respond = lambda seen: Reply({}, refusal)
    for dry_run in (False, True):
        result = remote.run(Listing("products"), dry_run=dry_run)
        assert (result.state, result.message) == ("failed", f"listing: GET {remote.url}/products: {said}")


@pytest.mark.parametrize(("status", "body", "said"), [(200, b"null", "null"), (204, b"", "204 without a record")])
def test_a_path_that_answers_null_is_named(remote: Remote, status: int, body: bytes, said: str) -> None:
    """Where `fetch` is a path there is no function that could return the record: the request is named."""
    remote.respond = lambda seen: rows(2) if seen.target == "/pets" else Reply(body, status)
    result = remote.run(Listing("pets", items="data"), fetch="pets/{key}.json")
    assert dict(result.failures) == {"2": f"GET {remote.url}/pets/2.json answered {said}"}


@pytest.mark.parametrize("refusal", [400, 404])
def test_a_limit_that_refuses_deletes_nothing(remote: Remote, refusal: int) -> None:
    """A search shows 40 rows, says that there are no more, and refuses what lies behind: the rows that fell out are kept."""
    first = 0

    def respond(seen: Seen) -> Reply:
        at = (int(seen.query["page"]) - 1) * 10
        return rows(*range(first + at, first + at + 10), total=40) if at < 40 else Reply({"error": "window too large"}, refusal)

    remote.respond = respond
    listing = Listing("things", PageNumber(), items="data", total="total")
    result = remote.run(listing, delete_missing=True)
    assert (result.state, result.stopped) == ("success", "end")
    assert f"refused ({refusal}) after 40 entities" in result.message
    first = 5
    result = remote.run(listing, delete_missing=True)
    assert (result.state, result.deleted, len(remote.live())) == ("partial", 0, 45)
    assert "there may be more; 5 of 40 records are missing, and all were kept" in result.message


@pytest.mark.parametrize("refusal", [400, 404, 422])
def test_a_refusal_behind_the_last_page_is_the_end(remote: Remote, refusal: int) -> None:
    """An API that refuses the page behind its last one lists completely, and what it no longer lists is deleted."""
    known = list(range(25))

    def respond(seen: Seen) -> Reply:
        at = (int(seen.query["page"]) - 1) * 10
        return rows(*known[at : at + 10]) if at < len(known) else Reply({"detail": "Invalid page."}, refusal)

    remote.respond = respond
    listing = Listing("things", PageNumber(), items="data")
    assert remote.run(listing, delete_missing=True).succeeded == 25
    known.remove(3)
    result = remote.run(listing, delete_missing=True)
    assert (result.state, result.message, result.deleted, len(remote.live())) == ("success", "", 1, 24)


# -- going on -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [401, 403])
def test_a_cursor_that_is_refused_is_not_asked_for_ever(remote: Remote, status: int) -> None:
    """A stored link whose signature has expired answers 403, with each run and for ever: the listing starts over."""
    life = "first"

    def respond(seen: Seen) -> Reply:
        match seen.query.get("sig"):
            case None:
                return rows(1, next=f"/things?sig={life}")
            case "first":
                return Reply({}, 500 if life == "first" else status)
            case _:
                return rows(2)

    remote.respond = respond
    listing = Listing("things", NextLink(), items="data")
    assert remote.run(listing).stopped == "error"
    life = "second"
    result = remote.run(listing)
    assert (result.state, result.stopped) == ("success", "end")
    assert remote.live() == {"1", "2"}


def test_a_listing_that_was_changed_starts_over(remote: Remote) -> None:
    """A listing that was interrupted, and declared with another filter since, is not half of this and half of that.

    What the first one showed is missing in the second one.
    """
    broken = True

    def respond(seen: Seen) -> Reply:
        page, kind = int(seen.query["page"]), seen.query.get("kind", "")
        if broken and page == 3:
            return Reply({}, 500)
        return rows(*(f"{kind}{page}-{n}" for n in range(2) if page < 5))

    remote.respond = respond
    assert remote.run(Listing("things", PageNumber(), items="data", recheck=0)).stopped == "error"
    broken = False
    result = remote.run(Listing("things", PageNumber(), items="data", recheck=0, params={"kind": "b"}), delete_missing=True)
    assert (result.state, result.listed, result.deleted) == ("partial", 8, 0)
    assert "4 of 4 records are missing" in result.message
    assert {f"b{page}-{n}" for page in range(1, 5) for n in range(2)} < remote.live()


def test_a_sign_in_that_is_refused_pauses(remote: Remote) -> None:
    """Where the first page is refused, too, it is the sign-in, and the client is paused."""
    remote.respond = lambda seen: rows(1, next="/things?x=1") if "x" not in seen.query else Reply({}, 500)
    listing = Listing("things", NextLink(), items="data")
    remote.run(listing)
    remote.respond = lambda seen: Reply({}, 401)
    result = remote.run(listing)
    assert (result.state, result.requests) == ("paused", 2)


# -- the mark -------------------------------------------------------------------------------------------------------------------


def stamp(when: datetime) -> str:
    """Write a moment as the remote side does."""
    return when.strftime("%Y-%m-%dT%H:%M:%SZ")


@pytest.mark.parametrize("behind", [0, 4, 600])
def test_a_remote_clock_that_is_behind_loses_nothing(remote: Remote, behind: int) -> None:
    """What changes on a page that was read already is found, though its time is earlier than that of our clock."""
    times = dict.fromkeys(range(4), "2024-01-01T00:00:00Z")
    passed = 0.0

    def now() -> datetime:
        return datetime.now(UTC) - timedelta(seconds=behind - passed)

    def respond(seen: Seen) -> Reply:
        nonlocal passed
        known = sorted(n for n, at in times.items() if at >= seen.query.get("since", ""))
        page = int(seen.query["page"])
        found = [{"id": n, "at": times[n]} for n in known[page * 2 - 2 : page * 2]]
        date = {"Date": format_datetime(now(), usegmt=True)}
        if page == 1 and len(remote.asked) == 1:
            # 0 has been read; 3 has not, and its time is the highest.
            passed = 1.2
            times[0] = stamp(now())
            passed = 2.4
            times[3] = stamp(now())
        return Reply({"data": found}, headers=date)

    remote.respond = respond
    listing = Listing("things", PageNumber(), items="data", version="at", recheck=0)
    assert remote.run(listing, incremental=Since("at", "since")).succeeded == 4
    passed = 0.0
    second = remote.run(listing, incremental=Since("at", "since"))
    assert second.succeeded == 1
    stored = {one["key"]: one["version"] for one in query(remote.store, "SELECT key, version FROM record")}
    assert stored == {str(n): at for n, at in times.items()}


def test_clocks_of_many_first_pages_count_once() -> None:
    """A nested listing has many first pages; each says how far the clock is off, and it is not further off for that."""
    now = datetime(2026, 5, 20, 10, tzinfo=UTC)
    watermark = Watermark(Since("at", "since"), mark=None, kept=None, now=now)
    for skew in (None, -600, -600.5, 30, -600):
        watermark.allow_skew(skew)
    watermark.observe([{"at": "2026-05-20T11:00:00Z"}])
    watermark.allow_skew(-10_000)
    assert watermark.value().mark == {"of": "at", "value": "2026-05-20T09:49:59Z"}
    watermark = Watermark(Since("at", "since"), mark=None, kept=None, now=now)
    watermark.allow_skew(-6e10)
    watermark.observe([{"at": "2026-05-20T11:00:00Z"}])
    assert str(watermark.value().mark["value"]).startswith("2016-")


# -- what no table takes --------------------------------------------------------------------------------------------------------


def noise(length: int) -> str:
    """Return a text that no database can compress."""
    import random

    return "".join(random.Random(1).choices("0123456789abcdefghijklmnopqrstuvwxyz", k=length))


def test_a_key_that_no_index_takes_is_its_own_trouble(remote: Remote) -> None:
    """PostgreSQL's index takes 2,704 bytes: one longer key ended each run as "the database went away"."""
    long, fits = noise(3000), noise(2000)
    remote.respond = lambda seen: rows(1, long, fits, 2)
    result = remote.run(Listing("things", items="data"), delete_missing=True)
    assert (result.state, result.succeeded, result.flawed) == ("failed", 3, 1)
    assert remote.live() == {"1", "2", fits}
    (failed,) = result.failures
    assert "is longer than 2000 bytes" in failed[1]
    assert remote.run(Listing("things", items="data"), dry_run=True).flawed == 1


def test_a_url_that_no_index_takes_has_no_validator(remote: Remote) -> None:
    """With `conditional`, one long URL ended each run; such an answer is asked for without a condition."""
    more = noise(3000)

    def respond(seen: Seen) -> Reply:
        return rows(1, 2) if seen.path == "/things" else Reply({"path": seen.path}, headers={"ETag": f'"{noise(3000)}"'})

    def fetch(http: HttpClient, entity: Entity) -> Any:
        return http.get_json(f"things/{entity.key}", {"fields": more} if entity.key == "2" else None)

    remote.respond = respond
    result = remote.run(Listing("things", items="data"), fetch=fetch, conditional=True)
    assert (result.state, result.succeeded) == ("success", 2)
    assert [one["key"] for one in query(remote.store, "SELECT key FROM validator")] == ["1"]
