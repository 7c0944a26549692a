"""Listings against real paged servers: every row once, whatever the server does, and resumable after each page."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from clients import (
    ApiKey,
    Bearer,
    Continue,
    Cursor,
    Entity,
    HttpClient,
    Keyset,
    LinkHeader,
    Listing,
    LoopError,
    NextLink,
    Offset,
    PageError,
    PageNumber,
    SinglePage,
    TotalPages,
    UnreadableError,
)

ROWS = [{"id": n, "at": f"t{n:03}"} for n in range(1, 251)]
KEYS = [str(row["id"]) for row in ROWS]
CAP = 50


def window(seen: Any, start: int, size: int = CAP) -> list[dict[str, Any]]:
    """The rows from `start`, as many as the server allows."""
    return ROWS[start : start + size]


def by_page(seen: Any) -> Any:
    """Answer pages by page."""
    return 200, {}, {"data": window(seen, (int(seen.query["page"]) - 1) * CAP)}


def by_offset(seen: Any) -> Any:
    """Answer pages by offset."""
    return 200, {}, {"data": window(seen, int(seen.query["offset"]), min(CAP, int(seen.query["limit"])))}


def by_cursor(seen: Any) -> Any:
    """Page 2 of 6 is empty, and has a next cursor."""
    at = seen.query.get("cursor", "0")
    if at == "50":
        return 200, {}, {"data": [], "next": "50b"}
    start = int(at.rstrip("b"))
    return 200, {}, {"data": window(seen, start), "next": str(start + CAP) if start + CAP < 250 else None}


def by_body_cursor(seen: Any) -> Any:
    """Answer pages by body cursor."""
    body = json.loads(seen.body)
    assert body["filter"] == {"kind": "cat"}
    start = body.get("cursor", 0)
    return 200, {}, {"data": window(seen, start), "next": start + CAP if start + CAP < 250 else None}


def by_link(seen: Any) -> Any:
    """Answer pages by link."""
    start = int(seen.query.get("from", 0))
    assert seen.query["key"] == "k3y"
    echoed = f"?key={seen.query.get('key', '')}&from={start + CAP}"
    return 200, {}, {"data": window(seen, start), "next": echoed if start + CAP < 250 else None}


def by_link_header(seen: Any) -> Any:
    """Answer pages by link header."""
    start = int(seen.query.get("from", 0))
    link = {"Link": f'<{seen.path}?from={start + CAP}>; rel="last next"'} if start + CAP < 250 else {}
    return 200, link, {"data": window(seen, start)}


def by_total(seen: Any) -> Any:
    """Answer pages by total."""
    status, _, body = by_page(seen)
    return status, {"X-Total-Pages": "5"}, body


def by_key(seen: Any) -> Any:
    """Answer pages by key."""
    return 200, {}, {"data": window(seen, int(seen.query.get("since_id", 0)))}


def by_continue(seen: Any) -> Any:
    """Answer pages by continue."""
    start = int(seen.query.get("from", 0))
    assert seen.query["action"] == "query"
    more = {"continue": {"from": start + CAP, "continue": "-||"}} if start + CAP < 250 else {}
    return 200, {}, {"data": window(seen, start), **more}


CASES = {
    # Five pages, two looks behind them, and all five once more.
    "PageNumber": (by_page, Listing("pets", PageNumber(), items="data"), 12),
    "Offset": (by_offset, Listing("pets", Offset(limit=100), items="data"), 12),
    "Cursor": (by_cursor, Listing("pets", Cursor("next"), items="data"), 6),
    "CursorInBody": (
        by_body_cursor,
        Listing("pets", Cursor("next"), items="data", method="POST", json={"filter": {"kind": "cat"}}),
        5,
    ),
    "NextLink": (by_link, Listing("pets", NextLink(), items="data"), 5),
    "LinkHeader": (by_link_header, Listing("pets", LinkHeader(), items="data"), 5),
    "TotalPages": (by_total, Listing("pets", TotalPages(header="X-Total-Pages"), items="data"), 11),
    "Keyset": (by_key, Listing("pets", Keyset("since_id", "id"), items="data"), 6),
    "Continue": (by_continue, Listing("pets", Continue(), items="data", params={"action": "query"}), 5),
}


@pytest.mark.parametrize("name", CASES)
def test_every_row_once_and_resumable(name: str, serve: Callable[..., Any]) -> None:
    """All 250 rows come once though the server caps pages at 50, and each stored cursor yields exactly what is left."""
    respond, listing, requests = CASES[name]
    server = serve(respond)
    with HttpClient(server.url, auth=ApiKey("k3y", query="key")) as http:
        pages = list(listing(http))

        assert [entity.key for page in pages for entity in page.items] == KEYS

        assert requests == http.requests == len(server.seen)

        assert "k3y" not in repr([page.cursor for page in pages])

        assert pages[-1].cursor is None
        for done in range(1, len(pages)):
            cursor = json.loads(json.dumps(pages[done - 1].cursor))
            rest = list(listing.pages(http, cursor=cursor))

            assert pages[done:] == rest
    assert all(seen.query["key"] == "k3y" and seen.target.count("key=") == 1 for seen in server.seen)


def test_since_goes_with_every_request_and_is_kept_by_the_cursor(serve: Callable[..., Any]) -> None:
    """The parameters for changed entities are on each page, also after a resume, and not in the declaration."""
    server = serve(by_offset)
    listing = Listing("pets", Offset(limit=100), items="data", params={"kind": "cat"}, recheck=0)
    with HttpClient(server.url) as http:
        first = next(listing(http, {"updated_after": "t100"}))
        list(listing.pages(http, cursor=first.cursor, since={"updated_after": "another"}))

    # The first page, the same again when it goes on, four more, and two looks behind them.
    assert [(seen.query["updated_after"], seen.query["kind"]) for seen in server.seen] == [("t100", "cat")] * 8


@pytest.mark.parametrize(
    ("listing", "body", "expected"),
    [
        (Listing(""), [{"id": 1}, {"id": "b"}], ["1", "b"]),
        (Listing("", items="data.rows"), {"data": {"rows": [{"id": 1}]}}, ["1"]),
        (Listing("", items="data"), {"data": None}, []),
        (Listing("", items="data"), {}, []),
        (Listing("", items="data"), {"data": []}, []),
        (Listing(""), None, []),
        (Listing("", key="@"), ["a", "b"], ["a", "b"]),
        (Listing("", items="values(@)", key="meta.id"), {"x": {"meta": {"id": 5}}}, ["5"]),
    ],
)
def test_items_and_keys(listing: Listing, body: Any, expected: list[str], serve: Callable[..., Any]) -> None:
    """Items and keys are found where they were declared; null items are an empty page."""
    server = serve(lambda seen: (200, {}, body))
    with HttpClient(server.url) as http:
        (page,) = listing(http)

    assert expected == [entity.key for entity in page.items]

    assert (page.cursor, tuple(page.errors)) == (None, ())


def test_items_without_their_key_are_recorded(serve: Callable[..., Any]) -> None:
    """An item without a usable key is one line of the page's errors, and everything else goes on."""
    rows = [
        {"id": 1},
        {"id": None},
        {"id": ""},
        {"id": 1.5},
        {"id": True},
        {"id": {"s3cret": 1}},
        {},
        "text",
        {"id": 2},
    ]
    server = serve(lambda seen: (200, {}, rows))
    with HttpClient(server.url) as http:
        (page,) = Listing("").pages(http)

    assert [entity.key for entity in page.items] == ["1", "2"]

    assert page.errors == [
        "item 1 of the page has no key at 'id' (NoneType)",
        "item 2 of the page has no key at 'id' (empty)",
        "item 3 of the page has no key at 'id' (float)",
        "item 4 of the page has no key at 'id' (bool)",
        "item 5 of the page has no key at 'id' (dict)",
        "item 6 of the page has no key at 'id' (NoneType)",
        "item 7 of the page has no key at 'id' (NoneType): the items are no objects; key=\"@\" takes the item itself",
    ]


def test_the_fields_of_items_are_named_once(serve: Callable[..., Any]) -> None:
    """A wrong `key` is told with the names of the fields that there are, without their values, for the first item only."""
    row = {"uuid": "s3cret", "n" * 50: 1, **dict.fromkeys("abcdefgh")}
    server = serve(lambda seen: (200, {}, [row, row, {"id": 1}]))
    with HttpClient(server.url) as http:
        (page,) = Listing("").pages(http)
    assert page.errors == [
        f"item 0 of the page has no key at 'id' (NoneType); its fields are uuid, {'n' * 40}, a, b, c, d, e, f, …",
        "item 1 of the page has no key at 'id' (NoneType)",
    ]


def test_versions_and_totals(serve: Callable[..., Any]) -> None:
    """A version is text: a text itself, anything else as JSON; the announced total is a whole number or unknown."""
    versions = ["v1", 7, 1.5, True, None, {"b": 1, "a": 2}]
    rows = [{"id": n, "v": version} for n, version in enumerate(versions)]
    server = serve(lambda seen: (200, {}, {"rows": rows, "meta": {"total": "6"}}))
    with HttpClient(server.url) as http:
        (page,) = Listing("", items="rows", version="v", total="meta.total").pages(http)
        (other,) = Listing("", items="rows", total="rows").pages(http)

    assert [entity.version for entity in page.items] == ["v1", "7", "1.5", "true", None, '{"a":2,"b":1}']

    assert (page.total, other.total) == (6, None)

    assert Entity("0", "v1", rows[0]) == page.items[0]


@pytest.mark.parametrize(
    ("listing", "body", "expected"),
    [
        (Listing("pets"), {"pets": [], "n": 1}, "the body is not a list (dict); lists are at 'pets'"),
        (Listing("pets", items="n"), {"n": 1}, "the body at 'n' is not a list (int)"),
        (Listing("pets", items="n"), {"n": "s3cret"}, "the body at 'n' is not a list (str)"),
    ],
)
def test_pages_that_do_not_fit(listing: Listing, body: Any, expected: str, serve: Callable[..., Any]) -> None:
    """A page without a list where it was declared says what is there instead, and where lists are."""
    server = serve(lambda seen: (200, {}, body))
    with HttpClient(server.url) as http, pytest.raises(PageError) as caught:
        list(listing(http))

    assert f"GET {server.url}/pets: {expected}" == str(caught.value)


def test_a_page_that_is_not_json(serve: Callable[..., Any]) -> None:
    """A login page with status 200 is not an empty listing."""
    server = serve(lambda seen: (200, {"Content-Type": "text/html"}, b"<html>s3cret</html>"))
    with HttpClient(server.url) as http, pytest.raises(UnreadableError) as caught:
        list(Listing("pets")(http))

    assert f"GET {server.url}/pets: not JSON at position 0 (text/html, 19 bytes, status 200)" == str(caught.value)


@pytest.mark.rows("E-96")
@pytest.mark.parametrize("cursors", [["a", "a", "a"], ["a", "b", "a", "b"], ["a", "b", "c", "b"]])
def test_loops_are_errors(cursors: list[str], serve: Callable[..., Any]) -> None:
    """A server that leads back to a page already had ends the listing with an error, after the pages that are new."""
    left = iter(cursors * 9)
    server = serve(lambda seen: (200, {}, {"data": [{"id": 1}], "next": next(left)}))
    with HttpClient(server.url) as http:
        pages = Listing("pets", Cursor("next"), items="data")(http)
        got = [next(pages) for _ in range(len(set(cursors)) + 1)]
        with pytest.raises(LoopError):
            next(pages)

    assert all(page.cursor is not None for page in got)

    assert len(set(cursors)) + 1 == len(server.seen)


@pytest.mark.parametrize("paginator", [NextLink(), LinkHeader()])
def test_links_to_another_origin_carry_no_credentials(paginator: Any, serve: Callable[..., Any]) -> None:
    """A next link to another origin is followed, without token, declared headers, cookies or the echoed key."""
    other = serve(lambda seen: (200, {}, {"data": [{"id": 2}], "next": None}))
    link = f"{other.url.replace('http://', 'http://evil:evil@')}/pets?page=2&key=s3cret"
    first = serve(lambda seen: (200, {"Link": f'<{link}>; rel="next"'}, {"data": [{"id": 1}], "next": link}))
    sign_in = (Bearer("s3cret"), ApiKey("s3cret", query="key"))
    for auth in sign_in:
        with HttpClient(f"{first.url}?key=s3cret", auth=auth, headers={"Cookie": "s3cret", "X-Tenant": "s3cret"}) as http:
            pages = list(Listing("pets", paginator, items="data")(http))

        assert [entity.key for page in pages for entity in page.items] == ["1", "2"]

    assert "s3cret" in repr(first.seen)

    assert len(other.seen) == 2

    assert "s3cret" not in repr(other.seen)

    assert {"host", "accept", "accept-encoding", "user-agent"} == set(other.seen[0].headers)


@pytest.mark.parametrize("field", ["items", "key", "version", "total"])
def test_broken_declarations(field: str) -> None:
    """A path that is not JMESPath is found when the file is read."""
    with pytest.raises(ValueError, match="not a JMESPath expression"):
        Listing("pets", SinglePage(), **{field: "a..b"})  # type: ignore[arg-type]


@pytest.mark.parametrize("cursor", [5, "x", {"url": 1}, {"params": {}, "since": 1}])
def test_foreign_cursors(cursor: Any) -> None:
    """A stored cursor that this version did not write is refused before anything is sent."""
    with pytest.raises(ValueError, match="stored cursor"), HttpClient("http://127.0.0.1:9") as http:
        next(Listing("pets", SinglePage()).pages(http, cursor=cursor))


@pytest.mark.parametrize(
    ("items", "body", "place"),
    [
        ("data", {"results": [{"id": 1}], "count": 1}, "'results'"),
        ("data", {"results": [{"uuid": 1}]}, "'results'"),
        ("data", [{"id": 1}], "the body itself"),
        ("data", {"response": {"page": 1, "pets": [{"id": 1}]}}, "'response.pets'"),
        ("data.pets", {"data": {"dogs": [{"id": 1}]}}, "'data.dogs'"),
        ("data", {"pets": {"7": {"id": 7}, "8": {"id": 8}}}, "'pets'"),
        ("data", {"message": "ok", "cats": [{"id": 1}], "dogs": [{"id": 1}]}, "'cats', 'dogs'"),
        ("data[?kind]", {"results": [{"id": 1}]}, "'results'"),
    ],
)
def test_items_that_are_elsewhere(items: str, body: Any, place: str, serve: Callable[..., Any]) -> None:
    """A path that is wrong is an error that says where the rows are, in place of a listing of nothing."""
    server = serve(lambda seen: (200, {}, body))
    for paginator in (SinglePage(), PageNumber(), Cursor("next")):
        with HttpClient(server.url) as http, pytest.raises(PageError) as caught:
            list(Listing("pets", paginator, items=items)(http))

        assert caught.value.message == f"the body has no {items!r}; rows are at {place}"


@pytest.mark.parametrize(
    ("items", "body", "fails"),
    [
        ("data", None, False),
        ("data", {}, False),
        ("data", [], False),
        ("data", {"data": None, "included": [{"id": 1}], "pets": [{"id": 1}]}, False),
        ("data.pets", {"data": []}, False),
        ("data.pets", {"data": None, "dogs": [{"id": 1}]}, False),
        ("items", {"kind": "calendar#events", "etag": "e"}, False),
        ("messages", {"resultSizeEstimate": 0}, False),
        ("data", {"errors": [], "links": [{"rel": "self", "href": "/"}], "ok": True}, False),
        ("data", {"pets": [], "total": 0}, False),
        ("data", {"pets": []}, True),
        ("data", {"version_info": "7", "foo": [1, 2]}, True),
        ("data", {"message": "please use version 2"}, True),
        ("data || `[]`", {"message": "no pets"}, False),
    ],
)
def test_an_empty_list_may_be_left_out(items: str, body: Any, fails: bool, serve: Callable[..., Any]) -> None:
    """Null, an empty value on the way, or no member at all is an empty page; a body that says something else is an error."""
    server = serve(lambda seen: (200, {}, body))
    for paginator in (SinglePage(), PageNumber(), Cursor("next")):
        with HttpClient(server.url) as http:
            pages = Listing("pets", paginator, items=items, total="total")(http)
            if fails:
                with pytest.raises(
                    PageError, match=r"is the path right\? if an empty list looks like that, items='data || `\[\]`'"
                ):
                    list(pages)
            else:
                assert [(list(page.items), page.warnings) for page in pages if page.items or page.warnings] == []


def test_a_first_page_without_items_may_have_rows_behind_it(serve: Callable[..., Any]) -> None:
    """Only a listing of nothing is in question."""
    server = serve(lambda seen: (200, {}, {"data": [{"id": 1}]} if seen.query["page"] == "2" else {"cut": "by a filter"}))
    with HttpClient(server.url) as http:
        found = [entity.key for page in Listing("pets", PageNumber(), items="data", recheck=0)(http) for entity in page.items]

    assert found == ["1"]


def test_a_path_that_was_right_once_is_right(serve: Callable[..., Any]) -> None:
    """A later page without its list is empty, whatever it has beside, but no proof; an empty first page is no warning."""
    bodies = [{"token": "a", "next": 2}, {"data": [{"id": 1}], "next": 3}, {"people": [{"id": 2}], "next": None}]
    server = serve(lambda seen: (200, {}, bodies[int(seen.query.get("cursor", 1)) - 1]))
    with HttpClient(server.url) as http:
        pages = list(Listing("pets", Cursor("next"), items="data")(http))

    assert [entity.key for page in pages for entity in page.items] == ["1"]

    assert not any(page.warnings for page in pages[:-1])

    assert "without a list of items" in pages[-1].doubt
