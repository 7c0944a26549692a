"""Going through a listing: limits, drift, what is told of it, and going on after an interruption."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from clients import (
    Cursor,
    HttpClient,
    Keyset,
    LimitError,
    Listing,
    Offset,
    PageError,
    PageNumber,
    RelayCursor,
    ShortError,
    SinglePage,
    TotalPages,
)

Serve = Callable[..., Any]


def numbered(rows: list[int], size: int = 10, **more: Any) -> Any:
    """An API of numbered pages over a list that a test may change."""

    def respond(seen: Any) -> Any:
        start = (int(seen.query["page"]) - 1) * size
        return 200, {}, {"data": [{"id": n} for n in rows[start : start + size]], **more}

    return respond


@pytest.mark.rows("E-96")
def test_limits_end_a_listing(serve: Serve) -> None:
    """`max_pages` and `max_seconds` end it before another request, with what came so far yielded."""
    server = serve(numbered(list(range(100))))
    with HttpClient(server.url) as http:
        for limit in ({"max_pages": 3}, {"max_seconds": 0.0001}):
            pages = Listing("pets", PageNumber(), items="data", **limit)(http)
            with pytest.raises(LimitError, match=next(iter(limit))):
                list(pages)

            assert pages.stopped == "limit"

    assert len(server.seen) <= 4


@pytest.mark.parametrize("limit", [{"max_pages": 0}, {"max_seconds": -1}, {"recheck": -1}])
def test_limits_are_checked(limit: dict[str, Any]) -> None:
    """A limit that nothing can meet is the declaration's fault."""
    with pytest.raises(ValueError, match="Listing"):
        Listing("pets", **limit)


def test_graphql_needs_its_query() -> None:
    """A Relay listing without its query is the declaration's fault."""
    with pytest.raises(ValueError, match="RelayCursor needs the query"):
        Listing("graphql", RelayCursor("data.pets"), items="data.pets.nodes")


def test_a_deleted_row_costs_nothing(serve: Serve) -> None:
    """A row deleted on a page already read moves another over the edge; it is found by reading again, and that is told."""
    rows = list(range(35))
    respond = numbered(rows)

    def deleting(seen: Any) -> Any:
        if len(server.seen) == 3 and 0 in rows:
            rows.remove(0)
        return respond(seen)

    server = serve(deleting)
    with HttpClient(server.url) as http:
        pages = Listing("pets", PageNumber(), items="data")(http)
        got = list(pages)

    assert sorted(int(entity.key) for page in got for entity in page.items) == list(range(35))

    assert (pages.stopped, pages.passes, pages.completeness.distinct) == ("end", 1, 35)

    assert any("read again" in text for page in got for text in page.warnings)


def test_rows_that_never_stand_still_are_reported(serve: Serve) -> None:
    """Where each reading finds what the one before lost, the listing says that it is not complete."""
    rows = list(range(60))
    respond = numbered(rows, size=5)

    def inserting(seen: Any) -> Any:
        rows.insert(len(rows) // 2, 1000 + len(server.seen))
        return respond(seen)

    server = serve(inserting)
    with HttpClient(server.url) as http:
        pages = Listing("pets", PageNumber(), items="data")(http)
        with pytest.raises(ShortError, match="moved"):
            list(pages)

    assert (pages.stopped, pages.passes) == ("short", 3)


def test_recheck_can_be_left_out(serve: Serve) -> None:
    """With `recheck=0` nothing is asked twice."""
    server = serve(numbered(list(range(25))))
    with HttpClient(server.url) as http:
        list(Listing("pets", PageNumber(), items="data", recheck=0)(http))

    assert [seen.query["page"] for seen in server.seen] == ["1", "2", "3", "4", "5"]


@pytest.mark.parametrize(("change", "found"), [("none", "all"), ("deleted", "all"), ("inserted", "all"), ("another", "error")])
def test_going_on_after_an_interruption(change: str, found: str, serve: Serve) -> None:
    """A stored number is still right, or what moved over the edge is shown too, or the listing has to start over."""
    rows = list(range(100, 145))
    server = serve(numbered(rows))
    listing = Listing("pets", PageNumber(), items="data")
    with HttpClient(server.url) as http:
        pages = listing(http)
        seen = [entity.key for page in (next(pages), next(pages)) for entity in page.items]
        cursor = next(pages).cursor
        seen += map(str, rows[20:30])
        left = set(map(str, rows))
        if change == "deleted":
            left -= {str(n) for n in rows[:4]}
            del rows[:4]
        elif change == "inserted":
            rows[:0] = range(5)
        elif change == "another":
            rows[:] = range(500, 545)
        if found == "error":
            with pytest.raises(PageError, match="start over"):
                list(listing.pages(http, cursor=cursor))
            return
        seen += [entity.key for page in listing.pages(http, cursor=cursor) for entity in page.items]

    assert left <= set(seen)


def test_the_total_survives_an_interruption(serve: Serve) -> None:
    """A listing that goes on knows what was announced and shown before."""
    first = True

    def respond(seen: Any) -> Any:
        if "cursor" in seen.query:
            return 200, {}, {"data": [{"id": 2}], "total": 9}
        return 200, {}, {"data": [{"id": 1}], "next": "b", "total": 3 if first else None}

    server = serve(respond)
    listing = Listing("pets", Cursor("next"), items="data", total="total")
    with HttpClient(server.url) as http:
        cursor = next(listing(http)).cursor
        pages = listing.pages(http, cursor=cursor)
        with pytest.raises(ShortError, match="announced 3 entities and did not show 1"):
            list(pages)


def test_a_total_in_a_header(serve: Serve) -> None:
    """`total_header` counts like `total`."""
    server = serve(lambda seen: (200, {"X-Total-Count": "5"}, [{"id": 1}]))
    with HttpClient(server.url) as http, pytest.raises(ShortError, match="announced 5"):
        list(Listing("pets", total_header="X-Total-Count")(http))


@pytest.mark.parametrize(
    ("rows", "more", "params", "warned"),
    [
        (100, {}, None, "exactly 100 rows"),
        (37, {}, {"limit": 37}, "exactly 37 rows"),
        (37, {}, None, ""),
        (1, {}, {"version": 1}, ""),
    ],
)
def test_a_full_page_and_no_paginator(rows: int, more: Any, params: Any, warned: str, serve: Serve) -> None:
    """A listing without a paginator that looks like a first page says so (integration-templates#573)."""
    server = serve(lambda seen: (200, {}, {"data": [{"id": n} for n in range(rows)], **more}))
    with HttpClient(server.url) as http:
        (page,) = Listing("pets", SinglePage(), items="data", params=params)(http)

    assert (warned in "".join(page.warnings)) == bool(warned or not page.warnings)

    assert bool(page.warnings) == bool(warned)


@pytest.mark.parametrize(
    ("headers", "more"),
    [({}, {"next": "/2"}), ({}, {"links": {"next": "/2"}}), ({}, {"has_more": True}), ({"Link": '</2>; rel="next"'}, {})],
)
def test_a_next_page_and_no_paginator(headers: Any, more: Any, serve: Serve) -> None:
    """A listing without a paginator whose answer names a next page is not complete, and says so."""
    server = serve(lambda seen: (200, headers, {"data": [{"id": 1}], **more}))
    with HttpClient(server.url) as http:
        pages = Listing("pets", SinglePage(), items="data")(http)
        page = next(pages)
        with pytest.raises(ShortError, match="names a next page, but the listing has no paginator"):
            next(pages)

    assert "names a next page" in page.warnings[0]

    assert pages.stopped == "short"


def test_an_offset_is_refused_behind_the_end(serve: Serve) -> None:
    """A look behind the end that is refused is the end; a refusal before it is an error."""

    def respond(seen: Any) -> Any:
        offset = int(seen.query["offset"])
        return (400, {}, {}) if offset > 20 else (200, {}, {"data": [{"id": n} for n in range(offset, min(20, offset + 10))]})

    server = serve(respond)
    with HttpClient(server.url) as http:
        pages = list(Listing("pets", Offset(limit=10), items="data")(http))

    assert sum(len(page.items) for page in pages) == 20


def test_what_only_the_overlap_repeats_is_dropped(serve: Serve) -> None:
    """Going on behind a value that several rows have reads some twice; each is yielded once, unless it changed meanwhile."""
    rows = [{"id": n, "at": f"t{n // 3:02}"} for n in range(30)]
    server = serve(lambda seen: (200, {}, [row for row in rows if row["at"] > seen.query.get("since", "")][:7]))
    with HttpClient(server.url) as http:
        pages = Listing("pets", Keyset("since", "at"))(http)
        keys = [entity.key for page in pages for entity in page.items]

    assert keys == [str(row["id"]) for row in rows]

    assert pages.completeness.rows > pages.completeness.distinct == 30


def test_the_old_name_of_completeness_works() -> None:
    """`Paging.proof` was its name in the last release: it works, with a warning that says the new one."""
    with HttpClient("http://127.0.0.1:9") as http:
        pages = Listing("pets").pages(http)
    with pytest.warns(DeprecationWarning, match=r"Paging\.completeness"):
        assert pages.proof is pages.completeness


def counted(rows: list[int], *, size: int = 10, total: Any = None, more: bool = False) -> Any:
    """An API of numbered pages or offsets over a list that a test may change; it announces a total, or a flag."""

    def respond(seen: Any) -> Any:
        start = int(seen.query.get("offset", (int(seen.query.get("page", 1)) - 1) * size))
        page = rows[start : start + size]
        body: dict[str, Any] = {"data": [{"id": n} for n in page], "pages": -(-len(rows) // size)}
        if more:
            body["more"] = start + size < len(rows)
        body["total"] = len(rows) if total is None else total(start, page, len(rows))
        return 200, {}, body

    return respond


COUNTED = {
    "PageNumber+total": (PageNumber(), {"total": "total"}),
    "Offset+total": (Offset(limit=10), {"total": "total"}),
    "TotalPages+total": (TotalPages(path="pages"), {"total": "total"}),
    "PageNumber+more": (PageNumber(more="more"), {}),
    "Offset+more": (Offset(limit=10, more="more"), {}),
}


@pytest.mark.parametrize("name", COUNTED)
@pytest.mark.parametrize("rows", [0, 1, 9, 10, 11, 20, 25, 100, 199, 400, 1000])
def test_what_a_counted_listing_costs(name: str, rows: int, serve: Serve) -> None:
    """One page costs at most two requests, n pages at most n + 2."""
    paginator, more = COUNTED[name]
    server = serve(counted(list(range(rows)), more="more" in name))
    with HttpClient(server.url) as http:
        pages = Listing("pets", paginator, items="data", **more)(http)
        list(pages)
    whole = max(1, -(-rows // 10))

    assert pages.completeness.distinct == rows

    assert len(server.seen) <= (2 if whole == 1 else whole + 2)


@pytest.mark.parametrize("when", [2, 3, 4])
@pytest.mark.parametrize("size", [7, 9, 10])
@pytest.mark.parametrize("name", COUNTED)
def test_one_deleted_and_one_added_meanwhile(name: str, size: int, when: int, serve: Serve) -> None:
    """The oldest goes and a new one comes: the total stays the same and a row is missed, but page one shows it."""
    rows = list(range(35))
    respond = counted(rows, size=size, more="more" in name)

    def swapping(seen: Any) -> Any:
        if len(server.seen) == when:
            rows.remove(0)
            rows.append(35)
        return respond(seen)

    server = serve(swapping)
    paginator, more = COUNTED[name]
    with HttpClient(server.url) as http:
        pages = Listing("pets", paginator, items="data", **more)(http)
        got = {entity.key for page in pages for entity in page.items}

    assert (got, pages.passes) == (set(map(str, range(36))), 1)


def test_a_flag_decides_alone(serve: Serve) -> None:
    """An empty page with more behind it is no end, and a full one without more is; a flag that says neither is an error."""
    flags: list[Any] = ["true", 1, False]
    server = serve(lambda seen: (200, {}, {"data": [], "more": flags[int(seen.query["page"]) - 1]}))
    with HttpClient(server.url) as http:
        pages = Listing("pets", PageNumber(more="more"), items="data")(http)
        list(pages)
        flags[1] = "maybe"
        with pytest.raises(PageError, match="neither yes nor no"):
            list(Listing("pets", PageNumber(more="more"), items="data")(http))

    assert len(server.seen) == 3 + 2

    for broken in (lambda: PageNumber(more="a..b"), lambda: Offset(more="a..b")):
        with pytest.raises(ValueError, match="JMESPath"):
            broken()


@pytest.mark.parametrize("rows", [4, 10, 15, 20, 95, 100])
@pytest.mark.parametrize(
    "total",
    [
        lambda start, page, rows: min(rows, start + 11),
        lambda start, page, rows: start + len(page),
        lambda start, page, rows: len(page),
    ],
    ids=["one ahead", "up to the page", "of the page"],
)
def test_a_total_that_grows_is_none(total: Any, rows: int, serve: Serve) -> None:
    """Such a listing is complete, read once, and loses nothing, also when it is continued."""
    server = serve(counted(list(range(rows)), total=total))
    listing = Listing("pets", PageNumber(), items="data", total="total")
    with HttpClient(server.url) as http:
        pages = listing(http)
        cursors = [page.cursor for page in pages]

        assert (pages.stopped, pages.passes, pages.completeness.distinct) == ("end", 0, rows)

        for position, cursor in enumerate(cursors[:-1]):
            rest = listing.pages(http, cursor=cursor)

            assert {entity.key for page in rest for entity in page.items} >= set(map(str, range(position * 10 + 10, rows)))

            assert rest.stopped == "end"


def test_rows_added_meanwhile_are_no_growing_total(serve: Serve) -> None:
    """A number beyond the next page is a total, also when it grows: the listing is read again."""
    rows = list(range(35))
    respond = counted(rows)

    def inserting(seen: Any) -> Any:
        if len(server.seen) == 3:
            rows.insert(0, 99)
        return respond(seen)

    server = serve(inserting)
    with HttpClient(server.url) as http:
        pages = Listing("pets", PageNumber(), items="data", total="total")(http)
        list(pages)

    assert (pages.passes, pages.completeness.distinct) == (1, 36)


@pytest.mark.parametrize(("rows", "passes"), [([1, 1, 2, 3, 4], 0), ([1, 2, 2, 3, 4], 1)], ids=["on one page", "on two pages"])
def test_rows_that_come_twice_are_a_doubt(rows: list[int], passes: int, serve: Serve) -> None:
    """Five were announced and came, one of them twice: the API may count so, or another may be missing in its place."""
    server = serve(counted(rows, size=2))
    with HttpClient(server.url) as http:
        pages = Listing("pets", PageNumber(), items="data", total="total")(http)
        *_, last = pages

    assert (pages.stopped, pages.passes, last.total) == ("end", passes, 4)

    assert "5 rows were announced and came, but some twice" in last.doubt
