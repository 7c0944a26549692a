"""A write transaction that is open as long as its owner likes, and that another thread can end. Knows no table and no job."""

import contextlib
import logging
import threading
import time
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from jobs.database import Database
from jobs.errors import LostLease

log = logging.getLogger("jobs.held")

LONG = 5.0
"""Seconds. SQLite has one writer: whoever holds it longer than this keeps every other job and every lease waiting."""

_PATIENCE = 1.0
"""Seconds that a statement of a hanging thread gets before it is interrupted."""


class Held:
    """A transaction on a connection of its own.

    On SQLite it has the process's turn to write until it ends. Its connection is not the one that `Database.write` uses: a
    thread that was given up may still send statements down this one, and they must meet a closed door.

    Args:
        db: where.
        owner: who is named when it is held too long.

    Raises:
        DatabaseUnavailable: no connection could be had.
    """

    def __init__(self, db: Database, owner: str) -> None:
        self._db = db
        self._owner = owner
        self._ended = False
        # Between the job's thread, which commits, and the watchdog's, which kills: exactly one of them ends it.
        self._lock = threading.Lock()
        self._has_turn = db.dialect == "sqlite"
        if self._has_turn:
            db.turn.acquire()
        self._since = time.monotonic()
        try:
            self.connection: Connection = db.connect()
            try:
                self.connection.begin()
            except BaseException:
                self.connection.close()
                raise
        except BaseException:
            self._leave()
            raise
        self._raw: Any = self.connection.connection.driver_connection

    def commit(self) -> None:
        """Commit.

        Raises:
            LostLease: it was killed in the meantime.
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

    def kill(self) -> None:
        """Roll back from another thread, while its own hangs: nothing that comes down the connection later counts."""
        with self._lock:
            if self._ended:
                return
            self._ended = True
            try:
                # Whatever the driver makes of it, the connection is thrown away.
                with contextlib.suppress(self._db.engine.dialect.loaded_dbapi.Error):
                    (_kill_sqlite if self._db.dialect == "sqlite" else _kill_postgresql)(self._raw)
                with contextlib.suppress(SQLAlchemyError):
                    self.connection.invalidate()
            finally:
                self._leave()

    def _end(self) -> None:
        self._ended = True
        try:
            with contextlib.suppress(SQLAlchemyError):
                self.connection.close()
        finally:
            self._leave()

    def _leave(self) -> None:
        if not self._has_turn:
            return
        self._has_turn = False
        self._db.turn.release()
        seconds = time.monotonic() - self._since
        if seconds > LONG:
            log.warning(
                "%s held SQLite's one writer for %.1f s, and everybody waited: ask the remote side first, use the session last",
                self._owner,
                seconds,
            )


def _kill_sqlite(raw: Any) -> None:
    # A statement that is running keeps the connection to itself.
    timer = threading.Timer(_PATIENCE, raw.interrupt)
    timer.start()
    try:
        # Before the rollback: behind it, a late statement of the hanging thread would commit by itself.
        raw.execute("PRAGMA query_only = ON")
        if raw.in_transaction:
            raw.execute("ROLLBACK")
    finally:
        timer.cancel()


def _kill_postgresql(raw: Any) -> None:
    from psycopg.pq import TransactionStatus

    if raw.info.transaction_status == TransactionStatus.ACTIVE:
        # Closing a connection on which another thread waits would leave that thread waiting for a socket that is gone.
        raw.cancel_safe(timeout=5.0)
        until = time.monotonic() + _PATIENCE
        while raw.info.transaction_status == TransactionStatus.ACTIVE and time.monotonic() < until:
            time.sleep(0.01)
