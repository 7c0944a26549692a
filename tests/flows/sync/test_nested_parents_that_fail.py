"""Parents whose children are refused or broken for good: each fails by itself, those behind are listed, nothing is deleted."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from clients import Cursor, HttpClient, Listing, Nested, PageNumber
from flows import Client, Sync
from flows.sync import run as engine
from jobs import JobStore, Retry
from syncs_testing import Reply, Seen, serving
from tests.support.fake_remote import run_out
from tests.support.fake_things_api import query

SYNC = "zoo.pets"


class Zoo:
    """Six houses, four a page, with two pages of pets each, and what some of them answer in place of pets."""

    def __init__(self) -> None:
        self.houses = [f"h{n}" for n in range(1, 7)]
        self.broken: dict[str, Reply] = {}
        #: Answers of everything from the first request of a house on.
        self.down: dict[str, Reply] = {}
        self.is_down: Reply | None = None
        self.asked: Counter[str] = Counter()
        self.url = ""

    def answer(self, seen: Seen) -> Reply:
        """Answer."""
        self.asked[seen.path] += 1
        if seen.path == "/houses":
            start = 4 * (int(seen.query["page"]) - 1)
            return self.is_down or Reply({"data": [{"id": one} for one in self.houses[start : start + 4]], "total": 6})
        house = seen.path.split("/")[2]
        self.is_down = self.is_down or self.down.get(house)
        if (refusal := self.is_down or self.broken.get(house)) is not None:
            return refusal
        page = int(seen.query.get("cursor", 0))
        return Reply({"data": [{"id": page}], "next": page + 1 if page < 1 else None})

    def sync(self, **fields: Any) -> Sync:
        """Declare it."""
        listing = Nested(
            Listing("houses", PageNumber(), items="data", total="total"),
            lambda house: Listing(f"houses/{house.key}/pets", Cursor("next"), items="data"),
        )
        client = Client("zoo", connect=lambda _: HttpClient(self.url, timeout=30))
        return Sync(SYNC, client, listing=listing, delete_missing=True, max_delete_share=1.0, **fields)


@pytest.fixture
def zoo() -> Iterator[Zoo]:
    """Serve it."""
    found = Zoo()
    with serving(found.answer) as server:
        found.url = server.url
        yield found


def live(store: JobStore) -> set[str]:
    """Return the pets that are there."""
    return {row["key"] for row in query(store, "SELECT key FROM record WHERE deleted_at IS NULL")}


def pets(*houses: str) -> set[str]:
    """Return the keys of their pets."""
    return {f"{house}/{pet}" for house in houses for pet in range(2)}


BAD = {
    "500": Reply({}, 500),
    "429": Reply({}, 429, headers={"Retry-After": "1"}),
    "half a body": Reply(b'{"data": [', 200),
    "400": Reply({}, 400),
    "422": Reply({}, 422),
}


@pytest.fixture(autouse=True)
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ask for a page again at once."""
    monkeypatch.setattr("flows.sync.listing_thread.PAGE_RETRY", Retry(max_retries=3, delay=0.01, jitter=False))


@pytest.mark.parametrize(("bad", "house"), [*((bad, "h3") for bad in BAD), ("500", "h1"), ("500", "h6"), ("429", "h6")])
def test_one_parent_fails_by_itself(store: JobStore, zoo: Zoo, bad: str, house: str) -> None:
    """Wherever it is, the run ends `partial` with all others, the client open, and the pets that are there stay."""
    engine.run(zoo.sync(), store)
    zoo.broken[house] = BAD[bad]
    zoo.asked.clear()
    gone = "h2"
    zoo.houses.remove(gone)
    zoo.houses.append("h7")
    result = engine.run(zoo.sync(), store, wait=60)
    assert (result.state, result.stopped, result.failed, result.deleted) == ("partial", "end", 1, 0)
    assert result.listed == 10
    assert f"children of {house}: " in result.failures[0][1]
    assert "nothing was deleted" in result.message
    assert live(store) == pets("h1", "h2", "h3", "h4", "h5", "h6", "h7")
    assert zoo.asked[f"/houses/{house}/pets"] == (1 if bad in ("400", "422") else 3)
    assert not store.pauses.in_force(run_out=True)
    assert query(store, "SELECT count(*) AS n FROM pause WHERE cause <> 'asked'") == [{"n": 0}]
    zoo.broken.clear()
    healed = engine.run(zoo.sync(), store)
    assert (healed.state, healed.deleted) == ("success", 2)
    assert live(store) == pets("h1", "h3", "h4", "h5", "h6", "h7")


@pytest.mark.parametrize("bad", ["500", "429"])
def test_several_parents_in_runs_that_do_not_wait(store: JobStore, zoo: Zoo, bad: str) -> None:
    """Each of them is tried once in a run; after three runs the next one has its turn, and at last all others are listed."""
    zoo.broken = {"h2": BAD[bad], "h3": BAD[bad]}
    runs = 0
    while (result := engine.run(zoo.sync(), store, wait=0)).stopped != "end":
        runs += 1
        assert runs < 12
        run_out(store)
    assert live(store) == pets("h1", "h4", "h5", "h6")
    assert "children of h3" in " ".join(text for _, text in result.failures)
    assert max(zoo.asked[f"/houses/{house}/pets"] for house in ("h2", "h3")) <= 6


@pytest.mark.parametrize("bad", ["500", "429"])
def test_all_that_is_down_blames_no_parent(store: JobStore, zoo: Zoo, bad: str) -> None:
    """From one house on, everything is refused, the houses too: the listing waits, and goes on there when it is over."""
    zoo.down["h3"] = BAD[bad]
    for _ in range(3):
        first = engine.run(zoo.sync(), store, wait=0)
        assert first.stopped in ("error", "paused")
        assert not first.failures
        run_out(store)
    zoo.down.clear()
    zoo.is_down = None
    result = engine.run(zoo.sync(), store)
    assert (result.state, result.failed) == ("success", 0)
    assert live(store) == pets(*zoo.houses)
