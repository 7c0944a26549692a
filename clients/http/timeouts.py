"""Limits the time of a request: of each phase, and of the whole exchange.

The timeouts of httpcore are for each wait, so a server that sends a byte a second never reaches them.
"""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import httpcore

CONNECT_TIMEOUT = 10.0

_PIECE = 1 << 18


class Timeouts(NamedTuple):
    """Time limits of a request, in seconds.

    Args:
        phase: for sending, and for each wait for bytes; connecting gets 10 at most, because it is tried three times.
        total: for the whole exchange, even if bytes keep coming.
    """

    phase: float
    total: float

    @property
    def extensions(self) -> dict[str, dict[str, float]]:
        """The limits of each phase as httpx takes them."""
        connecting = min(self.phase, CONNECT_TIMEOUT)
        return {"timeout": {"connect": connecting, "read": self.phase, "write": self.phase, "pool": self.phase}}


class Deadline(threading.local):
    """When the exchange of the calling thread must be complete, by `time.monotonic`; 0 for never."""

    at = 0.0

    def left(self, timeout: float | None) -> float | None:
        """Return the shorter of `timeout` and the time that is left.

        Raises:
            httpcore.ReadTimeout: none is left.
        """
        if not self.at:
            return timeout
        left = self.at - time.monotonic()
        if left <= 0:
            raise httpcore.ReadTimeout("total")
        return left if timeout is None else min(timeout, left)


class BoundedBackend(httpcore.NetworkBackend):
    """Opens streams whose waits end at the deadline.

    Args:
        inner: opens them.
        deadline: of the calling thread.
        addresses: from host and port to the addresses that may be connected to; None leaves that to `inner`.
    """

    def __init__(
        self,
        inner: httpcore.NetworkBackend,
        deadline: Deadline,
        addresses: Callable[[str, int], Sequence[str]] | None = None,
    ) -> None:
        self._inner = inner
        self._deadline = deadline
        self._addresses = addresses

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        """Open a connection."""
        *others, last = self._allowed(host, port)
        for address in others:
            with suppress(httpcore.ConnectError, httpcore.ConnectTimeout):
                stream = self._inner.connect_tcp(address, port, timeout, local_address, socket_options)
                return _Stream(stream, self._deadline)
        stream = self._inner.connect_tcp(last, port, timeout, local_address, socket_options)
        return _Stream(stream, self._deadline)

    def _allowed(self, host: str, port: int) -> Sequence[str]:
        if self._addresses is None:
            return [host]
        try:
            # Not the name, which may stand for another address a moment later.
            return self._addresses(host, port)
        except OSError as exc:
            raise httpcore.ConnectError(str(exc)) from exc

    def sleep(self, seconds: float) -> None:
        """Sleep."""
        self._inner.sleep(seconds)


class _Stream(httpcore.NetworkStream):
    """A stream whose waits end at the deadline of the calling thread."""

    def __init__(self, inner: httpcore.NetworkStream, deadline: Deadline) -> None:
        self._inner = inner
        self._deadline = deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._inner.read(max_bytes, self._deadline.left(timeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        if len(buffer) <= _PIECE:
            # The common case. httpcore also writes nothing after each request without a body.
            if buffer:
                self._inner.write(buffer, self._deadline.left(timeout))
            return
        # In pieces: httpcore applies its timeout to each part that it sends, and a slow reader takes many parts.
        for start in range(0, len(buffer), _PIECE):
            self._inner.write(buffer[start : start + _PIECE], self._deadline.left(timeout))

    def close(self) -> None:
        self._inner.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        return _Stream(self._inner.start_tls(ssl_context, server_hostname, self._deadline.left(timeout)), self._deadline)

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)
