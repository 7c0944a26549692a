"""Answers without rows: where they prove the end of a listing, and where rows may be missing that must not be deleted for it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from clients import Cursor, HttpClient, Keyset, LinkHeader, Listing, NextLink, Offset, PageNumber, RelayCursor, TotalPages
from clients.listings.page_evidence import Evidence, Position, weigh_empty
from flows import Client, Sync
from flows.sync import run as engine
from jobs import JobStore
from tests.support.fake_things_api import query

Serve = Callable[..., Any]

PROOF, DOUBT = Evidence.PROOF, Evidence.DOUBT
ANY = (True, False)


@pytest.mark.parametrize(
    ("positions", "has_list", "evidence"),
    [
        # Nothing has announced rows: counted pages end like that.
        (tuple(one for one in Position if one not in (Position.PROMISED, Position.NUMBERED)), ANY, PROOF),
        # A cursor may lead to an empty list, but an answer without a list says nothing.
        ((Position.PROMISED,), (True,), PROOF),
        ((Position.PROMISED,), (False,), DOUBT),
        # A number of pages announces rows.
        ((Position.NUMBERED,), ANY, DOUBT),
    ],
)
def test_the_table_of_empty_answers(positions: Any, has_list: Any, evidence: Evidence) -> None:
    """Each position, with and without a list; a doubt says why."""
    for position in positions:
        for lists in has_list:
            found = weigh_empty(position, has_list=lists)

            assert found.evidence is evidence, (position, lists)

            assert bool(found.why) == (evidence is DOUBT)


# -- over real sockets ----------------------------------------------------------------------------------------------------------

BARE: dict[str, Any] = {
    "{}": (200, {}, {}),
    "204": (204, {}, None),
    "null": (200, {}, b"null"),
    "other members": (200, {}, {"meta": {"took": 3}}),
    "empty": (200, {}, {"data": [], "next": None}),
    "null list": (200, {}, {"data": None, "next": None}),
}
SAYS_SO = frozenset({"empty", "null list"})


def rows(*numbers: int) -> list[dict[str, int]]:
    """Items."""
    return [{"id": number} for number in numbers]


PROMISES: dict[str, tuple[Any, Callable[[str], tuple[dict[str, str], dict[str, Any]]]]] = {
    "Cursor": (Cursor("next"), lambda _: ({}, {"next": "b"})),
    "NextLink": (NextLink("next"), lambda url: ({}, {"next": f"{url}/pets?page=2"})),
    "LinkHeader": (LinkHeader(), lambda url: ({"Link": f'<{url}/pets?page=2>; rel="next"'}, {})),
    "PageNumber+more": (PageNumber(more="more"), lambda _: ({}, {"more": True})),
}


@pytest.mark.parametrize("total", [False, True])
@pytest.mark.parametrize("name", BARE)
@pytest.mark.parametrize("promise", PROMISES)
def test_a_page_that_was_announced_comes_bare(promise: str, name: str, total: bool, serve: Serve) -> None:
    """Its rows may be missing, unless the announced total says that all came."""
    paginator, promised = PROMISES[promise]
    known = {"total": 3} if total else {}
    urls = [""]

    def respond(seen: Any) -> Any:
        if seen.query.get("page", "1") != "1" or "cursor" in seen.query:
            return BARE[name]
        headers, body = promised(urls[0])
        return 200, headers, {"data": rows(1, 2, 3), **body, **known}

    server = serve(respond)
    urls[0] = server.url
    with HttpClient(server.url) as http:
        got = list(Listing("pets", paginator, items="data", total="total" if total else None)(http))

    assert sum(len(page.items) for page in got) == 3

    assert bool(got[-1].doubt) is (name not in SAYS_SO and not total)


@pytest.mark.parametrize("rest", ["{}", "204", "empty"])
@pytest.mark.parametrize("where", ["in the middle", "at the end"])
def test_a_page_of_a_number_of_pages_comes_empty(rest: str, where: str, serve: Serve) -> None:
    """Three pages are announced and one has nothing, also where the listing is interrupted behind it."""
    empty = 2 if where == "in the middle" else 3

    def respond(seen: Any) -> Any:
        page = int(seen.query["page"])
        return BARE[rest] if page >= 4 or page == empty else (200, {}, {"data": rows(page * 2, page * 2 + 1), "pages": 3})

    server = serve(respond)
    listing = Listing("pets", TotalPages(path="pages"), items="data", recheck=0)
    with HttpClient(server.url) as http:
        *_, last = listing(http)
        first, second = (page.cursor for _, page in zip(range(2), listing(http), strict=False))
        continued = list(listing.pages(http, cursor=json.loads(json.dumps(second))))

    assert first is not None

    assert "the number of pages had announced" in last.doubt

    assert continued[-1].doubt == last.doubt


COUNTED = {
    "PageNumber": PageNumber(),
    "PageNumber of a size": PageNumber(size_param="size", size=10),
    "Offset": Offset(limit=10),
    "Keyset": Keyset("after", "id"),
}


@pytest.mark.parametrize("name", COUNTED)
@pytest.mark.parametrize("shown", [40, 33])
def test_counted_pages_end_with_an_empty_one(name: str, shown: int, serve: Serve) -> None:
    """Also behind a full page: one listing in so many has as many rows as fill its pages."""

    def respond(seen: Any) -> Any:
        start = int(seen.query.get("offset", 10 * (int(seen.query.get("page", 1)) - 1)))
        start = int(seen.query["after"]) + 1 if "after" in seen.query else start
        return 200, {}, {"data": rows(*range(shown)[start : start + 10])}

    server = serve(respond)
    with HttpClient(server.url) as http:
        got = list(Listing("pets", COUNTED[name], items="data")(http))

    assert len({entity.key for page in got for entity in page.items}) == shown

    assert not any(page.doubt or page.warnings for page in got)


def test_a_connection_of_graphql_may_be_empty(serve: Serve) -> None:
    """It is a list all the same."""
    answers = iter(
        [
            {"data": {"pets": {"nodes": rows(1), "pageInfo": {"hasNextPage": True, "endCursor": "a"}}}},
            {"data": {"pets": {"nodes": [], "pageInfo": {"hasNextPage": False}}}},
        ]
    )
    server = serve(lambda seen: (200, {}, next(answers)))
    listing = Listing("q", RelayCursor("data.pets"), items="data.pets.nodes", method="POST", json={"query": "{pets}"})
    with HttpClient(server.url) as http:
        *_, last = listing(http)

    assert last.doubt == ""


@pytest.mark.parametrize("name", ["{}", "204", "counted", "empty"])
def test_what_is_not_proved_deletes_nothing(name: str, store: JobStore, serve: Serve) -> None:
    """Live rows stay; the run says why, and that a person may delete them all the same."""
    end = 60

    def respond(seen: Any) -> Any:
        if name == "counted":
            start = 10 * (int(seen.query["page"]) - 1)
            return 200, {}, {"data": rows(*range(end)[start : start + 10])}
        page = int(seen.query.get("cursor", 0))
        if page == 5 and end < 60:
            return BARE[name]
        return 200, {}, {"data": rows(*range(page * 10, page * 10 + 10)), "next": page + 1 if page < 5 else None}

    server = serve(respond)
    client = Client("zoo", connect=lambda _: HttpClient(server.url))
    paginator = PageNumber() if name == "counted" else Cursor("next")
    sync = Sync("zoo.pets", client, listing=Listing("pets", paginator, items="data"), delete_missing=True)

    assert engine.run(sync, store).state == "success"

    end = 50
    result = engine.run(sync, store)
    (live,) = query(store, "SELECT count(*) AS n FROM record WHERE deleted_at IS NULL")

    if name in ("empty", "counted"):
        assert (result.state, result.deleted, live["n"]) == ("success", 10, 50)
    else:
        assert (result.state, result.deleted, live["n"]) == ("partial", 0, 60)

        assert "--allow-deletes" in result.message
