"""Makes requests conditional, with `ETag` and `Last-Modified` of an earlier answer (RFC 9110, section 8.8)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Validator:
    """Identifies one version of an answer.

    Args:
        etag: as it came, quotes and `W/` included.
        modified: the value of `Last-Modified`, as it came.
    """

    etag: str | None = None
    modified: str | None = None

    @classmethod
    def of(cls, headers: Mapping[str, str]) -> Validator | None:
        """Return the validator in an answer's headers (names in lower case), or None.

        A `Last-Modified` within the second of the answer is not used: the entity may change again in that second (RFC 9110,
        section 8.8.2.2).
        """
        modified = headers.get("last-modified") or None
        if modified is not None and not _is_settled(modified, headers.get("date", "")):
            modified = None
        found = cls(headers.get("etag") or None, modified)
        return found if found.etag or found.modified else None

    def headers(self) -> dict[str, str]:
        """Return what makes a request conditional on it."""
        sent = {"If-None-Match": self.etag, "If-Modified-Since": self.modified}
        return {name: value for name, value in sent.items() if value}


class Validators(Protocol):
    """Keeps validators per identity, method and URL, because another sign-in sees another answer.

    A stored validator means that the answer it came with is stored. So `put`, which is called when an answer came, must only
    remember it until then; otherwise a crash in between leaves an entity that is answered by 304 for ever and was never saved.
    """

    def get(self, identity: str, method: str, url: str) -> Validator | None:
        """Return the validator of the answer that is stored, or None. `url` is without credentials."""
        ...

    def put(self, identity: str, method: str, url: str, validator: Validator) -> None:
        """Remember the validator of an answer that has just come."""
        ...


def _is_settled(modified: str, date: str) -> bool:
    # Imported here, because a file that only declares a client is read at every start.
    from email.utils import parsedate_to_datetime

    try:
        return parsedate_to_datetime(date) - parsedate_to_datetime(modified) >= timedelta(seconds=1)
    except (ValueError, TypeError):
        return not date


_offered: ContextVar[Validators | None] = ContextVar("clients_validators", default=None)

offered = _offered.get
"""Returns the validators of this thread (or context), or `None`."""


@contextmanager
def offering(validators: Validators | None) -> Iterator[None]:
    """Make the GETs of this thread (or context) conditional, whatever client sends them."""
    token = _offered.set(validators)
    try:
        yield
    finally:
        _offered.reset(token)
