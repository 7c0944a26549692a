"""Checks and encodes payloads: any JSON, up to a size, that both databases return unchanged."""

from typing import Any

from sqlalchemy import ColumnElement, Text, type_coerce

from jobs.db.json_codec import ROUNDED, document
from jobs.errors import PayloadError

PAYLOAD_LIMIT = 1024 * 1024
"""Bytes of a payload's JSON. Larger data belongs in a file or a table, with its name in the payload."""


def payload_text(payload: Any) -> str:
    """Return the JSON of a payload.

    Raises:
        PayloadError: it is not JSON, both databases would not keep it, or it is too large.
    """
    try:
        text = document(payload)
    except PayloadError as error:
        said = str(error)
        raise PayloadError(f"is {said}" if said.startswith("not JSON") else said) from error
    size = len(text.encode()) if len(text) * 4 > PAYLOAD_LIMIT else 0
    if size > PAYLOAD_LIMIT:
        raise PayloadError(
            f"has {size:,} bytes of JSON, the limit is {PAYLOAD_LIMIT:,}; keep the data elsewhere and queue its name"
        )
    if type(payload) is int and not -(2**63) <= payload < 2**63:
        # It would come back as a float, and have another fingerprint.
        raise PayloadError(ROUNDED.format(payload))
    return text


def is_same(one: ColumnElement[Any], other: ColumnElement[Any], dialect: str) -> ColumnElement[bool]:
    """Compare two stored payloads by their text: PostgreSQL has no equality for JSON, and its JSONB refuses an escaped NUL."""
    if dialect == "postgresql":
        return one.cast(Text).is_not_distinct_from(other.cast(Text))
    return type_coerce(one, Text).is_not_distinct_from(type_coerce(other, Text))
