"""Repeats database work while the database is away: restarted, unreachable, locked for long."""

import logging
import random
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from sqlalchemy.exc import DBAPIError, InterfaceError, InternalError, OperationalError

from jobs.errors import DatabaseLost, DatabaseUnavailable

log = logging.getLogger("syncs.database")

T = TypeVar("T")

FIRST_WAIT, LONGEST_WAIT = 0.1, 5.0
"""Seconds between two tries: the wait doubles from the first to the longest."""

GIVE_UP_AFTER = 30.0
"""Seconds that work with an end of its own waits for its database before it gives up."""

# SQLite reports every kind of refusal as OperationalError; these mean that the tables are wrong, which waiting does not change.
_PERMANENT = ("no such table", "no such column", "syntax error", "has no column", "readonly database")

_LIMIT_EXCEEDED = "54"
"""PostgreSQL's error class "program limit exceeded", e.g. a value too large for an index; psycopg reports it as operational."""


def is_outage(error: BaseException) -> bool:
    """Tell whether the database may answer the same statement later."""
    if isinstance(error, DatabaseUnavailable):
        return True
    if isinstance(error, DBAPIError) and error.connection_invalidated:
        return True
    if str(getattr(getattr(error, "orig", None), "sqlstate", "")).startswith(_LIMIT_EXCEEDED):
        return False
    # InternalError: read-only after a failover.
    if not isinstance(error, OperationalError | InterfaceError | InternalError):
        return False
    return not any(word in str(error.orig) for word in _PERMANENT)


_RESOURCES = ("08", "53", "57P")
"""PostgreSQL's error classes of a lost connection, missing resources (disk, memory, connections) and a server that shuts down."""
_READ_ONLY = "25006"
_SQLITE_LACKS = ("is locked", "is full", "unable to open", "disk I/O error", "readonly database")


def is_lacking(error: BaseException) -> bool:
    """Tell whether a job met a database that is away, full or read-only, which says nothing about the job.

    Narrower than `is_outage`: an error that comes again with the same job must use up its attempts.
    """
    if isinstance(error, DatabaseUnavailable) or (isinstance(error, DBAPIError) and error.connection_invalidated):
        return True
    if not isinstance(error, OperationalError | InterfaceError | InternalError):
        return False
    state = getattr(error.orig, "sqlstate", None)
    if state is not None:
        return str(state).startswith(_RESOURCES) or state == _READ_ONLY
    text = str(error.orig)
    is_sqlite = type(error.orig).__module__.startswith("sqlite3")
    return any(word in text for word in _SQLITE_LACKS) if is_sqlite else isinstance(error, OperationalError)


class DatabaseRetry:
    """Calls database work again while the database is away, with growing waits; logs an outage once.

    Args:
        limit: seconds until it gives up; `None` never does.
        stop: once set, it gives up after `GIVE_UP_AFTER` seconds.
        now: once set, it gives up at once.
    """

    def __init__(self, limit: float | None, *, stop: threading.Event, now: threading.Event) -> None:
        self._limit = limit
        self._stop = stop
        self._now = now
        self._is_away = False

    def __call__(self, work: Callable[[], T]) -> T:
        """Return what the work returns.

        Raises:
            DatabaseLost: the database stayed away.
            Exception: whatever else the work raises.
        """
        outage = Outage(self)
        while True:
            try:
                found = work()
            except Exception as error:  # noqa: BLE001 - raised again unless the database is away
                wait = outage.failed(error)
            else:
                outage.answered()
                return found
            self._now.wait(wait)

    @property
    def is_limited(self) -> bool:
        """Whether it gives up at some time."""
        return self._limit is not None or self._stop.is_set() or self._now.is_set()

    def is_over(self, began: float) -> bool:
        """Tell whether to give up an outage that began then, by `time.monotonic`."""
        limit = GIVE_UP_AFTER if self._limit is None else self._limit
        return self._now.is_set() or (self.is_limited and time.monotonic() - began >= limit)

    def log_failed(self, error: BaseException) -> None:
        """Log, once for each outage, that the database is away."""
        if not self._is_away:
            self._is_away = True
            log.warning("the database does not answer, trying again until it does: %s", reason(error))

    def log_answered(self) -> None:
        """Log that it is back, if it was away."""
        if self._is_away:
            self._is_away = False
            log.warning("the database answers again")


class Outage:
    """Counts the failed tries of one piece of work.

    Args:
        retry: how long to try.
    """

    def __init__(self, retry: DatabaseRetry) -> None:
        self._retry = retry
        #: When it began, by `time.monotonic`; `None` while the database answers.
        self.began: float | None = None
        self._wait = FIRST_WAIT

    def failed(self, error: BaseException) -> float:
        """Take note of an error; return the seconds to wait before the next try.

        Raises:
            DatabaseLost: it has been long enough.
            Exception: the error itself, where waiting does not help.
        """
        if not is_outage(error):
            raise error
        if self.began is None or not self._retry.is_limited:
            self.began = time.monotonic()
        if self._retry.is_over(self.began):
            raise lost(error) from error
        self._retry.log_failed(error)
        wait, self._wait = self._wait, min(LONGEST_WAIT, self._wait * 2)
        return wait * random.uniform(0.8, 1.2)  # noqa: S311 - spreads load, needs no secrecy

    def answered(self) -> None:
        """Take note that the database answers."""
        self.began, self._wait = None, FIRST_WAIT
        self._retry.log_answered()


def lost(error: BaseException) -> DatabaseLost:
    """Return the error with which work ends when its database has gone away."""
    return DatabaseLost(f"the database went away: {reason(error)}; what was committed stands, and the rest goes on next time")


def reason(error: BaseException) -> str:
    """Return in one line what the database said, without statement and parameters."""
    said = getattr(error, "orig", None) or error
    return next(iter(str(said).strip().splitlines()), "") or type(said).__name__
