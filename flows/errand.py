"""One thing that is done beside the work, in a thread of its own, whenever somebody asks. Knows not what it is."""

import threading
import time
from collections.abc import Callable
from contextvars import copy_context


class Errand:
    """Does one thing at a time; whoever asks while it is being done has it done again afterwards.

    Args:
        work: what to do. It returns the seconds after which to do it once more unasked, or `None`; it must not raise.
        name: of the thread, which is a daemon and starts when it is first needed.
    """

    def __init__(self, work: Callable[[], float | None], *, name: str) -> None:
        self._work = work
        self._name = name
        self._news = threading.Condition()
        self._next: float | None = None
        self._thread: threading.Thread | None = None
        self._is_closed = False

    def ask(self, after: float = 0.0) -> None:
        """Have it done, at the latest in so many seconds. Does not wait."""
        with self._news:
            if self._is_closed:
                return
            when = time.monotonic() + after
            self._next = when if self._next is None else min(self._next, when)
            if self._thread is None:
                # With the context of whoever asks first: Prefect finds its settings there.
                self._thread = threading.Thread(target=copy_context().run, args=(self._run,), name=self._name, daemon=True)
                self._thread.start()
            self._news.notify_all()

    def close(self, until: float) -> bool:
        """Do what was asked for now, then no more; wait for that until a moment of `time.monotonic`. Tell whether it is done."""
        with self._news:
            self._is_closed = True
            thread = self._thread
            self._news.notify_all()
        if thread is None:
            return True
        thread.join(max(0.0, until - time.monotonic()))
        return not thread.is_alive()

    def _run(self) -> None:
        while True:
            with self._news:
                while not self._is_closed and (self._next is None or self._next > time.monotonic()):
                    self._news.wait(None if self._next is None else max(0.0, self._next - time.monotonic()))
                if self._next is None:
                    return
                self._next = None
                closed = self._is_closed
            again = self._work()
            if again is not None and not closed:
                self.ask(again)
