"""What an answer's headers say about when to come again. Pure: headers in, seconds out."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from datetime import UTC

_SECONDS = re.compile(r"\d{1,18}(\.\d+)?|\.\d+")


def retry_after(headers: Mapping[str, str], *, now: float | None = None) -> float | None:
    """Return the seconds to wait by `Retry-After` (RFC 9110, section 10.2.3), or None when it is missing or unreadable.

    A date is taken relative to the answer's own `Date`, so that a wrong clock on either side does not count; it is
    never negative. Decimals are not in the standard, but are sent (Discord).

    Args:
        headers: names in lower case.
        now: seconds since the epoch where the answer has no `Date`; default: this machine's clock.
    """
    value = headers.get("retry-after", "").strip()
    if _SECONDS.fullmatch(value):
        return float(value)
    until = http_date(value)
    if until is None:
        return None
    sent = http_date(headers.get("date", ""))
    if sent is None:
        sent = time.time() if now is None else now
    return max(0.0, until - sent)


def http_date(value: str) -> float | None:
    """Return seconds since the epoch of an HTTP date in any of its three forms (RFC 9110, section 5.6.7), or None."""
    if not value:
        return None
    from email.utils import parsedate_to_datetime

    try:
        parsed = parsedate_to_datetime(value)
    except (ValueError, TypeError, OverflowError):
        return None
    return (parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).timestamp()
