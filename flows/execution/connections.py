"""Opens, shares and closes the live connections of one client."""

import logging
import socket
import ssl
import threading
from collections.abc import Callable
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Self

from clients import ClientError, ConnectFailedError, GoneError, LocalError, NotModifiedError
from flows.declarations.client import Client
from flows.user_code import attempt, describe
from jobs.job import Verdict
from jobs.outcome import Failure

log = logging.getLogger("syncs.connection")

CONNECTING = 60.0
"""Seconds after which a thread that connects is taken for hanging, and no longer keeps other threads from connecting."""

_OUR_OWN = frozenset(
    {FileNotFoundError, IsADirectoryError, NotADirectoryError, PermissionError}
    | {AttributeError, KeyError, NameError, TypeError, UnboundLocalError, ValueError}
)
"""What a `connect` raises whose path, variable or argument is wrong: no job and no remote system can do anything about it. Only
exactly these: their subclasses, such as `JSONDecodeError`, are about what the remote side sent."""


class Connections:
    """Opens a client's connections when they are first asked for, and closes them all at the end.

    An adapter that says `thread_safe = True`, such as `HttpClient`, is opened once; of any other each thread gets its own.

    Args:
        client: whose.
        settings: what its `connect` takes.
        on_open: called with the client's id and each connection before it is used.
    """

    def __init__(self, client: Client, settings: Any, *, on_open: Callable[[str, Any], None] | None = None) -> None:
        self._client = client
        self._on_open = on_open
        #: What `connect` gets, and functions that ask for it.
        self.settings = settings
        self._lock = threading.Lock()
        self._stack = ExitStack()
        #: The connection that all threads use, once it is open.
        self.shared: Any = None
        self._opened: list[Any] = []
        self._mine = threading.local()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        # An error while closing must not replace the result of the work.
        failed = attempt(self._stack.close, lambda error: Verdict(Failure(type(error).__name__)))
        if isinstance(failed, Verdict) and isinstance(failed.outcome, Failure):
            log.warning("%s: a connection could not be closed: %s", self._client.id, failed.outcome.message)

    def get(self) -> Any:
        """Return a connection for the calling thread.

        Raises:
            Exception: whatever `connect` raises.
        """
        if self.shared is not None:
            return self.shared
        mine = getattr(self._mine, "connection", None)
        if mine is not None:
            return mine
        lock = self._lock
        if not lock.acquire(timeout=CONNECTING):
            if self._lock is lock:
                self._lock = threading.Lock()
            return self.get()
        try:
            if self.shared is not None:
                return self.shared
            mine = self._stack.enter_context(ExitStack())
            connection = self._connected(mine)
            if self._on_open is not None:
                self._on_open(self._client.id, connection)
            self._opened.append(connection)
            if getattr(connection, "thread_safe", False):
                self.shared = connection
            else:
                self._mine.connection, self._mine.stack = connection, mine
            return connection
        finally:
            lock.release()

    def _connected(self, stack: ExitStack) -> Any:
        try:
            return stack.enter_context(self._client.connect(self.settings))
        except (GoneError, NotModifiedError) as error:
            # What is not there is no job's entity.
            raise ConnectFailedError(f"no connection can be made: {error}", status=error.status) from error
        except (ClientError, ConnectionError, TimeoutError, socket.gaierror, ssl.SSLError):
            raise
        except Exception as error:
            what = f"no connection can be made: {describe(error)}"
            if type(error) in _OUR_OWN:
                raise LocalError(what) from error
            # By a library's own class, a sign-in that is refused or a host that is away: that is the remote system's. With
            # local causes (no file descriptors, a missing package) it still counts as ours.
            raise ConnectFailedError(what) from error

    def drop(self) -> None:
        """Close the calling thread's own connection after trouble with it; the next `get` opens a new one.

        A shared one stays: such an adapter renews its connections itself.
        """
        stack: ExitStack | None = getattr(self._mine, "stack", None)
        if stack is not None:
            self._mine.connection = self._mine.stack = None
            attempt(stack.close, lambda error: Verdict(Failure(type(error).__name__)))

    def forget_pace(self) -> None:
        """Forget the pace that was learned from refusals: they were those of single jobs."""
        for connection in list(self._opened):
            for throttle in getattr(connection, "throttles", {}).copy().values():
                throttle.forget_pace()

    def forget_refusals(self) -> None:
        """Let one request ask where an answer of before still holds all back for long."""
        for connection in list(self._opened):
            for throttle in getattr(connection, "throttles", {}).copy().values():
                throttle.forget_refusals()

    @property
    def requests(self) -> int:
        """Requests sent so far, by adapters that count them."""
        return sum(getattr(connection, "requests", 0) for connection in self._opened)
