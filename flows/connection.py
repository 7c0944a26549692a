"""The live connections of one client during a run. Knows no job."""

import logging
import threading
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Self

from flows.declaration import Client
from flows.verdict import attempt
from jobs.job import Verdict
from jobs.outcome import Failure

log = logging.getLogger("syncs.connection")

CONNECTING = 60.0
"""Seconds after which a thread that connects is thought to hang: it was given up, and keeps nobody else from connecting."""


class Connections:
    """Opens a client's connections when they are first asked for, and closes them all at the end.

    An adapter that says `thread_safe = True`, such as `HttpClient`, is opened once; of any other each thread gets its own.

    Args:
        client: whose.
        settings: what its `connect` takes.
    """

    def __init__(self, client: Client, settings: Any) -> None:
        self._client = client
        self._settings = settings
        self._lock = threading.Lock()
        self._stack = ExitStack()
        self._shared: Any = None
        self._opened: list[Any] = []
        self._mine = threading.local()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        # Nobody's work hangs on the farewell: what it comes to must not take the place of what the run came to.
        failed = attempt(self._stack.close, lambda error: Verdict(Failure(type(error).__name__)))
        if isinstance(failed, Verdict) and isinstance(failed.outcome, Failure):
            log.warning("%s: a connection could not be closed: %s", self._client.id, failed.outcome.message)

    def get(self) -> Any:
        """Return a connection for the calling thread.

        Raises:
            Exception: whatever `connect` raises.
        """
        if self._shared is not None:
            return self._shared
        mine = getattr(self._mine, "connection", None)
        if mine is not None:
            return mine
        lock = self._lock
        if not lock.acquire(timeout=CONNECTING):
            if self._lock is lock:
                self._lock = threading.Lock()
            return self.get()
        try:
            if self._shared is not None:
                return self._shared
            mine = self._stack.enter_context(ExitStack())
            connection = mine.enter_context(self._client.connect(self._settings))
            self._opened.append(connection)
            if getattr(connection, "thread_safe", False):
                self._shared = connection
            else:
                self._mine.connection, self._mine.stack = connection, mine
            return connection
        finally:
            lock.release()

    def drop(self) -> None:
        """Close the calling thread's own connection after trouble with it; the next `get` opens a new one.

        A shared one stays: such an adapter renews its connections itself.
        """
        stack: ExitStack | None = getattr(self._mine, "stack", None)
        if stack is not None:
            self._mine.connection = self._mine.stack = None
            attempt(stack.close, lambda error: Verdict(Failure(type(error).__name__)))

    @property
    def requests(self) -> int:
        """Requests sent so far, by adapters that count them."""
        return sum(getattr(connection, "requests", 0) for connection in self._opened)
