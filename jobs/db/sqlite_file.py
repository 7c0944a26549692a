"""Tells whether the file of a database is still the one that was opened: SQLite writes on into a file that was deleted."""

import contextlib
import math
import os
import time
from pathlib import Path

from jobs.errors import DatabaseReplaced

CHECK_EVERY = 0.5
"""Seconds between two looks whether the file is still the same; a look takes 2 µs, a small claim 100."""


class SqliteFile:
    """The file of a database that one process has open.

    Args:
        path: where it is.
    """

    def __init__(self, path: str) -> None:
        self._path = Path(path)
        #: Device and inode of the file that was opened first; None before.
        self._identity: tuple[int, int] | None = None
        self._checked_at = 0.0

    def connecting(self) -> None:
        """Check the file before a connection is opened, and create a new one for its owner alone.

        SQLite would create a new one as the umask says, and an empty one in place of one that was removed.

        Raises:
            DatabaseReplaced: another file is there than the one that was opened first, or none.
        """
        if self._identity is not None:
            self._compare()
            return
        # SQLite gives the files beside it the same mode. A file that exists keeps the mode that somebody gave it.
        with contextlib.suppress(OSError):
            os.close(os.open(self._path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))

    def connected(self) -> None:
        """Remember the file that the first connection has opened."""
        if self._identity is None:
            self._identity, self._checked_at = self._present(), time.monotonic()

    def check(self) -> None:
        """Compare, at most once in `CHECK_EVERY` seconds.

        Raises:
            DatabaseReplaced: another file is there, or none.
        """
        now = time.monotonic()
        if self._identity is not None and now - self._checked_at >= CHECK_EVERY:
            self._checked_at = now
            self._compare()

    def closed(self) -> None:
        """Forget the file: no connection is open any more."""
        self._identity = None

    def _compare(self) -> None:
        # A file system that does not answer for a moment proves nothing.
        with contextlib.suppress(OSError):
            if self._present() != self._identity:
                # So that each further write looks again, and is refused too.
                self._checked_at = -math.inf
                raise DatabaseReplaced(
                    f"{self._path} was removed or replaced while it was open: nothing more is written to the old file; "
                    "start again to go on with the one that is there"
                )

    def _present(self) -> tuple[int, int] | None:
        try:
            found = self._path.stat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        return found.st_dev, found.st_ino
