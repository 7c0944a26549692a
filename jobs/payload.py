"""What a job may carry: any JSON, up to a size, that comes back from both databases as it went in. Knows no table."""

import math
from typing import Any

from sqlalchemy import ColumnElement, Text, type_coerce

from jobs.errors import PayloadError
from jobs.fingerprint import encode

PAYLOAD_LIMIT = 1024 * 1024
"""Bytes of a payload's JSON. What is larger belongs into a file or a table, with its name in the payload."""


def payload_text(payload: Any) -> str:
    """Return the JSON of a payload.

    Raises:
        PayloadError: it has none, none that both databases keep, or too much.
    """
    try:
        document = encode(payload)
    except PayloadError as error:
        raise PayloadError(f"is {error}") from error
    if len(document) > PAYLOAD_LIMIT:
        raise PayloadError(
            f"has {len(document):,} bytes of JSON, the limit is {PAYLOAD_LIMIT:,}; keep the data elsewhere and queue its name"
        )
    if b"null" in document and not _is_finite(payload):
        # orjson writes null for them, without a word.
        raise PayloadError("holds NaN or an infinite number, which JSON does not have")
    if isinstance(payload, int | float) and not isinstance(payload, bool) and not _survives(payload):
        raise PayloadError(f'is the number {payload!r}, which SQLite would round; put it into an object: {{"value": …}}')
    return document.decode()


def is_same(one: ColumnElement[Any], other: ColumnElement[Any], dialect: str) -> ColumnElement[bool]:
    """Compare two stored payloads by their text: PostgreSQL has no equality for JSON, and its JSONB refuses an escaped NUL."""
    if dialect == "postgresql":
        return one.cast(Text).is_not_distinct_from(other.cast(Text))
    return type_coerce(one, Text).is_not_distinct_from(type_coerce(other, Text))


def _is_finite(value: Any) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, dict):
        return all(map(_is_finite, value.values()))
    return all(map(_is_finite, value)) if isinstance(value, list | tuple) else True


def _survives(number: float) -> bool:
    """Tell whether SQLite keeps a document that is nothing but this number: it makes a number of its own of the text."""
    if isinstance(number, int):
        return -(2**63) <= number < 2**63
    return number == 0 or (float(f"{number:.15g}") == number and 1e-7 <= abs(number) <= 1e15)
