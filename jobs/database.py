"""The connection to SQLite or PostgreSQL: URL, pragmas, transactions. Knows no table."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError
from sqlalchemy.sql.elements import ColumnElement

from jobs import clock as clocks
from jobs.clock import Clock
from jobs.errors import DatabaseUnavailable, DatabaseUrlError
from jobs.fingerprint import decode, encode
from jobs.waiting import Turn
from jobs.writer import Writer

BUSY_TIMEOUT = 15.0
"""Seconds that SQLite waits for another process's write; well below the default lease, so that a wait costs none (T10)."""


def _parse(url: str) -> URL:
    try:
        parsed = make_url(url)
        backend = parsed.get_backend_name()
    except (ArgumentError, NoSuchModuleError, ValueError) as error:
        # The text itself is not repeated: it may hold a password.
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
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DatabaseUrlError(
            f"SYNCS_DATABASE_URL needs the folder {path.parent}, which cannot be made: {error.strerror}"
        ) from error


def _dumps(value: Any) -> str:
    return encode(value).decode()


class Database:
    """An engine whose write transactions are short, immediate and, on SQLite, one at a time in this process.

    Args:
        url: `sqlite:///path`, `postgresql://…` (the driver is chosen here).
        clock: what SQLite takes for the time; PostgreSQL has its own (law 13).

    Raises:
        DatabaseUrlError: the URL cannot work.
    """

    def __init__(self, url: str, *, clock: Clock = clocks.system_clock) -> None:
        self.url = _parse(url)
        self.dialect = self.url.get_backend_name()
        self.clock = clock
        self._writer = Writer(self.connect)
        if self.dialect == "sqlite":
            _make_folder(self.url)
        try:
            self.engine = self._engine()
        except ImportError as error:
            raise DatabaseUrlError(
                "SYNCS_DATABASE_URL names PostgreSQL, whose driver is missing: pip install 'sync-clients[postgres]'"
            ) from error
        self._single = (
            self.engine.execution_options(isolation_level="AUTOCOMMIT") if self.dialect == "postgresql" else self.engine
        )

    def _engine(self) -> Engine:
        options: dict[str, Any] = {"json_serializer": _dumps, "json_deserializer": decode}
        if self.dialect == "postgresql":
            return create_engine(self.url, pool_size=8, max_overflow=24, pool_recycle=1800, **options)
        engine = create_engine(self.url, connect_args={"timeout": BUSY_TIMEOUT}, pool_size=8, max_overflow=24, **options)
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
        return engine

    def write(self, *, single: bool = False, prepared: bool = False) -> AbstractContextManager[Connection]:
        """Open a transaction that may write; commit at the end, roll back on an exception.

        Args:
            single: exactly one statement follows. The database makes it a transaction by itself, which saves BEGIN and
                COMMIT: on PostgreSQL their round trips are a third of a claim.
            prepared: only statements follow that are prepared (`jobs.prepared`), or executed on the connection itself: no
                `Session`, which would commit by itself. It saves SQLAlchemy's part of BEGIN and COMMIT on SQLite.

        On SQLite there is one at a time in each process, see `jobs.writer`.

        Raises:
            DatabaseUnavailable: no connection could be had.
        """
        if self.dialect == "sqlite":
            return self._writer.single if single else self._writer.prepared if prepared else self._writer.whole
        return self._transaction(self._single if single else self.engine)

    @contextmanager
    def _transaction(self, engine: Engine) -> Iterator[Connection]:
        with self._connect(engine) as connection, connection.begin():
            yield connection

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Open a transaction that only reads and, on SQLite, waits for no writer.

        Raises:
            DatabaseUnavailable: no connection could be had.
        """
        with self._connect(self.engine) as connection, connection.execution_options(syncs_read=True).begin():
            yield connection

    @property
    def turn(self) -> Turn:
        """The process's turn to write, which SQLite's writers take; for transactions that outlive a call (`jobs.held`)."""
        return self._writer.turn

    def connect(self) -> Connection:
        """Open a connection of the caller's own. On SQLite it writes, so it needs the `turn`.

        Raises:
            DatabaseUnavailable: no connection could be had.
        """
        return self._connect(self.engine)

    def _connect(self, engine: Engine) -> Connection:
        try:
            return engine.connect()
        except DBAPIError as error:
            raise DatabaseUnavailable(f"{self.name} does not answer: {str(error.orig).strip().splitlines()[0]}") from error

    @property
    def name(self) -> str:
        """The URL as people may see it: without password and query, which may hold one too."""
        return self.url.set(drivername=self.dialect, query={}).render_as_string(hide_password=True)

    @property
    def now(self) -> ColumnElement[Any]:
        """The present moment, as an expression."""
        return clocks.now(self.dialect, self.clock)

    def from_now(self, name: str) -> ColumnElement[Any]:
        """The moment so many seconds from now; the seconds are bound under `name`."""
        return clocks.from_now(self.dialect, self.clock, name)

    def close(self) -> None:
        """Close every connection."""
        self._writer.close()
        self.engine.dispose()


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    # The driver must not open transactions by itself: it opens deferred ones, and too late.
    connection.isolation_level = None
    cursor = connection.cursor()
    # For a file that is new. A transaction on one job changes nine pages here and there, and each goes into the WAL as a whole:
    # with a fourth of the usual size a claim and a finish take 100 µs in place of 128. Batches of 25 and of 500 lose a tenth.
    cursor.execute("PRAGMA page_size = 1024")
    cursor.execute("PRAGMA journal_mode = WAL")
    # NORMAL survives kill -9; a power cut may lose the last commits, never the file (law 15).
    cursor.execute("PRAGMA synchronous = NORMAL")
    cursor.execute("PRAGMA foreign_keys = ON")
    # 16 MB, four times the default: a checkpoint copies pages that the next batch writes again.
    cursor.execute("PRAGMA wal_autocheckpoint = 16000")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    driver: Any = connection.connection.driver_connection
    if driver.in_transaction:  # `jobs.writer` has begun it, and SQLAlchemy joins in
        return
    reading = connection.get_execution_options().get("syncs_read", False)
    connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")
