"""A time by which a whole exchange has to be over, whatever trickles in meanwhile. Knows httpcore's streams and no HTTP.

The timeouts of httpcore are for each wait: a server that sends a byte a second never meets them.
"""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Iterable
from typing import Any

import httpcore

_PIECE = 1 << 18


class Deadline(threading.local):
    """When the exchange of the calling thread has to be over, by `time.monotonic`; 0 for never."""

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
    """Opens streams that mind the deadline."""

    def __init__(self, inner: httpcore.NetworkBackend, deadline: Deadline) -> None:
        self._inner = inner
        self._deadline = deadline

    def connect_tcp(
        self, host: str, port: int, timeout: float | None = None, local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:  # fmt: skip
        """Open a connection."""
        stream = self._inner.connect_tcp(host, port, timeout, local_address, socket_options)
        return _Stream(stream, self._deadline)

    def sleep(self, seconds: float) -> None:
        """Sleep."""
        self._inner.sleep(seconds)


class _Stream(httpcore.NetworkStream):
    """Strictly private: a stream whose every wait is bounded by the deadline of the thread that waits."""

    def __init__(self, inner: httpcore.NetworkStream, deadline: Deadline) -> None:
        self._inner = inner
        self._deadline = deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._inner.read(max_bytes, self._deadline.left(timeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        if len(buffer) <= _PIECE:
            # The common case; each request that has no body is followed by a write of nothing.
            if buffer:
                self._inner.write(buffer, self._deadline.left(timeout))
            return
        # In pieces: httpcore gives each send of a part its whole timeout anew, and a slow reader takes many.
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
