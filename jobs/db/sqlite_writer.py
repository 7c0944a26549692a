"""Runs all of a process's write transactions on one SQLite connection, one after the other.

Also here: the lock that orders them, and the error that says that another process holds the database.
"""

import sqlite3
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from types import TracebackType
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.exc import OperationalError, SQLAlchemyError

from jobs.db.prepared_statements import raise_driver_error
from jobs.db.sqlite_file import SqliteFile
from jobs.errors import DatabaseBusy


class SqliteBusy(DatabaseBusy, OperationalError):
    """Raised when another transaction held the database for longer than SQLite waits.

    It is also the error that SQLAlchemy raises, with the driver's error in `orig`, so code that retries while a database is
    away retries this one too.
    """

    def __str__(self) -> str:
        return (
            "the database is locked: another process, or a job in this one, holds SQLite's one writer; `syncs jobs --state "
            "processing` lists the jobs that may hang, SIGTERM twice to their worker frees it; then try again"
        )


def is_locked_error(error: BaseException | None) -> bool:
    """Tell whether SQLite gave up waiting for another transaction."""
    return isinstance(error, OperationalError) and "database is locked" in str(error.orig)


def translate_locked(error: BaseException) -> BaseException:
    """Return `SqliteBusy` for SQLite's "database is locked", and every other error unchanged."""
    if not is_locked_error(error) or isinstance(error, DatabaseBusy):
        return error
    assert isinstance(error, OperationalError)
    assert error.orig is not None
    return SqliteBusy(error.statement, error.params, error.orig, hide_parameters=True)


_ClockSuspension = Callable[[], AbstractContextManager[None]]

_thread = threading.local()


def suspend_clock_while_waiting(suspension: _ClockSuspension) -> None:
    """Let the calling thread, from now on, wait for SQLite's writer only inside such a context.

    The thread pool stops a job's time limit with it: waiting for another job's transaction must not count as the job's own time.
    """
    _thread.suspension = suspension


def clock_suspended() -> AbstractContextManager[None]:
    """Return the context in which the calling thread must wait for SQLite's writer."""
    suspension: _ClockSuspension = getattr(_thread, "suspension", nullcontext)
    return suspension()


class WriterLock:
    """A lock that one thread may acquire and another release, because another thread may end a transaction."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.release = self._lock.release
        self.locked = self._lock.locked

    def acquire(self) -> None:
        """Wait for the lock, in the order of arrival."""
        if not self._lock.acquire(blocking=False):
            with clock_suspended():
                self._lock.acquire()

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()


class SqliteWriter:
    """Write transactions of one process, one at a time.

    Args:
        connect: opens the connection; called for the first transaction, and again after the connection broke.
        file: the database's file; None where it is no plain file.

    Writers queue here in order of arrival; inside SQLite they would poll with growing sleeps. All of them use one connection:
    checking one out for each transaction cost 100 µs, a third of a small claim.

    There are three kinds of transaction, each a context manager that commits at its end and rolls back on an exception:
    `transaction` is begun through SQLAlchemy; `driver_transaction` is begun on the driver alone, which saves 60 µs, and is not
    for a `Session`, which would commit it by itself; `single_statement` sends no BEGIN, because SQLite makes one statement a
    transaction by itself.
    """

    def __init__(self, connect: Callable[[], Connection], *, file: SqliteFile | None = None) -> None:
        self.lock = WriterLock()
        self._file = file
        self.transaction = _TransactionContext(self, self._begin_in_sqlalchemy, self._commit_in_sqlalchemy)
        self.driver_transaction = _TransactionContext(self, self._begin_in_driver, self._commit_in_driver)
        self.single_statement = _TransactionContext(self, self._open, self._commit_in_sqlalchemy)
        self._connect = connect
        self._connection: Connection | None = None
        self._driver: Any = None

    def _open(self) -> Connection:
        """Return the connection.

        Raises:
            DatabaseReplaced: its file is no longer the one that it was opened with.
        """
        if self._file is not None:
            self._file.check()
        if self._driver is not None and self._connection is not None:
            return self._connection
        if self._connection is None or self._connection.closed:
            self._connection = self._connect()
        # Looked up again after each failure, which may have replaced it.
        self._driver = self._connection.connection.driver_connection
        return self._connection

    def _begin_in_driver(self) -> Connection:
        connection = self._open()
        try:
            # IMMEDIATE, because a deferred transaction that starts to write after it has read fails at once when another process
            # has written in between, whatever the busy timeout.
            with clock_suspended():  # it waits for other processes
                self._driver.execute("BEGIN IMMEDIATE")
        except sqlite3.Error as error:
            raise_driver_error(connection, error, "BEGIN IMMEDIATE", ())
        return connection

    def _begin_in_sqlalchemy(self) -> Connection:
        connection = self._begin_in_driver()
        connection.begin()  # finds the driver's transaction and joins it, see `jobs.db.database`
        return connection

    def _commit_in_sqlalchemy(self) -> None:
        connection = self._connection
        if connection is not None and connection.in_transaction():
            connection.commit()

    def _commit_in_driver(self) -> None:
        connection = self._connection
        assert connection is not None
        if connection.in_transaction():  # SQLAlchemy has joined the transaction
            connection.commit()
            return
        if connection.engine.dispatch.commit:
            connection.engine.dispatch.commit(connection)
        try:
            self._driver.execute("COMMIT")
        except sqlite3.Error as error:
            raise_driver_error(connection, error, "COMMIT", ())

    def roll_back(self) -> None:
        """Roll back the open transaction; drop the connection if that fails."""
        connection, driver, self._driver = self._connection, self._driver, None
        if connection is None or driver is None:
            return
        try:
            connection.rollback()  # does nothing if SQLAlchemy has not begun the transaction
            driver.rollback()  # does nothing if SQLite has already rolled back
        except (sqlite3.Error, SQLAlchemyError):
            # Closing it rolls back as well, and a connection in an unknown state must not be written on again.
            self._connection = None
            connection.invalidate()
            connection.close()

    def close(self) -> None:
        """Close the connection; the next transaction opens another one."""
        with self.lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = self._driver = None


class _TransactionContext:
    """A context manager for one kind of transaction. It holds no state, so one object serves all transactions of its kind."""

    def __init__(self, writer: SqliteWriter, begin: Callable[[], Connection], commit: Callable[[], None]) -> None:
        self._writer = writer
        self._begin = begin
        self._commit = commit

    def __enter__(self) -> Connection:
        self._writer.lock.acquire()
        try:
            return self._begin()
        except BaseException as error:
            self._roll_back_and_release()
            if (translated := translate_locked(error)) is not error:
                raise translated from error
            raise

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is not None:
            self._roll_back_and_release()
            # A single statement waits for other processes here, not in `__enter__`.
            if error is not None and (translated := translate_locked(error)) is not error:
                raise translated from error
            return
        try:
            self._commit()
        except BaseException:
            self._roll_back_and_release()
            raise
        self._writer.lock.release()

    def _roll_back_and_release(self) -> None:
        try:
            self._writer.roll_back()
        finally:
            self._writer.lock.release()
