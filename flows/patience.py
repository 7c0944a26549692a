"""Waiting for a database that is away: restarted, unreachable, locked for long. Knows no table."""

import logging
import random
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError

from jobs.errors import DatabaseLost, DatabaseUnavailable

log = logging.getLogger("syncs.database")

T = TypeVar("T")

LONGEST = 5.0
"""Seconds between two tries at most."""

ONE_SHOT = 30.0
"""Seconds that work with an end of its own waits for its database before it gives up."""

# SQLite says OperationalError of whatever it does not like; these say that the tables are not ours, which no wait mends.
_NEVER = ("no such table", "no such column", "syntax error", "has no column", "readonly database")

_LIMITS = "54"
"""PostgreSQL's class of "program limit exceeded": what is too large for an index is so tomorrow. psycopg calls it operational."""


def is_outage(error: BaseException) -> bool:
    """Tell whether the database may answer the same statement later."""
    if isinstance(error, DatabaseUnavailable):
        return True
    if isinstance(error, DBAPIError) and error.connection_invalidated:
        return True
    if str(getattr(getattr(error, "orig", None), "sqlstate", "")).startswith(_LIMITS):
        return False
    return isinstance(error, OperationalError | InterfaceError) and not any(word in str(error.orig) for word in _NEVER)


class Outage:
    """One piece of work that the database keeps waiting.

    Args:
        patience: how long to wait.
    """

    def __init__(self, patience: "Patience") -> None:
        self._patience = patience
        self._began: float | None = None
        self._wait = 0.1

    def failed(self, error: Exception) -> float:
        """Take note of an error; return the seconds to wait before the next try.

        Raises:
            DatabaseLost: it has been long enough.
            Exception: the error itself, where waiting does not help.
        """
        if not is_outage(error):
            raise error
        if self._began is None or not self._patience.ends:
            self._began = time.monotonic()
        if self._patience.is_over(self._began):
            raise lost(error) from error
        self._patience.complain(error)
        wait, self._wait = self._wait, min(LONGEST, self._wait * 2)
        return wait * random.uniform(0.8, 1.2)  # noqa: S311  # spreads load, hides nothing

    def answered(self) -> None:
        """Take note that the database answers."""
        self._began, self._wait = None, 0.1
        self._patience.relax()


class Patience:
    """Does a piece of database work again while the database is away: says so once, and waits a little longer each time.

    Args:
        limit: seconds until it gives up; `None` never does.
        stop: once set, it gives up after `ONE_SHOT` seconds more.
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
    def ends(self) -> bool:
        """Whether there is an end to it."""
        return self._limit is not None or self._stop.is_set() or self._now.is_set()

    def is_over(self, began: float) -> bool:
        """Tell whether an outage has lasted long enough."""
        limit = ONE_SHOT if self._limit is None else self._limit
        return self._now.is_set() or (self.ends and time.monotonic() - began >= limit)

    def complain(self, error: Exception) -> None:
        """Say, once for each outage, that the database is away."""
        if not self._is_away:
            self._is_away = True
            log.warning("the database does not answer, trying again until it does: %s", reason(error))

    def relax(self) -> None:
        """Say that it is back, if it was away."""
        if self._is_away:
            self._is_away = False
            log.warning("the database answers again")


def lost(error: BaseException) -> DatabaseLost:
    """Return the error with which work ends whose database went away under it."""
    return DatabaseLost(f"the database went away: {reason(error)}; what was committed stands, and the rest goes on next time")


def reason(error: BaseException) -> str:
    """Say in one line, without statement and parameters, what the database said."""
    said = getattr(error, "orig", None) or error
    return next(iter(str(said).strip().splitlines()), "") or type(said).__name__
