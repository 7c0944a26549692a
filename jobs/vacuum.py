"""Clearing PostgreSQL's index of waiting jobs of those that are gone. Knows how many were taken, and no lane."""

import logging
import threading

from sqlalchemy.exc import DBAPIError

from jobs.database import Database
from jobs.errors import DatabaseUnavailable

log = logging.getLogger("jobs.vacuum")

EVERY = 20_000
"""Claimed jobs of one process between two vacuums."""

STATEMENT = "VACUUM (SKIP_LOCKED, TRUNCATE FALSE, PARALLEL 0) job"


class Vacuum:
    """Vacuums the table of jobs as this process takes jobs from it.

    Each claim walks over the entries that claimed jobs have left at the front of the index, until a vacuum removes them: with
    50,000 of them it reads 480 pages to find 100 jobs, and takes 8 ms in place of 4. Autovacuum looks once a minute; a worker
    that takes 10,000 jobs a second needs it sooner. It runs in a thread, and waits for no vacuum that is under way elsewhere.
    """

    def __init__(self, db: Database) -> None:
        self._db = db
        self._is_wanted = db.dialect == "postgresql"
        self._claimed = 0
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def claimed(self, n: int) -> None:
        """Note that so many jobs were claimed; start to vacuum when it is time. Threads may share it."""
        if not self._is_wanted or not n:
            return
        with self._lock:
            self._claimed += n
            if self._claimed < EVERY or (self._thread is not None and self._thread.is_alive()):
                return
            self._claimed = 0
            # Not a daemon: the interpreter waits for it, and the server is not left with a broken connection.
            self._thread = threading.Thread(target=self._run, name="jobs-vacuum")
            self._thread.start()

    def _run(self) -> None:
        try:
            with self._db.write(single=True) as connection:
                connection.exec_driver_sql(STATEMENT)
        except (DBAPIError, DatabaseUnavailable) as error:
            # Claims get slower and nothing is lost; autovacuum comes in time.
            log.warning("the table of jobs could not be vacuumed: %s", str(getattr(error, "orig", error)).strip().splitlines()[0])

    def close(self) -> None:
        """Wait for a vacuum under way."""
        thread = self._thread
        if thread is not None:
            thread.join()
