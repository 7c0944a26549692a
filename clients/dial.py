"""Trying a failed connection again, at most twice (law 7), and why there was none. Knows no protocol."""

from __future__ import annotations

import random
import re
import ssl
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

ATTEMPTS = 3

_ERRNO = re.compile(r"^\[Errno -?\d+\] ")


def dial(connect: Callable[[], T], *, again: Callable[[OSError], bool]) -> T:
    """Return what `connect` returns, trying it again where nothing was sent yet.

    Args:
        connect: raises OSError where there is no connection.
        again: tells whether another attempt may help.
    """
    for attempt in range(1, ATTEMPTS):
        try:
            return connect()
        except OSError as error:
            if not again(error):
                raise
        time.sleep(0.2 * attempt * random.uniform(0.5, 1.0))  # noqa: S311 - jitter
    return connect()


def tls_error(error: BaseException | None) -> ssl.SSLError | None:
    """Return the error of TLS that another one came of, or None."""
    while error is not None and not isinstance(error, ssl.SSLError):
        error = error.__cause__ or error.__context__
    return error


def reason(error: BaseException) -> str:
    """Return why there is no connection, without what only says where in the source of Python that was found."""
    match tls_error(error):
        case ssl.SSLCertVerificationError() as refused:
            return f"the certificate is refused: {refused.verify_message}"
        case ssl.SSLError() as failed:
            return f"TLS failed: {failed.reason or 'no reason given'}"
    return _ERRNO.sub("", str(error))
