"""Any lawful server: whatever its page sizes, caps, orders and empty pages, each entity is seen and the listing ends."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clients import IncompleteError, PageAnswer
from syncs_testing.api import Api, Attack, row_of
from syncs_testing.matrix import listings
from syncs_testing.server import Seen
from syncs_testing.styles import style_of

LISTINGS = {name: listing for name, listing in listings().items() if name != "SinglePage"}


class ConnectionPool:
    """An API without sockets: what `Listing` asks of a connection."""

    def __init__(self, api: Api) -> None:
        self.api = api
        self.requests = 0

    def answer(self, method: str, path: str, *, params: Mapping[str, Any] | None = None, json: Any = None) -> PageAnswer:
        """Answer as the API does."""
        self.requests += 1
        assert self.requests < 2000, "endless"
        if "://" not in path:
            path = f"http://h/{path}" + (f"?{urlencode(params)}" if params else "")
        reply = self.api.respond(Seen(self.requests, method, path.removeprefix("http://h"), {}, _encoded(json)))
        assert reply.status == 200
        headers = {name.lower(): value for name, value in reply.headers.items()}
        return PageAnswer(_decoded(reply.body), path, headers)

    def without_credentials(self, url: str) -> str:
        """Return the URL: there are none."""
        return url


def _encoded(value: Any) -> bytes:
    return b"" if value is None else json.dumps(value).encode()


def _decoded(value: Any) -> Any:
    return json.loads(json.dumps(value))


@st.composite
def servers(draw: st.DrawFn, name: str) -> Api:
    """Draw a lawful server that pages as the listing called `name` expects."""
    style = style_of(LISTINGS[name], size=draw(st.integers(1, 12), label="page size"))
    rows = [row_of(n) for n in range(1, draw(st.integers(0, 60), label="rows") + 1)]
    if style.kind == "Keyset":
        if style.order != style.key:
            # Several rows of one value, but never so many that a page cannot leave them behind.
            ties = draw(st.integers(1, max(1, (style.size - 1) // 2)), label="ties")
            for row in rows:
                row[style.order] = f"t{(row['n'] + ties - 1) // ties:04}"
    else:
        rows = draw(st.permutations(rows), label="order")
    pages = -(-len(rows) // style.size)
    hidden: set[int] = set()
    if style.kind != "Keyset":
        empty = draw(st.sets(st.integers(1, pages)) if pages else st.just(set()), label="empty pages")
        if style.kind == "Offset" or (style.kind == "PageNumber" and style.total is None):
            # Nothing tells two empty pages in a row from the end; nor how far they reached, where offsets count rows.
            empty = {page for page in empty if page % 2}
        longest = run = 0
        for page in range(1, pages + 1):
            run = run + 1 if page in empty else 0
            longest = max(longest, run)
        if style.counting and longest > 8 and style.kind != "TotalPages":
            empty = set()
        hidden = {row["n"] for page in empty for row in rows[(page - 1) * style.size : page * style.size]}
    api = Api(style, Attack("none", "lawful", "all"), url="http://h", rows=rows, hidden=hidden)
    api.must = {row["id"] for row in rows if row["n"] not in hidden}
    return api


@pytest.mark.slow
@pytest.mark.parametrize("name", LISTINGS)
def test_each_entity_is_seen_and_the_listing_ends(name: str) -> None:
    """For any such server every entity comes at least once, no other comes, and it is known to be complete."""

    @settings(max_examples=150, deadline=None)
    @given(api=servers(name))
    def check(api: Api) -> None:
        wire = ConnectionPool(api)
        pages = LISTINGS[name](wire)
        seen = [entity.key for page in pages for entity in page.items]
        assert set(seen) == api.must
        assert pages.stopped == "end"
        assert pages.completeness.distinct == len(api.must)

    check()


@pytest.mark.parametrize("name", LISTINGS)
@pytest.mark.slow
def test_it_goes_on_from_any_page(name: str) -> None:
    """Interrupted after any page, and gone on with what was stored, the two parts are the whole."""

    @settings(max_examples=100, deadline=None)
    @given(api=servers(name), data=st.data())
    def check(api: Api, data: st.DataObject) -> None:
        listing = LISTINGS[name]
        pages = list(listing(ConnectionPool(api)))
        done = data.draw(st.integers(1, len(pages)), label="pages before the interruption")
        cursor = _decoded(pages[done - 1].cursor)
        rest = [] if cursor is None else list(listing.pages(ConnectionPool(api), cursor=cursor))
        assert {entity.key for page in (*pages[:done], *rest) for entity in page.items} == api.must

    check()


@pytest.mark.parametrize("name", ["PageNumber", "Offset", "TotalPages", "PageNumber+total"])
@pytest.mark.slow
def test_rows_that_stay_are_seen(name: str) -> None:
    """Whatever rows are deleted, added or moved during one short listing, those that stay are seen, or it is an error."""

    @settings(max_examples=300, deadline=None)
    @given(api=servers(name), data=st.data())
    def check(api: Api, data: st.DataObject) -> None:
        moves = data.draw(
            st.dictionaries(st.integers(2, 12), st.tuples(st.sampled_from("dia"), st.integers(0, 59)), max_size=2), label="moves"
        )
        api.hidden = set()
        api.must = {row["id"] for row in api.rows}
        wire = ConnectionPool(api)
        respond = api.respond

        def moving(seen: Seen) -> Any:
            what, where = moves.pop(wire.requests, ("", 0))
            if what == "d" and api.rows:
                api.delete(where % len(api.rows))
            elif what == "i":
                api.rows.insert(where % (len(api.rows) + 1), row_of(100 + wire.requests))
            elif what == "a" and api.rows:
                api.rows.insert(0, api.rows.pop(where % len(api.rows)))
            return respond(seen)

        api.respond = moving  # type: ignore[method-assign]
        try:
            seen = {entity.key for page in LISTINGS[name](wire) for entity in page.items}
        except IncompleteError:
            return
        if len(api.rows) <= 5 * api.style.size:
            assert api.must <= seen

    check()
