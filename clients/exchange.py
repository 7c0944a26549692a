"""The last requests and answers of a piece of work, in a few words each, for whoever asks what it did. Knows no protocol.

Whoever wants them opens `recording`; adapters tell `current()` of each exchange. While nobody records that is one look at a
context variable: 60 ns of a request's half millisecond.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
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

    #: Of HTTP; over FTP and SFTP the command.
    method: str
    #: Without what the client adds by itself.
    url: str
    #: Of HTTP or FTP; words over SFTP. `None` while it is on its way, and where no answer came.
    status: int | str | None
    #: Bytes of the answer's body, or of the file that was written.
    size: int
    seconds: float
    #: The class of what was raised in place of an answer.
    error: str | None = None
    #: Of a SOAP service, whose calls have one URL.
    operation: str = ""
    #: The codes of a SOAP fault.
    fault: str = ""
    #: It only reads, whatever its method says.
    repeatable: bool = False

    @property
    def request(self) -> str:
        """What was asked: `GET https://api.example/pets/1?page=2`, without values that look secret."""
        operation = f" ({self.operation})" if self.operation else ""
        return f"{self.method} {masked_url(self.url)}"[: LENGTH - len(operation)] + operation

    @property
    def response(self) -> str:
        """What came back: `200, 1.2 kB, 0.04 s`."""
        if self.status is None:
            return f"{self.error or 'no answer yet'}, {self.seconds:.2f} s"[:LENGTH]
        fault = f"fault {self.fault}, " if self.fault else ""
        return f"{self.status}, {fault}{_bytes(self.size)}, {self.seconds:.2f} s"[:LENGTH]

    @property
    def is_unsafe(self) -> bool:
        """Whether it must not be sent again blindly (RFC 9110, section 9.2.2)."""
        return self.method in ("POST", "PATCH") and not self.repeatable


class Open:
    """An exchange that is on its way."""

    __slots__ = ("began", "method", "operation", "repeatable", "url")

    def __init__(self, method: str, url: str, operation: str, repeatable: bool) -> None:
        self.method, self.url, self.operation, self.repeatable = method, url, operation, repeatable
        self.began = time.perf_counter()

    def ended(self, status: int | str | None, size: int, error: str | None) -> Exchange:
        """Return it with what came of it."""
        seconds = time.perf_counter() - self.began
        return Exchange(self.method, self.url, status, size, seconds, error, self.operation, "", self.repeatable)


class Recorder:
    """Keeps the last exchanges of the thread (or context) that entered it; another thread may look."""

    __slots__ = ("_calling", "_done", "_open", "_token")

    #: Whether it looks at answers itself (`look`).
    is_curious = False

    def __init__(self) -> None:
        # Made by the first exchange: most recorders of a large run are never read, and many never written.
        self._done: deque[Exchange] | None = None
        #: One may begin while another goes on: a file that is read in pieces is sent elsewhere piece by piece.
        self._open: list[Open] = []
        self._calling: tuple[str, bool] = ("", False)

    def __enter__(self) -> Self:
        self._token = _recorder.set(self)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        _recorder.reset(self._token)

    def begin(self, method: str, url: str) -> None:
        """Note that an HTTP request is on its way."""
        self.open(method, url)

    def look(self, response: Any) -> None:
        """See an answer before its body is read; called where `is_curious`."""

    def secured(self, layer: Any) -> None:
        """See the TLS of a connection that is not HTTP's; called where `is_curious`."""

    def end(
        self,
        *,
        status: int | None = None,
        size: int = 0,
        error: BaseException | None = None,
        headers: Sequence[tuple[bytes, bytes]] = (),
    ) -> None:
        """Note what came of the HTTP request that began last.

        Args:
            status: of the answer; `None` where none came.
            size: bytes of its body.
            error: what came in place of it.
            headers: of the answer, as they came; not kept here, since they may be secret.
        """
        if self._open:
            self.close(self._open[-1], status=status, size=size, error=error)

    def open(self, method: str, url: str) -> Open:
        """Note that something is on its way, by whatever protocol."""
        one = Open(method, url, *self._calling)
        self._open.append(one)
        return one

    def close(self, one: Open, *, status: int | str | None, size: int = 0, error: BaseException | None = None) -> None:
        """Note what came of what `open` returned; once."""
        if one in self._open:
            self._open.remove(one)
            if self._done is None:
                self._done = deque(maxlen=KEPT)
            self._done.append(one.ended(status, size, None if error is None else type(error).__name__))

    @contextmanager
    def calling(self, operation: str, *, repeatable: bool) -> Iterator[None]:
        """Say what the requests within are for.

        Args:
            operation: of a SOAP service.
            repeatable: it only reads.
        """
        before, self._calling = self._calling, (operation, repeatable)
        try:
            yield
        finally:
            self._calling = before

    def faulted(self, codes: str) -> None:
        """Say that the answer that came last was a fault."""
        if self._done:
            self._done[-1] = self._done[-1]._replace(fault=codes)

    @property
    def pending(self) -> Open | None:
        """What is on its way; the one that began last."""
        return self._open[-1] if self._open else None

    @property
    def exchanges(self) -> list[Exchange]:
        """The last ones, the newest last; those that are still on their way are among them."""
        return [*(self._done or ()), *(one.ended(None, 0, None) for one in [*self._open])][-KEPT:]

    @property
    def summary(self) -> list[dict[str, str]]:
        """The exchanges as JSON: `[{"request": …, "response": …}]`."""
        return [{"request": one.request, "response": one.response} for one in self.exchanges]


class Told:
    """What an adapter says of a command while it is under way."""

    __slots__ = ("size", "status")

    def __init__(self) -> None:
        #: `None` where no answer came.
        self.status: int | str | None = None
        #: Bytes of the file, or of the listing.
        self.size = 0


@contextmanager
def telling(method: str, url: str) -> Iterator[Told]:
    """Record what is done within as one exchange, if anybody records; for protocols that are not HTTP.

    Args:
        method: the command.
        url: of what it is about.
    """
    told, recorder = Told(), _recorder.get()
    if recorder is None:
        yield told
        return
    one = recorder.open(method, url)
    try:
        yield told
    except GeneratorExit:
        # Whoever reads a file piece by piece has had enough of it.
        recorder.close(one, status=told.status or "not read to the end", size=told.size)
        raise
    except BaseException as error:
        recorder.close(one, status=told.status, size=told.size, error=error)
        raise
    recorder.close(one, status=told.status, size=told.size)


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
