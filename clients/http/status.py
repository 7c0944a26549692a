"""Translates an HTTP status into our error tree, and reads what a good answer may say besides: not yet, or not all."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus

from clients.errors import (
    AuthRefusedError,
    ClientError,
    GoneError,
    NotReadyError,
    RateLimitedError,
    RejectedError,
    ServerError,
    UnreadableError,
)
from clients.http.rate_limits.rate_limit_headers import retry_after, wait
from clients.http.rate_limits.throttle import MIN_WAIT

REDIRECTS = frozenset({301, 302, 303, 307, 308})
GATEWAYS = frozenset({502, 504, 520, 522, 524, 598, 599})
"""Answers of gateways (52x of Cloudflare, 59x of older proxies): the system behind them may have done what was asked."""

NOT_YET = frozenset({202})
"""Good statuses that promise an answer for later (RFC 9110, 15.3.3)."""

PARTIAL = 206

NOT_ALL = frozenset({207, 208, 226})
"""Good statuses of which a part may have failed (207, RFC 4918) or was left out (208, RFC 5842; 226, RFC 3229)."""

_STALE = re.compile(r"(?:^|,)\s*11[0-3]\s")

_RANGE = re.compile(r"\s*(?:([A-Za-z][\w-]*)[ =]\s*)?(?:(\d{1,18})-(\d{1,18})|\*)/(?:(\d{1,18})|\*)\s*")

_MEANING: dict[int, type[ClientError]] = {
    401: AuthRefusedError,
    403: AuthRefusedError,
    404: GoneError,
    407: AuthRefusedError,
    # The server stopped waiting for our request (RFC 9110, 15.5.9), or refuses it in early data (RFC 8470, 5.2): both mean
    # "send it again".
    408: ServerError,
    410: GoneError,
    425: ServerError,
}


@dataclass(frozen=True, slots=True)
class ContentRange:
    """What `Content-Range` says (RFC 9110, 14.4): `items 0-24/100`, also without a unit, as PostgREST writes it.

    Args:
        unit: in lower case; empty where there is none.
        first, last: positions, from 0; None in an answer that refuses a range.
        length: how many there are in all, or None when the answer does not say.
    """

    unit: str = ""
    first: int | None = None
    last: int | None = None
    length: int | None = None

    @classmethod
    def of(cls, headers: Mapping[str, str]) -> ContentRange | None:
        """Return what the header says, or None without one that can be read. Names of headers are in lower case."""
        found = _RANGE.fullmatch(headers.get("content-range", ""))
        if found is None:
            return None
        first, last, length = (None if text is None else int(text) for text in found.groups()[1:])
        return cls((found[1] or "").lower(), first, last, length)

    @property
    def is_whole(self) -> bool:
        """Whether it begins with the first and ends with the last."""
        return self.first == 0 and self.length is not None and self.last == self.length - 1


def is_stale(headers: Mapping[str, str]) -> bool:
    """Say whether a cache warns that its answer is old (RFC 7234, 5.5: 110 to 113)."""
    return "warning" in headers and _STALE.search(headers["warning"]) is not None


def error_of(
    status: int, headers: Mapping[str, str], *, method: str, url: str, asks: bool = True, learned: float | None = None
) -> ClientError | None:
    """Return the error that a status stands for, or None when it is below 400.

    Args:
        headers: names in lower case.
        asks: `Retry-After` means something; False where good answers bear one, too.
        learned: seconds to wait after a 429 that does not say for how long.
    """
    if status < 400:
        return None
    message = f"{status} {_phrase(status)}".rstrip()
    if status in (403, 429, 503):
        # GitHub answers 403 when its rate limit is used up, and says so in headers.
        asked = wait(headers, refused=status == 429, asks=asks or status == 429)
        if status == 429 or asked is not None:
            message += f", {asked}" if asked is not None else ", Retry-After cannot be read" if headers.get("retry-after") else ""
            seconds = learned if asked is None else max(asked.seconds, MIN_WAIT)
            return RateLimitedError(message, method=method, url=url, status=status, retry_after=seconds)
    kind = _MEANING.get(status) or (RejectedError if status < 500 else ServerError)
    error = kind(message, method=method, url=url, status=status)
    if status < 500:
        # A rate limit that is used up may be by this very request; only 400 is known to be answered for it (Linear).
        spent = wait(headers) if status == 400 else None
        error.waits = bool(retry_after(headers) or (spent and spent.seconds))
        covers = ContentRange.of(headers)
        error.length = None if covers is None else covers.length
    return error


def not_ready(status: int, headers: Mapping[str, str], *, method: str, url: str) -> NotReadyError | None:
    """Return the error of an answer that is still being made, or None."""
    if status not in NOT_YET:
        return None
    asked = retry_after(headers)
    seconds = None if asked is None else max(asked, MIN_WAIT)
    message = f"{status} {_phrase(status)}, not ready yet" + ("" if seconds is None else f", asks to wait {seconds:g} s")
    return NotReadyError(message, method=method, url=url, status=status, retry_after=seconds)


def not_all(status: int, headers: Mapping[str, str], *, method: str, url: str) -> UnreadableError | None:
    """Return the error of a good answer that is only a part of what was asked for, or None."""
    covers = ContentRange.of(headers) if status == PARTIAL else None
    if status not in NOT_ALL and (status != PARTIAL or (covers is not None and covers.is_whole)):
        return None
    message = f"{status} {_phrase(status)}: not all of what was asked for"
    return UnreadableError(message, method=method, url=url, status=status)


def _phrase(status: int) -> str:
    # Not the server's own reason phrase, which is free text.
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""
