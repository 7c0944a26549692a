"""Retries a failed connection at most twice (docs/architecture.md, law 7), and says why there was none."""

from __future__ import annotations

import logging
import re
import ssl
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

ATTEMPTS = 3
FIRST_WAIT = 0.1
"""Seconds before the second attempt, and as much again at random; twice that before the third."""

_NO_TLS = frozenset({"WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG"})
"""Reasons of OpenSSL where the other side spoke no TLS; which one it is depends on its version and on the first bytes."""

_ERRNO = re.compile(r"^\[Errno -?\d+\] ")

# stamina logs each retry, in words of its own. They go to handlers that somebody set up, and not to stderr by default.
logging.getLogger("stamina").addHandler(logging.NullHandler())


def connect(attempt: Callable[[], T], *, again: Callable[[Exception], bool], failed: Exception | None = None) -> T:
    """Return what `attempt` returns; call it again while nothing was sent yet.

    Args:
        attempt: connects, and raises where there is no connection.
        again: says whether another attempt may help.
        failed: what a first attempt raised that the caller made itself.
    """
    import stamina

    outcomes = stamina.retry_context(on=again, attempts=ATTEMPTS, timeout=None, wait_initial=FIRST_WAIT, wait_jitter=FIRST_WAIT)
    for outcome in outcomes:
        with outcome:
            if failed is not None and outcome.num == 1:
                raise failed
            return attempt()
    raise AssertionError("unreachable: stamina raises what the last attempt raised")


def tls_error(error: BaseException | None) -> ssl.SSLError | None:
    """Return the TLS error that caused another one, or None."""
    while error is not None and not isinstance(error, ssl.SSLError):
        error = error.__cause__ or error.__context__
    return error


def failure_reason(error: BaseException, *, plain: str = "") -> str:
    """Return why there is no connection, without the error numbers and source positions of Python's text.

    Args:
        error: what was raised.
        plain: how a URL begins that is without TLS; it is asked about where the answer was no TLS.
    """
    match tls_error(error):
        case ssl.SSLCertVerificationError() as refused:
            return f"the certificate is refused: {refused.verify_message}"
        case ssl.SSLError() as broken:
            hint = f"; is it {plain}?" if plain and broken.reason in _NO_TLS else ""
            return f"TLS failed: {broken.reason or 'no reason given'}{hint}"
    return _ERRNO.sub("", str(error))
