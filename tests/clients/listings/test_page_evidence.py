"""The table of statuses, headers and positions; and listings over real sockets whose ends are proved, in doubt, or errors."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from clients import (
    Cursor,
    GoneError,
    HttpClient,
    Keyset,
    Listing,
    Offset,
    PageNumber,
    RejectedError,
    ShortError,
    SinglePage,
    TotalPages,
    UnreadableError,
)
from clients.errors import ClientError
from clients.http.status import ContentRange
from clients.listings.page_evidence import Evidence, Position, is_full, weigh

Serve = Callable[..., Any]
EVERY = tuple(Position)
BEFORE = (Position.ONLY, Position.FIRST, Position.PROMISED, Position.NUMBERED)
BEHIND = tuple(one for one in Position if one not in BEFORE)
PROOF, DOUBT, ERROR = Evidence.PROOF, Evidence.DOUBT, Evidence.ERROR


@pytest.mark.parametrize(
    ("statuses", "positions", "more", "evidence"),
    [
        # Good answers: what they show is what there is.
        ((200, 201, 203, 204, 205), EVERY, {}, PROOF),
        ((202,), EVERY, {}, ERROR),
        ((207, 208, 226, 218, 299), EVERY, {}, DOUBT),
        ((200,), EVERY, {"is_stale": True}, DOUBT),
        # Parts: a page is one, an only page must be all.
        ((206,), [one for one in EVERY if one is not Position.ONLY], {}, PROOF),
        ((206,), [Position.ONLY], {}, DOUBT),
        ((206,), [Position.ONLY], {"covers": ContentRange("items", 0, 9, 10)}, PROOF),
        ((206,), [Position.ONLY], {"covers": ContentRange("items", 0, 9, 11)}, DOUBT),
        ((206,), [Position.ONLY], {"covers": ContentRange("items", 0, 9, None)}, DOUBT),
        ((206,), EVERY, {"covers": ContentRange("bytes", 0, 9, 10)}, PROOF),
        ((200, 206), EVERY, {"covers": ContentRange("bytes", 0, 9, 11)}, ERROR),
        # Refusals of a page that must be there, and of one that need not.
        ((400, 404, 410, 416, 422, None), BEFORE, {}, ERROR),
        ((400, 404, 410, 416, 422, None), [Position.BEHIND_FULL], {}, DOUBT),
        ((400, 404, 410, 416, 422, None), [Position.BEHIND_SHORT, Position.BEHIND_END, Position.BEHIND_EMPTY], {}, PROOF),
        ((400, 404), [Position.BEHIND_SHORT, Position.BEHIND_END], {"shown": 1000}, DOUBT),
        ((400, 404), [Position.BEHIND_EMPTY], {"shown": 1000}, PROOF),
        ((400, 404, 416), EVERY, {"waits": True}, ERROR),
        # How many there are, in the refusal itself.
        ((416,), BEHIND, {"shown": 20, "covers": ContentRange(length=20)}, PROOF),
        ((416,), BEHIND, {"shown": 20, "covers": ContentRange(length=21)}, DOUBT),
        ((416,), BEFORE, {"shown": 20, "covers": ContentRange(length=20)}, ERROR),
        # Everything else says nothing about the end.
        ((100, 304, 302, 401, 402, 403, 405, 407, 408, 409, 425, 429, 431, 451, 500, 502, 503, 504), EVERY, {}, ERROR),
    ],
)
def test_the_table(statuses: Any, positions: Any, more: dict[str, Any], evidence: Evidence) -> None:
    """Each status at each position is proof, doubt or error; a doubt says why."""
    for status in statuses:
        for position in positions:
            found = weigh(status, position, **{"shown": 25, **more})

            assert found.evidence is evidence, (status, position)

            assert bool(found.why) == (evidence is DOUBT)


def test_nothing_but_an_end_is_proved_by_a_refusal() -> None:
    """Whatever the status is, no refusal proves anything where a page must be, and none behind a full page."""
    for status in range(300, 600):
        for position in (*BEFORE, Position.BEHIND_FULL):
            assert weigh(status, position, shown=25).evidence is not PROOF


@pytest.mark.parametrize(
    ("rows", "largest", "sizes", "full"),
    [(0, 0, (), False), (7, 0, (), False), (10, 0, (), True), (7, 0, (7,), True), (10, 10, (), True), (9, 10, (), False)],
)
def test_full_pages(rows: int, largest: int, sizes: Any, full: bool) -> None:
    """A page is full when it is as large as any before; a first one when its size is a round number, or what was asked for."""
    assert is_full(rows, largest=largest, sizes=sizes) is full


# -- over real sockets ----------------------------------------------------------------------------------------------------------


def paged(rows: int, *, size: int = 10, refusal: int = 404, cap: int = 10**9, total: int | None = None, **more: Any) -> Any:
    """An API of numbers or offsets that refuses what is behind its last page, or behind its cap."""

    def respond(seen: Any) -> Any:
        number = int(seen.query.get("page", 1))
        start = int(seen.query.get("offset", (number - 1) * size))
        known = min(rows, cap)
        body = {"data": [{"id": n} for n in range(known)][start : start + size], "total": known if total is None else total}
        body["pages"] = -(-known // size)
        if start >= known:
            return refusal, more, {"detail": "Invalid page."}
        return 200, {}, body

    return respond


COUNTED = {
    "PageNumber": (PageNumber(), {}),
    "PageNumber+total": (PageNumber(), {"total": "total"}),
    "Offset": (Offset(limit=10), {}),
    "Offset+total": (Offset(limit=10), {"total": "total"}),
    "TotalPages": (TotalPages(path="pages"), {}),
}


@pytest.mark.parametrize("refusal", [400, 404, 410, 416, 422])
@pytest.mark.parametrize("name", COUNTED)
def test_the_page_behind_the_last_one_is_refused(name: str, refusal: int, serve: Serve) -> None:
    """Where the last page is not full, that is the end, and nothing is in doubt."""
    paginator, more = COUNTED[name]
    for rows in (0, 3, 13, 25):
        server = serve(paged(rows, refusal=refusal) if rows else lambda seen: (200, {}, {"data": [], "total": 0, "pages": 0}))
        with HttpClient(server.url) as http:
            pages = Listing("pets", paginator, items="data", **more)(http)
            got = list(pages)

        assert (pages.stopped, pages.completeness.distinct, got[-1].doubt) == ("end", rows, "")


@pytest.mark.parametrize("refusal", [400, 404])
@pytest.mark.parametrize("name", COUNTED)
def test_a_limit_refuses(name: str, refusal: int, serve: Serve) -> None:
    """Behind a full page a refusal may be a limit: with a reached total of rows or pages the end is in doubt, else short."""
    paginator, more = COUNTED[name]
    server = serve(paged(70, refusal=refusal, cap=40))
    with HttpClient(server.url) as http:
        pages = Listing("pets", paginator, items="data", **more)(http)
        got = [page for page in (next(pages, None) for _ in range(4)) if page is not None]
        if "total" in more or isinstance(paginator, TotalPages):
            got += pages
        else:
            with pytest.raises(ShortError, match=rf"refused \({refusal}\) after 40 entities"):
                got.extend(pages)

    assert f"refused ({refusal}) after 40 entities" in got[-1].doubt

    assert sum(len(page.items) for page in got) == 40

    assert any("refused" in text for text in got[-1].warnings)


@pytest.mark.parametrize("continued", [False, True])
@pytest.mark.parametrize("name", COUNTED)
def test_a_limit_in_the_middle_of_a_page(name: str, continued: bool, serve: Serve) -> None:
    """A limit of 100 rows cuts a page of 30 off: that page is not full, but the number of rows is round."""
    paginator, more = COUNTED[name]
    server = serve(paged(170, size=30, cap=100))
    listing = Listing("pets", paginator, items="data", **more)
    with HttpClient(server.url) as http:
        pages = listing(http)
        if continued:
            cursor = [next(pages), next(pages)][-1].cursor
            pages = listing.pages(http, cursor=json.loads(json.dumps(cursor)))
        got: list[Any] = []
        if "total" in more or isinstance(paginator, TotalPages):
            got.extend(pages)
        else:
            with pytest.raises(ShortError, match="exactly 100 entities"):
                got.extend(pages)

    assert "exactly 100 entities" in got[-1].doubt


@pytest.mark.parametrize(("relation", "doubt"), [("gte", True), ("eq", False), (None, False)])
def test_a_total_that_is_a_lower_bound(relation: str | None, doubt: bool, serve: Serve) -> None:
    """A search engine shows as many rows as its total says, which it marks as too low, and then empty pages."""

    def respond(seen: Any) -> Any:
        start = int(seen.query["offset"])
        rows = [{"id": n} for n in range(40)][start : start + 10]
        return 200, {}, {"hits": {"total": {"value": 40, "relation": relation}, "hits": rows}}

    server = serve(respond)
    with HttpClient(server.url) as http:
        *_, last = Listing("pets", Offset(limit=10), items="hits.hits", total="hits.total.value")(http)

    assert ("these are not all" in last.doubt) is doubt


def test_a_true_total_shows_a_limit(serve: Serve) -> None:
    """An API that announces 70 rows and refuses all behind 40 is short, not failed, and its rows are there."""
    server = serve(paged(70, cap=40, total=70))
    with HttpClient(server.url) as http:
        pages = Listing("pets", PageNumber(), items="data", total="total")(http)
        got: list[Any] = []
        with pytest.raises(ShortError, match="announced 70 entities and did not show 30"):
            got.extend(pages)

    assert len({entity.key for page in got for entity in page.items}) == 40


def test_a_refusal_says_how_many_there_are(serve: Serve) -> None:
    """`Content-Range: */20` behind a full page proves the end (PostgREST); `*/50` denies it."""
    for length, doubt in ((20, False), (50, True)):
        server = serve(paged(20, refusal=416, **{"Content-Range": f"*/{length}"}))
        with HttpClient(server.url) as http:
            *_, last = Listing("pets", Offset(limit=10), items="data", total="total")(http)

        assert bool(last.doubt) is doubt


@pytest.mark.parametrize(
    ("status", "headers"), [(404, {"Retry-After": "30"}), (400, {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "30"})]
)
def test_a_refusal_that_asks_to_wait_is_no_end(status: int, headers: dict[str, str], serve: Serve) -> None:
    """It is about now, not about the page."""
    server = serve(paged(13, refusal=status, **headers))
    with HttpClient(server.url) as http, pytest.raises(ClientError) as caught:
        list(Listing("pets", PageNumber(), items="data")(http))

    assert not isinstance(caught.value, ShortError)


@pytest.mark.parametrize(
    "listing", [Listing("pets", PageNumber(), items="data"), Listing("pets", Keyset("since", "id"), items="data")]
)
def test_a_refused_first_page_is_an_error(listing: Listing, serve: Serve) -> None:
    """Nothing was shown, so nothing has ended."""
    server = serve(lambda seen: (404, {}, {}))
    with HttpClient(server.url) as http, pytest.raises(GoneError):
        list(listing(http))


def test_a_refused_page_that_was_announced_is_an_error(serve: Serve) -> None:
    """A cursor, a number of pages or a flag named it: 400 for it is no end, however short the page before was."""
    for paginator, body in (
        (Cursor("next"), {"next": "b"}),
        (TotalPages(path="pages"), {"pages": 3}),
        (PageNumber(more="more"), {"more": True}),
        (Offset(limit=10, more="more"), {"more": True}),
    ):
        answers = iter([(200, {}, {"data": [{"id": 1}], **body}), (400, {}, {})])
        server = serve(lambda seen, answers=answers: next(answers))
        with HttpClient(server.url) as http, pytest.raises(RejectedError):
            list(Listing("pets", paginator, items="data")(http))


@pytest.mark.parametrize(
    ("headers", "body", "doubt"),
    [
        ({"X-Total-Count": "45"}, {}, "x-total-count announces 45 rows, 3 came"),
        ({"X-Total": "3"}, {}, ""),
        ({"X-Total-Count": "many"}, {}, ""),
        ({}, {"totalCount": 45}, "totalCount announces 45 rows"),
        ({}, {"meta": {"total": "45"}}, "meta.total announces 45 rows"),
        ({}, {"meta": {"total": 3, "count": 3}}, ""),
        # May be a sum of money.
        ({}, {"total": 45}, ""),
    ],
)
def test_an_only_page_that_announces_more_rows(headers: Any, body: Any, doubt: str, serve: Serve) -> None:
    """Without a paginator and a declared total, what the API itself says of its rows keeps the others from being deleted."""
    server = serve(lambda seen: (200, headers, {"data": [{"id": 1}, {"id": 2}, {"id": 3}], **body}))
    with HttpClient(server.url) as http:
        (page,) = Listing("pets", items="data")(http)
        (declared,) = Listing("pets", items="data", total="nowhere")(http)

    assert page.doubt.startswith(doubt)
    assert bool(page.doubt) == bool(doubt)
    assert declared.doubt == ""


@pytest.mark.parametrize(
    ("status", "headers", "stopped", "doubt"),
    [
        (206, {"Content-Range": "items 0-2/3"}, "end", False),
        (206, {"Content-Range": "0-2/*"}, "end", True),
        (206, {}, "end", True),
        (206, {"Content-Range": "items 0-2/9"}, "short", True),
        (200, {"Content-Range": "items 0-2/9"}, "short", False),
        (207, {}, "end", True),
        (299, {}, "end", True),
        (200, {"Warning": '110 - "Response is Stale"'}, "end", True),
        (200, {"Warning": '299 - "deprecated"'}, "end", False),
    ],
)
def test_an_only_page_that_is_not_all(status: int, headers: Any, stopped: str, doubt: bool, serve: Serve) -> None:
    """What an answer says about its own completeness is believed."""
    server = serve(lambda seen: (status, headers, [{"id": 1}, {"id": 2}, {"id": 3}]))
    with HttpClient(server.url) as http:
        pages = Listing("pets", SinglePage())(http)
        page = next(pages)
        if stopped == "short":
            with pytest.raises(ShortError, match="announced 9 entities"):
                list(pages)
        else:
            list(pages)

    assert (pages.stopped, bool(page.doubt), len(page.items)) == (stopped, doubt, 3)


def test_half_of_a_body_is_no_page(serve: Serve) -> None:
    """A part by bytes was not asked for, and is no page even where it can be read."""
    server = serve(lambda seen: (206, {"Content-Range": "bytes 0-9/999"}, [{"id": 1}]))
    with HttpClient(server.url) as http, pytest.raises(UnreadableError, match="206"):
        list(Listing("pets", PageNumber())(http))


def test_a_doubt_survives_an_interruption(serve: Serve) -> None:
    """A page in the middle that may be incomplete is still known when the listing is continued."""
    server = serve(
        lambda seen: (200, {}, {"data": [{"id": 2}]}) if "cursor" in seen.query else (207, {}, {"data": [{"id": 1}], "next": "b"})
    )
    listing = Listing("pets", Cursor("next"), items="data")
    with HttpClient(server.url) as http:
        cursor = next(listing(http)).cursor
        (last,) = listing.pages(http, cursor=cursor)

    assert "207" in last.doubt


@pytest.mark.parametrize("behind", [1, 2])
def test_a_message_in_place_of_rows_survives_an_interruption(behind: int, serve: Serve) -> None:
    """A page in the middle that has a message and no rows is still known when the listing is continued behind it."""
    pages = {
        "": {"data": [{"id": 1}], "next": "b"},
        "b": {"message": "try later", "next": "c"},
        "c": {"data": [{"id": 3}], "next": "d"},
        "d": {"data": [{"id": 4}]},
    }
    server = serve(lambda seen: (200, {}, pages[seen.query.get("cursor", "")]))
    listing = Listing("pets", Cursor("next"), items="data")
    with HttpClient(server.url) as http:
        with pytest.raises(ShortError, match="message"):
            list(listing(http))
        begun = listing(http)
        cursor = [next(begun).cursor for _ in range(behind + 1)][-1]
        with pytest.raises(ShortError, match="message"):
            list(listing.pages(http, cursor=json.loads(json.dumps(cursor))))
