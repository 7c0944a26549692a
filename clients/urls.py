"""URLs as text: masks secrets for messages, compares origins, encodes and removes query parameters."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any
from urllib.parse import quote_plus, unquote, unquote_plus, urlsplit

Origin = tuple[str, str, int]

_ABSOLUTE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
MAX_LENGTH = 500
"""Characters of a URL in a message."""
_SECRET = re.compile(
    r"token|secret|passw|pwd|credential|auth|signature|session"
    r"|(?:^|[_.-])(?:api|access|private|subscription)?[_.-]?(?:key|sig|sid|code|pin|jwt|otp)$",
    re.IGNORECASE,
)
_PORTS = {"http": 80, "https": 443}


def sounds_secret(name: str) -> bool:
    """Tell whether a value of this name may be a secret."""
    return _SECRET.search(name) is not None


def is_absolute(url: str) -> bool:
    """Say whether `url` has a scheme and a host."""
    return _ABSOLUTE.match(url) is not None


def public_url(url: str) -> str:
    """Return `url` on one line of 500 characters at most, without what may be secret: user part, query, fragment."""
    url = _UNPRINTABLE.sub("\ufffd", url.partition("#")[0].partition("?")[0])
    scheme, separator, rest = url.partition("://")
    if not separator:
        return url[:MAX_LENGTH]
    authority, slash, path = rest.partition("/")
    return f"{scheme}://{authority.rpartition('@')[2]}{slash}{path}"[:MAX_LENGTH]


def masked_url(url: str) -> str:
    """Return `url` as `public_url` does, but with its query; a value whose name sounds like a secret is `***`."""
    head, mark, query = url.partition("#")[0].partition("?")
    shown = public_url(head)
    if not mark:
        return shown
    pairs = (pair.partition("=") for pair in _UNPRINTABLE.sub("\ufffd", query).split("&"))
    masked = (
        f"{name}=***" if sign and _SECRET.search(unquote_plus(name)) else f"{name}{sign}{value}" for name, sign, value in pairs
    )
    return f"{shown}?{'&'.join(masked)}"[:MAX_LENGTH]


def origin_of(url: str) -> Origin:
    """Return scheme, host and port of an absolute http or https URL (RFC 6454, section 4).

    Raises:
        ValueError: it is not one; the message does not repeat the URL.
    """
    parts = _split(url)
    scheme = parts.scheme.lower()
    return scheme, parts.hostname.lower(), parts.port or _PORTS[scheme]


def _split(url: str) -> Any:
    try:
        parts = urlsplit(url)
        good = parts.scheme.lower() in _PORTS and bool(parts.hostname) and parts.port != 0
    except ValueError:
        good = False
    if not good:
        # The text is not repeated, and there is no cause: both may hold a password.
        raise ValueError("not an absolute http or https URL") from None
    return parts


def split_userinfo(url: str) -> tuple[str, tuple[str, str] | None]:
    """Return an absolute URL without user and password, and these two, percent-decoded, or None."""
    scheme, separator, rest = url.partition("://")
    end = min((rest.find(c) for c in "/?#" if c in rest), default=len(rest))
    user_part, at, host = rest[:end].rpartition("@")
    if not separator or not at:
        return url, None
    user, _, password = user_part.partition(":")
    return f"{scheme}://{host}{rest[end:]}", (unquote(user), unquote(password))


def encode_params(params: Mapping[str, Any]) -> str:
    """Encode `params` as a query string.

    None leaves a parameter out, true and false are lower case, a list repeats it.
    """
    pairs: list[str] = []
    for name, value in params.items():
        values: Iterable[Any] = value if isinstance(value, (list, tuple)) else (value,)
        encoded = quote_plus(name)
        for one in values:
            if one is not None:
                text = one if isinstance(one, str) else _text(one)
                pairs.append(f"{encoded}={quote_plus(text)}")
    return "&".join(pairs)


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    # The text of a secret that hides its value is a row of asterisks.
    return str(value.get_secret_value() if hasattr(value, "get_secret_value") else value)


def with_query(url: str, query: str) -> str:
    """Append an encoded query to `url`, which may have one already; a fragment is dropped, since it is never sent."""
    url = url.partition("#")[0]
    if not query:
        return url
    return f"{url}{'&' if '?' in url else '?'}{query}" if not url.endswith(("?", "&")) else f"{url}{query}"


def without_params(url: str, names: Collection[str]) -> str:
    """Return `url` without its fragment and without the query parameters called `names`; the others stay as written."""
    url = url.partition("#")[0]
    head, mark, query = url.partition("?")
    if not mark or not names:
        return url
    kept = [pair for pair in query.split("&") if unquote_plus(pair.partition("=")[0]) not in names]
    return f"{head}?{'&'.join(kept)}" if kept else head


def without_values(url: str, values: Collection[str]) -> str:
    """Return `url` without the query parameters that have one of `values`, as it is or behind a word (`Bearer …`)."""
    head, mark, query = url.partition("?")
    if not mark or not values:
        return url
    kept = [pair for pair in query.split("&") if unquote_plus(pair.partition("=")[2]) not in values]
    return f"{head}?{'&'.join(kept)}" if kept else head
