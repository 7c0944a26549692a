"""A write transaction that is open as long as its owner likes, and that another thread can end. Knows no table and no job."""

import contextlib
import logging
import os
import threading
import time
from contextlib import nullcontext
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from jobs.busy import busy
from jobs.database import Database
from jobs.errors import LostLease
from jobs.waiting import waiting

log = logging.getLogger("jobs.held")

LONG = 5.0
"""Seconds. SQLite has one writer: whoever holds it longer than this keeps every other job and every lease waiting."""

AGAIN = 30.0
"""Seconds between two complaints about one that is held on and on."""

LOOK = 1.0
"""Seconds between two looks at who holds it."""

_IDLE = 60
"""Looks in a row with nothing to see, after which nobody looks any more."""

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
        DatabaseBusy: another process keeps SQLite's writer.
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
        self._complain_at = self._since + LONG
        try:
            self.connection: Connection = db.connect()
            try:
                with waiting() or nullcontext():  # for another process, on SQLite
                    self.connection.begin()
            except BaseException as error:
                self.connection.close()
                if (found := busy(error)) is not error:
                    raise found from error
                raise
        except BaseException:
            self._leave()
            raise
        self._raw: Any = self.connection.connection.driver_connection
        if self._has_turn:
            _watch.add(self)

    def complain(self) -> None:
        """Say who holds the writer, if that has been long enough; called while it does."""
        now = time.monotonic()
        if now < self._complain_at:
            return
        self._complain_at = now + AGAIN
        log.warning(
            "%s has held SQLite's one writer for %.0f s, and everybody waits; if it hangs, SIGTERM twice to process %d frees it",
            self._owner,
            now - self._since,
            os.getpid(),
        )

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
        _watch.drop(self)
        self._db.turn.release()
        seconds = time.monotonic() - self._since
        if seconds > LONG:
            log.warning(
                "%s held SQLite's one writer for %.1f s, and everybody waited: ask the remote side first, use the session last",
                self._owner,
                seconds,
            )


class _Watch:
    """Looks at who holds a writer; strictly private. One thread for all: a timer would start one for each job."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: set[Held] = set()
        self._thread: threading.Thread | None = None

    def add(self, held: Held) -> None:
        """Watch it."""
        with self._lock:
            self._held.add(held)
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._look, name="jobs-held", daemon=True)
                self._thread.start()

    def drop(self, held: Held) -> None:
        """Watch it no longer."""
        with self._lock:
            self._held.discard(held)

    def _look(self) -> None:
        idle = 0
        while True:
            time.sleep(LOOK)
            with self._lock:
                held = list(self._held)
                idle = 0 if held else idle + 1
                if idle > _IDLE:
                    self._thread = None
                    return
            for one in held:
                one.complain()


_watch = _Watch()


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
