"""Records the last requests and answers of a job, in a few words each, for error reports.

`recording` starts it; adapters report each exchange to `current_recorder()`. Without a recorder that costs 60 ns of a request's
half millisecond.
"""

from __future__ import annotations

import re
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from types import MappingProxyType, TracebackType
from typing import Any, NamedTuple, Self

from clients.urls import masked_url

KEPT = 5
"""How many of the last exchanges are kept."""

ACCEPTED = 202
"""The HTTP status of an answer that is still being made."""

LENGTH = 500
"""Characters of a request, and of an answer."""

REFUSAL = 4000
"""Characters of a refusal's body that are kept until secrets are masked; after that, fewer are stored."""


class Exchange(NamedTuple):
    """One request and its answer. It becomes text only when somebody reads it."""

    #: The HTTP method; over FTP and SFTP the command.
    method: str
    #: Without what the client adds by itself.
    url: str
    #: Of HTTP or FTP; words over SFTP. `None` while it is under way, and where no answer came.
    status: int | str | None
    #: Bytes of the answer's body, or of the file that was written.
    size: int
    seconds: float
    #: The class of the exception where there was no answer.
    error: str | None = None
    #: Of a SOAP service, whose calls all have one URL.
    operation: str = ""
    #: The codes of a SOAP fault.
    fault: str = ""
    #: The request only reads, whatever its method says.
    repeatable: bool = False
    #: The beginning of the body of an HTTP answer of 400 or more, without our credentials; other secrets may be in it.
    refusal: str = ""
    #: Of an HTTP answer that is still being made (202): its `retry-after` and `date`.
    delay_headers: Mapping[str, str] = MappingProxyType({})

    @property
    def request(self) -> str:
        """The request: `GET https://api.example/pets/1?page=2`, without values that look secret."""
        operation = f" ({self.operation})" if self.operation else ""
        return f"{self.method} {masked_url(self.url)}"[: LENGTH - len(operation)] + operation

    @property
    def response(self) -> str:
        """The answer: `200, 1.2 kB, 0.04 s`."""
        if self.status is None:
            return f"{self.error or 'no answer yet'}, {self.seconds:.2f} s"[:LENGTH]
        fault = f"fault {self.fault}, " if self.fault else ""
        return f"{self.status}, {fault}{_bytes(self.size)}, {self.seconds:.2f} s"[:LENGTH]

    @property
    def is_unsafe(self) -> bool:
        """Whether it must not be sent again blindly (RFC 9110, section 9.2.2)."""
        return self.method in ("POST", "PATCH") and not self.repeatable


class OpenExchange:
    """An exchange that is under way. An adapter sets its status and size while it goes on."""

    __slots__ = ("began", "method", "operation", "repeatable", "size", "status", "url")

    def __init__(self, method: str = "", url: str = "", operation: str = "", repeatable: bool = False) -> None:
        self.method, self.url, self.operation, self.repeatable = method, url, operation, repeatable
        #: `None` where no answer came.
        self.status: int | str | None = None
        #: Bytes of the body, the file or the listing.
        self.size = 0
        self.began = time.perf_counter()

    def result(self, error: str | None = None) -> Exchange:
        """Return it as it is now."""
        seconds = time.perf_counter() - self.began
        return Exchange(
            self.method,
            self.url,
            status=self.status,
            size=self.size,
            seconds=seconds,
            error=error,
            operation=self.operation,
            repeatable=self.repeatable,
        )


class Recorder:
    """Keeps the last exchanges of the thread (or context) that entered it; other threads may read them."""

    __slots__ = ("_done", "_open", "_operation", "_token")

    #: Whether it wants to see responses and TLS connections themselves (`inspect_response`, `inspect_tls`).
    inspects = False

    def __init__(self) -> None:
        # Made by the first exchange: most recorders of a large run are never read, and many never written.
        self._done: deque[Exchange] | None = None
        #: One may begin while another goes on: a file that is read in pieces is sent elsewhere piece by piece.
        self._open: list[OpenExchange] = []
        self._operation: tuple[str, bool] = ("", False)

    def __enter__(self) -> Self:
        self._token = _recorder.set(self)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        _recorder.reset(self._token)

    def begin(self, method: str, url: str) -> OpenExchange:
        """Note that a command is sent."""
        exchange = OpenExchange(method, url, *self._operation)
        self._open.append(exchange)
        return exchange

    def begin_request(self, method: str, url: str) -> OpenExchange:
        """Note that an HTTP request is sent."""
        return self.begin(method, url)

    def end(
        self,
        exchange: OpenExchange,
        *,
        status: int | str | None = None,
        size: int = 0,
        error: BaseException | None = None,
        headers: Sequence[tuple[bytes, bytes]] | None = None,
    ) -> None:
        """Note the result of what `begin` returned; a second call does nothing.

        Args:
            status: of the answer; `None` where none came.
            size: bytes of its body.
            error: what was raised instead.
            headers: of an HTTP response, as they came; not kept here, since they may be secret.
        """
        if exchange in self._open:
            self._open.remove(exchange)
            exchange.status, exchange.size = status, size
            if self._done is None:
                self._done = deque(maxlen=KEPT)
            done = exchange.result(None if error is None else type(error).__name__)
            if status == ACCEPTED:
                found = {_OF_DELAY.get(name.lower()): value.decode("latin-1") for name, value in headers or ()}
                done = done._replace(delay_headers={name: value for name, value in found.items() if name is not None})
            self._done.append(done)

    def inspect_response(self, response: Any) -> None:
        """See an HTTP response before its body is read; called where `inspects`."""

    def inspect_tls(self, layer: Any) -> None:
        """See the TLS of a connection that is not HTTP's; called where `inspects`."""

    @contextmanager
    def operation(self, name: str, *, repeatable: bool) -> Iterator[None]:
        """Note what the requests within the context are for.

        Args:
            name: of an operation of a SOAP service.
            repeatable: it only reads.
        """
        before, self._operation = self._operation, (name, repeatable)
        try:
            yield
        finally:
            self._operation = before

    def set_fault(self, codes: str) -> None:
        """Note that the last answer was a SOAP fault."""
        if self._done:
            self._done[-1] = self._done[-1]._replace(fault=codes)

    def set_refusal(self, body: bytes, *, secrets: Iterable[str]) -> None:
        """Note what the last answer, which was a refusal, says.

        Args:
            body: as it came.
            secrets: what is taken out of it; the longest first where one is part of another.
        """
        if self._done:
            text = body[: 4 * REFUSAL].decode(errors="replace")
            for secret in sorted(secrets, key=len, reverse=True):
                text = text.replace(secret, "***")
            text = _SECRET_MEMBER.sub(r'\1"***"', " ".join(text.split()))
            self._done[-1] = self._done[-1]._replace(refusal=text[:REFUSAL])

    @property
    def pending(self) -> OpenExchange | None:
        """The exchange under way that began last."""
        return self._open[-1] if self._open else None

    @property
    def exchanges(self) -> list[Exchange]:
        """The last exchanges, the newest last; those that are still under way are among them."""
        return [*(self._done or ()), *(one.result()._replace(status=None, size=0) for one in [*self._open])][-KEPT:]

    @property
    def unready(self) -> Exchange | None:
        """The last exchange, if it and all other good answers were promises for later (202); else `None`."""
        done = self._done
        if not done or done[-1].status != ACCEPTED:
            return None
        good = (one.status for one in done if isinstance(one.status, int) and one.status < 400)
        return done[-1] if all(status == ACCEPTED for status in good) else None

    @property
    def summary(self) -> list[dict[str, str]]:
        """The exchanges as JSON: `[{"request": …, "response": …}]`; a refusal has its `body` too."""
        return [
            {"request": one.request, "response": one.response, **({"body": one.refusal} if one.refusal else {})}
            for one in self.exchanges
        ]


@contextmanager
def record_exchange(method: str, url: str) -> Iterator[OpenExchange]:
    """Record what is done within the context as one exchange, if there is a recorder; for protocols other than HTTP.

    Args:
        method: the command.
        url: of the file or folder.
    """
    recorder = _recorder.get()
    if recorder is None:
        yield OpenExchange(method, url)
        return
    exchange = recorder.begin(method, url)
    try:
        yield exchange
    except GeneratorExit:
        # The caller stopped reading a file in the middle.
        recorder.end(exchange, status=exchange.status or "not read to the end", size=exchange.size)
        raise
    except BaseException as error:
        recorder.end(exchange, status=exchange.status, size=exchange.size, error=error)
        raise
    recorder.end(exchange, status=exchange.status, size=exchange.size)


_recorder: ContextVar[Recorder | None] = ContextVar("clients_exchange", default=None)

current_recorder = _recorder.get
"""Returns the recorder of this thread (or context), or `None`."""


def recording() -> Recorder:
    """Return a new recorder: `with recording() as recorder:` notes the exchanges of this thread (or context)."""
    return Recorder()


def _bytes(size: int) -> str:
    if size < 1000:
        return f"{size} B"
    return f"{size / 1000:.1f} kB" if size < 1_000_000 else f"{size / 1_000_000:.1f} MB"


_SECRET_MEMBER = re.compile(
    r'("[^"]{0,80}(?:token|secret|passw|pwd|credential|auth(?!or)|signature|session|api_?key|access_?key)[^"]{0,80}"\s*:\s*)'
    r'"(?:[^"\\]|\\.)*(?:"|$)',
    re.IGNORECASE,
)
"""A member of a JSON text whose name sounds like a secret."""

_OF_DELAY = {b"retry-after": "retry-after", b"date": "date"}
