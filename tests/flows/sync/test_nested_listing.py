"""Parents with children each: all are listed, from wherever it was interrupted, and what is missing deletes nothing."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any
from urllib.parse import unquote

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clients import Cursor, Entity, HttpClient, Listing, LoopError, Nested, Page, PageNumber, quoted_path
from flows import Client, Since, Sync
from flows.run_result import RunResult
from flows.sync import run as engine
from jobs import JobStore
from tests.support.fake_things_api import query

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
        pets = self.houses[unquote(path.split("/")[1])]
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


@pytest.mark.parametrize("status", [401, 403])
def test_one_parent_that_is_refused_fails_alone(store: JobStore, zoo: Zoo, status: int) -> None:
    """The others are listed, and the client stays open; if the parents are refused, too, it is our sign-in."""
    zoo.houses["h4"] = list(range(1, 16))
    zoo.run(store)
    zoo.faults["houses/h3/pets"] = status
    del zoo.houses["h5"]
    result = zoo.run(store, delete_missing=True)
    assert (result.state, result.stopped, result.failed, result.deleted) == ("partial", "end", 1, 0)
    assert f"{status}" in result.failures[0][1]
    assert result.failures[0][1].endswith("the listing of the parents itself is answered well")
    assert not store.pauses.in_force()
    asked: list[str] = []

    def withdrawn(path: str) -> None:
        asked.append(path)
        if path.startswith("houses/h3/"):
            zoo.faults["houses?page=1"] = status

    zoo.before = withdrawn
    assert zoo.run(store, delete_missing=True).state == "paused"
    assert not any(path.startswith("houses/h4/") for path in asked)


def test_the_last_parent_has_none(store: JobStore, zoo: Zoo) -> None:
    """A 404 behind the last page of children is not forgotten."""
    zoo.faults["houses/h5/pets"] = 404
    result = zoo.run(store, delete_missing=True)
    assert (result.failed, result.stopped) == (1, "end")


@pytest.mark.parametrize(("status", "state"), [(500, "failed"), (407, "paused"), (429, "paused")])
def test_any_other_error_is_one_of_the_listing(store: JobStore, zoo: Zoo, status: int, state: str) -> None:
    """It stops there, as any listing does; a run that does not wait tries it once."""
    zoo.run(store)
    zoo.faults["houses/h3/pets"] = status
    del zoo.houses["h5"]
    result = engine.run(zoo.sync(delete_missing=True), store, wait=0)
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


@pytest.mark.parametrize("join", ["/", None])
def test_children_know_their_parent(store: JobStore, join: str | None) -> None:
    """In the job that fetches them too: the parent's key and their own as they were, quoted in the path of both requests."""
    asked: list[str] = []
    pets = {"north/1": ["a#", "b"], "..": ["50%"]}

    def answer(request: httpx.Request) -> httpx.Response:
        path = request.url.raw_path.decode().removeprefix("/")
        asked.append(path)
        house, _, pet = path.removeprefix("houses").removeprefix("/").partition("/pets")
        if pet:
            return httpx.Response(200, json={"house": unquote(house), "pet": unquote(pet.removeprefix("/"))})
        return httpx.Response(200, json=[{"id": key} for key in (pets[unquote(house)] if house else pets)])

    client = Client("zoo", connect=lambda _: HttpClient("https://zoo.example", transport=httpx.MockTransport(answer)))
    saved: list[Entity] = []
    sync = Sync(
        SYNC,
        client,
        listing=Nested(Listing("houses"), lambda house: Listing(quoted_path("houses/{}", house.key)), join=join),
        fetch="houses/{parent}/pets/{key}?full=1",
        save=lambda session, entity, record: saved.append(entity),
    )
    assert engine.run(sync, store).succeeded == 3
    first, second = ("", "") if join is None else ("north%2F1/", "../")
    assert {(one.key, one.parent, one.own_key) for one in saved} == {
        (f"{first}a#", "north/1", "a#"),
        (f"{first}b", "north/1", "b"),
        (f"{second}50%", "..", "50%"),
    }
    assert {path for path in asked if "pets" in path} == {
        "houses/north%2F1/pets/a%23?full=1",
        "houses/north%2F1/pets/b?full=1",
        "houses/%2E%2E/pets/50%25?full=1",
    }


def test_a_parent_that_is_not_quoted(store: JobStore, zoo: Zoo) -> None:
    """The children of another parent are not taken for this one's."""
    zoo.houses = {"h1": [1], "h1?x": [2]}
    result = zoo.run(store)
    assert (result.state, keys(store)) == ("failed", {"h1/1"})
    assert "quoted_path" in result.message


def test_children_of_children() -> None:
    """The path has the keys of all parents, whichever of the two listings is nested itself."""

    def pages(*found: str) -> Callable[..., Iterator[Page]]:
        return lambda conn, since=None: iter([Page([Entity(key) for key in found])])

    inner = Nested(pages("t"), lambda team: pages("a/b"))
    for listing in (
        Nested(inner, lambda app: pages("v")),
        Nested(pages("t"), lambda team: Nested(pages("a/b"), lambda app: pages("v"))),
    ):
        (entity,) = [one for page in listing(None) for one in page.items]
        assert (entity.path, entity.parent, entity.own_key) == (("t", "a/b", "v"), "a/b", "v")


def test_a_path_needs_a_parent(store: JobStore) -> None:
    """A listing without parents has none to put into a path."""
    client = Client("zoo", connect=lambda _: HttpClient("https://zoo.example"))
    sync = Sync(SYNC, client, listing=lambda conn, since: iter([Page([Entity("1")])]), fetch="houses/{parent}/pets/{key}")
    assert "its listing is no Nested" in engine.run(sync, store).failures[0][1]


@pytest.mark.parametrize("join", ["/", "::", "%", "a", "2"])
@given(keys=st.lists(st.text(st.sampled_from("ab%25F/:A")), min_size=3, max_size=3).filter(all))
def test_the_path_of_a_key(join: str, keys: list[str]) -> None:
    """What a key was made of is found again, or nothing is said."""

    def pages(key: str) -> Callable[..., Iterator[Page]]:
        return lambda conn, since=None: iter([Page([Entity(key)])])

    inner = Nested(pages(keys[0]), lambda parent: pages(keys[1]), join=join)
    for listing in (inner, Nested(inner, lambda parent: pages(keys[2]), join=join)):
        (entity,) = [one for page in listing(None) for one in page.items]
        assert listing.path_of(entity.key) in ((), entity.path)
    if join in "/a" and join not in keys[1]:
        (entity,) = [one for page in inner(None) for one in page.items]
        assert inner.path_of(entity.key) == (keys[0], keys[1])


def test_what_is_deleted_knows_its_parent(store: JobStore, zoo: Zoo) -> None:
    """Although nothing lists it any more."""
    deleted: list[Entity] = []
    fields = {"delete_missing": True, "max_delete_share": 1.0, "delete": lambda session, entity: deleted.append(entity)}
    zoo.houses = {"h/1": [1, 2], "h2": [3]}
    listing = Nested(
        Listing("houses", PageNumber(), items="data", recheck=0),
        lambda house: Listing(quoted_path("houses/{}/pets", house.key), Cursor("next"), items="data", total="total"),
    )
    zoo.run(store, listing=listing, **fields)
    zoo.houses["h/1"].remove(2)
    zoo.run(store, listing=listing, **fields)
    assert [(one.key, one.parent, one.own_key) for one in deleted] == [("h%2F1/2", "h/1", "2")]


class Whole:
    """Resumable pages; those named say that they may not be whole."""

    def __init__(self, pages: list[Page], broken: set[int]) -> None:
        self.found, self.broken = pages, broken

    def __call__(self, conn: Any, since: Any = None) -> Iterator[Page]:
        """Yield from the start."""
        return self.pages(conn)

    def pages(self, conn: Any, *, cursor: Any = None) -> Iterator[Page]:
        """Yield the pages; before one of `broken` fails once."""
        for number, page in enumerate(self.found[cursor or 0 :], cursor or 0):
            if number in self.broken:
                self.broken.discard(number)
                raise ConnectionError("cut")
            yield replace(page, cursor=number + 1 if number + 1 < len(self.found) else None)


@pytest.mark.parametrize("interrupted", [False, True])
@pytest.mark.parametrize("whose", ["parents", "children", "both"])
def test_doubted_pages_delete_nothing(store: JobStore, zoo: Zoo, whose: str, interrupted: bool) -> None:
    """A page of parents or of children that may not be whole: also where a later run continues the listing."""
    both = whose == "both"
    fields = {"delete_missing": True, "max_delete_share": 1.0}

    def listing(doubt: str = "", broken: bool = False) -> Nested:
        cuts = {1} if broken else set[int]()
        of_parents, of_children = (doubt if both or whose == one else "" for one in ("parents", "children"))
        children = [Page([Entity("1")], doubt=of_children), Page([] if doubt else [Entity("2")])]
        parents = [Page([Entity("h1")], doubt=of_parents), Page([Entity("h2")])]
        rest = [Page([Entity("1")]), Page([Entity("2")])]
        return Nested(Whole(parents, set()), lambda one: Whole(children, set()) if one.key == "h1" else Whole(rest, cuts))

    engine.run(zoo.sync(listing(), **fields), store)
    cut = listing("a total says that there are more", broken=interrupted)
    if interrupted:
        assert engine.run(zoo.sync(cut, **fields), store).stopped == "error"
    result = engine.run(zoo.sync(cut, **fields), store)
    assert (result.stopped, result.deleted, len(keys(store))) == ("end", 0, 4)
    assert f"{'children of h1' if whose == 'children' else 'parents'}: a total says" in result.message
    assert engine.run(zoo.sync(listing("", False), **fields), store).stopped == "end"


def test_parents_that_are_left_for_later(store: JobStore, zoo: Zoo) -> None:
    """Their children are not shown, and stay."""
    fields = {"delete_missing": True, "max_delete_share": 1.0}

    def listing(*parents: str, later: tuple[str, ...] = ()) -> Nested:
        return Nested(
            lambda conn, since: iter([Page([Entity(key) for key in parents], later=later)]),
            lambda parent: lambda conn, since: iter([Page([Entity("1")])]),
        )

    engine.run(zoo.sync(listing("a", "b"), **fields), store)
    assert engine.run(zoo.sync(listing("a", later=("b",)), **fields), store).deleted == 0
    assert keys(store) == {"a/1", "b/1"}
    assert engine.run(zoo.sync(listing("a"), **fields), store).deleted == 1


def test_cursors_of_older_versions(zoo: Zoo) -> None:
    """They know of no doubt, and are read."""
    http = HttpClient("https://zoo.example", transport=httpx.MockTransport(zoo))
    sync = zoo.sync()
    pages = list(sync.listing.pages(http, cursor={"parent": "h1", "done": True}))  # type: ignore[attr-defined]
    assert [one.key for page in pages for one in page.items] == ["h3/1", *(f"h4/{pet}" for pet in range(1, 6)), "h5/9"]
