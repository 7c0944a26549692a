"""Reads the `RateLimit` and `RateLimit-Policy` fields, in the three forms of the IETF drafts and as servers really send them.

| draft | RateLimit | RateLimit-Policy |
| --- | --- | --- |
| 00 to 06 | (three plain headers) | `100;w=60` in `RateLimit-Limit` |
| 07 | a dictionary, `limit=100, remaining=50, reset=5` | a list, `100;w=60` |
| 08 and later | a list, `"default";r=50;t=30` | a list, `"default";q=100;w=60` |

Close sends draft 07 with semicolons, so that the other values become parameters of `limit`. http-sf parses structured fields
(RFC 9651).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

Found = Iterator[tuple[str, str, str]]

_LIMIT = {
    "limit": "limit",
    "remaining": "remaining",
    "reset": "reset",
    "r": "remaining",
    "t": "reset",
    "q": "limit",
    "w": "window",
}
MAX_LENGTH = 10_000
"""Characters of a field that is read."""
_PAIR = re.compile(r"\b(limit|remaining|reset)\s*[=:]\s*\"?([0-9][0-9.]*)", re.IGNORECASE)


def limits(value: str) -> Found:
    """Yield (budget, what, value) of a `RateLimit` field; nothing when it cannot be read."""
    parsed = _parse(value, "list" if value.lstrip().startswith('"') or "=" not in value.partition(";")[0] else "dictionary")
    if isinstance(parsed, list):
        yield from _items(parsed)
    elif isinstance(parsed, dict):
        for name, member in parsed.items():
            item, params = member if isinstance(member, tuple) else (member, {})
            if (what := _LIMIT.get(name.lower())) is not None:
                yield "", what, str(item)
            yield from _params("", params)
    else:
        for name, number in _PAIR.findall(value[:MAX_LENGTH]):
            yield "", name.lower(), number


def policies(value: str) -> Found:
    """Yield (budget, what, value) of a `RateLimit-Policy` field; nothing when it cannot be read."""
    parsed = _parse(value, "list")
    if isinstance(parsed, list):
        yield from _items(parsed)


def _items(parsed: list[Any]) -> Found:
    seen: dict[str, int] = {}
    for number, member in enumerate(parsed):
        item, params = member if isinstance(member, tuple) else (member, {})
        if isinstance(item, list):
            continue
        if isinstance(item, (int, float)) and not isinstance(item, bool):
            # In draft 07 policies have no names; the first one is in force.
            name = "" if number == 0 else f"{item};w={params.get('w', '')}"
            yield name, "limit", str(item)
        else:
            name = "" if str(item) == "default" and len(parsed) == 1 else str(item)
            seen[name] = seen.get(name, 0) + 1
            if seen[name] > 1:
                # Two windows of one name.
                name = f"{name}#{seen[name]}"
        yield from _params(name, params)


def _params(name: str, params: dict[str, Any]) -> Found:
    for param, value in params.items():
        if (what := _LIMIT.get(param.lower())) is not None:
            yield name, what, str(value)


def _parse(value: str, form: str) -> Any:
    if not value.strip() or len(value) > MAX_LENGTH:
        return None
    import http_sf

    try:
        return http_sf.parse(value.encode("ascii"), tltype=form)
    except (ValueError, KeyError, IndexError):
        # http-sf raises ValueError for a broken field; non-ASCII text does so as well.
        return None
