"""Paginators for APIs whose answers name the next page, by a cursor or a link. Each is a frozen value.

`offset_paginators` has those that count. An empty page does not end a listing of this kind, since servers may filter out all
rows of a page; a page that is empty *and* leads to itself does.
"""

from __future__ import annotations

from dataclasses import dataclass

from clients.errors import PageError
from clients.listings.jmespaths import compile_path
from clients.listings.link_header import link_target, next_url
from clients.page import PageAnswer, PageRequest


class _FromStart:
    """A paginator whose first request has no parameters of its own."""

    __slots__ = ()

    def first(self) -> PageRequest:
        """Return the request as the listing declares it."""
        return PageRequest()


class _ByPath(_FromStart):
    """One that looks for the next page at a JMESPath in the body."""

    __slots__ = ()
    path: str

    def __post_init__(self) -> None:
        compile_path(self.path)


@dataclass(frozen=True, slots=True)
class Cursor(_ByPath):
    """The body has the next cursor at JMESPath `path`, sent as `?cursor=…` until missing, null, false, 0 or empty."""

    path: str
    param: str = "cursor"

    def next(self, request: PageRequest, answer: PageAnswer) -> PageRequest | None:
        """Return the request with the cursor of `answer`, or None when it has none."""
        value = compile_path(self.path)(answer.body)
        if not value:
            return None
        if isinstance(value, bool) or not isinstance(value, (str, int)):
            raise PageError(f"the cursor at {self.path!r} is neither text nor a number ({type(value).__name__})")
        # Feeds of changes hand out the same cursor until there is something new (dlt#3358).
        return PageRequest({self.param: value}) if answer.items or request.params.get(self.param) != value else None


@dataclass(frozen=True, slots=True)
class HeaderCursor(_FromStart):
    """A header has the next cursor, sent as `?cursor=…` until it is missing or empty.

    Args:
        header: such as `X-Next-Cursor`.
        param: the parameter that it is sent as.
    """

    header: str
    param: str = "cursor"

    def next(self, request: PageRequest, answer: PageAnswer) -> PageRequest | None:
        """Return the request with the cursor of `answer`, or None when it has none."""
        value = answer.headers.get(self.header.lower(), "").strip()
        if not value:
            return None
        return PageRequest({self.param: value}) if answer.items or request.params.get(self.param) != value else None


@dataclass(frozen=True, slots=True)
class Continue(_ByPath):
    """MediaWiki: the body has an object at JMESPath `path`; its members are the parameters of the next request."""

    path: str = "continue"

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
        return PageRequest(dict(members)) if answer.items or members != request.params else None


@dataclass(frozen=True, slots=True)
class NextLink(_ByPath):
    """The body has the next URL at JMESPath `path`, absolute or relative, as text or as JSON:API's `{"href": …}`."""

    path: str = "next"

    def next(self, request: PageRequest, answer: PageAnswer) -> PageRequest | None:
        """Return the request for the link, or None when it is missing, null, false or empty."""
        value = compile_path(self.path)(answer.body)
        if isinstance(value, dict):
            value = value.get("href")
        if value is None or value is False or value == "":
            return None
        if not isinstance(value, str):
            raise PageError(f"the next link at {self.path!r} is not text ({type(value).__name__})")
        return _linked(value, answer)


@dataclass(frozen=True, slots=True)
class LinkHeader(_FromStart):
    """`Link: <…>; rel="next"` (RFC 8288)."""

    def next(self, request: PageRequest, answer: PageAnswer) -> PageRequest | None:
        """Return the request for the target of the relation `next`, or None without one."""
        target = link_target(answer.headers.get("link", ""), "next", base=answer.url)
        return None if target is None else _linked(target, answer)


@dataclass(frozen=True, slots=True)
class ODataLink(_FromStart):
    """OData: the body has the next URL as `@odata.nextLink` (4.0), `@nextLink` (4.01), `odata.nextLink` (3) or `d.__next` (2)."""

    def next(self, request: PageRequest, answer: PageAnswer) -> PageRequest | None:
        """Return the request for the link, or None without one."""
        body = answer.body
        if not isinstance(body, dict):
            return None
        older = body.get("d")
        for value in (*map(body.get, _ODATA), older.get("__next") if isinstance(older, dict) else None):
            if value not in (None, ""):
                if not isinstance(value, str):
                    raise PageError(f"the next link of OData is not text ({type(value).__name__})")
                return _linked(value, answer)
        return None


@dataclass(frozen=True, slots=True)
class RelayCursor(_ByPath):
    """GraphQL by the connections specification of Relay: `pageInfo { hasNextPage endCursor }`.

    The query goes into the `json` of the listing (`{"query": …, "variables": {…}}`, `method="POST"`); the cursor becomes the
    variable `variable` of the next request.

    Args:
        path: JMESPath of the connection (`data.pets`) or of its `pageInfo`.
        variable: the variable that the query hands to `after:`.
    """

    path: str
    variable: str = "after"

    def next(self, request: PageRequest, answer: PageAnswer) -> PageRequest | None:
        """Return the request with the cursor as a variable, or None when there is no next page.

        Raises:
            PageError: the answer has errors, no `pageInfo`, or a next page and no cursor for it.
        """
        if isinstance(answer.body, dict) and answer.body.get("errors"):
            raise PageError("the answer of GraphQL has errors, so that rows may be missing")
        found = compile_path(self.path)(answer.body)
        info = found.get("pageInfo", found) if isinstance(found, dict) else None
        if not isinstance(info, dict) or "hasNextPage" not in info:
            raise PageError(f"no pageInfo with hasNextPage at {self.path!r}; ask for it in the query")
        if not info["hasNextPage"]:
            return None
        cursor = info.get("endCursor")
        if not isinstance(cursor, str) or not cursor:
            raise PageError("there is a next page, but no endCursor; ask for it in the query")
        return PageRequest({"variables": {self.variable: cursor}})


_ODATA = ("@odata.nextLink", "@nextLink", "odata.nextLink")


def _linked(target: str, answer: PageAnswer) -> PageRequest | None:
    url = next_url(target, base=answer.url)
    return PageRequest(url=url) if answer.items or url != answer.url else None
