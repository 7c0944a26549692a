"""jobs.db.prepared_statements: a statement on the driver itself says, reads and raises what SQLAlchemy would."""

# ruff: noqa: PT012  # what fails is the whole transaction

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import bindparam, event, func, insert, literal_column, select, update
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError, ProgrammingError

from jobs import JobStore, NaiveTime
from jobs.db.clock import UTCDateTime
from jobs.db.prepared_statements import PreparedStatement
from jobs.schema.job_tables import job
from tests.support.store_helpers import ManualClock, query, row

MOMENT = datetime(2030, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
INSERT = insert(job).values(
    queue="default", client="api", type=bindparam("b_type"), payload=bindparam("b_payload", type_=job.c.payload.type),
    fingerprint=bindparam("b_print", None), available_at=bindparam("b_when", type_=UTCDateTime()), created_at=MOMENT,
)  # fmt: skip


def add(store: JobStore, **values: Any) -> int:
    """Insert a job through a prepared statement and return its id."""
    with store.db.write() as connection:
        ((job_id,),) = PreparedStatement(INSERT.returning(job.c.id)).rows(
            connection, {"b_type": "api.things", "b_payload": None, "b_when": MOMENT, **values}
        )
    assert isinstance(job_id, int)
    return job_id


def test_rows_are_what_sqlalchemy_gives(store: JobStore) -> None:
    """JSON, moments, text, NULL and expressions come back as the same Python values, as plain tuples in the order of columns."""
    payload = {"b": 1, "a": [1.5, None, "ä\u2028"], "big": 2**70}
    job_id = add(store, b_payload=payload)
    statement = select(job.c.payload, job.c.available_at, job.c.checkpoint, job.c.type, (job.c.priority + 1).label("n")).where(
        job.c.id == bindparam("of_job")
    )
    with store.db.read() as connection:
        expected = connection.execute(statement, {"of_job": job_id}).all()
        found = PreparedStatement(statement).rows(connection, {"of_job": job_id})
    assert found == [tuple(one) for one in expected] == [(payload, MOMENT, None, "api.things", 1)]
    assert type(found[0]) is tuple
    assert found[0][1].utcoffset() == timedelta(0)


def test_counts_are_those_of_the_driver(store: JobStore) -> None:
    """A statement that returns nothing says how many rows it changed."""
    ids = [add(store) for _ in range(3)]
    touch = PreparedStatement(update(job).where(job.c.id >= bindparam("from_id")).values(message=bindparam("b_message")))
    with store.db.write() as connection:
        assert touch.count(connection, {"from_id": ids[1], "b_message": "x"}) == 2
        assert touch.count(connection, {"from_id": ids[2] + 1, "b_message": "y"}) == 0
    assert [found["message"] for found in query(store, "SELECT message FROM job ORDER BY id")] == ["", "x", "x"]


def test_the_clock_is_read_at_each_execution(open_store: Callable[..., JobStore]) -> None:
    """ "now" and "so many seconds from now" are not what they were when the statement was compiled."""
    clock = ManualClock()
    store = open_store(clock=clock)
    job_id = add(store)
    statement = PreparedStatement(
        update(job)
        .where(job.c.id == job_id, job.c.created_at > store.db.now)
        .values(started_at=store.db.now, lease_until=store.db.from_now("lease"))
        .returning(job.c.started_at, job.c.lease_until)
    )
    seen = []
    for _ in range(2):
        with store.db.write() as connection:
            seen += statement.rows(connection, {"lease": 90.5})
        clock.forward(10)
    assert [until - started for started, until in seen] == [timedelta(seconds=90.5)] * 2
    assert seen[1][0] > seen[0][0]


def test_the_same_text_and_values_as_sqlalchemy(store: JobStore) -> None:
    """A listener hears of both ways alike, and so do the tests that read plans."""
    seen: list[tuple[str, Any]] = []
    statement = select(job.c.id).where(job.c.type == bindparam("of_type"), job.c.available_at > bindparam("since", MOMENT))

    def note(_connection: Any, _cursor: Any, text: str, values: Any, *_: Any) -> None:
        if "job.id" in text:
            seen.append((text, values))

    event.listen(store.db.engine, "before_cursor_execute", note)
    with store.db.read() as connection:
        connection.execute(statement, {"of_type": "api.things"}).all()
        PreparedStatement(statement).rows(connection, {"of_type": "api.things"})
    assert len(seen) == 2
    assert seen[0] == seen[1]


def test_values_are_checked_as_ever(store: JobStore) -> None:
    """A naive time is refused, and a missing value is not taken for NULL."""
    with pytest.raises(NaiveTime):
        add(store, b_when=datetime(2030, 1, 1))  # noqa: DTZ001  # that is the point
    with pytest.raises((KeyError, DBAPIError)), store.db.write() as connection:
        PreparedStatement(INSERT).count(connection, {"b_type": "api.things"})
    assert query(store, "SELECT id FROM job") == []


def test_lists_are_refused(store: JobStore) -> None:
    """`IN` over a list has another text for each length, so it cannot be prepared."""
    statement = PreparedStatement(select(job.c.id).where(job.c.id.in_(bindparam("ids", expanding=True))))
    with store.db.read() as connection, pytest.raises(TypeError, match="expanding"):
        statement.rows(connection, {"ids": [1]})


def test_errors_are_sqlalchemys(store: JobStore, dialect: str) -> None:
    """With the driver's error inside, so that contention is told from the rest; and the transaction is rolled back."""
    add(store, b_print="p")
    with pytest.raises(IntegrityError) as twin:
        add(store, b_print="p")
    assert any(name in str(twin.value.orig) for name in ("job_twin", "UNIQUE constraint failed"))
    wrong = PreparedStatement(select(literal_column("nowhere")).select_from(job))
    with (
        pytest.raises(OperationalError if dialect == "sqlite" else ProgrammingError, match="nowhere"),
        store.db.write() as connection,
    ):
        add_one = PreparedStatement(INSERT)
        assert add_one.count(connection, {"b_type": "a", "b_payload": 1, "b_when": MOMENT}) == 1
        wrong.rows(connection, {})
    assert len(query(store, "SELECT id FROM job")) == 1


def test_an_error_that_is_caught_ends_no_transaction(store: JobStore, dialect: str) -> None:
    """On SQLite what was written before an error stays, if the caller goes on; PostgreSQL needs a savepoint for that."""
    add(store, b_print="p")
    values = {"b_type": "other", "b_payload": None, "b_when": MOMENT}
    with store.db.write() as connection:
        PreparedStatement(INSERT).count(connection, values)
        with pytest.raises(IntegrityError), nullcontext() if dialect == "sqlite" else connection.begin_nested():
            PreparedStatement(INSERT).count(connection, {**values, "b_print": "p"})
        PreparedStatement(INSERT).count(connection, values)
    assert [found["type"] for found in query(store, "SELECT type FROM job ORDER BY id")] == ["api.things", "other", "other"]


def test_a_connection_that_broke_is_replaced(open_store: Callable[..., JobStore], dialect: str) -> None:
    """After the server has ended it, the statement fails once as a disconnect and then runs on a new one."""
    store, other = open_store(), open_store()
    statement = PreparedStatement(select(func.count()).select_from(job))
    with pytest.raises(DBAPIError) as lost, store.db.write() as connection:
        if dialect == "postgresql":
            ((pid,),) = PreparedStatement(select(func.pg_backend_pid())).rows(connection, {})
            query(other, "SELECT pg_terminate_backend(:pid)", pid=pid)
        else:
            raw: Any = connection.connection.driver_connection
            raw.close()
        statement.rows(connection, {})
    assert lost.value.connection_invalidated
    add(store)
    with store.db.write() as connection:
        assert statement.rows(connection, {}) == [(1,)]


def test_threads_compile_and_run_at_once(store: JobStore) -> None:
    """Eight threads share one statement from its first execution on."""
    job_id = add(store, b_payload={"a": 1})
    statement = PreparedStatement(select(job.c.payload, job.c.created_at).where(job.c.id == bindparam("of_job")))
    found: list[Any] = []
    start = threading.Barrier(8)

    def run() -> None:
        start.wait()
        for _ in range(20):
            with store.db.read() as connection:
                found.append(statement.rows(connection, {"of_job": job_id}))

    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [[({"a": 1}, MOMENT)]] * 160
    assert row(store, job_id)["claim_no"] == 0
