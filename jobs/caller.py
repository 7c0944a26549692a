"""The caller's own transaction: the connection of a session, and whether it is on the database of the jobs (M24)."""

from pathlib import Path
from typing import Any
from weakref import WeakSet

from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import SQLAlchemyError

from jobs.database import Database
from jobs.errors import ForeignSession

_WHICH = text("SELECT current_database(), pg_postmaster_start_time()")

#: Engines found to be on the database of the jobs: asking costs a query.
_known: "WeakSet[Engine]" = WeakSet()


def connection_of(db: Database, session: Any) -> Connection:
    """Return the connection of a session, in its transaction.

    Args:
        db: the database of the jobs.
        session: a SQLAlchemy or SQLModel `Session`, or a `Connection`.

    Raises:
        ForeignSession: it is none of these, or on another database.
    """
    connection = session
    if not isinstance(session, Connection):
        begin = getattr(session, "connection", None)
        if begin is None or isinstance(session, Engine):
            raise ForeignSession(
                f"session must be a SQLAlchemy or SQLModel Session or a Connection, got {type(session).__name__}"
            )
        try:
            connection = begin()
        except SQLAlchemyError as error:
            raise ForeignSession(f"the session has no connection: {str(error).splitlines()[0]}") from error
    if not isinstance(connection, Connection):
        if hasattr(connection, "close"):
            # A coroutine that nobody awaits would warn at some later time.
            connection.close()
        raise ForeignSession(f"session must be a synchronous Session or Connection, got {type(session).__name__}")
    _check(db, connection)
    return connection


def _check(db: Database, connection: Connection) -> None:
    engine = connection.engine
    if engine is db.engine or engine.url == db.engine.url:
        return
    theirs = engine.dialect.name
    if theirs != db.dialect:
        raise ForeignSession(f"the session is on {theirs}, the jobs are in {db.name}; pass a session on that database, or none")
    same = _same_file(db, connection) if db.dialect == "sqlite" else _same_server(db, connection)
    if not same:
        where = engine.url.set(query={}).render_as_string(hide_password=True)
        raise ForeignSession(f"the session is on {where}, the jobs are in {db.name}; pass a session on that database, or none")


def _same_file(db: Database, connection: Connection) -> bool:
    # The file that SQLite has open, however the URL wrote it.
    files = connection.exec_driver_sql("PRAGMA database_list").all()
    theirs = next((file for _, name, file in files if name == "main"), "")
    assert db.url.database is not None
    ours = Path(db.url.database)
    return bool(theirs) and ours.exists() and ours.samefile(theirs)


def _same_server(db: Database, connection: Connection) -> bool:
    # One server has many addresses: it is asked who it is, once for each engine.
    if connection.engine in _known:
        return True
    with db.read() as own:
        ours = own.execute(_WHICH).one()
    same = tuple(connection.execute(_WHICH).one()) == tuple(ours)
    if same:
        _known.add(connection.engine)
    return same
