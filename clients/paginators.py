"""The ways in which APIs cut a listing into pages, each a frozen value with a pure "next request".

Knows no HTTP; sends nothing.

An empty page ends the counting kinds (`PageNumber`, `Offset`, `Keyset`), because nothing else tells where they end.
It never ends the announcing kinds (`Cursor`, `NextLink`, `LinkHeader`, `TotalPages`, `Continue`), whose servers may
filter a page down to nothing and go on. A short page ends none: servers cap pages below the limit that was asked for.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from clients.errors import PageError
from clients.links import link_target, next_url
from clients.page import PageAnswer, PageRequest
from clients.paths import compile_path


@dataclass(frozen=True, slots=True)
class SinglePage:
    """Everything is in one answer."""

    def first(self) -> PageRequest:
        """Return the only request."""
        return PageRequest()

    def next(self, request: PageRequest, answer: PageAnswer) -> PageRequest | None:
        """Return None."""
        return None


@dataclass(frozen=True, slots=True)
class PageNumber:
    """`?page=1`, `?page=2`, … until a page is empty."""

    param: str = "page"
    start: int = field(default=1, kw_only=True)
    size_param: str | None = field(default=None, kw_only=True)
    size: int | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        _check_size(self.size_param, self.size)

    def first(self) -> PageRequest:
        """Return the request for page `start`."""
        return PageRequest(_numbered(self.param, self.start, self.size_param, self.size))

    def next(self, request: PageRequest, answer: PageAnswer) -> PageRequest | None:
        """Return the request for the next number, or None after an empty page."""
        if not answer.items:
            return None
        return PageRequest(_numbered(self.param, _number(request, self.param) + 1, self.size_param, self.size))


@dataclass(frozen=True, slots=True)
class Offset:
    """`?offset=0&limit=100`, then as many further as rows came, until a page is empty.

    It advances by the rows received: a server that caps pages at 50 would lose every other 50 rows if it advanced by
    `limit`.
    """

    param: str = "offset"
    limit_param: str | None = field(default="limit", kw_only=True)
    limit: int = field(default=100, kw_only=True)

    def __post_init__(self) -> None:
        if self.limit < 1:
            raise ValueError("Offset: limit must be at least 1")

    def first(self) -> PageRequest:
        """Return the request for the first rows."""
        return PageRequest(_numbered(self.param, 0, self.limit_param, self.limit))

    def next(self, request: PageRequest, answer: PageAnswer) -> PageRequest | None:
        """Return the request for the rows after those received, or None when none came."""
        if not answer.items:
            return None
        offset = _number(request, self.param) + len(answer.items)
        return PageRequest(_numbered(self.param, offset, self.limit_param, self.limit))


@dataclass(frozen=True, slots=True)
class TotalPages:
    """`?page=1` … `?page=n`, where a header (`X-WP-TotalPages`) or the body at JMESPath `path` announces n.

    A page that does not announce it is followed by the next one until a page is empty, so that nothing is lost.
    """

    header: str | None = field(default=None, kw_only=True)
    path: str | None = field(default=None, kw_only=True)
    param: str = field(default="page", kw_only=True)
    start: int = field(default=1, kw_only=True)
    size_param: str | None = field(default=None, kw_only=True)
    size: int | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        if (self.header is None) == (self.path is None):
            raise ValueError("TotalPages: give either header or path")
        _check_size(self.size_param, self.size)
        if self.path is not None:
            compile_path(self.path)

    def first(self) -> PageRequest:
        """Return the request for page `start`."""
        return PageRequest(_numbered(self.param, self.start, self.size_param, self.size))

    def next(self, request: PageRequest, answer: PageAnswer) -> PageRequest | None:
        """Return the request for the next number, or None after the announced last one."""
        number = _number(request, self.param)
        total = self._total(answer)
        if not answer.items if total is None else number - self.start + 1 >= total:
            return None
        return PageRequest(_numbered(self.param, number + 1, self.size_param, self.size))

    def _total(self, answer: PageAnswer) -> int | None:
        where = f"header {self.header}" if self.path is None else repr(self.path)
        value = answer.headers.get((self.header or "").lower()) if self.path is None else compile_path(self.path)(answer.body)
        if value is None or value == "":
            return None
        if isinstance(value, str) and value.strip().isdecimal():
            return int(value)
        if isinstance(value, (int, float)) and not isinstance(value, bool) and value >= 0 and value == int(value):
            return int(value)
        raise PageError(f"the number of pages at {where} is not a number ({type(value).__name__})")


@dataclass(frozen=True, slots=True)
class Cursor:
    """The body has the next cursor at JMESPath `path`, sent as `?cursor=…` until missing, null, false, 0 or empty."""

    path: str
    param: str = "cursor"

    def __post_init__(self) -> None:
        compile_path(self.path)

    def first(self) -> PageRequest:
        """Return the request without a cursor."""
        return PageRequest()

    def next(self, request: PageRequest, answer: PageAnswer) -> PageRequest | None:
        """Return the request with the cursor of `answer`, or None when it has none."""
        value = compile_path(self.path)(answer.body)
        if not value:
            return None
        if isinstance(value, bool) or not isinstance(value, (str, int)):
            raise PageError(f"the cursor at {self.path!r} is neither text nor a number ({type(value).__name__})")
        return PageRequest({self.param: value})


@dataclass(frozen=True, slots=True)
class Keyset:
    """`?since_id=<the last item's field>` until a page is empty. `field` is JMESPath in the item."""

    param: str
    field: str

    def __post_init__(self) -> None:
        compile_path(self.field)

    def first(self) -> PageRequest:
        """Return the request without the parameter."""
        return PageRequest()

    def next(self, request: PageRequest, answer: PageAnswer) -> PageRequest | None:
        """Return the request for what comes after the last item, or None after an empty page."""
        if not answer.items:
            return None
        value = compile_path(self.field)(answer.items[-1])
        if isinstance(value, bool) or not isinstance(value, (str, int, float)) or value == "":
            raise PageError(f"the last item has no usable {self.field!r} to continue after ({type(value).__name__})")
        return PageRequest({self.param: value})


@dataclass(frozen=True, slots=True)
class Continue:
    """MediaWiki: the body has an object at JMESPath `path`; its members are the parameters of the next request."""

    path: str = "continue"

    def __post_init__(self) -> None:
        compile_path(self.path)

    def first(self) -> PageRequest:
        """Return the request without further parameters."""
        return PageRequest()

    def next(self, request: PageRequest, answer: PageAnswer) -> PageRequest | None:
        """Return the request with the members of the object, or None when there is none or it is empty."""
        members = compile_path(self.path)(answer.body)
        if members in (None, False, "", [], {}):
            # An empty list is how PHP writes an empty object.
            return None
        if not isinstance(members, dict):
            raise PageError(f"{self.path!r} is not an object ({type(members).__name__})")
        if not all(isinstance(value, (str, int, float)) for value in members.values()):
            raise PageError(f"{self.path!r} has a member that is neither text nor a number")
        return PageRequest(dict(members))


@dataclass(frozen=True, slots=True)
class NextLink:
    """The body has the next URL at JMESPath `path`, absolute or relative, as text or as JSON:API's `{"href": …}`."""

    path: str = "next"

    def __post_init__(self) -> None:
        compile_path(self.path)

    def first(self) -> PageRequest:
        """Return the request as the listing declares it."""
        return PageRequest()

    def next(self, request: PageRequest, answer: PageAnswer) -> PageRequest | None:
        """Return the request for the link, or None when it is missing, null, false or empty."""
        value = compile_path(self.path)(answer.body)
        if isinstance(value, dict):
            value = value.get("href")
        if value is None or value is False or value == "":
            return None
        if not isinstance(value, str):
            raise PageError(f"the next link at {self.path!r} is not text ({type(value).__name__})")
        return PageRequest(url=next_url(value, base=answer.url))


@dataclass(frozen=True, slots=True)
class LinkHeader:
    """`Link: <…>; rel="next"` (RFC 8288)."""

    def first(self) -> PageRequest:
        """Return the request as the listing declares it."""
        return PageRequest()

    def next(self, request: PageRequest, answer: PageAnswer) -> PageRequest | None:
        """Return the request for the target of the relation `next`, or None without one."""
        target = link_target(answer.headers.get("link", ""), "next", base=answer.url)
        return None if target is None else PageRequest(url=next_url(target, base=answer.url))


def _numbered(param: str, number: int, size_param: str | None, size: int | None) -> dict[str, Any]:
    if size_param is None or size is None:
        return {param: number}
    return {param: number, size_param: size}


def _number(request: PageRequest, param: str) -> int:
    value = request.params.get(param)
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise ValueError(f"the stored cursor of the listing has no number at {param!r}; was its paginator changed?")


def _check_size(size_param: str | None, size: int | None) -> None:
    if (size_param is None) != (size is None):
        raise ValueError("give both size_param and size, or neither")
    if size is not None and size < 1:
        raise ValueError("size must be at least 1")
