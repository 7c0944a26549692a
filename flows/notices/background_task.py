"""Runs one task in a background thread, whenever it is asked for."""

import threading
import time
from collections.abc import Callable
from contextvars import copy_context


class BackgroundTask:
    """Runs a task again for each request that comes while it is running; requests that wait are one.

    Args:
        work: the task. It returns the seconds after which it runs again by itself, or `None`; it must not raise.
        name: of the thread, which is a daemon and starts with the first request.
    """

    def __init__(self, work: Callable[[], float | None], *, name: str) -> None:
        self._work = work
        self._name = name
        self._changed = threading.Condition()
        self._due: float | None = None
        self._thread: threading.Thread | None = None
        self._is_closed = False

    def schedule(self, after: float = 0.0) -> None:
        """Have the task run in at most so many seconds. Does not wait."""
        with self._changed:
            if self._is_closed:
                return
            due = time.monotonic() + after
            self._due = due if self._due is None else min(self._due, due)
            if self._thread is None:
                # With the context of the first caller, because Prefect keeps its settings there.
                self._thread = threading.Thread(target=copy_context().run, args=(self._run,), name=self._name, daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def close(self, until: float) -> bool:
        """Run now what is scheduled, accept nothing more, and wait.

        Args:
            until: when to stop waiting, by `time.monotonic`.

        Returns:
            Whether all of it is done.
        """
        with self._changed:
            self._is_closed = True
            thread = self._thread
            self._changed.notify_all()
        if thread is None:
            return True
        thread.join(max(0.0, until - time.monotonic()))
        return not thread.is_alive()

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._is_closed and (self._due is None or self._due > time.monotonic()):
                    self._changed.wait(None if self._due is None else max(0.0, self._due - time.monotonic()))
                if self._due is None:
                    return
                self._due = None
                closed = self._is_closed
            again = self._work()
            if again is not None and not closed:
                self.schedule(again)
