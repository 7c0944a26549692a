"""Reads with the driver alone: SQLAlchemy and the models of the tables take half a second to import.

Anything that is unusual is left to `jobs.db.database`, which says what is wrong: `open_reader` returns `None` then.
"""

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from jobs.errors import DatabaseUnavailable, first_line

_SQLITE = re.compile(r"sqlite(?:\+pysqlite)?:///([^?]+)")
_POSTGRESQL = re.compile(r"postgres(?:ql)?(?:\+psycopg)?(://.*)")
_NAMED = re.compile(r"(?<!:):([a-z_0-9]+)")
_VERSIONS = Path(__file__).parents[1] / "migrations" / "versions"
BUSY_TIMEOUT = 15.0
"""Seconds, as in `jobs.db.database`."""
CONNECT_TIMEOUT = 10


class Reader:
    """One connection that only reads.

    Args:
        connection: of the driver, `sqlite3` or psycopg; it is closed with the reader.
        dialect: sqlite or postgresql.
        errors: the driver's class of errors.
    """

    def __init__(self, connection: Any, dialect: str, errors: type[Exception]) -> None:
        self._connection, self.dialect, self._errors = connection, dialect, errors

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def select(self, statement: str, **values: Any) -> list[tuple[Any, ...]]:
        """Return the rows of a statement.

        Args:
            statement: with parameters such as `:sync`.
            values: of the parameters.

        Raises:
            DatabaseUnavailable: the database failed.
        """
        if self.dialect == "postgresql":
            statement = _NAMED.sub(r"%(\1)s", statement.replace("%", "%%"))
        try:
            with closing(self._connection.cursor()) as cursor:
                cursor.execute(statement, values)
                found: list[tuple[Any, ...]] = cursor.fetchall()
        except self._errors as error:
            raise DatabaseUnavailable(f"the database cannot be read: {first_line(error)}") from error
        return found

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Let all that is read within it be as it was at its beginning."""
        begin = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY" if self.dialect == "postgresql" else "BEGIN"
        self._connection.execute(begin)
        try:
            yield
        finally:
            with suppress(self._errors):
                self._connection.execute("ROLLBACK")

    def time(self, when: datetime) -> Any:
        """Return a time as a parameter; on SQLite the text that `jobs.db.clock.to_text` writes."""
        utc = when.astimezone(UTC)
        return utc if self.dialect == "postgresql" else utc.replace(tzinfo=None).isoformat(" ", "microseconds")

    def now(self) -> datetime:
        """Return the database's time."""
        found = self.select("SELECT now()")[0][0] if self.dialect == "postgresql" else datetime.now(UTC)
        assert isinstance(found, datetime)
        return found.astimezone(UTC)


def moment(found: Any) -> Any:
    """Return a time as a driver gives it as an aware one in UTC; `None` for `None`."""
    if isinstance(found, str):
        return datetime.fromisoformat(found).replace(tzinfo=UTC)
    return found.astimezone(UTC) if isinstance(found, datetime) else found


def is_missing(url: str) -> bool:
    """Tell whether a URL names a SQLite file that does not exist: nothing has ever run."""
    found = _SQLITE.fullmatch(url)
    return found is not None and not Path(found[1]).exists()


def open_reader(url: str, *, project: str | None) -> Reader | None:
    """Open a database whose tables have the version of this code; `None` where anything else is the case.

    Args:
        url: of the database.
        project: the name of this project; a database may belong to another one.
    """
    for reader in _opened(url):
        try:
            version = reader.select("SELECT version_num FROM sync_clients_version")
            owner = reader.select("SELECT name FROM sync_clients_project")
        except DatabaseUnavailable:
            version, owner = [], []
        if version == [(_head(),)] and (not owner or owner == [(project,)]):
            return reader
        reader.close()
    return None


def _opened(url: str) -> Iterator[Reader]:
    if found := _SQLITE.fullmatch(url):
        path = Path(found[1]).absolute()
        try:
            yield Reader(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=BUSY_TIMEOUT), "sqlite", sqlite3.Error)
        except sqlite3.Error:
            return
    elif (found := _POSTGRESQL.fullmatch(url)) and "prepare_threshold" not in url:
        try:
            import psycopg
        except ImportError:
            return
        options: dict[str, Any] = {"client_encoding": "utf8", "application_name": "syncs", "prepare_threshold": None}
        if "connect_timeout" not in url:
            options["connect_timeout"] = CONNECT_TIMEOUT
        try:
            connection = psycopg.connect(f"postgresql{found[1]}", autocommit=True, **options)
        except psycopg.Error:
            return
        if (connection.info.parameter_status("DateStyle") or "").startswith("ISO"):
            yield Reader(connection, "postgresql", psycopg.Error)
        else:
            connection.close()


def _head() -> str:
    """Return the version of the tables that this code needs, as `jobs.schema.upgrade.HEAD`, which imports SQLAlchemy."""
    return max(path.name for path in _VERSIONS.glob("[0-9]*.py"))[:4]
