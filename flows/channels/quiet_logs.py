"""Silences libraries that log secrets while they send: Apprise logs tokens, httpx and urllib3 log URLs."""

import contextlib
import logging
import threading
from collections.abc import Iterator

_NAMES = ("apprise", "httpx", "urllib3.connectionpool")
_lock = threading.Lock()
_sending = 0


class _Silence(logging.Filter):
    """Drops all records while a message is being sent; the libraries also log in threads of their own."""

    def filter(self, record: logging.LogRecord) -> bool:
        return _sending == 0


_filter = _Silence()


@contextlib.contextmanager
def silenced() -> Iterator[None]:
    """Let these libraries log nothing within the block, in any thread."""
    global _sending  # noqa: PLW0603 - the filter belongs to loggers of the whole process
    with _lock:
        _sending += 1
        for name in _NAMES:
            # A filter that is already there is not added again.
            logging.getLogger(name).addFilter(_filter)
    try:
        yield
    finally:
        with _lock:
            _sending -= 1
