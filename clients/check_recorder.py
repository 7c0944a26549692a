"""Records what answers show besides their content: rate limits, validators, clocks, redirects, TLS. `syncs check` uses it."""

from __future__ import annotations

import ssl
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from clients.exchange_recorder import OpenExchange, Recorder
from clients.http.conditional import Validator
from clients.http.rate_limits.rate_limit_headers import RateBudget, budgets, clock_skew
from clients.http.response import joined_headers
from clients.http.status import REDIRECTS


class RequestLimitError(Exception):
    """The allowed number of requests is used up; this one was not sent."""


@dataclass(frozen=True, slots=True)
class Tls:
    """The TLS of one connection.

    Args:
        version: such as `TLSv1.3`.
        days_left: until the certificate expires; None where it cannot be read.
    """

    version: str
    days_left: float | None


@dataclass(frozen=True, slots=True)
class Observation:
    """One answer: its status, and headers with names in lower case, which may hold secrets.

    Args:
        url: of the request, without what the client adds by itself.
        at: when it came, in seconds since the epoch.
        tls: of its connection; None without TLS.
    """

    method: str
    url: str
    status: int
    headers: dict[str, str] = field(repr=False)
    at: float
    tls: Tls | None = None

    @property
    def budget(self) -> RateBudget | None:
        """The strictest rate limit in its headers."""
        return next(iter(budgets(self.headers, now=self.at)), None)

    @property
    def skew(self) -> float | None:
        """Seconds by which the remote clock is ahead. It is too low by up to a second, because `Date` has whole seconds."""
        return clock_skew(self.headers, now=self.at)

    @property
    def validator(self) -> Validator | None:
        """What makes a later request conditional."""
        return Validator.of(self.headers)

    @property
    def is_redirect(self) -> bool:
        """Whether it is a redirect."""
        return self.status in REDIRECTS


class Inspector(Recorder):
    """A recorder that also keeps what answers show, and allows a limited number of requests.

    Args:
        max_requests: None for any number.
    """

    __slots__ = ("_max_requests", "_tls", "connections", "observations", "requests")

    inspects = True

    def __init__(self, *, max_requests: int | None = None) -> None:
        super().__init__()
        self._max_requests = max_requests
        self._tls: Tls | None = None
        #: Requests so far.
        self.requests = 0
        #: Their answers, in order.
        self.observations: list[Observation] = []
        #: The TLS of connections that are not HTTP's.
        self.connections: list[Tls] = []

    def begin_request(self, method: str, url: str) -> OpenExchange:
        """Note that an HTTP request is about to be sent.

        Raises:
            RequestLimitError: it would be one too many.
        """
        if self._max_requests is not None and self.requests >= self._max_requests:
            raise RequestLimitError(f"stopped after {self.requests} requests")
        self.requests += 1
        self._tls = None
        return super().begin_request(method, url)

    def allow(self, more: int | None) -> None:
        """Allow `more` further requests; None for any number."""
        self._max_requests = None if more is None else self.requests + more

    def inspect_tls(self, layer: ssl.SSLSocket | ssl.SSLObject) -> None:
        """Keep the TLS of a connection that is not HTTP's."""
        self.connections.append(tls_of(layer))

    def inspect_response(self, response: Any) -> None:
        """Keep the TLS of an HTTP connection, which may be closed when the body is read."""
        stream = response.extensions.get("network_stream")
        layer = None if stream is None else stream.get_extra_info("ssl_object")
        self._tls = None if layer is None else tls_of(layer)

    def end(
        self,
        exchange: OpenExchange,
        *,
        status: int | str | None = None,
        size: int = 0,
        error: BaseException | None = None,
        headers: Sequence[tuple[bytes, bytes]] | None = None,
    ) -> None:
        """Note the result of a request."""
        super().end(exchange, status=status, size=size, error=error)
        if isinstance(status, int) and headers is not None:
            known = joined_headers(headers)
            self.observations.append(
                Observation(exchange.method, exchange.url, status=status, headers=known, at=time.time(), tls=self._tls)
            )


def tls_of(layer: ssl.SSLSocket | ssl.SSLObject) -> Tls:
    """Return the TLS version of a connection and when its certificate expires."""
    try:
        ends = layer.getpeercert() or {}
        until = ends.get("notAfter")
        left = None if not isinstance(until, str) else (ssl.cert_time_to_seconds(until) - time.time()) / 86400
    except ValueError:
        left = None
    return Tls(layer.version() or "TLS", left)
