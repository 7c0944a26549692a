"""What makes a request conditional: the validators of the last answer (RFC 9110, section 8.8). Keeps nothing by itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Validator:
    """What tells whether an answer is still the same.

    Args:
        etag: as it came, quotes and `W/` included.
        modified: the value of `Last-Modified`, as it came.
    """

    etag: str | None = None
    modified: str | None = None

    @classmethod
    def of(cls, headers: Mapping[str, str]) -> Validator | None:
        """Return the validator in an answer's headers (names in lower case), or None."""
        found = cls(headers.get("etag") or None, headers.get("last-modified") or None)
        return found if found.etag or found.modified else None

    def headers(self) -> dict[str, str]:
        """Return what makes a request conditional on it."""
        sent = {"If-None-Match": self.etag, "If-Modified-Since": self.modified}
        return {name: value for name, value in sent.items() if value}


class Validators(Protocol):
    """Keeps validators per identity, method and URL: another sign-in sees another answer (hishel gave token B that of A).

    A validator means "what came with it is stored". So `put`, which is called when an answer came, should only set it aside
    until that is true; otherwise a crash in between leaves an entity that answers 304 for ever and was never saved.
    """

    def get(self, identity: str, method: str, url: str) -> Validator | None:
        """Return the validator of the answer that is stored, or None. `url` is without credentials."""
        ...

    def put(self, identity: str, method: str, url: str, validator: Validator) -> None:
        """Take in the validator of an answer that came just now."""
        ...
