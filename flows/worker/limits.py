"""What ends a worker: signals from outside, limits of time, jobs and memory, and tables of a newer version."""

import threading
import time
from dataclasses import dataclass, field

from sqlalchemy.exc import DBAPIError

from flows.database_outage import is_outage
from jobs.db.database import Database
from jobs.errors import JobsError
from jobs.schema.upgrade import check

MEMORY_EVERY = 1.0
"""Seconds between two looks at the memory."""

TABLES_EVERY = 15.0
"""Seconds between two looks at the version of the tables."""


@dataclass(frozen=True, slots=True)
class Signals:
    """How the threads of a worker learn that it ends.

    Args:
        stop: set from outside: begin no further job, finish those in hand.
        now: set from outside: put the jobs in hand back.
        halt: set by the worker when it ends, for whatever reason: jobs that have not begun go back.
    """

    stop: threading.Event = field(default_factory=threading.Event)
    now: threading.Event = field(default_factory=threading.Event)
    halt: threading.Event = field(default_factory=threading.Event)

    @property
    def is_ending(self) -> bool:
        """Whether nothing further begins, neither a job nor a page; jobs in hand that have not begun go back."""
        return self.stop.is_set() or self.halt.is_set() or self.now.is_set()


@dataclass(frozen=True, slots=True)
class WorkerLimits:
    """What ends a worker by itself. Each is checked between jobs; none cuts a job short.

    Args:
        time_limit: seconds after which no further job is begun; `None` or 0 means none.
        max_jobs: at most so many.
        until_empty: end when nothing is due. Delayed jobs, and those of a paused client, are not due; those for which a
            limited queue has no room are, and are waited for.
        grace: seconds after a stop in which jobs in hand may end by themselves; then they go back. `None` waits for them.
        memory_limit: megabytes of resident memory; a larger worker ends, so that its supervisor starts a new one.
        by_queue: also leave a declared queue after the `time_limit` of its own, to the next scheduled worker.
    """

    time_limit: float | None = None
    max_jobs: int | None = None
    until_empty: bool = False
    grace: float | None = None
    memory_limit: float | None = None
    by_queue: bool = False


class MemoryWatch:
    """Checks the memory of this process, at most once in `MEMORY_EVERY` seconds.

    Args:
        limit: megabytes.
    """

    def __init__(self, limit: float) -> None:
        self._limit = limit
        self._checked_at = -MEMORY_EVERY

    def is_too_large(self) -> bool:
        """Tell whether the process has grown beyond the limit."""
        if time.monotonic() - self._checked_at < MEMORY_EVERY:
            return False
        self._checked_at = time.monotonic()
        return resident() > self._limit


class TablesWatch:
    """Notices that somebody has upgraded the tables: code that does not know them may write what the newer code does not expect.

    Args:
        db: the database of the jobs, whose tables fit now.
    """

    def __init__(self, db: Database) -> None:
        self._db = db
        self._checked_at = time.monotonic()

    def check_if_due(self) -> None:
        """Look, at most once in `TABLES_EVERY` seconds.

        Raises:
            SchemaTooNew: somebody has; a worker of the new version goes on with the jobs.
        """
        if time.monotonic() - self._checked_at >= TABLES_EVERY:
            self._checked_at = time.monotonic()
            check(self._db)

    def explain(self, error: BaseException) -> BaseException:
        """Return `SchemaTooNew` where a statement was refused because somebody has upgraded the tables, else the error itself."""
        if not isinstance(error, DBAPIError) or is_outage(error):
            return error
        try:
            check(self._db)
        except JobsError as found:
            return found
        return error


def resident() -> float:
    """Return the megabytes that this process has in memory."""
    # Not at the top: only a worker with a memory limit needs it.
    import psutil

    return float(psutil.Process().memory_info().rss) / 2**20
