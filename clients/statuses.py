"""What an HTTP status means for the caller: one table, one pure function.

Knows nothing of bodies or of what happens next.
"""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus

from clients.errors import AuthRefusedError, ClientError, GoneError, RateLimitedError, RejectedError, ServerError
from clients.rates import wait

REDIRECTS = frozenset({301, 302, 303, 307, 308})
GATEWAYS = frozenset({502, 504, 520, 522, 524, 598, 599})
"""A gateway's own answers (52x are Cloudflare's, 59x those of older proxies): what is behind it may have done what was asked."""

SOONEST = 1.0
"""Nobody who refuses a request means that it may come again within less: at `Retry-After: 0`, or at a date in the past, a worker
would ask hundreds of times a second, and use up no attempt."""

_MEANING: dict[int, type[ClientError]] = {
    401: AuthRefusedError,
    403: AuthRefusedError,
    404: GoneError,
    407: AuthRefusedError,
    # The server gave up waiting for our request (RFC 9110, 15.5.9) or does not dare to take it yet (RFC 8470, 5.2):
    # both say "send it again".
    408: ServerError,
    410: GoneError,
    425: ServerError,
}


def error_of(status: int, headers: Mapping[str, str], *, method: str, url: str) -> ClientError | None:
    """Return the error that a status stands for, or None when it is below 400.

    Args:
        headers: names in lower case.
    """
    if status < 400:
        return None
    message = f"{status} {_phrase(status)}".rstrip()
    if status in (403, 429, 503):
        # GitHub says 403 when its limit is reached, and the headers why.
        asked = wait(headers)
        if status == 429 or asked is not None:
            message += f", {asked}" if asked is not None else ", Retry-After cannot be read" if headers.get("retry-after") else ""
            seconds = None if asked is None else max(asked.seconds, SOONEST)
            return RateLimitedError(message, method=method, url=url, status=status, retry_after=seconds)
    kind = _MEANING.get(status) or (RejectedError if status < 500 else ServerError)
    return kind(message, method=method, url=url, status=status)


def _phrase(status: int) -> str:
    # Not the server's own reason phrase: that is free text.
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""
