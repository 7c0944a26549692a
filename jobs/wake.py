"""Waking up when jobs may have come: a hint, never a promise. Whoever waits looks again after a while all the same.

PostgreSQL tells: `LISTEN` on a connection of its own, which whoever enqueues notifies. SQLite is asked: `PRAGMA data_version`
changes with every commit of another connection, also of another process, and costs some 10 µs.
"""

import logging
import random
import select
import socket
import sqlite3
import threading
import time
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

from jobs.database import Database
from jobs.enqueue import CHANNEL

log = logging.getLogger("jobs.wake")

SLICE = 0.15
"""Seconds between two looks at a SQLite database, and at a stop."""

JITTER = 0.2
"""Share by which waits differ, so that many workers do not look at the same moment."""

RECONNECT = 5.0
"""Seconds between two tries to listen; without listening one polls."""


class Wakes:
    """Waits for one thread. Any other may `poke` it.

    Args:
        db: whose jobs.
    """

    def __init__(self, db: Database) -> None:
        self._db = db
        self._woken, self._waker = socket.socketpair()
        self._woken.setblocking(False)
        self._waker.setblocking(False)
        self._poked = threading.Event()
        self._listening: Any = None
        self._listened_at = -RECONNECT
        self._reading: sqlite3.Connection | None = None
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

    def poke(self) -> None:
        """Wake the waiting thread, or let its next wait end at once."""
        if not self._poked.is_set():
            self._poked.set()
            with suppress(OSError):
                self._waker.send(b"!")

    def wait(self, seconds: float, stop: threading.Event) -> bool:
        """Wait until something may have come.

        Args:
            seconds: at most so long.
            stop: ends it too, within `SLICE`.

        Returns:
            Whether there was a hint: a commit, a notification, a poke. What came since the last wait counts.
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
        """Let the connections go."""
        self._deafen()
        if self._reading is not None:
            self._reading.close()
            self._reading = None
        self._woken.close()
        self._waker.close()

    def _hint(self, seconds: float) -> bool:
        """Sleep so long at most, and tell whether there was a hint."""
        if self._db.dialect != "sqlite":
            self._listen()
        sources: list[Any] = [self._woken] if self._listening is None else [self._woken, self._listening]
        ready, _, _ = select.select(sources, [], [], seconds)
        hint = False
        if self._woken in ready:
            with suppress(OSError):
                self._woken.recv(4096)
            self._poked.clear()
            hint = True
        if self._db.dialect == "sqlite":
            return self._has_changed() or hint
        if len(ready) > hint:
            return self._hear() or hint
        return hint

    # -- SQLite ----------------------------------------------------------------------------------------------------------------

    def _has_changed(self) -> bool:
        try:
            version = self._data_version()
        except sqlite3.Error as error:
            # Polling goes on.
            log.debug("data_version: %s", error)
            return False
        before, self._version = self._version, version
        return version != before

    def _data_version(self) -> int:
        if self._reading is None:
            assert self._db.url.database is not None
            # Outside the pool: it must not be given to a writer, whose commits would then not be those of another connection.
            self._reading = sqlite3.connect(self._db.url.database, isolation_level=None, check_same_thread=False, timeout=0.1)
        found: int = self._reading.execute("PRAGMA data_version").fetchone()[0]
        return found

    # -- PostgreSQL ------------------------------------------------------------------------------------------------------------

    def _listen(self) -> None:
        if self._listening is not None or time.monotonic() - self._listened_at < RECONNECT:
            return
        import psycopg

        self._listened_at = time.monotonic()
        arguments, options = self._db.engine.dialect.create_connect_args(self._db.url)
        options.setdefault("connect_timeout", 5)
        try:
            self._listening = psycopg.connect(*arguments, **options, autocommit=True)
            self._listening.execute(f"LISTEN {CHANNEL}")
        except psycopg.Error as error:
            self._deafen()
            log.debug("not listening: %s", error)

    def _hear(self) -> bool:
        import psycopg

        try:
            return any(True for _ in self._listening.notifies(timeout=0))
        except psycopg.Error as error:
            log.debug("no longer listening: %s", error)
            self._deafen()
            # What came while nobody listened is unknown.
            return True

    def _deafen(self) -> None:
        if self._listening is not None:
            import psycopg

            with suppress(psycopg.Error):
                self._listening.close()
            self._listening = None


def jittered(seconds: float) -> float:
    """Return about so many seconds."""
    return seconds * random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311  # spreads load, hides nothing
