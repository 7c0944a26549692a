"""The values that a listing, its paginator and a connection exchange: entities, pages, requests and answers of pages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class Entity:
    """One thing that the remote system listed.

    Args:
        key: what identifies it there.
        version: changes when the thing changes; None when the listing has none.
        data: the listed item itself, as decoded JSON.
        path: of an entity that is listed within others: the keys of these, outermost first, and its own, as they were before
            `key` was made of them.
    """

    key: str
    version: str | None = None
    data: Any = field(default=None, hash=False, repr=False)
    path: tuple[str, ...] = field(default=(), kw_only=True)

    @property
    def parent(self) -> str | None:
        """The key of the entity that it is listed within, as it was there; None for all others."""
        return self.path[-2] if len(self.path) > 1 else None

    @property
    def own_key(self) -> str:
        """The key as it was listed, without those of parents."""
        return self.path[-1] if self.path else self.key


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
        later: keys that exist but are left for a later run, such as files that are still being written: while there are
            any, nothing is deleted. The last page has them all.
        doubt: why the listing may be incomplete; then nothing is deleted by it unless a person allows it.
        skew: on the first page: seconds by which the remote system's clock is ahead of ours, by its `Date`. It is never too
            high, because a `Date` has whole seconds, and the answer took some time.
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
        memo: what the paginator remembers until the answer; it is stored with the cursor and never sent.
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
    """The answer to a page request, from which a paginator finds the next one.

    Args:
        body: decoded JSON.
        url: the absolute URL that answered, after redirects.
        headers: names in lower case; repeated ones joined by comma and space (RFC 9110, section 5.3).
        items: the raw items of the page.
        keys: their keys; empty where one of them has none.
        fresh: how many of them no earlier page had; None when unknown.
        missing: how many of the announced entities were not shown yet, this page included; None when unknown.
        shown: how many different ones were shown so far, this page included; 0 when unknown.
        status: of HTTP.
    """

    body: Any
    url: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    items: Sequence[Any] = ()
    keys: Sequence[str] = ()
    fresh: int | None = None
    missing: int | None = None
    shown: int = 0
    status: int = 200


class Paginator(Protocol):
    """Knows how one kind of API pages: a frozen value with two pure methods."""

    def first(self) -> PageRequest:
        """Return the request for the first page."""
        ...

    def next(self, request: PageRequest, answer: PageAnswer) -> PageRequest | None:
        """Return the request after `request`, or None when `answer` was the last page.

        Raises:
            PageError: the answer says something that this kind of paging does not allow.
        """
        ...


class Lister(Protocol):
    """What a listing needs from a connection; `HttpClient` has it."""

    def answer(self, method: str, path: str, *, params: Mapping[str, Any] | None = None, json: Any = None) -> PageAnswer:
        """Send one request and return its JSON body, URL and headers."""
        ...

    def without_credentials(self, url: str) -> str:
        """Return `url` without anything that the connection adds by itself."""
        ...


class DeclaredListing(Protocol):
    """What the page loop needs from a listing; `Listing` has it, and says what each is."""

    @property
    def paginator(self) -> Paginator: ...  # noqa: D102
    @property
    def method(self) -> str: ...  # noqa: D102
    @property
    def params(self) -> Mapping[str, Any] | None: ...  # noqa: D102
    @property
    def max_pages(self) -> int | None: ...  # noqa: D102
    @property
    def max_seconds(self) -> float | None: ...  # noqa: D102
    @property
    def recheck(self) -> int | None: ...  # noqa: D102
    @property
    def identity(self) -> str: ...  # noqa: D102
    def send(self, conn: Lister, request: PageRequest, since: Mapping[str, str]) -> PageAnswer: ...  # noqa: D102
    def raw_items(self, answer: PageAnswer) -> Sequence[Any]: ...  # noqa: D102
    def has_list(self, answer: PageAnswer) -> bool: ...  # noqa: D102
    def entities(self, items: Sequence[Any]) -> tuple[list[Entity], list[str], list[str]]: ...  # noqa: D102
    def announced(self, answer: PageAnswer) -> int | None: ...  # noqa: D102
    def is_lower_bound(self, answer: PageAnswer) -> bool: ...  # noqa: D102
    def without_items(self, answer: PageAnswer) -> str: ...  # noqa: D102
    def remark(self, answer: PageAnswer) -> str: ...  # noqa: D102
