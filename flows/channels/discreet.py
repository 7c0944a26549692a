"""Silence of the libraries that log where they send to: Apprise warns with tokens in its text, httpx and urllib3 tell URLs."""

import contextlib
import logging
import threading
from collections.abc import Iterator

_NAMES = ("apprise", "httpx", "urllib3.connectionpool")
_lock = threading.Lock()
_sending = 0


class _Discreet(logging.Filter):
    """Drops everything while a message is being sent; the libraries log in threads and contexts of their own."""

    def filter(self, record: logging.LogRecord) -> bool:
        return _sending == 0


_filter = _Discreet()


@contextlib.contextmanager
def discreetly() -> Iterator[None]:
    """Let these libraries log nothing meanwhile."""
    global _sending  # noqa: PLW0603 - a filter has no other way to know
    with _lock:
        _sending += 1
        for name in _NAMES:
            # Adding it twice adds it once.
            logging.getLogger(name).addFilter(_filter)
    try:
        yield
    finally:
        with _lock:
            _sending -= 1
