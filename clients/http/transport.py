"""The only module that sends over httpx: sends a request, reads the response, translates each failure into our error tree.

It uses httpx's transports, whose interface is one method, and not `httpx.Client`. What the client adds per request
(merging of URLs and headers, cookies, hooks, redirects, a log line with the whole URL) is either done once by
`origin` and `session`, or not wanted.
"""

from __future__ import annotations

import os
import ssl
import threading
import time
from collections import deque
from collections.abc import Iterator
from functools import partial

import httpx

from clients.connect_retry import connect, failure_reason, tls_error
from clients.errors import (
    AuthRefusedError,
    BrokenAnswerError,
    ClientError,
    ConnectFailedError,
    LocalError,
    RejectedError,
    TimedOutError,
    TooLargeError,
    UnreadableError,
)
from clients.exchange_recorder import Recorder, current_recorder
from clients.http.allowed_hosts import HostRefusedError
from clients.http.proxy import proxy_for, proxy_text, silent_proxy
from clients.http.response import CompressionError, HttpResponse, OversizeError, RawHeaders, read_response
from clients.http.target import Target
from clients.http.timeouts import BoundedBackend, Deadline, Timeouts
from clients.urls import Origin

IDLE_CONNECTIONS = 32


class _Body(httpx.SyncByteStream):
    """A body in one piece. Unlike httpx's own it yields nothing when empty, which saves h11 one event per GET."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    def __iter__(self) -> Iterator[bytes]:
        if self._content:
            yield self._content


_NO_BODY = _Body(b"")


def as_httpx(answer: HttpResponse, *, method: str, url: str) -> httpx.Response:
    """Return a response as httpx's own, for callers that want all of it."""
    dropped = (b"content-encoding", b"content-length", b"transfer-encoding")
    kept = [(name, value) for name, value in answer.raw_headers if name.lower() not in dropped]
    return httpx.Response(answer.status, headers=kept, content=answer.content, request=httpx.Request(method, url))


class ConnectionPool:
    """Sends requests from many threads at once.

    Each thread in need takes an idle connection of the origin, newest first, or opens one; so there are as many as
    threads. They are kept as one-connection transports instead of one pool: httpcore's pool polls the socket of
    *every* idle connection twice for each request, under one lock. 8 threads on 2 cores did 2,400
    requests/s this way where `httpx.Client` did 1,450 in the same run.

    Args:
        timeouts: of requests that have none of their own.
        verify: as for httpx: True, False, an SSLContext, or the path of a CA bundle.
        transport: sends everything instead; must be thread-safe. It is closed with the pool.
        max_bytes: the largest unpacked body that is read.
    """

    def __init__(
        self,
        *,
        timeouts: Timeouts,
        verify: bool | str | ssl.SSLContext,
        transport: httpx.BaseTransport | None,
        max_bytes: int,
    ) -> None:
        self._timeouts = timeouts
        self._extensions = timeouts.extensions
        self._verify = verify
        self._given = transport
        self._deadline = Deadline()
        self._max_bytes = max_bytes
        self._idle: dict[Origin, deque[httpx.BaseTransport]] = {}
        self._lock = threading.Lock()
        self._context: ssl.SSLContext | None = None
        self._closed = False
        self.requests = 0

    def send(
        self,
        method: str,
        target: Target,
        *,
        headers: RawHeaders,
        content: bytes | None,
        shown: str,
        timeouts: Timeouts | None = None,
    ) -> HttpResponse:
        """Send one request and read the whole response, whatever its status.

        Args:
            headers: complete but for `Host` and `Content-Length`.
            shown: the URL for error messages.
            timeouts: instead of those of the pool.

        Raises:
            ClientError: no complete response came.
        """
        raw: RawHeaders = [(b"Host", target.host), *headers]
        if content is None:
            stream = _NO_BODY
        else:
            stream = _Body(content)
            raw.append((b"Content-Length", b"%d" % len(content)))
        extensions = self._extensions if timeouts is None else timeouts.extensions
        request = httpx.Request(method, target.url, headers=raw, stream=stream, extensions=extensions)
        total = (timeouts or self._timeouts).total
        recorder = current_recorder()
        if recorder is None:
            return self._send(request, target, shown=shown, total=total)
        exchange = recorder.begin_request(method, shown)
        try:
            answer = self._send(request, target, shown=shown, total=total, inspector=recorder if recorder.inspects else None)
        except BaseException as exc:
            recorder.end(exchange, error=exc)
            raise
        recorder.end(exchange, status=answer.status, size=len(answer.content), headers=answer.raw_headers)
        return answer

    def _send(
        self, request: httpx.Request, target: Target, *, shown: str, total: float, inspector: Recorder | None = None
    ) -> HttpResponse:
        transport = self._given
        try:
            transport = transport or self._take(target)
            self._deadline.at = time.monotonic() + total
            response = self._connected(transport, request)
            if inspector is not None:
                inspector.inspect_response(response)
            try:
                answer = read_response(response, max_bytes=self._max_bytes)
            finally:
                response.stream.close()  # type: ignore[union-attr]
        except BaseException as exc:
            if transport is not None and transport is not self._given:
                transport.close()
            if isinstance(exc, _UNCONNECTED) and tls_error(exc) is None and proxy_for(*target.origin[:2]) is not None:
                raise silent_proxy(exc, method=request.method, url=shown) from exc
            if isinstance(exc, HostRefusedError):
                raise RejectedError(f"not sent: {exc}", method=request.method, url=shown) from None
            if isinstance(exc, _TRANSLATED):
                error, cause = _translate(exc, method=request.method, url=shown)
                raise error from cause
            raise
        self._give_back(target, transport)
        return answer

    def _connected(self, transport: httpx.BaseTransport, request: httpx.Request) -> httpx.Response:
        """Hand the request over; a failed connection is tried again, because then nothing was sent."""
        try:
            try:
                response = transport.handle_request(request)
            except _UNCONNECTED as failed:
                response = connect(partial(transport.handle_request, request), again=_may_connect, failed=failed)
        except Exception as exc:
            if not isinstance(exc, (*_UNCONNECTED, HostRefusedError)):
                self._count()
            raise
        self._count()
        return response

    def _count(self) -> None:
        with self._lock:
            self.requests += 1

    def _take(self, target: Target) -> httpx.BaseTransport:
        if self._closed:
            raise RuntimeError("the client is closed")
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
        scheme, host, port = target.origin
        proxy = proxy_for(scheme, host)
        hosts = target.hosts
        if proxy is not None and hosts is not None:
            hosts.check_proxied(host, port)
            hosts = None
        context = self._trust() if scheme == "https" or proxy is not None else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        limits = httpx.Limits(max_connections=1, max_keepalive_connections=1)
        try:
            transport = httpx.HTTPTransport(verify=context, limits=limits, proxy=proxy)
        except Exception as exc:  # noqa: BLE001 - nothing was sent, so whatever it is, it is ours
            # The exception may quote the proxy's URL, and its password.
            raise LocalError(f"no connection can be made{proxy_text(proxy)}: {_kind(exc)}") from None
        # httpx has no parameter for the backend. It is frozen at 0.28, and a test with a server that sends its headers byte by
        # byte would fail if this stopped working.
        addresses = None if hosts is None else hosts.addresses
        transport._pool._network_backend = BoundedBackend(transport._pool._network_backend, self._deadline, addresses)
        return transport

    def _trust(self) -> ssl.SSLContext:
        """Return the TLS context. Certificates are loaded once: it takes 20 ms, and threads may share the context."""
        with self._lock:
            if self._context is None:
                verify = self._verify
                try:
                    self._context = (
                        ssl.create_default_context(cafile=verify) if isinstance(verify, str) else httpx.create_ssl_context(verify)
                    )
                except (OSError, ValueError) as exc:
                    places = [verify] if isinstance(verify, str) else [name for name in _TRUSTED if os.environ.get(name)]
                    shown = f" ({', '.join(places)})" if places else ""
                    raise LocalError(f"the trusted certificates cannot be loaded{shown}: {failure_reason(exc)}") from exc
            return self._context

    def close(self) -> None:
        """Close every idle connection; those in use are closed when their response is complete."""
        with self._lock:
            self._closed = True
            transports = [transport for idle in self._idle.values() for transport in idle]
            self._idle.clear()
        if self._given is not None:
            transports.append(self._given)
        for transport in transports:
            transport.close()


_TRUSTED = ("SSL_CERT_FILE", "SSL_CERT_DIR")  # variables of the environment that name trusted certificates
_UNCONNECTED = (httpx.ConnectError, httpx.ConnectTimeout)
_TRANSLATED = (httpx.TransportError, OversizeError, CompressionError)


def _may_connect(error: Exception) -> bool:
    return isinstance(error, _UNCONNECTED) and tls_error(error) is None


def _translate(exc: BaseException, *, method: str, url: str) -> tuple[ClientError, BaseException | None]:
    """Return our error, and its cause.

    There is no cause where its text may repeat what was sent or received: h11 quotes headers.
    """
    text = str(exc)
    kind: type[ClientError] = RejectedError
    message = "a request that HTTP cannot carry"
    status: int | None = None
    cause: BaseException | None = None
    match exc:
        case OversizeError():
            kind, message = TooLargeError, "the body is larger than the client accepts (max_bytes)"
        case CompressionError():
            # An encoding that was not asked for comes again; a body that is not packed as it says may be whole the next time.
            kind = UnreadableError if text.startswith("an encoding") else BrokenAnswerError
            message = f"the body cannot be unpacked: {text}"
        case httpx.ProxyError() if text.startswith("407"):
            kind, message, status = AuthRefusedError, "407 from the proxy", 407
        case httpx.ConnectTimeout() | httpx.PoolTimeout():
            kind, message, cause = ConnectFailedError, "no connection in time", exc
        case httpx.ConnectError() | httpx.ProxyError():
            kind, message, cause = ConnectFailedError, f"no connection: {failure_reason(exc, plain='http://')}", exc
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


def _kind(exc: Exception) -> str:
    """Return what is wrong with a transport that cannot be made, without a URL."""
    if isinstance(exc, ImportError):
        return str(exc).partition(". ")[0]
    return "its scheme or form is not one that can be used" if isinstance(exc, ValueError) else type(exc).__name__
