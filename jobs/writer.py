"""The one connection on which a process writes to SQLite, and the turn to use it. Knows no table."""

import sqlite3
from collections.abc import Callable
from types import TracebackType
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from jobs.busy import busy
from jobs.prepared import refuse
from jobs.waiting import Turn, waiting


class Writer:
    """Write transactions of one process, one at a time.

    Args:
        connect: opens the connection, for the first of them.

    Writers queue here in order of arrival; inside SQLite they would poll with growing sleeps. And it is one connection for all of
    them: checking one out each time cost 100 µs, a third of a small claim.

    There are three ways in, all of them contexts that commit at their end, roll back on an exception and give the turn back:
    `whole` is a transaction of SQLAlchemy's; `prepared` one that SQLAlchemy is not told of, which saves 60 µs: a `Session` would
    take the connection for free there and commit by itself; `single` is a transaction of one statement, without BEGIN.
    """

    def __init__(self, connect: Callable[[], Connection]) -> None:
        self.turn = Turn()
        self.whole = _Way(self, self._begin_whole, self._commit_whole)
        self.prepared = _Way(self, self._begin, self._commit)
        self.single = _Way(self, self._open, self._commit_whole)
        self._connect = connect
        self._connection: Connection | None = None
        self._driver: Any = None

    def _open(self) -> Connection:
        if self._driver is not None and self._connection is not None:
            return self._connection
        if self._connection is None or self._connection.closed:
            self._connection = self._connect()
        # Looked up again after each failure, which may have replaced it.
        self._driver = self._connection.connection.driver_connection
        return self._connection

    def _begin(self) -> Connection:
        connection = self._open()
        try:
            # A deferred transaction that turns to writing fails at once, whatever the timeout (M22).
            if (pause := waiting()) is None:
                self._driver.execute("BEGIN IMMEDIATE")
            else:
                with pause:  # for another process
                    self._driver.execute("BEGIN IMMEDIATE")
        except sqlite3.Error as error:
            refuse(connection, error, "BEGIN IMMEDIATE", ())
        return connection

    def _begin_whole(self) -> Connection:
        connection = self._begin()
        connection.begin()  # which finds a transaction, and joins in; see `jobs.database`
        return connection

    def _commit_whole(self) -> None:
        """Commit what SQLAlchemy knows of."""
        connection = self._connection
        if connection is not None and connection.in_transaction():
            connection.commit()

    def _commit(self) -> None:
        connection = self._connection
        assert connection is not None
        if connection.in_transaction():  # SQLAlchemy has joined in
            connection.commit()
            return
        if connection.engine.dispatch.commit:
            connection.engine.dispatch.commit(connection)
        try:
            self._driver.execute("COMMIT")
        except sqlite3.Error as error:
            refuse(connection, error, "COMMIT", ())

    def roll_back(self) -> None:
        """Roll back what there is; give the connection up where it cannot."""
        connection, driver, self._driver = self._connection, self._driver, None
        if connection is None or driver is None:
            return
        try:
            connection.rollback()  # nothing, where SQLAlchemy was not told
            driver.rollback()  # nothing, where SQLite itself has rolled back
        except (sqlite3.Error, SQLAlchemyError):
            # Closing it rolls back, too, and whatever state it is in, nobody writes on it again.
            self._connection = None
            connection.invalidate()
            connection.close()

    def close(self) -> None:
        """Close the connection; the next transaction opens another one."""
        with self.turn:
            if self._connection is not None:
                self._connection.close()
                self._connection = self._driver = None


class _Way:
    """A context for the turn of a writer. It holds no state, so one object serves all transactions of its kind."""

    def __init__(self, writer: Writer, begin: Callable[[], Connection], commit: Callable[[], None]) -> None:
        self._writer = writer
        self._begin = begin
        self._commit = commit

    def __enter__(self) -> Connection:
        self._writer.turn.acquire()
        try:
            return self._begin()
        except BaseException as error:
            self._leave()
            if (found := busy(error)) is not error:
                raise found from error
            raise

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is not None:
            self._leave()
            # A single statement waits for another process inside itself.
            if error is not None and (found := busy(error)) is not error:
                raise found from error
            return
        try:
            self._commit()
        except BaseException:
            self._leave()
            raise
        self._writer.turn.release()

    def _leave(self) -> None:
        try:
            self._writer.roll_back()
        finally:
            self._writer.turn.release()
