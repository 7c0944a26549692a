"""The values that pass between a listing, its paginator and the world. Knows no HTTP and no JSON path."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class Entity:
    """One thing that the remote system listed.

    Args:
        key: what identifies it there.
        version: changes when the thing changes; None when the listing does not tell.
        data: the listed item itself, as decoded JSON.
    """

    key: str
    version: str | None = None
    data: Any = field(default=None, hash=False, repr=False)


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a listing.

    Args:
        items: its entities, in the order listed.
        cursor: JSON that resumes the listing after this page, or None when it is the last one.
        total: how many entities the whole listing has at least, when the remote system announces it.
        errors: one line for each item that could not become an entity; they do not stop the listing.
        repeated: how many of the items an earlier page of this listing had too.
        warnings: one line for each thing about the listing that a person should know.
        later: keys that are there but left for a later run, such as files that are still being written: while there are
            any, nothing is deleted. The last page has them all.
        doubt: why nobody can tell whether the listing is complete; then nothing is deleted by it unless a person says so.
        skew: on the first page: seconds by which the remote system's clock is ahead of ours, by its `Date`. It is never too
            high: a `Date` has whole seconds, and the answer was on its way meanwhile.
    """

    items: Sequence[Entity]
    cursor: Any = None
    total: int | None = None
    errors: Sequence[str] = ()
    repeated: int = 0
    warnings: Sequence[str] = ()
    later: Sequence[str] = ()
    doubt: str = ""
    skew: float | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class PageRequest:
    """What makes one page request different from the others of its listing; never holds a credential.

    Args:
        params: parameters of this page, over those of the listing; an object is merged into the one it meets.
        url: absolute URL that replaces path and parameters of the listing, for paginators that follow links.
        memo: what the paginator wants to remember until the answer; it is stored with the cursor and never sent.
    """

    params: Mapping[str, Any] = field(default_factory=dict)
    url: str | None = None
    memo: Mapping[str, int] = field(default_factory=dict, compare=False)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values, to be stored as a cursor."""
        stored: dict[str, Any] = {"url": self.url} if self.url is not None else {"params": dict(self.params)}
        if self.memo:
            stored["memo"] = dict(self.memo)
        return stored

    @classmethod
    def from_json(cls, stored: Any) -> PageRequest:
        """Rebuild what `to_json` returned.

        Raises:
            ValueError: `stored` is not such a value.
        """
        if isinstance(stored, dict):
            url, params, memo = stored.get("url"), stored.get("params", {}), stored.get("memo", {})
            if (url is None or isinstance(url, str)) and isinstance(params, dict) and isinstance(memo, dict):
                return cls(params, url, memo)
        raise ValueError("the stored cursor of the listing is not one that this version wrote")


@dataclass(frozen=True, slots=True)
class PageAnswer:
    """What a paginator may look at to find the next request.

    Args:
        body: decoded JSON.
        url: the absolute URL that answered, after redirects.
        headers: names in lower case; repeated ones joined by comma and space (RFC 9110, section 5.3).
        items: the raw items of the page.
        keys: their keys; empty where one of them has none.
        fresh: how many of them no earlier page had; None when nobody counted.
        missing: how many entities were announced and are not shown yet, this page included; None when unknown.
    """

    body: Any
    url: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    items: Sequence[Any] = ()
    keys: Sequence[str] = ()
    fresh: int | None = None
    missing: int | None = None


class Paginator(Protocol):
    """A frozen value that knows how one kind of API pages. Both methods are pure."""

    def first(self) -> PageRequest:
        """Return the request for the first page."""
        ...

    def next(self, request: PageRequest, answer: PageAnswer) -> PageRequest | None:
        """Return the request after `request`, or None when `answer` was the last page.

        Raises:
            PageError: the answer says something that this kind of paging does not allow.
        """
        ...
