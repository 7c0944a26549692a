"""With `target` the only module that knows httpx: sends a request, reads the answer, translates each failure into our error tree.

It goes below `httpx.Client`, to the transports, whose interface is one method. What the client adds per request
(merging of URLs and headers, cookies, hooks, redirects, an INFO line with the whole URL) is either done once by
`http`, or not wanted.
"""

from __future__ import annotations

import random
import ssl
import threading
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.request import getproxies, proxy_bypass

import httpx

from clients import exchange
from clients.bodies import OversizeError, PackingError, read_body
from clients.deadline import BoundedBackend, Deadline
from clients.dial import reason, tls_error
from clients.errors import (
    AuthRefusedError,
    BrokenAnswerError,
    ClientError,
    ConnectFailedError,
    RejectedError,
    TimedOutError,
    TooLargeError,
    UnreadableError,
)
from clients.exchange import Recorder
from clients.target import Target
from clients.urls import Origin

RawHeaders = list[tuple[bytes, bytes]]

CONNECT_ATTEMPTS = 3
CONNECT_TIMEOUT = 10.0
IDLE_CONNECTIONS = 32


class _Body(httpx.SyncByteStream):
    """Strictly private: a body in one piece.

    Unlike httpx's own it yields nothing when empty, which saves h11 one event per GET.
    """

    def __init__(self, content: bytes) -> None:
        self._content = content

    def __iter__(self) -> Iterator[bytes]:
        if self._content:
            yield self._content


_NO_BODY = _Body(b"")


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer, complete and unpacked."""

    status: int
    raw_headers: RawHeaders
    content: bytes

    @property
    def headers(self) -> dict[str, str]:
        """Return the headers, names in lower case, repeated ones joined by comma and space (RFC 9110, section 5.3)."""
        joined: dict[str, str] = {}
        for raw_name, raw_value in self.raw_headers:
            name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
            joined[name] = f"{joined[name]}, {value}" if name in joined else value
        return joined

    def header(self, name: bytes) -> str:
        """Return the first header called `name` (in lower case), or an empty string."""
        return next((value.decode("latin-1") for key, value in self.raw_headers if key.lower() == name), "")

    def as_httpx(self, *, method: str, url: str) -> httpx.Response:
        """Return the answer as httpx's response, for callers that want all of it."""
        dropped = (b"content-encoding", b"content-length", b"transfer-encoding")
        kept = [(name, value) for name, value in self.raw_headers if name.lower() not in dropped]
        return httpx.Response(self.status, headers=kept, content=self.content, request=httpx.Request(method, url))


class Wire:
    """Sends requests from many threads at once.

    Each thread in need takes an idle connection of the origin, newest first, or opens one; so there are as many as
    threads. They are kept as one-connection transports instead of one pool: httpcore's pool polls the socket of
    *every* idle connection twice for each request, under one lock. 8 threads on 2 cores did 2,400
    requests/s this way where `httpx.Client` did 1,450 in the same run.

    Args:
        timeout: seconds for each phase; a connection gets 10 at most, because it is tried three times.
        verify: as for httpx: True, False, an SSLContext, or the path of a CA bundle.
        transport: sends everything instead; must be thread-safe. It is closed with the wire.
        max_bytes: size of an unpacked body that is still read.
        total: seconds for a whole exchange, however much trickles in meanwhile; default: ten times `timeout`.
    """

    def __init__(
        self,
        *,
        timeout: float,
        verify: bool | str | ssl.SSLContext,
        transport: httpx.BaseTransport | None,
        max_bytes: int,
        total: float | None = None,
    ) -> None:
        connect = min(timeout, CONNECT_TIMEOUT)
        self._extensions = {"timeout": {"connect": connect, "read": timeout, "write": timeout, "pool": timeout}}
        self._verify = verify
        self._given = transport
        self._total = 10 * timeout if total is None else total
        self._deadline = Deadline()
        self._max_bytes = max_bytes
        self._idle: dict[Origin, deque[httpx.BaseTransport]] = {}
        self._lock = threading.Lock()
        self._context: ssl.SSLContext | None = None
        self._closed = False
        self.requests = 0

    def send(self, method: str, target: Target, headers: RawHeaders, content: bytes | None, *, shown: str) -> Answer:
        """Send one request and read the whole answer, whatever its status.

        Args:
            headers: complete but for `Host` and `Content-Length`.
            shown: the URL for error messages.

        Raises:
            ClientError: no complete answer came.
        """
        recorder = exchange.current()
        if recorder is None:
            return self._send(method, target, headers, content, shown, None)
        recorder.begin(method, shown)
        try:
            answer = self._send(method, target, headers, content, shown, recorder if recorder.is_curious else None)
        except BaseException as exc:
            recorder.end(error=exc)
            raise
        recorder.end(status=answer.status, size=len(answer.content), headers=answer.raw_headers)
        return answer

    def _send(
        self, method: str, target: Target, headers: RawHeaders, content: bytes | None, shown: str, curious: Recorder | None
    ) -> Answer:
        raw: RawHeaders = [(b"Host", target.host), *headers]
        if content is None:
            stream = _NO_BODY
        else:
            stream = _Body(content)
            raw.append((b"Content-Length", b"%d" % len(content)))
        request = httpx.Request(method, target.url, headers=raw, stream=stream, extensions=self._extensions)
        transport = self._take(target)
        self._deadline.at = time.monotonic() + self._total
        try:
            response = self._connected(transport, request)
            if curious is not None:
                curious.look(response)
            try:
                answer = Answer(response.status_code, response.headers.raw, self._read(response))
            finally:
                response.stream.close()  # type: ignore[union-attr]
        except BaseException as exc:
            if transport is not self._given:
                transport.close()
            if isinstance(exc, _TRANSLATED):
                error, cause = _translate(exc, method=method, url=shown)
                raise error from cause
            raise
        self._give_back(target, transport)
        return answer

    def _connected(self, transport: httpx.BaseTransport, request: httpx.Request) -> httpx.Response:
        """Hand the request over; a failed connection is tried again, because then nothing was sent."""
        for attempt in range(1, CONNECT_ATTEMPTS + 1):
            try:
                response = transport.handle_request(request)
            except (httpx.ConnectError, httpx.ConnectTimeout) as exc:
                if attempt == CONNECT_ATTEMPTS or tls_error(exc) is not None:
                    raise
                time.sleep(0.2 * attempt * random.uniform(0.5, 1.0))  # noqa: S311 - jitter
            except Exception:
                self._count()
                raise
            else:
                self._count()
                return response
        raise AssertionError("unreachable")

    def _count(self) -> None:
        with self._lock:
            self.requests += 1

    def _read(self, response: httpx.Response) -> bytes:
        encoding = ""
        for name, value in response.headers.raw:
            lower = name.lower()
            if lower == b"content-encoding":
                encoding = f"{encoding},{value.decode('latin-1')}" if encoding else value.decode("latin-1")
            elif lower == b"content-length" and len(value) > 7 and value.isdigit() and int(value) > self._max_bytes:
                raise OversizeError
        return read_body(response.stream, encoding=encoding, limit=self._max_bytes)  # type: ignore[arg-type]

    def _take(self, target: Target) -> httpx.BaseTransport:
        if self._closed:
            raise RuntimeError("the client is closed")
        if self._given is not None:
            return self._given
        try:
            return self._idle[target.origin].pop()
        except (KeyError, IndexError):
            return self._open(target)

    def _give_back(self, target: Target, transport: httpx.BaseTransport) -> None:
        if transport is self._given:
            return
        with self._lock:
            idle = self._idle.setdefault(target.origin, deque())
            if not self._closed and len(idle) < IDLE_CONNECTIONS:
                idle.append(transport)
                return
        transport.close()

    def _open(self, target: Target) -> httpx.BaseTransport:
        scheme, host, _ = target.origin
        proxy = _proxy_for(scheme, host)
        context = self._trust() if scheme == "https" or proxy is not None else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        limits = httpx.Limits(max_connections=1, max_keepalive_connections=1)
        transport = httpx.HTTPTransport(verify=context, limits=limits, proxy=proxy)
        # httpx hands no backend on; it is frozen at 0.28, and a test of a server that drips its headers would tell.
        transport._pool._network_backend = BoundedBackend(transport._pool._network_backend, self._deadline)
        return transport

    def _trust(self) -> ssl.SSLContext:
        """Load the certificates once: it takes 20 ms, and the context may be shared by threads."""
        with self._lock:
            if self._context is None:
                verify = self._verify
                self._context = (
                    ssl.create_default_context(cafile=verify) if isinstance(verify, str) else httpx.create_ssl_context(verify)
                )
            return self._context

    def close(self) -> None:
        """Close every idle connection; those in use are closed when their answer is complete."""
        with self._lock:
            self._closed = True
            transports = [transport for idle in self._idle.values() for transport in idle]
            self._idle.clear()
        if self._given is not None:
            transports.append(self._given)
        for transport in transports:
            transport.close()


_TRANSLATED = (httpx.TransportError, OversizeError, PackingError)


def _translate(exc: BaseException, *, method: str, url: str) -> tuple[ClientError, BaseException | None]:
    """Return our error, and the cause that may be shown with it.

    The cause is cut where its text may repeat what was sent or received: h11 quotes headers.
    """
    text = str(exc)
    kind: type[ClientError] = RejectedError
    message = "a request that HTTP cannot carry"
    status: int | None = None
    cause: BaseException | None = None
    match exc:
        case OversizeError():
            kind, message = TooLargeError, "the body is larger than the client accepts (max_bytes)"
        case PackingError():
            kind, message = BrokenAnswerError if text == "cut off" else UnreadableError, f"the body cannot be unpacked: {text}"
        case httpx.ProxyError() if text.startswith("407"):
            kind, message, status = AuthRefusedError, "407 from the proxy", 407
        case httpx.ConnectTimeout() | httpx.PoolTimeout():
            kind, message, cause = ConnectFailedError, "no connection in time", exc
        case httpx.ConnectError() | httpx.ProxyError():
            kind, message, cause = ConnectFailedError, f"no connection: {reason(exc)}", exc
        case httpx.TimeoutException():
            kind, message, cause = TimedOutError, "no answer in time", exc
        case httpx.NetworkError():
            kind, message, cause = BrokenAnswerError, f"the connection broke: {text}", exc
        case httpx.RemoteProtocolError() if text.startswith("Receive buffer too long"):
            kind, message = TooLargeError, "the headers of the answer are larger than 100 kB"
        case httpx.RemoteProtocolError():
            known = text.startswith(("peer closed", "Server disconnected"))
            kind, message = BrokenAnswerError, text if known else "the answer is not HTTP"
    return kind(message, method=method, url=url, status=status), cause


def _proxy_for(scheme: str, host: str) -> str | None:
    """Return the proxy that the environment asks for (`HTTPS_PROXY`, `NO_PROXY`, …)."""
    proxies = getproxies()
    proxy = proxies.get(scheme) or proxies.get("all")
    if not proxy or proxy_bypass(host):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"
