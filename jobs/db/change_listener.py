"""Waits until the database may have new jobs.

On PostgreSQL it listens on a connection of its own, which every enqueue notifies; through a connection pooler it has no hints. On
SQLite it polls `PRAGMA data_version`, which changes with every commit of another connection or process and costs about 10 µs.
Both are hints that may be missed: callers must also check for jobs at intervals of their own.
"""

import logging
import random
import select
import socket
import sqlite3
import threading
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from jobs.db.database import Database
from jobs.errors import DatabaseUnavailable

log = logging.getLogger("jobs.db.change_listener")

CHANNEL = "syncs_job"
"""The channel on which PostgreSQL sends listening workers the name of a queue that has a new due job."""

SLICE = 0.15
"""Seconds between two checks of a SQLite database, and of the stop event."""

JITTER = 0.2
"""Share by which waits differ, so that many workers do not query at the same time."""

RECONNECT = 5.0
"""Seconds between two attempts to listen; without a connection the caller's own checks find new jobs."""


class ChangeListener:
    """Waits on behalf of one thread; any other thread may `wake` it.

    Args:
        db: the database of the jobs.
    """

    def __init__(self, db: Database) -> None:
        self._db = db
        self._wake_receiver, self._wake_sender = socket.socketpair()
        self._wake_receiver.setblocking(False)
        self._wake_sender.setblocking(False)
        self._is_woken = threading.Event()
        self._notifications: Any = None
        self._tried_at = -RECONNECT
        self._reader: sqlite3.Connection | None = None
        self._version: int | None = None
        if db.dialect == "sqlite":
            with suppress(sqlite3.Error):
                self._version = self._data_version()
        else:
            self._listen()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def wake(self) -> None:
        """Wake the waiting thread, or let its next wait end at once."""
        if not self._is_woken.is_set():
            self._is_woken.set()
            with suppress(OSError):
                self._wake_sender.send(b"!")

    def wait(self, seconds: float, stop: threading.Event) -> bool:
        """Wait until jobs may have been added.

        Args:
            seconds: the longest wait.
            stop: also ends the wait, within `SLICE`.

        Returns:
            Whether there was a hint since the last wait: a commit, a notification or a `wake`.
        """
        until = time.monotonic() + seconds
        while not stop.is_set():
            if self._hint(0.0):
                return True
            left = until - time.monotonic()
            if left <= 0:
                return False
            if self._hint(min(left, SLICE)):
                return True
        return False

    def close(self) -> None:
        """Close the connections."""
        self._stop_listening()
        if self._reader is not None:
            self._reader.close()
            self._reader = None
        self._wake_receiver.close()
        self._wake_sender.close()

    def _hint(self, seconds: float) -> bool:
        """Wait for at most so many seconds; tell whether there was a hint."""
        if self._db.dialect != "sqlite":
            self._listen()
        sources: list[Any] = [self._wake_receiver] if self._notifications is None else [self._wake_receiver, self._notifications]
        ready, _, _ = select.select(sources, [], [], seconds)
        hint = False
        if self._wake_receiver in ready:
            with suppress(OSError):
                self._wake_receiver.recv(4096)
            self._is_woken.clear()
            hint = True
        if self._db.dialect == "sqlite":
            return self._has_changed() or hint
        if len(ready) > hint:
            return self._has_notification() or hint
        return hint

    # -- SQLite ----------------------------------------------------------------------------------------------------------------

    def _has_changed(self) -> bool:
        try:
            version = self._data_version()
        except sqlite3.Error as error:
            # The caller's own checks go on.
            log.debug("data_version: %s", error)
            return False
        before, self._version = self._version, version
        return version != before

    def _data_version(self) -> int:
        if self._reader is None:
            assert self._db.url.database is not None
            # Outside the pool: commits of the connection itself do not change its `data_version`, so no writer may use it.
            # Read and write, and not create: a file that was removed must not come back empty.
            file = f"{Path(self._db.url.database).absolute().as_uri()}?mode=rw"
            self._reader = sqlite3.connect(file, uri=True, isolation_level=None, check_same_thread=False, timeout=0.1)
        found: int = self._reader.execute("PRAGMA data_version").fetchone()[0]
        return found

    # -- PostgreSQL ------------------------------------------------------------------------------------------------------------

    def _listen(self) -> None:
        if self._notifications is not None or time.monotonic() - self._tried_at < RECONNECT:
            return
        import psycopg

        self._tried_at = time.monotonic()
        try:
            self._notifications = self._db.listening_connection()
            if self._notifications is not None:
                self._notifications.execute(f"LISTEN {CHANNEL}")
        except (psycopg.Error, DatabaseUnavailable) as error:
            self._stop_listening()
            log.debug("not listening: %s", error)

    def _has_notification(self) -> bool:
        import psycopg

        try:
            return any(True for _ in self._notifications.notifies(timeout=0))
        except psycopg.Error as error:
            log.debug("no longer listening: %s", error)
            self._stop_listening()
            # Notifications may have been missed.
            return True

    def _stop_listening(self) -> None:
        if self._notifications is not None:
            import psycopg

            with suppress(psycopg.Error):
                self._notifications.close()
            self._notifications = None


def jittered(seconds: float) -> float:
    """Return the seconds, changed at random by at most `JITTER`."""
    return seconds * random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311  # spreads load, hides nothing
