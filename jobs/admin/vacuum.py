"""Vacuums PostgreSQL's table of jobs after every 20,000 claimed jobs."""

import logging
import threading

from sqlalchemy.exc import DBAPIError

from jobs.db.database import Database
from jobs.errors import DatabaseUnavailable

log = logging.getLogger("jobs.admin.vacuum")

EVERY = 20_000
"""Jobs that one process claims between two vacuums."""

STATEMENT = "VACUUM (SKIP_LOCKED, TRUNCATE FALSE, PARALLEL 0) job"


class Vacuum:
    """Vacuums the table of jobs, as often as the number of claims in this process requires. Does nothing on SQLite.

    Claimed jobs leave dead entries at the front of the index of queued jobs, and every claim reads them until a vacuum removes
    them: with 50,000 of them it reads 480 pages to find 100 jobs, and takes 8 ms instead of 4. Autovacuum runs once a minute,
    too rarely for a worker that claims 10,000 jobs a second. The vacuum runs in a thread, and is skipped if another one runs.
    """

    def __init__(self, db: Database) -> None:
        self._db = db
        self._is_wanted = db.dialect == "postgresql"
        self._claimed = 0
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def claimed(self, n: int) -> None:
        """Count claimed jobs, and start a vacuum after `EVERY` of them. May be called from any thread."""
        if not self._is_wanted or not n:
            return
        with self._lock:
            self._claimed += n
            if self._claimed < EVERY or (self._thread is not None and self._thread.is_alive()):
                return
            self._claimed = 0
            # Not a daemon, so that the interpreter waits for it and the server does not see a broken connection.
            self._thread = threading.Thread(target=self._run, name="jobs-vacuum")
            self._thread.start()

    def _run(self) -> None:
        try:
            with self._db.write(single=True) as connection:
                connection.exec_driver_sql(STATEMENT)
        except (DBAPIError, DatabaseUnavailable) as error:
            # Claims become slower until autovacuum runs; nothing else depends on it.
            log.warning("the table of jobs could not be vacuumed: %s", str(getattr(error, "orig", error)).strip().splitlines()[0])

    def close(self) -> None:
        """Wait until a running vacuum has ended."""
        thread = self._thread
        if thread is not None:
            thread.join()
