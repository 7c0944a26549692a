"""What a connection to PostgreSQL needs, and what is found out about the server before anything is stored."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from jobs import Database, JobStore
from jobs.db.change_listener import ChangeListener
from jobs.enqueueing.duplicates import NewJob
from jobs.errors import DatabaseUrlError
from jobs.job import Lane
from jobs.schema import upgrade as schema
from tests.support.pgbouncer import pgbouncer

LANE = Lane("default", "api", "api.things")


@pytest.fixture
def made(postgres: Any) -> Iterator[Callable[..., str]]:
    """Return a function that makes a database with SQL of its own and returns its URL."""
    names: list[str] = []

    def make(*after: str, options: str = "") -> str:
        name = f"elsewhere_{len(names)}"
        names.append(name)
        postgres.execute(
            f"CREATE DATABASE {name} TEMPLATE template0 {options}", *(f"ALTER DATABASE {name} SET {one}" for one in after)
        )
        url: str = postgres.url(name)
        return url

    yield make
    for name in names:
        postgres.drop(name)


@contextmanager
def opened(url: str) -> Iterator[JobStore]:
    """Open the database, with our tables."""
    db = Database(url)
    try:
        schema.create_if_empty(db)
        yield JobStore(db)
    finally:
        db.close()


def shown(store: JobStore, name: str) -> str:
    """Return a setting of a session."""
    with store.db.read() as connection:
        found: str = connection.execute(text(f"SHOW {name}")).scalar_one()
        return found


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
def test_an_encoding_that_cannot_hold_the_data_is_refused(made: Callable[..., str], encoding: str) -> None:
    """Before the first table is made, in one line that says what to do."""
    url = made(options=f"ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C'")
    with pytest.raises(DatabaseUrlError, match=f"with the encoding {encoding}.*ENCODING 'UTF8'") as found, opened(url):
        pass
    assert "\n" not in str(found.value)


def test_what_a_database_sets_otherwise_is_set_as_needed(made: Callable[..., str]) -> None:
    """Dates, time zone and isolation are those that the store was written for; its own time-outs are left alone."""
    url = made(
        "DateStyle TO 'SQL, DMY'", "TimeZone TO 'Asia/Kathmandu'", "default_transaction_isolation TO 'serializable'",
        "lock_timeout TO '7s'", "client_encoding TO 'LATIN1'",
    )  # fmt: skip
    with opened(url) as store:
        job = store.enqueue([NewJob(LANE, {"name": "Łódź 東京"})])[0]
        (claimed,) = store.claim([LANE], 1, worker="here:1:1:1", lease=60)
        assert (claimed.id, claimed.payload) == (job.id, {"name": "Łódź 東京"})
        assert store.views.jobs()[0].created_at.utcoffset() is not None
        expected = {
            "DateStyle": "ISO, YMD", "TimeZone": "UTC", "transaction_isolation": "read committed", "lock_timeout": "7s",
            "tcp_keepalives_count": "0", "statement_timeout": "10min", "idle_in_transaction_session_timeout": "1h",
        }  # fmt: skip
        # Over a Unix socket there are no keepalives to set.
        assert {name: shown(store, name) for name in expected} == expected


def test_the_url_says_otherwise(made: Callable[..., str]) -> None:
    """Parameters of libpq go to libpq, and `options` of the session win over ours."""
    url = made() + "&connect_timeout=3&application_name=mine&options=-c%20statement_timeout%3D9s"
    with opened(url) as store:
        assert (shown(store, "statement_timeout"), shown(store, "application_name")) == ("9s", "mine")


@pytest.mark.parametrize(("given", "expected"), [("prepare_threshold=none", None), ("prepare_threshold=0", 0), ("", 5)])
def test_prepare_threshold_is_a_number(made: Callable[..., str], given: str, expected: int | None) -> None:
    """It reaches the driver as what it is: 0 is at once."""
    with opened(f"{made()}&{given}") as store, store.db.read() as connection:
        driver: Any = connection.connection.driver_connection
        assert driver.prepare_threshold == expected


@pytest.mark.parametrize(
    ("parameter", "said"),
    [("sslmod=require", 'invalid connection option "sslmod"'), ("prepare_threshold=many", "prepare_threshold that is no whole")],
)
def test_a_parameter_that_nobody_knows_is_refused(parameter: str, said: str) -> None:
    """Without connecting, in one line, and without the rest of the URL."""
    with pytest.raises(DatabaseUrlError) as found:
        Database(f"postgresql://somebody:secret@127.0.0.1:1/nowhere?{parameter}")
    assert said in str(found.value)
    assert "secret" not in str(found.value)


def test_a_server_that_became_read_only_is_left(postgres: Any, made: Callable[..., str]) -> None:
    """The connections to it are dropped: the next ones lead to where the writes go now."""
    with opened(made()) as store:
        with store.db.read() as connection:
            name, pid = connection.execute(text("SELECT current_database(), pg_backend_pid()")).one()
        postgres.execute(f"ALTER DATABASE {name} SET default_transaction_read_only TO on")
        with store.db.write() as connection:  # on the old connection
            connection.execute(text("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY"))
        with pytest.raises(DBAPIError) as found:
            store.enqueue([NewJob(LANE, {})])
        assert found.value.connection_invalidated
        postgres.execute(f"ALTER DATABASE {name} SET default_transaction_read_only TO off")
        store.enqueue([NewJob(LANE, {})])
        with store.db.read() as connection:
            assert connection.execute(text("SELECT pg_backend_pid()")).scalar_one() != pid


@pytest.mark.parametrize("mode", ["transaction", "session"])
def test_a_pooler_is_found_out(postgres: Any, made: Callable[..., str], mode: str) -> None:
    """No prepared statements and no LISTEN, and more claims than the driver's threshold go well on connections that change."""
    direct = made()
    with opened(direct):
        pass
    with pgbouncer(direct, mode, connections=2) as url, opened(url) as store, ChangeListener(store.db) as listener:
        # Over connections that change all the time: each of these holds one for a moment.
        for number in range(20):
            store.enqueue([NewJob(LANE, {"n": number})])
            with store.db.read() as connection:
                driver: Any = connection.connection.driver_connection
                assert driver.prepare_threshold is None
                (claimed,) = store.claim([LANE], 1, worker="here:1:1:1", lease=60)
                assert claimed.payload == {"n": number}
        assert listener._notifications is None
        assert shown(store, "transaction_isolation") == "read committed"
        with psycopg.connect(direct) as own:
            assert own.execute("SELECT count(*) FROM job WHERE state = 'processing'").fetchone() == (20,)


def test_a_pooler_with_dates_that_cannot_be_changed_is_refused(made: Callable[..., str]) -> None:
    """The driver could not read a single time."""
    direct = made("DateStyle TO 'SQL, DMY'")
    with (
        pgbouncer(direct, "transaction") as url,
        pytest.raises(DatabaseUrlError, match=r"DateStyle SQL, DMY.*ALTER DATABASE"),
        opened(url),
    ):
        pass


def test_no_pooler_is_none(made: Callable[..., str]) -> None:
    """A connection of its own prepares statements and listens."""
    with opened(made()) as store, ChangeListener(store.db) as listener:
        assert listener._notifications is not None
        with store.db.read() as connection:
            driver: Any = connection.connection.driver_connection
            assert driver.prepare_threshold == 5


def test_a_listening_connection_is_set_up_too(made: Callable[..., str]) -> None:
    """It has the time-outs and keepalives of the others, by which the server lets go of a host that is gone."""
    with opened(made()) as store:
        listening = store.db.listening_connection()
        with listening:
            assert listening.execute("SHOW lock_timeout").fetchone() == ("1min",)
