"""The turn to write to SQLite, and who is told that a thread waits for it. Knows no connection.

Time in which a job waits for another one's transaction is not the job's own: whoever keeps its time is told to stop the clock.
"""

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

_Pause = Callable[[], AbstractContextManager[None]]

_told = threading.local()


def tell(pause: _Pause) -> None:
    """Let each wait of the calling thread, from now on, happen inside such a context."""
    _told.pause = pause


def waiting() -> AbstractContextManager[None] | None:
    """Return the context in which the calling thread waits for SQLite's writer, if anybody keeps its time."""
    pause: _Pause | None = getattr(_told, "pause", None)
    return None if pause is None else pause()


class Turn:
    """A lock that is not bound to a thread: a transaction may be ended by another one than began it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.release = self._lock.release
        self.locked = self._lock.locked

    def acquire(self) -> None:
        """Wait for the turn, in the order of arrival."""
        if not self._lock.acquire(blocking=False):
            with waiting() or nullcontext():
                self._lock.acquire()

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()
