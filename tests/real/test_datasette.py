"""A whole sync against a Datasette: every row arrives, whichever way it is paged, also while rows come and go."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import text

from clients import Cursor, GoneError, HttpClient, LinkHeader, Listing, NextLink, RejectedError
from clients.exchange_recorder import recording
from flows import Client, Since, Sync
from flows.sync import run as engine
from jobs import JobStore

if TYPE_CHECKING:
    from tests.real.conftest import Pets

PAGES = {
    "a link in the body": Listing(
        "pets.json", NextLink("next_url"), items="rows", version="updated_at", total="filtered_table_rows_count",
        params={"_shape": "objects", "_size": 100},
    ),
    "a link in the header": Listing("pets.json", LinkHeader(), version="updated_at", params={"_shape": "array", "_size": 77}),
    "a cursor": Listing(
        "pets.json", Cursor("next", "_next"), items="rows", version="updated_at", total="filtered_table_rows_count",
        params={"_shape": "objects", "_size": 33, "_sort_desc": "name"},
    ),
}  # fmt: skip
BY_LINK = PAGES["a link in the body"]


def declared(pets: Pets, **fields: Any) -> Sync:
    """Declare the sync; the listed row is the record, unless there is a `fetch`."""
    client = Client("datasette", connect=lambda _: HttpClient(pets.url))
    return Sync("datasette.pets", client, **{"listing": BY_LINK, "delete_missing": True, **fields})


def records(store: JobStore) -> dict[int, Any]:
    """Return the mirrored rows by their number, of what is not deleted."""
    with store.db.read() as connection:
        rows = connection.execute(text("SELECT key, data FROM record WHERE deleted_at IS NULL")).all()
    return {int(row.key): json.loads(row.data) if isinstance(row.data, str) else row.data for row in rows}


@pytest.mark.parametrize("how", PAGES)
def test_every_row_arrives_by_every_way_to_page(pets: Pets, how: str) -> None:
    """1,000 rows, no matter the size of the page; the announced total is met."""
    with HttpClient(pets.url) as http:
        pages = PAGES[how](http)
        keys = [entity.key for page in pages for entity in page.items]
    assert sorted(map(int, keys)) == list(range(1, 1001))
    assert pages.stopped == "end"


def test_a_sync_and_what_changes_after_it(pets: Pets, store: JobStore) -> None:
    """All rows are mirrored; the next run saves what changed, and deletes what a complete listing no longer has."""
    first = engine.run(declared(pets), store)
    assert (first.state, first.listed, first.succeeded, first.stopped) == ("success", 1000, 1000, "end")
    assert (first.pages, first.requests) == (10, 10)
    assert records(store)[17] == {"id": 17, "name": "pet 17 ü", "updated_at": "2026-01-01T00:01:00Z"}

    pets.execute("UPDATE pets SET name = 'other', updated_at = '2026-02-01T00:00:00Z' WHERE id = 17")
    pets.execute("DELETE FROM pets WHERE id > 990")
    pets.execute("INSERT INTO pets VALUES (5000, 'new', '2026-02-01T00:00:00Z')")
    again = engine.run(declared(pets), store)
    assert (again.state, again.succeeded, again.unchanged, again.deleted) == ("success", 2, 989, 10)
    found = records(store)
    assert found[17]["name"] == "other"
    assert set(found) == {*range(1, 991), 5000}


def test_each_row_fetched_by_itself(pets: Pets, store: JobStore) -> None:
    """One request for each; what went between listing and fetching is gone, and its 404 says so in the attempt."""
    pets.execute("DELETE FROM pets WHERE id > 60")

    def fetch(http: HttpClient, entity: Any) -> Any:
        if entity.key == "7":
            pets.execute("DELETE FROM pets WHERE id = 7")
        return http.get_json(f"pets/{entity.key}.json", {"_shape": "object"})[entity.key]

    result = engine.run(declared(pets, fetch=fetch, max_delete_share=1.0), store)
    assert (result.state, result.succeeded, result.gone, result.failed) == ("success", 59, 1, 0)
    assert set(records(store)) == {*range(1, 61)} - {7}
    with store.db.read() as connection:
        (exchanges,) = connection.execute(text("SELECT exchanges FROM attempt WHERE exchanges IS NOT NULL")).scalars()
    assert f"GET {pets.url}pets/7.json?_shape=object" in str(exchanges)
    assert "404, 72 B" in str(exchanges)


def test_rows_that_come_and_go_while_they_are_listed(pets: Pets, store: JobStore) -> None:
    """Nothing that was there all the time is missed, and nothing of it deleted."""
    engine.run(declared(pets), store)

    class Busy(HttpClient):
        """Between two pages somebody works on the data."""

        def answer(self, *arguments: Any, **named: Any) -> Any:
            found = super().answer(*arguments, **named)
            pets.execute("DELETE FROM pets WHERE id = (SELECT min(id) FROM pets WHERE id > 1)")
            pets.execute("INSERT INTO pets SELECT max(id) + 1, 'late', '2026-03-01T00:00:00Z' FROM pets")
            return found

    client = Client("datasette", connect=lambda _: Busy(pets.url))
    result = engine.run(replace(declared(pets), client=client), store)
    assert result.state in ("success", "partial")
    assert set(range(100, 1001)) | {1} <= set(records(store))
    # Once it is quiet again, the mirror is the table.
    engine.run(declared(pets), store)
    with HttpClient(pets.url) as http:
        there = {int(entity.key) for page in BY_LINK(http) for entity in page.items}
    assert set(records(store)) == there


def test_only_what_is_new_is_asked_for(pets: Pets, store: JobStore) -> None:
    """`?updated_at__gte=…` of Datasette is an inclusive bound; the tenth that shares the last second is asked for again."""
    incremental = Since("updated_at", "updated_at__gte")
    sync = declared(pets, incremental=incremental, delete_missing=False)
    assert engine.run(sync, store).succeeded == 1000
    pets.execute("UPDATE pets SET name = 'newer', updated_at = '2026-02-01T00:00:00Z' WHERE id IN (3, 4)")
    result = engine.run(sync, store)
    assert (result.state, result.succeeded) == ("success", 2)
    # 1,000 is alone in its minute: it and the two that changed.
    assert (result.listed, result.unchanged) == (3, 1)
    assert [records(store)[number]["name"] for number in (3, 4)] == ["newer", "newer"]


def test_without_validators_a_conditional_sync_asks_and_compares(pets: Pets, store: JobStore) -> None:
    """Datasette has no ETag and no Last-Modified: nothing is made up, and what came again unchanged is not saved."""
    pets.execute("DELETE FROM pets WHERE id > 20")
    saved: list[str] = []

    def fetch(http: HttpClient, entity: Any) -> Any:
        with recording() as recorder:
            found = http.get_json(f"pets/{entity.key}.json", {"_shape": "object"})[entity.key]
        assert [one.status for one in recorder.exchanges] == [200]
        saved.append(entity.key)
        return found

    unversioned = replace(BY_LINK, version=None)
    sync = declared(pets, listing=unversioned, fetch=fetch, conditional=True)
    assert engine.run(sync, store).succeeded == 20
    result = engine.run(sync, store)
    assert (result.succeeded, result.unchanged, len(saved)) == (0, 20, 40)
    with store.db.read() as connection:
        assert connection.execute(text("SELECT count(*) FROM validator")).scalar_one() == 0


def test_its_errors_are_ours(pets: Pets) -> None:
    """404 is gone; a page that is too large is refused, and nothing is listed in its stead."""
    with HttpClient(pets.url) as http:
        with pytest.raises(GoneError, match="404 Not Found"):
            http.get_json("pets/7000.json")
        with pytest.raises(RejectedError, match="400 Bad Request"):
            list(replace(BY_LINK, params={"_shape": "objects", "_size": 500})(http))
        with pytest.raises(GoneError):
            list(replace(BY_LINK, path="cats.json")(http))


def test_a_query_of_ones_own(pets: Pets, store: JobStore, open_store: Callable[..., JobStore]) -> None:
    """A listing may be any SQL that somebody may ask; parameters travel as they are."""
    sql = "select id, name, updated_at from pets where name like :like order by id limit 50"
    listing = Listing("../shop.json", key="id", version="updated_at", params={"sql": sql, "like": "pet 1% ü", "_shape": "array"})
    result = engine.run(declared(pets, listing=listing), store)
    assert (result.state, result.listed) == ("success", 50)
    assert records(open_store())[10]["name"] == "pet 10 ü"
