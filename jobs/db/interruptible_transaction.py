"""A write transaction that stays open across calls, and that another thread can roll back while its own thread hangs."""

import contextlib
import logging
import os
import threading
import time
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from jobs.db.database import Database
from jobs.db.sqlite_writer import clock_suspended, translate_locked
from jobs.errors import LostLease

log = logging.getLogger("jobs.db.interruptible_transaction")

WARN_AFTER = 5.0
"""Seconds. SQLite has one writer: a transaction that is open longer keeps every other job and the renewal of leases waiting."""

WARN_EVERY = 30.0
"""Seconds between two warnings about the same transaction."""

CHECK_EVERY = 1.0
"""Seconds between two checks of the open transactions."""

_MAX_IDLE_CHECKS = 60
"""Checks in a row without an open transaction, after which the checking thread ends."""

_INTERRUPT_AFTER = 1.0
"""Seconds that a running statement of a hanging thread gets before it is interrupted."""


class InterruptibleTransaction:
    """A transaction on a connection of its own.

    On SQLite it holds the process's writer lock until it ends. It does not use the connection of `Database.write`: a hanging
    thread may still send statements on its connection after the transaction was rolled back, and they must fail.

    Args:
        db: the database to write to.
        owner: named in warnings and errors.

    Raises:
        DatabaseUnavailable: no connection could be opened.
        DatabaseBusy: another process holds SQLite's writer.
    """

    def __init__(self, db: Database, owner: str) -> None:
        self._db = db
        self._owner = owner
        self._ended = False
        # The job's thread commits and the watchdog's thread interrupts: exactly one of them may end the transaction.
        self._lock = threading.Lock()
        self._holds_writer = db.dialect == "sqlite"
        if self._holds_writer:
            db.writer_lock.acquire()
        self._since = time.monotonic()
        self._warn_at = self._since + WARN_AFTER
        try:
            with clock_suspended():  # on PostgreSQL it waits for a connection that is free
                self.connection: Connection = db.connect()
            try:
                with clock_suspended():  # on SQLite it waits for other processes
                    self.connection.begin()
            except BaseException as error:
                self.connection.close()
                if (translated := translate_locked(error)) is not error:
                    raise translated from error
                raise
        except BaseException:
            self._release_writer()
            raise
        self._driver: Any = self.connection.connection.driver_connection
        if self._holds_writer:
            _monitor.add(self)

    def warn_if_long(self) -> None:
        """Log a warning if the transaction has been open for long; called regularly while it is open."""
        now = time.monotonic()
        if now < self._warn_at:
            return
        self._warn_at = now + WARN_EVERY
        log.warning(
            "%s has held SQLite's one writer for %.0f s, and all writes wait; if it hangs, SIGTERM twice to process %d frees it",
            self._owner,
            now - self._since,
            os.getpid(),
        )

    def commit(self) -> None:
        """Commit.

        Raises:
            LostLease: another thread has rolled it back.
        """
        with self._lock:
            if self._ended:
                raise LostLease(f"{self._owner} was given up; what it wrote is dropped")
            try:
                self.connection.commit()
            finally:
                self._end()

    def rollback(self) -> None:
        """Roll back, unless it has ended."""
        with self._lock:
            if not self._ended:
                with contextlib.suppress(SQLAlchemyError):
                    self.connection.rollback()
                self._end()

    def interrupt(self) -> None:
        """Roll back from another thread while the own thread hangs; statements that it sends later have no effect."""
        with self._lock:
            if self._ended:
                return
            self._ended = True
            try:
                # An error of the driver changes nothing: the connection is dropped.
                with contextlib.suppress(self._db.engine.dialect.loaded_dbapi.Error):
                    (_interrupt_sqlite if self._db.dialect == "sqlite" else _interrupt_postgresql)(self._driver)
                with contextlib.suppress(SQLAlchemyError):
                    self.connection.invalidate()
            finally:
                self._release_writer()

    def _end(self) -> None:
        self._ended = True
        try:
            with contextlib.suppress(SQLAlchemyError):
                self.connection.close()
        finally:
            self._release_writer()

    def _release_writer(self) -> None:
        if not self._holds_writer:
            return
        self._holds_writer = False
        _monitor.remove(self)
        self._db.writer_lock.release()
        seconds = time.monotonic() - self._since
        if seconds > WARN_AFTER:
            log.warning(
                "%s held SQLite's one writer for %.1f s, and all writes waited: ask the remote side first, use the session last",
                self._owner,
                seconds,
            )


class _Monitor:
    """Warns about transactions that are open for long. One thread checks all: a timer would start a thread for each job."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: set[InterruptibleTransaction] = set()
        self._thread: threading.Thread | None = None

    def add(self, transaction: InterruptibleTransaction) -> None:
        with self._lock:
            self._open.add(transaction)
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="jobs-transaction-monitor", daemon=True)
                self._thread.start()

    def remove(self, transaction: InterruptibleTransaction) -> None:
        with self._lock:
            self._open.discard(transaction)

    def _run(self) -> None:
        idle_checks = 0
        while True:
            time.sleep(CHECK_EVERY)
            with self._lock:
                transactions = list(self._open)
                idle_checks = 0 if transactions else idle_checks + 1
                if idle_checks > _MAX_IDLE_CHECKS:
                    self._thread = None
                    return
            for transaction in transactions:
                transaction.warn_if_long()


_monitor = _Monitor()


def _interrupt_sqlite(driver: Any) -> None:
    # A running statement locks the connection.
    timer = threading.Timer(_INTERRUPT_AFTER, driver.interrupt)
    timer.start()
    try:
        # Before the rollback: after it, a late statement of the hanging thread would commit by itself.
        driver.execute("PRAGMA query_only = ON")
        if driver.in_transaction:
            driver.execute("ROLLBACK")
    finally:
        timer.cancel()


def _interrupt_postgresql(driver: Any) -> None:
    from psycopg.pq import TransactionStatus

    if driver.info.transaction_status == TransactionStatus.ACTIVE:
        # If the connection were closed while another thread waits on it, that thread would wait for a closed socket for ever.
        driver.cancel_safe(timeout=5.0)
        until = time.monotonic() + _INTERRUPT_AFTER
        while driver.info.transaction_status == TransactionStatus.ACTIVE and time.monotonic() < until:
            time.sleep(0.01)
