"""The last requests and answers of a piece of work, in a few words each, for whoever asks what it did. Knows no HTTP library.

Whoever wants them opens `recording`; adapters tell `current()` of each exchange. While nobody records that is one look at a
context variable: 60 ns of a request's half millisecond.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from contextvars import ContextVar
from types import TracebackType
from typing import Any, NamedTuple, Self

from clients.urls import masked_url

KEPT = 5
"""Exchanges that are kept, the last ones."""

LENGTH = 500
"""Characters of a request and of an answer."""


class Exchange(NamedTuple):
    """One request and what came back, as adapters tell it. Text is made of it only when somebody reads it."""

    method: str
    #: Without what the client adds by itself.
    url: str
    #: `None` while it is on its way, and where no answer came.
    status: int | None
    #: Bytes of the answer's body.
    size: int
    seconds: float
    #: The class of what was raised in place of an answer.
    error: str | None = None

    @property
    def request(self) -> str:
        """What was asked: `GET https://api.example/pets/1?page=2`, without values that look secret."""
        return f"{self.method} {masked_url(self.url)}"[:LENGTH]

    @property
    def response(self) -> str:
        """What came back: `200, 1.2 kB, 0.04 s`."""
        if self.status is None:
            return f"{self.error or 'no answer yet'}, {self.seconds:.2f} s"[:LENGTH]
        return f"{self.status}, {_bytes(self.size)}, {self.seconds:.2f} s"


class Recorder:
    """Keeps the last exchanges of the thread (or context) that entered it; another thread may look."""

    __slots__ = ("_done", "_pending", "_token")

    #: Whether it looks at answers itself (`look`).
    is_curious = False

    def __init__(self) -> None:
        # Made by the first exchange: most recorders of a large run are never read, and many never written.
        self._done: deque[Exchange] | None = None
        self._pending: tuple[str, str, float] | None = None

    def __enter__(self) -> Self:
        self._token = _recorder.set(self)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        _recorder.reset(self._token)

    def begin(self, method: str, url: str) -> None:
        """Note that a request is on its way."""
        self._pending = (method, url, time.perf_counter())

    def look(self, response: Any) -> None:
        """See an answer before its body is read; called where `is_curious`."""

    def end(
        self,
        *,
        status: int | None = None,
        size: int = 0,
        error: BaseException | None = None,
        headers: Sequence[tuple[bytes, bytes]] = (),
    ) -> None:
        """Note what came of it.

        Args:
            status: of the answer; `None` where none came.
            size: bytes of its body.
            error: what came in place of it.
            headers: of the answer, as they came; not kept here, since they may be secret.
        """
        pending, self._pending = self._pending, None
        if pending is not None:
            method, url, began = pending
            name = None if error is None else type(error).__name__
            if self._done is None:
                self._done = deque(maxlen=KEPT)
            self._done.append(Exchange(method, url, status, size, time.perf_counter() - began, name))

    @property
    def exchanges(self) -> list[Exchange]:
        """The last ones, the newest last; one that is still on its way is among them."""
        found, pending = list(self._done or ()), self._pending
        if pending is not None:
            method, url, began = pending
            found = [*found[-(KEPT - 1) :], Exchange(method, url, None, 0, time.perf_counter() - began)]
        return found

    @property
    def summary(self) -> list[dict[str, str]]:
        """The exchanges as JSON: `[{"request": …, "response": …}]`."""
        return [{"request": one.request, "response": one.response} for one in self.exchanges]


_recorder: ContextVar[Recorder | None] = ContextVar("clients_exchange", default=None)

current = _recorder.get
"""Returns the recorder of this thread (or context), or `None`."""


def recording() -> Recorder:
    """Return a new recorder: `with recording() as recorder:` notes the exchanges of this thread (or context)."""
    return Recorder()


def _bytes(size: int) -> str:
    if size < 1000:
        return f"{size} B"
    return f"{size / 1000:.1f} kB" if size < 1_000_000 else f"{size / 1_000_000:.1f} MB"
