"""Parents with children each: all are listed, from wherever it was interrupted, and what is missing deletes nothing."""

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "e2e"))

from remote import query

from clients import Cursor, Entity, HttpClient, Listing, LoopError, Nested, Page, PageNumber
from flows import Client, Since, Sync, engine
from flows.result import RunResult
from jobs import JobStore

SYNC = "zoo.pets"


class Zoo:
    """Houses with pets: `houses?page=`, two a page, and `houses/<id>/pets?cursor=`, two a page."""

    def __init__(self, houses: dict[str, list[Any]]) -> None:
        self.houses = houses
        #: Paths with their queries that get another status.
        self.faults: dict[str, int] = {}
        self.asked: list[str] = []
        self.before: Callable[[str], None] = lambda path: None
        self.total: int | None = None

    def __call__(self, request: httpx.Request) -> httpx.Response:
        """Answer."""
        path = request.url.raw_path.decode().removeprefix("/")
        self.asked.append(path)
        self.before(path)
        if path in self.faults:
            return httpx.Response(self.faults[path], json={})
        if request.url.path == "/houses":
            start = 2 * (int(request.url.params["page"]) - 1)
            return httpx.Response(200, json={"data": [{"id": house} for house in list(self.houses)[start : start + 2]]})
        pets = self.houses[request.url.path.split("/")[2]]
        start = int(request.url.params.get("cursor", 0))
        found = [pet if isinstance(pet, dict) else {"id": pet} for pet in pets[start : start + 2]]
        following = start + 2 if start + 2 < len(pets) else None
        return httpx.Response(200, json={"data": found, "next": following, "total": self.total})

    def sync(self, listing: Any = None, **fields: Any) -> Sync:
        """Declare the sync of the pets."""
        listing = listing or Nested(
            Listing("houses", PageNumber(), items="data", recheck=0),
            lambda house: Listing(f"houses/{house.key}/pets", Cursor("next"), items="data", total="total"),
        )
        client = Client("zoo", connect=lambda _: HttpClient("https://zoo.example", transport=httpx.MockTransport(self)))
        return Sync(SYNC, client, listing=listing, **fields)

    def run(self, store: JobStore, **fields: Any) -> RunResult:
        """Run it."""
        self.asked.clear()
        return engine.run(self.sync(**fields), store)


@pytest.fixture
def zoo() -> Zoo:
    """Return five houses with up to five pets."""
    return Zoo({"h1": [1, 2, 3], "h2": [], "h3": [1], "h4": [1, 2, 3, 4, 5], "h5": [9]})


def keys(store: JobStore) -> set[str]:
    """Return what is there."""
    return {row["key"] for row in query(store, "SELECT key FROM record WHERE deleted_at IS NULL")}


def expected(zoo: Zoo) -> set[str]:
    """Return what should be there."""
    return {f"{house}/{pet}" for house, pets in zoo.houses.items() for pet in pets}


def test_children_of_all_parents(store: JobStore, zoo: Zoo) -> None:
    """Every pet of every house, under both keys; houses without pets are no end."""
    result = zoo.run(store)
    assert (result.state, result.stopped, result.listed, result.distinct) == ("success", "end", 10, 10)
    assert keys(store) == expected(zoo)
    assert zoo.run(store).unchanged == 10


def test_missing_children_are_deleted(store: JobStore, zoo: Zoo) -> None:
    """A complete one sweeps, pets of a house that is gone too."""
    zoo.run(store)
    zoo.houses["h4"].remove(5)
    del zoo.houses["h3"]
    result = zoo.run(store, delete_missing=True)
    assert (result.state, result.deleted) == ("success", 2)
    assert keys(store) == expected(zoo)


PATHS = [
    "houses?page=1", "houses/h1/pets", "houses/h1/pets?cursor=2", "houses/h2/pets", "houses?page=2", "houses/h3/pets",
    "houses/h4/pets", "houses/h4/pets?cursor=2", "houses/h4/pets?cursor=4", "houses?page=3", "houses/h5/pets",
]  # fmt: skip


@pytest.mark.parametrize("path", PATHS)
def test_it_resumes_where_it_was(store: JobStore, zoo: Zoo, path: str) -> None:
    """Interrupted at any request, it goes on there: no page of children that was stored is asked for again."""
    zoo.faults[path] = 502
    first = zoo.run(store, delete_missing=True)
    assert (first.state, first.stopped) == ("failed", "error")
    stored = [asked for asked in zoo.asked[:-1] if "pets" in asked]
    zoo.faults.clear()
    second = zoo.run(store, delete_missing=True)
    assert (second.state, second.stopped, second.deleted) == ("success", "end", 0)
    assert not set(stored[:-1]) & set(zoo.asked)
    assert keys(store) == expected(zoo)


def test_a_parent_that_went_away_meanwhile(store: JobStore, zoo: Zoo) -> None:
    """The place is gone, so the parents' page is read from its first one; nothing is lost."""
    zoo.faults["houses/h4/pets?cursor=2"] = 502
    zoo.run(store)
    del zoo.houses["h4"]
    zoo.houses = {**zoo.houses, "h6": [7, 8]}
    zoo.run(store)
    assert expected(zoo) <= keys(store)


def test_404_of_one_parent(store: JobStore, zoo: Zoo) -> None:
    """Reported, the others go on, and nothing is deleted."""
    zoo.houses["h4"] = list(range(1, 16))
    zoo.run(store)
    zoo.faults["houses/h3/pets"] = 404
    zoo.houses["h4"].remove(5)
    result = zoo.run(store, delete_missing=True)
    assert (result.state, result.stopped, result.listed, result.failed, result.deleted) == ("partial", "end", 18, 1, 0)
    assert "children of h3: GET https://zoo.example/houses/h3/pets" in result.failures[0][1]
    assert "nothing was deleted" in result.message
    assert len(keys(store)) == 20


def test_the_last_parent_has_none(store: JobStore, zoo: Zoo) -> None:
    """A 404 behind the last page of children is not forgotten."""
    zoo.faults["houses/h5/pets"] = 404
    result = zoo.run(store, delete_missing=True)
    assert (result.failed, result.stopped) == (1, "end")


@pytest.mark.parametrize(("status", "state"), [(500, "failed"), (400, "failed"), (401, "paused"), (429, "paused")])
def test_any_other_error_is_one_of_the_listing(store: JobStore, zoo: Zoo, status: int, state: str) -> None:
    """It stops there, as any listing does."""
    zoo.run(store)
    zoo.faults["houses/h3/pets"] = status
    del zoo.houses["h5"]
    result = zoo.run(store, delete_missing=True)
    assert (result.state, result.deleted, len(keys(store))) == (state, 0, 10)


def test_parents_that_are_gone(store: JobStore, zoo: Zoo) -> None:
    """A 404 of the parents' own listing is the end of the world."""
    zoo.run(store)
    zoo.faults["houses?page=1"] = 404
    result = zoo.run(store, delete_missing=True)
    assert (result.state, result.stopped, result.deleted) == ("failed", "error", 0)


@pytest.mark.parametrize("interrupted", [False, True])
def test_short_children(store: JobStore, zoo: Zoo, interrupted: bool) -> None:
    """One that announces more than it shows ends the whole listing as `short`, after the others, interrupted or not."""
    zoo.run(store)

    def before(path: str) -> None:
        zoo.total = 4 if path.startswith("houses/h1/") else None

    zoo.before = before
    zoo.houses["h4"].remove(5)
    if interrupted:
        zoo.faults["houses/h5/pets"] = 502
        assert zoo.run(store, delete_missing=True).stopped == "error"
        zoo.faults.clear()
    result = zoo.run(store, delete_missing=True)
    assert (result.stopped, result.deleted, result.state) == ("short", 0, "partial")
    assert "children of h1" in result.message
    assert "houses/h5/pets" in zoo.asked


def test_children_in_circles(store: JobStore, zoo: Zoo) -> None:
    """A loop of one parent's children ends, and the listing with it, behind the others."""

    def circle(house: Entity) -> Any:
        def pages(conn: Any, since: Any) -> Iterator[Page]:
            yield Page([Entity("1")])
            if house.key == "h2":
                raise LoopError("in circles")

        return pages

    result = zoo.run(store, listing=Nested(Listing("houses", PageNumber(), items="data", recheck=0), circle))
    assert (result.stopped, result.state, result.listed) == ("loop", "failed", 5)


def test_a_parent_without_a_key(store: JobStore, zoo: Zoo) -> None:
    """Its children are nowhere to be asked for, so nothing is deleted."""

    def parents(conn: Any, since: Any) -> Iterator[Page]:
        yield Page([Entity("h1")], errors=["item 1 of the page has no key at 'id'"])

    result = zoo.run(
        store, listing=Nested(parents, lambda house: Listing(f"houses/{house.key}/pets", Cursor("next"), items="data"))
    )
    assert (result.failed, result.listed) == (1, 3)
    assert "parents: item 1" in result.failures[0][1]


def test_since_goes_to_the_children(store: JobStore, zoo: Zoo) -> None:
    """Parents are always listed whole; a child that is new in an old house is found."""
    zoo.houses = {"h1": [{"id": 1, "at": 5}], "h2": [{"id": 1, "at": 6}]}
    fields = {"incremental": Since("at", "since")}
    zoo.run(store, **fields)
    zoo.run(store, **fields)
    assert [path for path in zoo.asked if "houses?" in path] == ["houses?page=1", "houses?page=2", "houses?page=3"]
    assert [path for path in zoo.asked if "pets" in path] == ["houses/h1/pets?since=6", "houses/h2/pets?since=6"]


def test_keys_do_not_run_together(store: JobStore) -> None:
    """`a/b` and `c` is another pet than `a` and `b/c`."""

    def parents(conn: Any, since: Any) -> Iterator[Page]:
        yield Page([Entity("a/b"), Entity("a"), Entity("a%2Fb")])

    def children(parent: Entity) -> Any:
        return lambda conn, since: iter([Page([Entity({"a/b": "c", "a": "b/c"}.get(parent.key, "c"))])])

    engine.run(Zoo({}).sync(Nested(parents, children)), store)
    assert keys(store) == {"a%2Fb/c", "a/b/c", "a%252Fb/c"}


def test_children_whose_keys_are_their_own(store: JobStore) -> None:
    """With `join=None` an entity in two houses is one."""

    def parents(conn: Any, since: Any) -> Iterator[Page]:
        yield Page([Entity("a"), Entity("b")])

    listing = Nested(parents, lambda parent: lambda conn, since: iter([Page([Entity("x", "1", parent.key)])]), join=None)
    assert engine.run(Zoo({}).sync(listing), store).succeeded >= 1
    assert keys(store) == {"x"}
    with pytest.raises(ValueError, match="join"):
        Nested(parents, lambda parent: parents, join="")


def test_three_levels(store: JobStore) -> None:
    """A listing of children may be nested itself, and resumes so too."""
    broken = [True]

    def level(prefix: str) -> Any:
        class Level:
            def __call__(self, conn: Any, since: Any) -> Iterator[Page]:
                return self.pages(conn)

            def pages(self, conn: Any, *, cursor: Any = None) -> Iterator[Page]:
                for number in range(cursor or 0, 2):
                    if prefix == "c" and number == 1 and broken[0]:
                        broken[0] = False
                        raise ConnectionError("cut")
                    yield Page([Entity(f"{prefix}{number}")], number + 1 if number == 0 else None)

        return Level()

    listing = Nested(level("a"), lambda a: Nested(level("b"), lambda b: level("c")))
    assert engine.run(Zoo({}).sync(listing), store).stopped == "error"
    result = engine.run(Zoo({}).sync(listing), store)
    assert (result.stopped, len(keys(store)), result.listed) == ("end", 8, 7)
    assert "a1/b1/c1" in keys(store)


def test_the_cursor_is_json(zoo: Zoo) -> None:
    """And anything else is refused."""
    http = HttpClient("https://zoo.example", transport=httpx.MockTransport(zoo))
    pages = list(zoo.sync().listing(http, None))
    assert [page.cursor for page in pages[-1:]] == [None]
    assert all(json.loads(json.dumps(page.cursor)) == page.cursor for page in pages)
    with pytest.raises(ValueError, match="cursor"):
        list(zoo.sync().listing.pages(http, cursor={"params": {}}))  # type: ignore[attr-defined]
