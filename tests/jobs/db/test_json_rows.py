"""jobs.db.json_rows: many rows as one bound document."""

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from sqlalchemy import func, select

from jobs import JobStore, NaiveTime
from jobs.db.json_rows import JsonRows, SingleRow
from jobs.db.prepared_statements import PreparedStatement
from tests.support.store_helpers import ManualClock

MOMENT = datetime(2030, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)


def back(store: JobStore, kind: str, values: list[Any]) -> list[Any]:
    """Send values as rows and select them."""
    rows = JsonRows(store.db, {"n": "int", "v": kind})
    statement = select(rows.v).select_from(rows.table).order_by(rows.n)
    with store.db.read() as connection:
        return list(connection.execute(statement, rows.bind(list(enumerate(values)))).scalars())


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("id", [0, 1, -1, 2**63 - 1, -(2**63), None]),
        ("int", [0, 1, -1, 2**31 - 1, None]),
        ("bool", [True, False, None]),
        ("text", ["", "a", "ä € 𝄞 \u202e", "'\"\\", "\\u0000", "null", "1", "{}", "\x01\x1f\x7f\u2028", "\ufeff", None]),
        ("text", ["x" * 1_000_000]),
        ("json", ['{"b": 1, "a": [1.50, "\\u0000"]}', "null", '"text"', None]),
        ("time", [MOMENT, datetime(2030, 1, 1, tzinfo=UTC), None]),
    ],
    ids=["id", "int", "bool", "text", "big text", "json", "time"],
)
def test_every_kind_comes_back_as_it_went(store: JobStore, kind: str, values: list[Any]) -> None:
    """Values survive the way through JSON."""
    assert back(store, kind, values) == values


@pytest.mark.parametrize(
    ("sent", "expected"),
    [("a\0b", "a\ufffdb"), ("\0", "\ufffd"), ("a\ud800b", "a\ufffdb"), ("\udfff", "\ufffd")],
    ids=["NUL inside", "only NUL", "surrogate inside", "only surrogate"],
)
def test_what_no_database_holds_is_replaced(store: JobStore, sent: str, expected: str) -> None:
    """NUL and lone surrogates become U+FFFD; their neighbours stay, and nothing is cut off."""
    assert back(store, "text", [sent, "ä", None, sent]) == [expected, "ä", None, expected]


def test_times_of_other_zones_are_the_same_moment(store: JobStore) -> None:
    """A time goes as UTC."""
    there = MOMENT.astimezone(timezone(timedelta(hours=5, minutes=30)))
    (found,) = back(store, "time", [there])
    assert found == MOMENT
    assert found.utcoffset() == timedelta(0)


def test_naive_times_are_refused(store: JobStore) -> None:
    """No naive time gets into a row."""
    with pytest.raises(NaiveTime):
        back(store, "time", [datetime(2030, 1, 1)])  # noqa: DTZ001  # that is the point


def test_seconds_are_counted_from_the_databases_now(open_store: Any) -> None:
    """Seconds from now arrive as a moment, of one statement all from the same now or one right after."""
    clock = ManualClock()
    store = open_store(clock=clock)
    rows = JsonRows(store.db, {"n": "int", "v": "seconds"})
    statement = select(rows.v, store.db.now.label("now")).select_from(rows.table).order_by(rows.n)
    with store.db.read() as connection:
        found = connection.execute(statement, rows.bind([(0, 0), (1, 90.5), (2, -5), (3, None)])).all()
    from jobs.admin.views import _moment as moment

    assert [None if row.v is None else (moment(row.v) - moment(row.now)).total_seconds() for row in found] == [0, 90.5, -5, None]


def test_no_rows_are_no_rows(store: JobStore) -> None:
    """An empty list is an empty table."""
    assert back(store, "text", []) == []


def test_many_rows_keep_their_columns_together(store: JobStore) -> None:
    """Ten thousand rows go in one parameter."""
    rows = JsonRows(store.db, {"a": "id", "b": "text", "c": "id"})
    sent = [(n, f"k{n}", n * 2) for n in range(10_000)]
    with store.db.read() as connection:
        assert connection.execute(select(rows.a, rows.b, rows.c).order_by(rows.a), rows.bind(sent)).all() == sent


def test_a_column_that_is_not_declared_is_an_error(store: JobStore) -> None:
    """Rows have the declared columns only."""
    with pytest.raises(AttributeError):
        _ = JsonRows(store.db, {"a": "id"}).b


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("id", 2**63 - 1), ("int", -1), ("bool", True), ("text", "ä € 𝄞"), ("text", "a\0b"), ("text", "\ud800"), ("text", ""),
        ("word", "success"), ("json", '{"b": 1, "a": [1.50, "\\u0000"]}'), ("time", MOMENT), ("text", None), ("time", None),
    ],
)  # fmt: skip
def test_a_single_row_is_what_one_of_many_is(store: JobStore, kind: str, value: Any) -> None:
    """The statement of one job gets the same values as the statement of many."""
    columns = {"n": "int", "v": kind}
    one, many = SingleRow(store.db, columns), JsonRows(store.db, columns)
    with store.db.read() as connection:
        alone = PreparedStatement(select(one.n, one.v)).rows(connection, one.bind((1, value)))
        among = PreparedStatement(select(many.n, many.v)).rows(connection, many.bind([(1, value)]))
    assert alone == among
    with pytest.raises(AttributeError):
        _ = one.w
    with pytest.raises(ValueError, match="shorter"):
        one.bind((1,))


def test_a_single_rows_seconds_are_counted_from_now(open_store: Any) -> None:
    """As those of many rows."""
    store = open_store(clock=ManualClock())
    one, many = SingleRow(store.db, {"v": "seconds"}), JsonRows(store.db, {"v": "seconds"})
    statement = select((func.coalesce(one.v, None) == many.v).label("same")).select_from(many.table)
    for seconds in (0, 90.5, -5):
        with store.db.read() as connection:
            assert connection.execute(statement, {**one.bind((seconds,)), **many.bind([(seconds,)])}).scalar_one()
