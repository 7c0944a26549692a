"""Returns the connection of a session that the caller passes, after checking that it is on the database of the jobs."""

from pathlib import Path
from typing import Any
from weakref import WeakSet

from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import SQLAlchemyError

from jobs.db.database import Database
from jobs.errors import ForeignSession

_SERVER_IDENTITY = text("SELECT current_database(), pg_postmaster_start_time()")

#: Engines known to be on the database of the jobs: checking costs a query.
_checked: "WeakSet[Engine]" = WeakSet()


def connection_of_session(db: Database, session: Any) -> Connection:
    """Return the connection of a session; its transaction has begun.

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
            # A coroutine that is not awaited would cause a warning later.
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
    # The file that SQLite has open, however the URL spells its path.
    files = connection.exec_driver_sql("PRAGMA database_list").all()
    theirs = next((file for _, name, file in files if name == "main"), "")
    assert db.url.database is not None
    ours = Path(db.url.database)
    return bool(theirs) and ours.exists() and ours.samefile(theirs)


def _same_server(db: Database, connection: Connection) -> bool:
    # One server has many addresses, so it is asked for its identity, once for each engine.
    if connection.engine in _checked:
        return True
    with db.read() as own:
        ours = own.execute(_SERVER_IDENTITY).one()
    same = tuple(connection.execute(_SERVER_IDENTITY).one()) == tuple(ours)
    if same:
        _checked.add(connection.engine)
    return same
