"""What exchanges show besides their content: rate headers, validators, clocks, redirects, TLS. For whoever examines a client."""

from __future__ import annotations

import ssl
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from clients.exchange import Recorder
from clients.rates import Budget, budgets, clock_skew
from clients.statuses import REDIRECTS
from clients.validators import Validator


class EnoughError(Exception):
    """So many requests were sent as were allowed; nothing more was."""


@dataclass(frozen=True, slots=True)
class Tls:
    """The TLS of one connection.

    Args:
        version: such as `TLSv1.3`.
        days_left: until the certificate ends; None where it cannot be read.
    """

    version: str
    days_left: float | None


@dataclass(frozen=True, slots=True)
class Sight:
    """One answer: its status, and headers with names in lower case, which may hold secrets.

    Args:
        url: that was asked, without what the client adds by itself.
        at: when it was there, in seconds since the epoch.
        tls: of its connection; None without TLS.
    """

    method: str
    url: str
    status: int
    headers: dict[str, str] = field(repr=False)
    at: float
    tls: Tls | None = None

    @property
    def budget(self) -> Budget | None:
        """The strictest rate budget that it tells of."""
        return next(iter(budgets(self.headers, now=self.at)), None)

    @property
    def skew(self) -> float | None:
        """Seconds by which the remote clock is ahead; a `Date` has whole seconds."""
        return clock_skew(self.headers, now=self.at)

    @property
    def validator(self) -> Validator | None:
        """What a conditional request may be made with."""
        return Validator.of(self.headers)

    @property
    def is_redirect(self) -> bool:
        """Whether it leads elsewhere."""
        return self.status in REDIRECTS


class Witness(Recorder):
    """A recorder that looks closely, and lets no more than `most` requests through: `with Witness(most=4) as witness:`."""

    __slots__ = ("_most", "_tls", "asked", "secure", "sights")

    is_curious = True

    def __init__(self, *, most: int | None = None) -> None:
        super().__init__()
        self._most = most
        self._tls: Tls | None = None
        #: Requests so far.
        self.asked = 0
        #: Their answers, in order.
        self.sights: list[Sight] = []
        #: The TLS of connections that are not HTTP's.
        self.secure: list[Tls] = []

    def begin(self, method: str, url: str) -> None:
        """Note that a request is about to go.

        Raises:
            EnoughError: it would be one too many.
        """
        if self._most is not None and self.asked >= self._most:
            raise EnoughError(f"stopped after {self.asked} requests")
        self.asked += 1
        self._tls = None
        super().begin(method, url)

    def limit(self, more: int | None) -> None:
        """Let `more` further requests through, or any number of them."""
        self._most = None if more is None else self.asked + more

    def secured(self, layer: ssl.SSLSocket | ssl.SSLObject) -> None:
        """Look at the TLS of a connection that is not HTTP's."""
        self.secure.append(tls_of(layer))

    def look(self, response: Any) -> None:
        """Look at the connection, which may be closed when the answer is read."""
        stream = response.extensions.get("network_stream")
        layer = None if stream is None else stream.get_extra_info("ssl_object")
        self._tls = None if layer is None else tls_of(layer)

    def end(
        self,
        *,
        status: int | None = None,
        size: int = 0,
        error: BaseException | None = None,
        headers: Sequence[tuple[bytes, bytes]] = (),
    ) -> None:
        """Note what came of it."""
        pending = self.pending
        super().end(status=status, size=size, error=error)
        if pending is not None and status is not None:
            known: dict[str, str] = {}
            for raw_name, raw_value in headers:
                name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
                known[name] = f"{known[name]}, {value}" if name in known else value
            self.sights.append(Sight(pending.method, pending.url, status, known, time.time(), self._tls))


def tls_of(layer: ssl.SSLSocket | ssl.SSLObject) -> Tls:
    """Return what a connection's TLS says of itself."""
    try:
        ends = layer.getpeercert() or {}
        until = ends.get("notAfter")
        left = None if not isinstance(until, str) else (ssl.cert_time_to_seconds(until) - time.time()) / 86400
    except ValueError:
        left = None
    return Tls(layer.version() or "TLS", left)
