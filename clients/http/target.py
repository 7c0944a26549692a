"""`Target`, a URL that requests can be sent to, and the parser that makes one."""

from __future__ import annotations

import re
from dataclasses import dataclass

import httpx

from clients.http.allowed_hosts import AllowedHosts
from clients.urls import Origin

_PLAIN = re.compile(r"(?:/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)+/?(?:\?(?:[A-Za-z0-9._~=&+-]|%[0-9A-F]{2})*)?")
"""A path and query without anything to resolve, to encode or to refuse."""


@dataclass(frozen=True, slots=True)
class Target:
    """A URL, parsed once by the parser of the library that sends it: the origin that is checked is the one connected to."""

    url: httpx.URL
    origin: Origin
    host: bytes
    #: Of a link to another origin: checks the addresses of its host. None for what is declared.
    hosts: AllowedHosts | None = None

    def beside(self, path_and_query: str) -> Target | None:
        """Return the target of the same origin with another path and query, or None where these must be parsed.

        httpx's parser looks at each character and parses the host again, which takes longer than sending the request.
        """
        if _PLAIN.fullmatch(path_and_query) is None:
            return None
        path, mark, query = path_and_query.partition("?")
        url = object.__new__(httpx.URL)
        # This sets what `httpx.URL(text)` would set; httpx is frozen at 0.28, and a test compares the two.
        url._uri_reference = self.url._uri_reference._replace(path=path, query=query if mark else None)
        return Target(url, self.origin, self.host)

    def kind(self, method: str, depth: int) -> tuple[str, str, int]:
        """Return what requests that are alike have in common: method, first `depth` parts of the path, number of parts."""
        parts = self.url._uri_reference.path.split("/")
        return method, "/".join(parts[:depth]), len(parts)

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
