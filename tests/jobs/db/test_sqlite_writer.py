"""jobs.db.sqlite_writer: SQLite's one writer of a process, and that nothing of a failed transaction stays."""

# ruff: noqa: PT012  # what fails is the whole transaction

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, text
from sqlalchemy.exc import OperationalError
from sqlmodel import Session

from jobs import JobStore
from tests.support.store_helpers import query

INSERT = "INSERT INTO lock (name, owner, token, acquired_at) VALUES ('{}', 'me', 1, '2030-01-01 00:00:00.000000')"


@pytest.fixture
def dialect() -> str:
    """PostgreSQL has as many writers as connections."""
    return "sqlite"


@pytest.fixture
def path(database_url: str) -> Path:
    """Return the file of the database."""
    return Path(database_url.removeprefix("sqlite:///"))


def raw(connection: Any) -> Any:
    """Return the driver's connection."""
    return connection.connection.driver_connection


def names(store: JobStore) -> list[str]:
    """Return what is in the table."""
    return [found["name"] for found in query(store, "SELECT name FROM lock ORDER BY name")]


@pytest.mark.parametrize("prepared", [False, True])
@pytest.mark.parametrize("first", ["driver", "sqlalchemy"])
def test_driver_and_sqlalchemy_share_the_transaction(store: JobStore, path: Path, first: str, prepared: bool) -> None:
    """Whoever writes first: both commit together and roll back together, and nothing is seen before."""
    stranger = sqlite3.connect(path)

    def write(connection: Any, suffix: str) -> None:
        ways = [
            lambda: raw(connection).execute(INSERT.format("a" + suffix)),
            lambda: connection.execute(text(INSERT.format("b" + suffix))),
        ]
        for way in ways if first == "driver" else reversed(ways):
            way()
        assert stranger.execute("SELECT count(*) FROM lock WHERE name LIKE ?", (f"%{suffix}",)).fetchone() == (0,)

    with store.db.write(prepared=prepared) as connection:
        write(connection, "1")
    assert names(store) == ["a1", "b1"]
    with pytest.raises(ZeroDivisionError), store.db.write(prepared=prepared) as connection:
        write(connection, "2")
        _ = 1 / 0
    assert names(store) == ["a1", "b1"]
    with store.db.write(prepared=prepared) as connection:
        write(connection, "3")
    assert names(store) == ["a1", "a3", "b1", "b3"]
    stranger.close()


def test_a_session_joins_a_whole_transaction(store: JobStore) -> None:
    """What a session commits is not committed before the transaction is, and goes when it is rolled back."""
    with pytest.raises(ZeroDivisionError), store.db.write() as connection:
        raw(connection).execute(INSERT.format("a"))
        with Session(bind=connection, join_transaction_mode="create_savepoint") as session:
            session.execute(text(INSERT.format("b")))
            session.commit()
        _ = 1 / 0
    assert names(store) == []


def test_it_has_the_lock_from_the_beginning(store: JobStore, path: Path) -> None:
    """A transaction that has only read so far cannot be overtaken by another process (M22)."""
    stranger = sqlite3.connect(path, timeout=0, isolation_level=None)
    with store.db.write() as connection:
        raw(connection).execute("SELECT * FROM lock").fetchall()
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            stranger.execute("BEGIN IMMEDIATE")
    stranger.execute("BEGIN IMMEDIATE")
    stranger.close()


@pytest.mark.parametrize("way", [{}, {"prepared": True}, {"single": True}], ids=["whole", "prepared", "single"])
def test_a_database_that_stays_locked(store: JobStore, path: Path, way: dict[str, bool]) -> None:
    """The error is SQLAlchemy's, the turn is given back, and the next transaction works."""
    with store.db.write() as connection:
        raw(connection).execute("PRAGMA busy_timeout = 10")
    stranger = sqlite3.connect(path, isolation_level=None)
    stranger.execute("BEGIN IMMEDIATE")
    with pytest.raises(OperationalError, match="locked"), store.db.write(**way) as connection:
        connection.execute(text(INSERT.format("a")))
    assert not store.db.writer_lock.locked()
    stranger.execute("COMMIT")
    stranger.close()
    with store.db.write(**way) as connection:
        connection.execute(text(INSERT.format("b")))
    assert names(store) == ["b"]


def test_a_single_statement_is_a_transaction(store: JobStore, path: Path) -> None:
    """It is committed when it is done, without a BEGIN, and has the turn as long as any other."""
    stranger = sqlite3.connect(path)
    with store.db.write(single=True) as connection:
        assert store.db.writer_lock.locked()
        assert not raw(connection).in_transaction
        raw(connection).execute(INSERT.format("a"))
        assert stranger.execute("SELECT name FROM lock").fetchall() == [("a",)]
    assert not store.db.writer_lock.locked()
    stranger.close()


def test_writers_take_turns(open_store: Callable[..., JobStore]) -> None:
    """Threads of one process wait for each other, with no statement of another in between."""
    store = open_store()
    inside: list[int] = []
    most = 0

    def write(number: int) -> None:
        nonlocal most
        for turn in range(20):
            with store.db.write() as connection:
                inside.append(number)
                most = max(most, len(inside))
                connection.execute(text(INSERT.format(f"{number}-{turn}")))
                inside.remove(number)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1
    assert len(names(store)) == 120


def test_another_thread_may_end_it(store: JobStore) -> None:
    """A transaction is bound to no thread: one begins it, another one commits."""
    transaction = store.db.write()
    connection = transaction.__enter__()
    raw(connection).execute(INSERT.format("a"))
    waiting = threading.Thread(target=lambda: names_after(store))
    waiting.start()
    time.sleep(0.05)
    assert waiting.is_alive()
    ending = threading.Thread(target=lambda: transaction.__exit__(None, None, None))
    ending.start()
    ending.join()
    waiting.join()
    assert names(store) == ["a", "after"]


def names_after(store: JobStore) -> None:
    """Write when it is this one's turn."""
    with store.db.write() as connection:
        connection.execute(text(INSERT.format("after")))


def test_a_commit_that_fails_leaves_nothing(store: JobStore) -> None:
    """What a listener to "commit" raises rolls back, whether or not SQLAlchemy is in the transaction."""

    def refuse(_connection: Any) -> None:
        raise ZeroDivisionError

    event.listen(store.db.engine, "commit", refuse)
    for prepared in (False, True):
        with pytest.raises(ZeroDivisionError), store.db.write(prepared=prepared) as connection:
            raw(connection).execute(INSERT.format("a"))
        with pytest.raises(ZeroDivisionError), store.db.write(prepared=prepared) as connection:
            connection.execute(text(INSERT.format("b")))
    event.remove(store.db.engine, "commit", refuse)
    assert names(store) == []
    assert not store.db.writer_lock.locked()
    with store.db.write() as connection:
        raw(connection).execute(INSERT.format("c"))
    assert names(store) == ["c"]


def test_a_transaction_that_sqlite_itself_rolled_back(store: JobStore) -> None:
    """ON CONFLICT ROLLBACK, a full disk, an I/O error: the next transaction starts afresh."""
    with pytest.raises(sqlite3.IntegrityError), store.db.write() as connection:
        raw(connection).execute(INSERT.format("a"))
        raw(connection).execute(INSERT.format("a").replace("INSERT", "INSERT OR ROLLBACK"))
    with store.db.write() as connection:
        raw(connection).execute(INSERT.format("b"))
    assert names(store) == ["b"]


def test_closed_and_opened_again(store: JobStore) -> None:
    """`close` gives the file back; a store that is used again opens it."""
    with store.db.write() as connection:
        before = raw(connection)
    store.close()
    with pytest.raises(sqlite3.ProgrammingError):
        before.execute("SELECT 1")
    with store.db.write() as connection:
        raw(connection).execute(INSERT.format("a"))
    assert names(store) == ["a"]


def test_a_new_file_has_small_pages_and_the_safe_modes(tmp_path: Path) -> None:
    """WAL and synchronous NORMAL survive a kill; the page size is that of the measurements (law 15)."""
    store = JobStore.open(f"sqlite:///{tmp_path / 'new.db'}")
    with store.db.write() as connection:
        found = {
            name: raw(connection).execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("page_size", "journal_mode", "synchronous", "foreign_keys")
        }
    store.close()
    assert found == {"page_size": 1024, "journal_mode": "wal", "synchronous": 1, "foreign_keys": 1}
