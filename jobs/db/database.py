"""Opens connections and transactions on SQLite or PostgreSQL, with the settings that jobs need."""

import sqlite3
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.sql.elements import ColumnElement

from jobs.db import clock as clocks
from jobs.db.clock import Clock
from jobs.db.json_codec import decode, document
from jobs.db.postgres_connection import PostgresConnections, drop_if_read_only
from jobs.db.sqlite_file import SqliteFile
from jobs.db.sqlite_writer import SqliteWriter, WriterLock
from jobs.errors import DatabaseUnavailable, DatabaseUrlError

POOL_TIMEOUT = 60.0
"""Seconds that a thread waits for a connection to PostgreSQL while all are in use."""

BUSY_TIMEOUT = 15.0
"""Seconds that SQLite waits for another process's write; well below the default lease of 60 s, so that no lease expires."""


def _parse(url: str) -> URL:
    try:
        parsed = make_url(url)
        backend = parsed.get_backend_name()
    except (ArgumentError, NoSuchModuleError, ValueError) as error:
        # The message does not repeat the URL, which may hold a password.
        raise DatabaseUrlError(
            "SYNCS_DATABASE_URL is not a database URL; it looks like sqlite:///data/syncs.db or postgresql://user@host/name"
        ) from error
    if backend == "postgres":
        parsed = parsed.set(drivername="postgresql")
        backend = "postgresql"
    if backend not in ("sqlite", "postgresql"):
        raise DatabaseUrlError(f"SYNCS_DATABASE_URL names {backend}; sync-clients runs on sqlite and postgresql")
    if backend == "postgresql":
        return parsed.set(drivername="postgresql+psycopg")
    parsed = parsed.set(drivername="sqlite+pysqlite")
    if not parsed.database or ":memory:" in parsed.database or parsed.query.get("mode") == "memory":
        raise DatabaseUrlError(
            "SYNCS_DATABASE_URL names an in-memory SQLite database; jobs must outlive the process, name a file"
        )
    return parsed


def _make_folder(url: URL) -> None:
    assert url.database is not None
    path = Path(url.database)
    if path.is_dir():
        raise DatabaseUrlError(f"SYNCS_DATABASE_URL names {path}, which is a folder; name a file in it")
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise DatabaseUrlError(
            f"SYNCS_DATABASE_URL needs the folder {path.parent}, which cannot be made: {error.strerror}"
        ) from error


class Database:
    """A SQLAlchemy engine whose write transactions run, on SQLite, one at a time in each process.

    Args:
        url: `sqlite:///path` or `postgresql://…`; the driver is chosen here.
        clock: the time on SQLite; PostgreSQL uses its own.

    Raises:
        DatabaseUrlError: the URL cannot be used.
    """

    def __init__(self, url: str, *, clock: Clock = clocks.system_clock) -> None:
        self.url = _parse(url)
        self._postgres = PostgresConnections(self.url) if self.url.get_backend_name() == "postgresql" else None
        if self._postgres is not None:
            self.url = self._postgres.url
        self.dialect = self.url.get_backend_name()
        self.clock = clock
        #: The ids of all types that the project declares, each between bars; empty where that is not known.
        self.declared_types = ""
        self._file = _file_of(self.url)
        self._writer = SqliteWriter(self.connect, file=self._file)
        if self.dialect == "sqlite":
            _make_folder(self.url)
        try:
            self.engine = self._engine()
            #: The connections of `connect`. On PostgreSQL they are others, so that jobs which hold all of theirs keep nobody from
            #: claiming, finishing and renewing leases.
            self.session_engine = self._engine() if self.dialect == "postgresql" else self.engine
        except ImportError as error:
            raise DatabaseUrlError(
                "SYNCS_DATABASE_URL names PostgreSQL, whose driver is missing: pip install 'sync-clients[postgres]'"
            ) from error
        self._single = (
            self.engine.execution_options(isolation_level="AUTOCOMMIT") if self.dialect == "postgresql" else self.engine
        )

    def _engine(self) -> Engine:
        options: dict[str, Any] = {"json_serializer": document, "json_deserializer": decode}
        if self._postgres is not None:
            self._postgres.check_parameters()
            # The level is sent with each BEGIN, because a pooler keeps no setting of a session.
            options |= {
                "connect_args": self._postgres.arguments,
                "isolation_level": "READ COMMITTED",
                "pool_timeout": POOL_TIMEOUT,
            }
            engine = create_engine(self.url, pool_size=8, max_overflow=24, pool_recycle=1800, **options)
            event.listen(engine, "connect", self._postgres.connected, insert=True)
            event.listen(engine, "handle_error", drop_if_read_only)
            return engine
        engine = create_engine(self.url, connect_args={"timeout": BUSY_TIMEOUT}, pool_size=8, max_overflow=24, **options)
        if (file := self._file) is not None:
            event.listen(engine, "do_connect", lambda *_: file.connecting())
            event.listen(engine, "connect", lambda *_: file.connected())
        event.listen(engine, "connect", _configure_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
        return engine

    def write(self, *, single: bool = False, prepared: bool = False) -> AbstractContextManager[Connection]:
        """Open a transaction that may write; commit at the end, roll back on an exception.

        Args:
            single: exactly one statement follows. The database makes it a transaction by itself, which saves BEGIN and
                COMMIT: on PostgreSQL their round trips are a third of a claim.
            prepared: only `PreparedStatement`s and statements on the connection itself follow, and no `Session`, which would
                commit by itself. On SQLite it saves SQLAlchemy's part of BEGIN and COMMIT.

        On SQLite it waits for the process's writer lock, see `jobs.db.sqlite_writer`.

        Raises:
            DatabaseUnavailable: no connection could be opened.
        """
        if self.dialect == "sqlite":
            if single:
                return self._writer.single_statement
            return self._writer.driver_transaction if prepared else self._writer.transaction
        return self._transaction(self._single if single else self.engine)

    @contextmanager
    def _transaction(self, engine: Engine) -> Iterator[Connection]:
        with self._connect(engine) as connection, connection.begin():
            yield connection

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Open a transaction that only reads; on SQLite it does not wait for a writer.

        Raises:
            DatabaseUnavailable: no connection could be opened.
        """
        with self._connect(self.engine) as connection, connection.execution_options(syncs_read=True).begin():
            yield connection

    @property
    def writer_lock(self) -> WriterLock:
        """The lock that write transactions on SQLite hold in this process, for transactions that stay open across calls."""
        return self._writer.lock

    def connect(self) -> Connection:
        """Open a connection of the caller's own. On SQLite its transactions write, so the caller must hold `writer_lock`.

        Raises:
            DatabaseUnavailable: no connection could be opened, or all of them have been in use for `POOL_TIMEOUT` seconds.
        """
        return self._connect(self.session_engine)

    def _connect(self, engine: Engine) -> Connection:
        try:
            return engine.connect()
        except DBAPIError as error:
            raise DatabaseUnavailable(f"{self.name} does not answer: {str(error.orig).strip().splitlines()[0]}") from error
        except PoolTimeout as error:
            raise DatabaseUnavailable(
                f"all connections to {self.name} have been in use for {POOL_TIMEOUT:.0f} s: a job holds one from its first "
                "statement until its end"
            ) from error

    def listening_connection(self) -> Any:
        """Open a connection of psycopg on which PostgreSQL notifies; None where a pooler would hand it to others.

        Raises:
            psycopg.Error: it does not answer.
        """
        import psycopg

        assert self._postgres is not None
        if self._postgres.is_pooled is None:
            with self.read():
                pass
        if self._postgres.is_pooled:
            return None
        arguments, options = self.engine.dialect.create_connect_args(self.url)
        connection = psycopg.connect(*arguments, **{**self._postgres.arguments, **options}, autocommit=True)
        # With its keepalives, too: else the server would keep that of a host without power for two hours.
        self._postgres.connected(connection)
        return connection

    @property
    def name(self) -> str:
        """The URL for messages: without the password and the query, which may hold one too."""
        return self.url.set(drivername=self.dialect, query={}).render_as_string(hide_password=True)

    @property
    def clock(self) -> Clock:
        """The time on SQLite; PostgreSQL uses its own."""
        return self._clock

    @clock.setter
    def clock(self, clock: Clock) -> None:
        self._clock = clock
        #: The current time, as an SQL expression.
        self.now = clocks.now(self.dialect, clock)

    def from_now(self, name: str) -> ColumnElement[Any]:
        """The time in so many seconds, as an SQL expression; the seconds are bound under `name`."""
        return clocks.from_now(self.dialect, self.clock, name)

    def close(self) -> None:
        """Close every connection."""
        self._writer.close()
        self.engine.dispose()
        self.session_engine.dispose()
        if self._file is not None:
            self._file.closed()


def _file_of(url: URL) -> SqliteFile | None:
    """Return the file of a database; None for one in memory, a URI, and on PostgreSQL."""
    path = url.database if url.get_backend_name() == "sqlite" else None
    return None if not path or path.startswith(("file:", ":memory:")) else SqliteFile(str(Path(path).absolute()))


def _configure_sqlite(connection: Any, _record: Any) -> None:
    # The driver must not begin transactions by itself: it begins deferred ones, and only before the first write.
    connection.isolation_level = None
    cursor = connection.cursor()
    # It takes effect in a new file only. A transaction on one job changes nine scattered pages, and the WAL holds whole pages:
    # with a quarter of the usual size a claim and a finish take 100 µs instead of 128. Batches of 25 and of 500 lose a tenth.
    cursor.execute("PRAGMA page_size = 1024")
    _enter_wal(cursor)
    # NORMAL survives kill -9; a power cut may lose the last commits but does not corrupt the file.
    cursor.execute("PRAGMA synchronous = NORMAL")
    cursor.execute("PRAGMA foreign_keys = ON")
    # 16 MB, four times the default: a checkpoint copies pages that the next batch writes again.
    cursor.execute("PRAGMA wal_autocheckpoint = 16000")
    cursor.close()


def _enter_wal(cursor: Any) -> None:
    """Let the file have a write-ahead log; while another process makes one, SQLite says "locked" at once, without its timeout."""
    until = time.monotonic() + BUSY_TIMEOUT
    while not _has_wal(cursor, is_last=time.monotonic() > until):
        time.sleep(0.02)


def _has_wal(cursor: Any, *, is_last: bool) -> bool:
    try:
        cursor.execute("PRAGMA journal_mode = WAL")
    except sqlite3.OperationalError as error:
        if is_last or error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
            raise
        return False
    return True


def _begin_sqlite(connection: Connection) -> None:
    driver: Any = connection.connection.driver_connection
    if driver.in_transaction:  # begun by `jobs.db.sqlite_writer`; SQLAlchemy joins it
        return
    reading = connection.get_execution_options().get("syncs_read", False)
    connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")
