"""Syncs that write into typed tables: rows, child rows, deletions, types, refusals, and the making of tables."""

import threading
from collections.abc import Callable, Iterator
from contextlib import closing, nullcontext
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

import pytest
from pydantic import NaiveDatetime, field_validator
from sqlalchemy import ARRAY, JSON, BigInteger, CheckConstraint, Column, String, TypeDecorator, inspect
from sqlalchemy.orm import registry
from sqlmodel import Field, Session, SQLModel, select

from clients import Entity, Page
from flows import Client, Into, Sync
from flows.run_result import RunResult
from flows.sync import run as engine
from jobs import Database, Gone, JobStore, Retry
from jobs.errors import TableMismatch
from jobs.typed_tables.make_tables import make_tables
from tests.support.fake_things_api import Remote, declare, query, serving

LOCAL = Client("zoo", connect=lambda _: nullcontext())


def base() -> Any:
    """Return a base of classes that share no tables with those of other bases."""

    class Base(SQLModel, registry=registry()):
        pass

    return Base


Base = base()


class Kind(Enum):
    """What a pet is."""

    CAT = "cat"
    DOG = "dog"


class Pet(Base, table=True):
    """A row for each entity, with all kinds of fields."""

    id: int = Field(primary_key=True)
    name: str
    born: date | None = None
    seen: datetime | None = None
    fed: NaiveDatetime | None = None
    price: Decimal | None = Field(default=None, max_digits=12, decimal_places=2)
    kind: Kind | None = None
    chip: UUID | None = None
    is_tame: bool = True
    weight: float | None = None
    nap: timedelta | None = None
    more: dict[str, Any] = Field(default_factory=dict, sa_column=Column(JSON))
    count: int | None = Field(default=None, sa_type=BigInteger)
    made_at: datetime = Field(default_factory=lambda: datetime.now(UTC))

    @field_validator("name")
    @classmethod
    def _not_empty(cls, name: str) -> str:
        if not name.strip():
            raise ValueError("is empty")
        return name


class Tag(Base, table=True):
    """Child rows with a key of their own."""

    pet_id: int = Field(primary_key=True, foreign_key="pet.id")
    name: str = Field(primary_key=True)
    weight: int = 0


class Visit(Base, table=True):
    """Child rows that the database numbers."""

    id: int | None = Field(default=None, primary_key=True)
    pet_id: int = Field(foreign_key="pet.id", index=True)
    day: date


class Toy(Base, table=True):
    """Child rows whose key does not contain the parent's."""

    id: int = Field(primary_key=True)
    pet_id: int


class Price(Base, table=True):
    """A row whose key has several columns."""

    __table_args__ = (CheckConstraint("amount >= 0", name="price_amount"),)

    shop: str = Field(primary_key=True)
    sku: int = Field(primary_key=True)
    amount: Decimal
    deleted_at: datetime | None = None


class _Record(base(), table=True):
    """A class with the name of one of our own tables."""

    __tablename__ = "record"

    id: int = Field(primary_key=True)


def listing_of(items: dict[str, Any]) -> Callable[[Any, Any], Iterator[Page]]:
    """Return a listing of these records by key."""
    return lambda _connection, _since: iter([Page([Entity(key, data=data) for key, data in items.items()])])


def run(store: JobStore, items: dict[str, Any], into: Any, *, full: bool = False, **fields: Any) -> RunResult:
    """Run a sync of these records."""
    fields = {"delete_missing": True, "max_delete_share": 1, "retry": Retry(max_retries=0), **fields}
    return engine.run(Sync("zoo.pets", LOCAL, listing=listing_of(items), into=into, **fields), store, full=full)


def rows(store: JobStore, table: Any) -> list[Any]:
    """Return the objects of a table as the user would read them, by primary key."""
    with Session(store.db.engine) as session:
        return list(session.exec(select(table).order_by(*table.__table__.primary_key)).all())


def test_values_come_back(store: JobStore) -> None:
    """Each type of a field is stored so that SQLModel reads the value that the API sent."""
    sent = {
        "name": "Tom\0", "born": "2020-02-29", "seen": "2026-01-01T12:00:00+02:00", "fed": "2026-01-01T07:30:00",
        "price": "1234567.80",
        "kind": "cat", "chip": "8d6c7f1e-5b60-4f0c-9b57-0d6f0f7f2f10", "is_tame": False, "weight": 0.1, "nap": "PT1H",
        "more": {"b": [1, {"c": None}], "a": "x\0"}, "count": 5_000_000_000, "unknown": 1,
    }  # fmt: skip
    assert run(store, {"7": sent}, Pet).succeeded == 1
    (pet,) = rows(store, Pet)
    assert (pet.id, pet.name, pet.born, pet.kind, pet.is_tame) == (7, "Tom\ufffd", date(2020, 2, 29), Kind.CAT, False)
    assert (pet.seen, pet.fed) == (datetime(2026, 1, 1, 10, tzinfo=UTC), datetime(2026, 1, 1, 7, 30))  # noqa: DTZ001
    assert (pet.price, pet.chip, pet.weight) == (Decimal("1234567.80"), UUID(sent["chip"]), 0.1)
    assert (pet.nap, pet.count) == (timedelta(hours=1), 5_000_000_000)
    assert pet.more == {"b": [1, {"c": None}], "a": "x\ufffd"}
    (record,) = query(store, "SELECT data, content_hash, row_key FROM record")
    assert record["data"] is None
    assert record["row_key"] is None
    assert record["content_hash"]


def test_only_what_changed_is_written(store: JobStore) -> None:
    """Unchanged content is not written; a change updates the row, but for what is made for new rows; --full writes all."""
    items = {"1": {"name": "a", "more": {"x": 1}}, "2": {"name": "b"}}
    run(store, items, Pet)
    made = {pet.id: pet.made_at for pet in rows(store, Pet)}
    again = run(store, items, Pet)
    assert (again.succeeded, again.unchanged) == (0, 2)
    items["1"] = {"name": "c"}
    assert run(store, items, Pet).succeeded == 1
    one, two = rows(store, Pet)
    assert (one.name, one.more, two.name) == ("c", {}, "b")
    assert made == {1: one.made_at, 2: two.made_at}
    with store.db.write() as connection:
        connection.exec_driver_sql("DELETE FROM pet")
    assert run(store, items, Pet).unchanged == 2
    assert run(store, items, Pet, full=True).succeeded == 2
    assert [pet.name for pet in rows(store, Pet)] == ["c", "b"]


def test_child_rows_are_replaced(store: JobStore) -> None:
    """Child rows follow the record: added, updated and removed; rows of other entities stay; they go with their entity."""
    into = [Into(Tag, items="tags", parent="pet_id"), Into(Visit, items="visits[*].{day: on}", parent="pet_id"), Into(Pet)]
    first = {"name": "a", "tags": [{"name": "x"}, {"name": "y"}], "visits": [{"on": "2026-01-01"}, {"on": "2026-01-02"}]}
    items: dict[str, Any] = {"1": first, "2": first, "3": {"name": "c", "tags": None}}
    assert run(store, items, into).succeeded == 3
    assert [(tag.pet_id, tag.name) for tag in rows(store, Tag)] == [(1, "x"), (1, "y"), (2, "x"), (2, "y")]
    items["1"] = {"name": "a", "tags": [{"name": "y", "weight": 5}, {"name": "z"}], "visits": [{"on": "2026-01-02"}]}
    assert run(store, items, into).succeeded == 1
    assert [(tag.pet_id, tag.name, tag.weight) for tag in rows(store, Tag)] == [
        (1, "y", 5),
        (1, "z", 0),
        (2, "x", 0),
        (2, "y", 0),
    ]
    assert sorted((visit.pet_id, visit.day.day) for visit in rows(store, Visit)) == [(1, 2), (2, 1), (2, 2)]
    del items["2"]
    assert run(store, items, into).deleted == 1
    assert {tag.pet_id for tag in rows(store, Tag)} == {visit.pet_id for visit in rows(store, Visit)} == {1}
    assert [pet.id for pet in rows(store, Pet)] == [1, 3]


def test_keys_of_several_columns(store: JobStore) -> None:
    """`to_row` makes the key; its row is found again when the record changes its key, and when it is gone, and is stamped."""

    def to_row(entity: Entity, record: Any) -> dict[str, Any]:
        return {"shop": entity.key.split("-")[0], "sku": record["n"], "amount": record["amount"]}

    into = Into(Price, to_row=to_row)
    items = {"berlin-a": {"n": 1, "amount": 1.5}, "berlin-b": {"n": 2, "amount": 2}}
    assert run(store, items, into).succeeded == 2
    items["berlin-a"] = {"n": 9, "amount": 1.5}
    del items["berlin-b"]
    result = run(store, items, into)
    assert (result.succeeded, result.deleted) == (1, 1)
    assert [(price.sku, price.deleted_at is None) for price in rows(store, Price)] == [(1, False), (2, False), (9, True)]
    items["berlin-b"] = {"n": 2, "amount": 3}
    run(store, items, into)
    assert [(price.sku, price.deleted_at is None) for price in rows(store, Price)] == [(1, False), (2, True), (9, True)]


def test_a_key_that_the_declaration_changes(store: JobStore) -> None:
    """With another `to_row` no row of the old key stays; without it, none of its keys."""
    items = {"1": 5, "2": 5}
    by_key = Into(Toy, to_row=lambda entity, record: {"pet_id": record})
    other = Into(Toy, to_row=lambda entity, record: {"id": 100 + int(entity.key), "pet_id": record})
    plain = {key: {"pet_id": value} for key, value in items.items()}
    for into, records, keys in (
        (by_key, items, [1, 2]),
        (other, items, [101, 102]),
        (Toy, plain, [1, 2]),
        (other, items, [101, 102]),
    ):
        assert run(store, records, into, full=True).succeeded == 2
        assert [toy.id for toy in rows(store, Toy)] == keys


def test_gone_entities(store: JobStore) -> None:
    """What `fetch` finds gone is deleted, too, and comes back when it is there again."""
    gone: set[str] = set()

    def fetch(_connection: Any, entity: Entity) -> Any:
        return Gone() if entity.key in gone else {"name": entity.key}

    items = dict.fromkeys("12", None)
    run(store, items, Pet, fetch=fetch)
    gone.add("1")
    assert run(store, items, Pet, fetch=fetch, full=True).gone == 1
    assert [pet.id for pet in rows(store, Pet)] == [2]
    gone.clear()
    run(store, items, Pet, fetch=fetch, full=True)
    assert [pet.id for pet in rows(store, Pet)] == [1, 2]


def test_a_row_that_does_not_fit(store: JobStore) -> None:
    """Such a row fails its entity alone, and says which field and why."""
    bad: dict[str, tuple[Any, str]] = {
        "2": ({"name": "x", "born": "soon"}, "Pet.born: Input should be a valid date"),
        "3": ({}, "Pet.name: Field required"),
        "4": ({"name": " "}, "Pet.name: Value error, is empty, got ' '"),
        "5": ({"name": "x", "kind": "cow"}, "Pet.kind: Input should be 'cat' or 'dog', got 'cow'"),
        "6": (["x"], "Pet: the record is a list, and must be an object; name its fields with to_row=…"),
        "7": ({"name": "x", "count": 2**70}, "Pet.count: 1180591620717411303424 does not fit into BigInteger"),
        "8": ({"name": "x", "tags": [{"name": "y"}, {}]}, "tags[1] of Tag.name: Field required"),
        "x": ({"name": "x"}, "Pet.id: Input should be a valid integer"),
    }
    items = {"1": {"name": "a"}, **{key: record for key, (record, _) in bad.items()}}
    result = run(store, items, [Into(Pet), Into(Tag, items="tags", parent="pet_id")])
    assert (result.succeeded, result.failed) == (1, len(bad))
    said = {job["key"]: job["message"] for job in query(store, "SELECT key, message FROM job WHERE state = 'failure'")}
    assert [key for key, (_, text) in bad.items() if text not in said[key]] == []
    assert [pet.id for pet in rows(store, Pet)] == [1]


def test_what_the_database_refuses(store: JobStore) -> None:
    """A row that the database refuses fails its entity alone, also in a batch; so does one that belongs to another entity."""
    into = Into(Price, to_row=lambda entity, record: {"shop": "x", "sku": entity.key, "amount": record})
    result = run(store, {str(number): -1 if number == 5 else number for number in range(12)}, into)
    assert (result.succeeded, result.failed) == (11, 1)
    (job,) = query(store, "SELECT message, key FROM job WHERE state = 'failure'")
    assert job["key"] == "5"
    assert "cannot be written" in job["message"]
    assert "price_amount" in job["message"]
    assert len(rows(store, Price)) == 11

    toys = Into(Toy, items="toys", parent="pet_id")
    result = run(store, {"1": {"toys": [{"id": 1}]}, "2": {"toys": [{"id": 1}]}}, toys, full=True, delete_missing=False)
    assert (result.succeeded, result.failed) == (1, 1)
    (job,) = query(store, "SELECT message FROM job WHERE state = 'failure' AND key IN ('1', '2')")
    assert "make pet_id part of the primary key" in job["message"]
    assert len(rows(store, Toy)) == 1


def test_secrets_stay_out_of_messages(store: JobStore) -> None:
    """A value is not shown where its field's name says that it is secret."""

    class Account(base(), table=True):
        id: int = Field(primary_key=True)
        api_token: int

    run(store, {"1": {"api_token": "hunter2-hunter2"}}, Account)
    (job,) = query(store, "SELECT message FROM job WHERE state = 'failure'")
    assert "Account.api_token" in job["message"]
    assert "hunter2" not in job["message"]


def test_digits_of_decimals(store: JobStore, dialect: str) -> None:
    """PostgreSQL keeps all digits; what SQLite would round fails."""

    class Rate(base(), table=True):
        id: int = Field(primary_key=True)
        value: Decimal

    result = run(store, {"1": {"value": "0.10"}, "2": {"value": "12345678901234567.123456789"}}, Rate)
    if dialect == "sqlite":
        assert (result.succeeded, result.failed) == (1, 1)
        assert "15 that SQLite keeps" in query(store, "SELECT message FROM job WHERE state = 'failure'")[0]["message"]
    else:
        assert [str(rate.value) for rate in rows(store, Rate)] == ["0.10", "12345678901234567.123456789"]


def test_a_class_that_changes(store: JobStore, caplog: pytest.LogCaptureFixture) -> None:
    """A new field that may be empty becomes a column, filled by --full; what cannot be done is one line and changes nothing."""
    items = {"1": {"name": "a", "colour": "red"}}

    def table(**fields: Any) -> Any:
        annotations = {"id": int, **{name: of for name, (of, _) in fields.items()}}
        values = {"id": Field(primary_key=True), **{name: value for name, (_, value) in fields.items()}}
        return type(SQLModel)("Cat", (base(),), {"__annotations__": annotations, "__module__": __name__, **values}, table=True)

    run(store, items, table(name=(str, ...)))
    with_colour = table(name=(str, ...), colour=(str | None, Field(default=None, index=True)))
    assert run(store, items, with_colour).unchanged == 1
    assert "`syncs run zoo.pets --full` fills cat" in caplog.text
    assert [cat.colour for cat in rows(store, with_colour)] == [None]
    run(store, items, with_colour, full=True)
    assert [cat.colour for cat in rows(store, with_colour)] == ["red"]
    for wrong, text in (
        (table(name=(str, ...), age=(int, ...)), "has no column age"),
        (table(name=(int, ...)), "the column cat.name is VARCHAR, the class has INTEGER"),
        (table(name=(str, Field(primary_key=True))), "the primary key of the table cat is id, the class has id, name"),
        (table(), "the column cat.name must not be empty, and the class has no such field"),
    ):
        with pytest.raises(TableMismatch, match=text) as raised:
            make_tables(store.db, [wrong.__table__])
        assert "\n" not in str(raised.value)
    with pytest.raises(TableMismatch, match="record is one of sync-clients' own"):
        make_tables(store.db, [_Record.__table__])


def test_several_processes_make_the_tables(open_store: Callable[..., JobStore]) -> None:
    """Of several processes at once one makes the tables, and none fails."""
    stores = [open_store() for _ in range(4)]
    made: list[Any] = []
    barrier = threading.Barrier(len(stores))

    def make(store: JobStore) -> None:
        barrier.wait()
        made.append(make_tables(store.db, [Tag.__table__, Visit.__table__, Pet.__table__]))

    threads = [threading.Thread(target=make, args=(store,)) for store in stores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(map(len, made)) == [0, 0, 0, 3]


def test_a_worker_that_lost_its_claim_writes_no_row(store: JobStore, remote: Remote) -> None:
    """Rows are written behind the fence: those of a claim that another worker has by now are not there."""
    remote.fill(3)

    class Thing(base(), table=True):
        id: str = Field(primary_key=True)
        name: str

    def fetch(http: Any, entity: Entity) -> Any:
        if entity.key == "k1":
            with store.db.write() as connection:
                connection.exec_driver_sql("UPDATE job SET claim_no = claim_no + 1 WHERE key = 'k1'")
        return http.get_json(f"things/{entity.key}")

    engine.run(declare(remote.url, into=Thing, fetch=fetch, concurrency=1), store)
    assert [thing.id for thing in rows(store, Thing)] == ["k0", "k2"]


@pytest.fixture
def remote() -> Iterator[Remote]:
    """A remote system without things."""
    with serving(Remote()) as found:
        yield found


def test_a_dry_run_makes_no_table(store: JobStore) -> None:
    """It writes nothing at all."""
    sync = Sync("zoo.pets", LOCAL, listing=listing_of({"1": {"name": "a"}}), into=Pet)
    assert engine.run(sync, store, dry_run=True).created == 1
    with store.db.read() as connection:
        assert not inspect(connection).has_table("pet")


def test_an_object_of_the_class(store: JobStore) -> None:
    """`to_row` may return one; it is checked like any other row, and its key is the entity's where it has none."""
    into = Into(Toy, to_row=lambda entity, record: Toy(pet_id=record))
    assert run(store, {"5": 1, "6": "x"}, into).succeeded == 1
    assert [(toy.id, toy.pet_id) for toy in rows(store, Toy)] == [(5, 1)]


def test_types_of_ones_own(store: JobStore, dialect: str) -> None:
    """Columns of a type that only its own code knows, of bytes, and of arrays on PostgreSQL."""

    class Shout(TypeDecorator[str]):
        impl = String
        cache_ok = True

        def process_bind_param(self, value: str | None, _dialect: Any) -> str | None:
            if value == "no":
                raise ValueError("too quiet")
            return value and value.upper()

    class Note(base(), table=True):
        id: int = Field(primary_key=True)
        text: str | None = Field(default=None, sa_type=Shout)
        blob: bytes = b""
        words: list[str] = Field(default_factory=list, sa_column=Column(JSON().with_variant(ARRAY(String), "postgresql")))

    result = run(store, {"1": {"text": "a", "blob": "xy", "words": ["b", "c"]}, "2": {"text": "no"}, "3": {}}, Note)
    assert (result.succeeded, result.failed) == (2, 1), result.failures
    assert "too quiet" in query(store, "SELECT message FROM job WHERE state = 'failure'")[0]["message"]
    assert [(note.text, note.blob, note.words) for note in rows(store, Note)] == [("A", b"xy", ["b", "c"]), (None, b"", [])]


def test_what_refers_to_a_row_keeps_it(store: JobStore) -> None:
    """A row that a table of one's own refers to is not deleted: its entity fails, the others go."""
    run(store, {"1": {"name": "a"}, "2": {"name": "b"}, "3": {"name": "c"}}, Pet)
    make_tables(store.db, [Visit.__table__])
    with store.db.write() as connection:
        connection.exec_driver_sql("INSERT INTO visit (pet_id, day) VALUES (2, '2026-01-01')")
    result = run(store, {"1": {"name": "a"}}, Pet)
    assert (result.deleted, result.failed) == (1, 1)
    assert "cannot be written" in result.failures[0][1]
    assert [pet.id for pet in rows(store, Pet)] == [1, 2]


def test_a_database_user_without_the_right(store: JobStore, dialect: str) -> None:
    """Who may not make or change tables is told so in one line."""
    if dialect == "sqlite":
        pytest.skip("SQLite has no users")
    make_tables(store.db, [Toy.__table__])
    with store.db.write() as connection:
        connection.exec_driver_sql("ALTER TABLE toy DROP COLUMN pet_id")
        connection.exec_driver_sql("CREATE ROLE clerk LOGIN; GRANT SELECT ON ALL TABLES IN SCHEMA public TO clerk")

    class Ball(base(), table=True):
        __tablename__ = "toy"

        id: int = Field(primary_key=True)
        size: int | None = None

    url = store.db.url.set(username="clerk").render_as_string(hide_password=False)
    with closing(Database(url)) as db, pytest.raises(TableMismatch, match="must be owner of table toy") as raised:
        make_tables(db, [Ball.__table__])
    assert "\n" not in str(raised.value)
    with store.db.write() as connection:
        connection.exec_driver_sql("DROP OWNED BY clerk; DROP ROLE clerk")
