"""Where a request goes: a URL, read by the parser of the one who sends it. Sends nothing."""

from __future__ import annotations

import re
from dataclasses import dataclass

import httpx

from clients.urls import Origin

_PLAIN = re.compile(r"(?:/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)+/?(?:\?(?:[A-Za-z0-9._~=&+-]|%[0-9A-F]{2})*)?")
"""A path and a query in which there is nothing to resolve, to encode or to refuse."""


@dataclass(frozen=True, slots=True)
class Target:
    """A URL, parsed once by the same parser that sends it: what is compared is what is connected to."""

    url: httpx.URL
    origin: Origin
    host: bytes

    def beside(self, rest: str) -> Target | None:
        """Return the target of the same origin with this path and query, or None where they have to be parsed.

        The parser looks at each character and at the host again, which takes longer than to send what it reads.
        """
        if _PLAIN.fullmatch(rest) is None:
            return None
        path, mark, query = rest.partition("?")
        url = object.__new__(httpx.URL)
        # What `httpx.URL(text)` would set; it is frozen at 0.28, and a test compares the two.
        url._uri_reference = self.url._uri_reference._replace(path=path, query=query if mark else None)
        return Target(url, self.origin, self.host)

    def join(self, location: str) -> str:
        """Resolve `location` against this URL; its user part and fragment are dropped.

        Raises:
            ValueError: it is not a URL.
        """
        try:
            return str(self.url.join(location).copy_with(fragment=None, userinfo=b""))
        except (httpx.InvalidURL, ValueError):
            raise ValueError("not a URL") from None


def parse_target(url: str) -> Target:
    """Parse an absolute http or https URL.

    Raises:
        ValueError: it is not one; the message does not repeat it.
    """
    try:
        parsed = httpx.URL(url)
    except (httpx.InvalidURL, ValueError):
        raise ValueError("not a URL that can be requested") from None
    scheme, host = parsed.scheme, parsed.raw_host
    # A percent sign is what httpx makes of characters that no host has; only an IPv6 zone may have one.
    if scheme not in ("http", "https") or not host or (b"%" in host and b":" not in host):
        raise ValueError("not an absolute http or https URL")
    return Target(parsed, (scheme, host.decode("ascii"), parsed.port or (80 if scheme == "http" else 443)), parsed.netloc)
