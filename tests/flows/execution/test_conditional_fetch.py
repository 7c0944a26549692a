"""Conditional requests for entities: what is offered, what is stored, and that a 304 never loses data."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from clients import Bearer, Cursor, Entity, HttpClient, Listing
from flows import Client, DeclarationError, Sync
from flows.progress import SilentTracker
from flows.run_result import RunResult
from flows.sync import run as engine
from jobs import JobStore, Retry
from tests.support.fake_things_api import change, query


@dataclass
class Shop:
    """Things with an ETag each, behind httpx's own transport for tests."""

    things: dict[str, str] = field(default_factory=dict)
    etags: bool = True
    modified: str | None = None
    token: str = "one"
    status: Counter[int] = field(default_factory=Counter)
    offered: list[dict[str, str]] = field(default_factory=list)

    def __call__(self, request: httpx.Request) -> httpx.Response:
        """Answer."""
        key = request.url.path.removeprefix("/things").removeprefix("/")
        if not key:
            return httpx.Response(200, json={"data": [{"id": key} for key in self.things], "next": None})
        if key not in self.things:
            self.status[404] += 1
            return httpx.Response(404, json={})
        etag = f'"{self.things[key]}"'
        headers = {"ETag": etag} if self.etags else {}
        if self.modified is not None:
            headers |= {"Last-Modified": self.modified, "Date": "Wed, 01 May 2024 10:00:00 GMT"}
        conditions = {name: value for name, value in request.headers.items() if name.startswith("if-")}
        self.offered.append(conditions)
        same = conditions.get("if-none-match") == etag if self.etags else conditions.get("if-modified-since") == self.modified
        status = 304 if conditions and same else 200
        self.status[status] += 1
        return httpx.Response(status, headers=headers, json=None if status == 304 else {"id": key, "name": self.things[key]})

    def sync(self, **fields: Any) -> Sync:
        """Declare its sync; without versions every run asks for every thing."""
        client = Client(
            "shop",
            connect=lambda _: HttpClient("https://shop.example", auth=Bearer(self.token), transport=httpx.MockTransport(self)),
        )
        fields = {
            "listing": Listing("things", Cursor("next"), items="data"),
            "fetch": lambda http, entity: http.get_json(f"things/{entity.key}"),
            "conditional": True, "retry": Retry(max_retries=0), **fields,
        }  # fmt: skip
        return Sync("shop.things", client, **fields)

    def run(self, store: JobStore, *, full: bool = False, tracker: Any = None, **fields: Any) -> RunResult:
        """Run it; counts begin anew."""
        self.status.clear()
        self.offered.clear()
        return engine.run(self.sync(**fields), store, full=full, tracker=tracker)


@pytest.fixture
def shop() -> Shop:
    """Return three things."""
    return Shop({"a": "1", "b": "1", "c": "1"})


def names(store: JobStore) -> dict[str, str]:
    """Return the names in the records."""
    import json

    found = query(store, "SELECT key, data FROM record WHERE deleted_at IS NULL")
    return {row["key"]: (json.loads(row["data"]) if isinstance(row["data"], str) else row["data"])["name"] for row in found}


def test_unchanged_things_answer_304(store: JobStore, shop: Shop) -> None:
    """The second run asks conditionally, fetches only what changed, and saves nothing else."""
    first = shop.run(store)
    assert (first.succeeded, dict(shop.status)) == (3, {200: 3})
    before = query(store, "SELECT key, changed_at FROM record ORDER BY key")
    shop.things["b"] = "2"
    second = shop.run(store)
    assert (second.succeeded, second.unchanged, second.state, dict(shop.status)) == (1, 2, "success", {304: 2, 200: 1})
    assert names(store) == {"a": "1", "b": "2", "c": "1"}
    after = query(store, "SELECT key, changed_at FROM record ORDER BY key")
    assert [one["key"] for one, other in zip(after, before, strict=True) if one != other] == ["b"]
    assert (shop.run(store).unchanged, dict(shop.status)) == (3, {304: 3})


def test_off_by_default(store: JobStore, shop: Shop) -> None:
    """Without the word no condition is sent and no validator stored."""
    for _ in range(2):
        shop.run(store, conditional=False)
    assert shop.offered == [{}, {}, {}]
    assert query(store, "SELECT * FROM validator") == []


def test_it_is_about_fetch(shop: Shop) -> None:
    """Without a fetch there is no request to make conditional."""
    with pytest.raises(DeclarationError, match="conditional"):
        shop.sync(fetch=None)


@pytest.mark.parametrize("wound", ["deleted_at = synced_at", "synced_at = NULL"])
def test_only_what_is_in_sync_is_offered(store: JobStore, shop: Shop, wound: str) -> None:
    """A record that is deleted or was never in sync is fetched whole: a 304 would leave it so."""
    shop.run(store)
    change(store, f"UPDATE record SET {wound} WHERE key = 'a'")
    shop.run(store)
    assert dict(shop.status) == {304: 2, 200: 1}
    assert names(store) == {"a": "1", "b": "1", "c": "1"}


def test_a_save_that_fails_keeps_no_validator(store: JobStore, shop: Shop) -> None:
    """What came but was not saved is asked for without a condition: validator and content commit together, or neither does."""
    saved = []

    def save(session: Any, entity: Entity, record: Any) -> None:
        if entity.key == "b" and not saved.count("b"):
            saved.append("b")
            raise ValueError("not this time")
        saved.append(f"{entity.key}={record['name']}")

    shop.run(store, save=save)
    shop.run(store, save=save)
    assert dict(shop.status) == {304: 2, 200: 1}
    assert "b=1" in saved


def test_a_failed_save_of_a_change_leaves_the_old_validator(store: JobStore, shop: Shop) -> None:
    """The record still holds the old content, for which the old validator stands; the change comes again."""
    shop.run(store)
    shop.things["b"] = "2"

    def fails(session: Any, entity: Entity, record: Any) -> None:
        raise ValueError("no")

    shop.run(store, save=fails)
    shop.run(store)
    assert names(store)["b"] == "2"


def test_another_sign_in_asks_anew(store: JobStore, shop: Shop) -> None:
    """The answers of one identity say nothing of what another one sees."""
    shop.run(store)
    shop.token = "two"
    shop.run(store)
    assert dict(shop.status) == {200: 3}


def test_full_asks_without_conditions(store: JobStore, shop: Shop) -> None:
    """`--full` saves everything again, for a table that came later; and its validators count the next time."""
    shop.run(store)
    assert (shop.run(store, full=True).succeeded, dict(shop.status)) == (3, {200: 3})
    shop.run(store)
    assert dict(shop.status) == {304: 3}


def test_a_record_of_two_answers(store: JobStore, shop: Shop) -> None:
    """A 304 to the first of two requests says nothing of the second: such records are asked for without conditions."""

    def fetch(http: Any, entity: Entity) -> Any:
        return {"name": http.get_json(f"things/{entity.key}")["name"], "twin": http.get_json("things/c")["name"]}

    for _ in range(2):
        shop.run(store, fetch=fetch)
    assert dict(shop.status) == {200: 6}
    assert query(store, "SELECT * FROM validator") == []


def test_what_was_saved_without_conditions_in_between(store: JobStore, shop: Shop) -> None:
    """Switched off and on again: an old validator does not stand for content that came in the meantime."""
    shop.run(store)
    shop.things["a"] = "2"
    shop.run(store, conditional=False)
    shop.things["a"] = "1"
    shop.run(store)
    assert dict(shop.status) == {304: 2, 200: 1}
    assert names(store)["a"] == "1"


def test_a_server_that_stops_sending_them(store: JobStore, shop: Shop) -> None:
    """An answer without a validator takes the old one away."""
    shop.run(store)
    shop.etags = False
    shop.things["a"] = "2"
    shop.run(store)
    shop.etags = True
    shop.things["a"] = "1"
    shop.run(store)
    assert names(store)["a"] == "1"


@pytest.mark.parametrize(
    ("modified", "offered"), [("Wed, 01 May 2024 09:59:59 GMT", True), ("Wed, 01 May 2024 10:00:00 GMT", False)]
)
def test_last_modified(store: JobStore, shop: Shop, modified: str, offered: bool) -> None:
    """Without an ETag its time serves, unless it is of the answer's own second, in which it may change again."""
    shop.etags, shop.modified = False, modified
    shop.run(store)
    shop.run(store)
    assert shop.offered == [{"if-modified-since": modified} if offered else {}] * 3


def test_gone_things_keep_no_validator(store: JobStore, shop: Shop) -> None:
    """One that comes back is fetched whole."""
    shop.run(store)
    client = shop.sync(listing=lambda conn, since: iter([__import__("clients").Page([Entity("a"), Entity("b"), Entity("c")])]))
    del shop.things["a"]
    assert engine.run(client, store).gone == 1
    assert {row["key"] for row in query(store, "SELECT key FROM validator")} == {"b", "c"}
    shop.things["a"] = "1"
    shop.run(store)
    assert names(store)["a"] == "1"


def test_one_look_for_a_batch(store: JobStore, shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """The validators of a batch are looked up together, also where each entity is shown by itself."""
    looks = []
    real = store.etags.of

    def look(sync: str, keys: Any) -> Any:
        looks.append(sorted(keys))
        return real(sync, keys)

    class Showing(SilentTracker):
        shows_entities = True

    monkeypatch.setattr(store.etags, "of", look)
    shop.run(store)
    shop.run(store, tracker=Showing())
    assert dict(shop.status) == {304: 3}
    assert looks == [["a", "b", "c"], ["a", "b", "c"]]


def test_syncs_work(store: JobStore, shop: Shop) -> None:
    """A worker that takes the jobs of a sync up asks conditionally, too."""
    from flows.project.registry import Registry
    from flows.worker.queue_processing import work

    shop.run(store)
    change(store, "UPDATE job SET state = 'queued', finished_at = NULL")
    sync = shop.sync()
    shop.status.clear()
    work(store, Registry(clients={"shop": sync.client}, syncs={sync.id: sync}), until_empty=True)
    assert dict(shop.status) == {304: 3}
