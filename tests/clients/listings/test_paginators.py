"""Each paginator alone: a table of answers and the requests that follow."""

from __future__ import annotations

import json
from typing import Any

import pytest

from clients import (
    Continue,
    Cursor,
    HeaderCursor,
    Keyset,
    LinkHeader,
    NextLink,
    Offset,
    PageAnswer,
    PageError,
    PageNumber,
    PageRequest,
    SinglePage,
    TotalPages,
)

URL = "https://h.example/api/pets?limit=2"
END = None
WP = TotalPages(header="X-WP-TotalPages", size_param="per_page", size=2)


def answer(body: Any = None, *, items: int = 2, **headers: str) -> PageAnswer:
    """Build an answer with `items` rows; header names are written with underscores."""
    rows = [{"id": n, "at": {"s": f"t{n}"}} for n in range(1, items + 1)]
    return PageAnswer(body, URL, {name.replace("_", "-"): value for name, value in headers.items()}, rows)


@pytest.mark.parametrize(
    ("paginator", "first"),
    [
        (SinglePage(), {}),
        (PageNumber(), {"page": 1}),
        (PageNumber("p", start=0, size_param="n", size=50), {"p": 0, "n": 50}),
        (Offset(), {"offset": 0, "limit": 100}),
        (Offset("skip", limit_param=None), {"skip": 0}),
        (Offset("startIndex", limit_param="count", limit=20, start=1), {"startIndex": 1, "count": 20}),
        (HeaderCursor("X-Next"), {}),
        (Cursor("next"), {}),
        (NextLink(), {}),
        (LinkHeader(), {}),
        (WP, {"page": 1, "per_page": 2}),
        (Keyset("since_id", "id"), {}),
        (Continue(), {}),
    ],
)
def test_first(paginator: Any, first: dict[str, Any]) -> None:
    """The first request has the parameters of the kind."""
    assert PageRequest(first) == paginator.first()


@pytest.mark.parametrize(
    ("paginator", "params", "received", "following"),
    [
        (SinglePage(), {}, answer(), END),
        (PageNumber(), {"page": 1}, answer(), {"page": 2}),
        (PageNumber(), {"page": 7}, answer(items=1), {"page": 8}),
        (PageNumber(), {"page": 8}, answer(items=0), {"page": 9}),
        (PageNumber("p", start=0, size_param="n", size=50), {"p": 0, "n": 50}, answer(), {"p": 1, "n": 50}),
        (Offset(limit=100), {"offset": 0, "limit": 100}, answer(items=50), {"offset": 50, "limit": 100}),
        (Offset(limit=100), {"offset": 50, "limit": 100}, answer(items=1), {"offset": 51, "limit": 100}),
        (Offset(limit=100, start=1), {"offset": 1, "limit": 100}, answer(items=100), {"offset": 101, "limit": 100}),
        (Offset(limit=100), {"offset": 51, "limit": 100}, answer(items=0), {"offset": 52, "limit": 100}),
        (Cursor("meta.next"), {}, answer({"meta": {"next": "abc"}}), {"cursor": "abc"}),
        (Cursor("next", "after"), {"after": 1}, answer({"next": 2}), {"after": 2}),
        (Cursor("next"), {"cursor": "a"}, answer({"next": "b"}, items=0), {"cursor": "b"}),
        (Cursor("next"), {"cursor": "a"}, answer({"next": None}), END),
        (Cursor("next"), {"cursor": "a"}, answer({"next": ""}), END),
        (Cursor("next"), {"cursor": "a"}, answer({"next": False}), END),
        (Cursor("next"), {"cursor": "a"}, answer({"next": 0}), END),
        (Cursor("next"), {"cursor": "a"}, answer({}), END),
        (Cursor("next"), {"cursor": "a"}, answer([]), END),
        (HeaderCursor("X-Next", "after"), {}, answer(x_next="b"), {"after": "b"}),
        (HeaderCursor("X-Next"), {"cursor": "a"}, answer(items=0, x_next="b"), {"cursor": "b"}),
        (HeaderCursor("X-Next"), {"cursor": "a"}, answer(items=0, x_next="a"), END),
        (HeaderCursor("X-Next"), {"cursor": "a"}, answer(x_next=""), END),
        (HeaderCursor("X-Next"), {"cursor": "a"}, answer(), END),
        (NextLink(), {}, answer({"next": "https://other.example/2"}), "https://other.example/2"),
        (NextLink("links.next"), {}, answer({"links": {"next": "?page=2"}}), "https://h.example/api/pets?page=2"),
        (NextLink("links.next"), {}, answer({"links": {"next": {"href": "/2"}}}, items=0), "https://h.example/2"),
        (NextLink('"@odata.nextLink"'), {}, answer({"@odata.nextLink": "b"}), "https://h.example/api/b"),
        (NextLink(), {}, answer({"next": None}), END),
        (NextLink(), {}, answer({"next": ""}), END),
        (NextLink(), {}, answer({}), END),
        (LinkHeader(), {}, answer(link='</2>; rel="next"'), "https://h.example/2"),
        (LinkHeader(), {}, answer(items=0, link='<?p=2>; rel="last next"'), "https://h.example/api/pets?p=2"),
        (LinkHeader(), {}, answer(link='</1>; rel="prev"'), END),
        (LinkHeader(), {}, answer(), END),
        (WP, {"page": 1, "per_page": 2}, answer(x_wp_totalpages="3"), {"page": 2, "per_page": 2}),
        (WP, {"page": 2, "per_page": 2}, answer(items=0, x_wp_totalpages="3"), {"page": 3, "per_page": 2}),
        (WP, {"page": 3, "per_page": 2}, answer(x_wp_totalpages="3"), {"page": 4, "per_page": 2}),
        (WP, {"page": 3, "per_page": 2}, answer(items=0, x_wp_totalpages="3"), END),
        (WP, {"page": 3, "per_page": 2}, answer(), {"page": 4, "per_page": 2}),
        (WP, {"page": 4, "per_page": 2}, answer(items=0), {"page": 5, "per_page": 2}),
        (TotalPages(path="pages", start=0), {"page": 1}, answer({"pages": 3}), {"page": 2}),
        (TotalPages(path="pages", start=0), {"page": 2}, answer({"pages": 3.0}), {"page": 3}),
        (TotalPages(path="pages", start=0), {"page": 3}, answer({"pages": 3.0}, items=0), END),
        (TotalPages(path="pages"), {"page": 1}, answer({"pages": 0}, items=0), END),
        (Keyset("since", "at.s"), {"since": "t0"}, answer(), {"since": "t2"}),
        (Keyset("since", "id"), {"since": 2}, answer(items=0), END),
        (
            Continue(),
            {},
            answer({"continue": {"apcontinue": "B", "continue": "-||"}}),
            {"apcontinue": "B", "continue": "-||"},
        ),
        (Continue(), {"apcontinue": "B"}, answer({"continue": {"x": 1}}, items=0), {"x": 1}),
        (Continue(), {}, answer({"batchcomplete": True}), END),
        (Continue(), {}, answer({"continue": []}), END),
    ],
)
def test_next(paginator: Any, params: dict[str, Any], received: PageAnswer, following: Any) -> None:
    """The next request follows from the last one and its answer alone, and survives being stored as JSON."""
    request = paginator.next(PageRequest(params), received)

    if following is END:
        assert request is None
        return
    expected = PageRequest(url=following) if isinstance(following, str) else PageRequest(following)

    assert expected == request

    assert expected == PageRequest.from_json(json.loads(json.dumps(request.to_json())))


@pytest.mark.parametrize(
    ("paginator", "received"),
    [
        (Cursor("next"), answer({"next": {"token": "s3cret"}})),
        (Cursor("next"), answer({"next": True})),
        (NextLink(), answer({"next": 5})),
        (NextLink(), answer({"next": "ftp://h/s3cret"})),
        (TotalPages(path="pages"), answer({"pages": "s3cret"})),
        (TotalPages(path="pages"), answer({"pages": True})),
        (Keyset("since", "missing"), answer()),
        (Keyset("since", "at"), answer()),
        (Continue(), answer({"continue": "s3cret"})),
        (Continue(), answer({"continue": {"a": None}})),
    ],
)
def test_wrong_types_are_errors(paginator: Any, received: PageAnswer) -> None:
    """A value of the wrong type stops the listing with an error that does not repeat it."""
    with pytest.raises(PageError) as caught:
        paginator.next(PageRequest({"page": 1}), received)

    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Offset(limit=0),
        lambda: PageNumber(size=5),
        lambda: PageNumber(size_param="n"),
        lambda: PageNumber(size_param="n", size=0),
        TotalPages,
        lambda: TotalPages(header="a", path="b"),
        lambda: Cursor("a..b"),
        lambda: PageRequest.from_json([1]),
        lambda: PageRequest.from_json({"url": 1}),
        lambda: PageNumber().next(PageRequest({"cursor": "x"}), answer()),
    ],
)
def test_declarations_are_checked(make: Any) -> None:
    """A declaration that cannot work, and a stored cursor of another paginator, are refused."""
    with pytest.raises(ValueError):
        make()
