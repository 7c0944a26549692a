"""Computes fingerprints of jobs and hashes of records; the same value gives the same text in every process and version."""

import hashlib
from collections.abc import Iterable
from typing import Any

from jobs.db.json_codec import encode


def canonical(value: Any) -> bytes:
    """Return JSON with sorted keys, so that the order of keys does not matter.

    Raises:
        PayloadError: the value is not JSON.
    """
    return encode(value, sort_keys=True)


def fingerprint(job_type: str, value: Any) -> str:
    """Return the first 128 bits of SHA-256 over type and value, as hex.

    Both are put into one JSON array, so that different pairs of type and value never give the same text.
    """
    return hashlib.sha256(canonical([job_type, value])).hexdigest()[:32]


def entity_fingerprint(sync: str, key: str) -> str:
    """Return the fingerprint of an entity's job: readable if the key has at most 100 characters, else a hash.

    Readable, because hashes scatter the jobs of one page over the whole unique index: measured on SQLite, a claim of 25 then
    takes 250 µs more to write. The id of a sync never contains a slash, so two pairs never give the same text.
    """
    return f"{sync}/{key}" if len(key) <= 100 else fingerprint(sync, key)


def entity_fingerprints(sync: str, keys: Iterable[str]) -> list[str]:
    """Return the fingerprints of the entities of a page, in the order of their keys."""
    return [entity_fingerprint(sync, key) for key in keys]


def content_hash(value: Any) -> str:
    """Return the hash of a record's data."""
    return hashlib.sha256(canonical(value)).hexdigest()[:32]
