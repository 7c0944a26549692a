"""`Listing`: a listing over HTTP as declared: its request and paginator, and where items, keys and versions are."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import Any

from clients.environment import resolved
from clients.errors import PageError, UnreadableError
from clients.http.graphql import has_errors
from clients.http.status import ContentRange
from clients.json_codec import encode
from clients.listings.cursor_paginators import RelayCursor
from clients.listings.jmespaths import Lookup, compile_path, fields_instead
from clients.listings.loops_and_completeness import key_digest
from clients.listings.page_iterator import Paging
from clients.listings.single_page import SinglePage
from clients.page import Entity, Lister, PageAnswer, PageRequest, Paginator


@dataclass(frozen=True)
class Listing:
    """Lists the entities of one kind, page by page.

    Args:
        path: relative to the client's base URL, or absolute.
        paginator: how the API pages.
        items: JMESPath of the list in the body; None when the body itself is the list.
        key: JMESPath in an item of what identifies it: text or a whole number.
        version: JMESPath in an item of what changes when it changes; None when nothing does.
        params: query parameters of every request; a link that is followed brings its own.
        method: `GET`, or `POST` for APIs that are searched by body.
        json: body of every request. When it is an object, paging (and `since`) parameters go into it instead of the
            query.
        total: JMESPath in the body of how many entities there are in all. A listing that shows fewer is `short`.
        total_header: header that says so instead, such as `X-Total-Count`.
        max_pages, max_seconds: ends the listing with `LimitError` when another page would pass it.
        recheck: how many pages of a listing by numbers are read again at its end, to see whether rows moved meanwhile;
            a listing that is shorter is read again whole. 0 trusts the rows to stand still. Default: 5; where a total or the
            flag of the paginator shows the end, one or two, so that n pages cost at most n + 2 requests.

    Raises:
        ValueError: one of the paths is not JMESPath, or a number is out of range.
    """

    path: str
    paginator: Paginator = field(default_factory=SinglePage)
    _: KW_ONLY
    items: str | None = None
    key: str = "id"
    version: str | None = None
    params: Mapping[str, Any] | None = None
    method: str = "GET"
    json: Any = None
    total: str | None = None
    total_header: str | None = None
    max_pages: int | None = None
    max_seconds: float | None = None
    recheck: int | None = None

    def __post_init__(self) -> None:
        # A broken path is a mistake in the declaration: it is reported when the file is read, not when the sync runs.
        for expression in (self.items, self.key, self.version, self.total):
            if expression is not None:
                compile_path(expression)
        if (self.recheck or 0) < 0 or min(1 if one is None else one for one in (self.max_pages, self.max_seconds)) <= 0:
            raise ValueError("Listing: max_pages and max_seconds must be positive, recheck not negative")
        if isinstance(self.paginator, RelayCursor) and not (isinstance(self.json, dict) and "query" in self.json):
            raise ValueError("Listing: RelayCursor needs the query, as json={'query': …}, and method='POST'")

    def __call__(self, conn: Lister, since: Mapping[str, str] | None = None) -> Paging:
        """Yield the pages from the start. `since` holds further parameters that ask for changed entities only."""
        return self.pages(conn, since=since)

    def pages(self, conn: Lister, *, cursor: Any = None, since: Mapping[str, str] | None = None) -> Paging:
        """Yield the pages after `cursor`, or from the start; the iterator also says how far it is and why it stopped.

        Args:
            cursor: the `cursor` of the last page that was stored. It holds the `since` of its listing, which is then used.

        Raises (while iterating):
            ValueError: the cursor is not one of this listing, as it is declared now; raised at once.
            PageError: a page does not have the declared shape.
            IncompleteError: the listing is in a loop, passed a limit or is short; all its pages were yielded.
            ClientError: the request failed.
        """
        return Paging(self, conn, cursor=cursor, since=since)

    # What a page means; for the page loop.

    @property
    def identity(self) -> str:
        """A digest of what decides about the rows and their order: a cursor is only valid for the listing that it came from."""
        declared = (self.path, self.method, self.params, self.json, self.items, self.key, self.paginator)
        return key_digest(repr(declared))

    def send(self, conn: Lister, request: PageRequest, since: Mapping[str, str]) -> PageAnswer:
        """Send the request of one page."""
        if request.url is not None:
            return conn.answer(self.method, request.url, json=resolved(self.json))
        extra = {**since, **request.params}
        params, json = resolved((self.params, self.json))
        if isinstance(json, dict):
            return conn.answer(self.method, self.path, params=params, json=_merged(json, extra))
        return conn.answer(self.method, self.path, params={**(params or {}), **extra}, json=json)

    def raw_items(self, answer: PageAnswer) -> Sequence[Any]:
        """Return the items of a page; none where they are null or missing.

        Raises:
            UnreadableError: there are none, and the body says that there was an error, whatever the status.
            PageError: there is something else than a list.
        """
        body = answer.body
        found = body if self.items is None else compile_path(self.items)(body)
        if isinstance(found, list):
            if isinstance(body, dict) and "errors" in body and has_errors(self.json, body):
                raise PageError(
                    "the answer of GraphQL has errors, so that rows may be missing", url=answer.url, method=self.method
                )
            return found
        if found is None:
            if isinstance(body, dict) and (word := _complaint(body)):
                message = f"no items, and the body has {word}: an error with a good status"
                raise UnreadableError(message, url=answer.url, method=self.method)
            return ()
        where = "the body" if self.items is None else f"the body at {self.items!r}"
        hint = ""
        if isinstance(found, dict):
            lists = [name for name, value in found.items() if isinstance(value, list)]
            hint = f"; lists are at {', '.join(map(repr, lists[:5]))}" if lists else ""
        raise PageError(f"{where} is not a list ({type(found).__name__}){hint}", url=answer.url, method=self.method)

    def has_list(self, answer: PageAnswer) -> bool:
        """Say whether the body has a list where the items should be; null, or an empty object on the way to it, is one."""
        body = answer.body
        if self.items is None or body is None:
            return body is not None
        return compile_path(self.items)(body) is not None or _is_empty_at(self.items, body)

    def entities(self, items: Sequence[Any]) -> tuple[list[Entity], list[str], list[str]]:
        """Return the entities of a page, a line for each item that has no key, and the contents of those."""
        key_of = compile_path(self.key)
        version_of: Lookup | None = None if self.version is None else compile_path(self.version)
        entities: list[Entity] = []
        errors: list[str] = []
        keyless: list[str] = []
        for position, item in enumerate(items):
            key = key_of(item)
            # type() and not isinstance(): True is an int, and this is the inner loop.
            if type(key) is int:
                key = str(key)
            elif type(key) is not str or not key:
                what = "empty" if key == "" else type(key).__name__
                # Some APIs list nothing but keys: ["a", "b"].
                hint = "" if isinstance(item, dict | list | None) else ': the items are no objects; key="@" takes the item itself'
                # Once is enough: the other items of a page have the same fields.
                hint = hint or ("" if keyless else fields_instead(self.key, item))
                errors.append(f"item {position} of the page has no key at {self.key!r} ({what}){hint}")
                keyless.append(repr(item))
                continue
            version = None if version_of is None else version_of(item)
            if version is not None and type(version) is not str:
                try:
                    version = encode(version, sort_keys=True).decode()
                except ValueError as error:
                    errors.append(f"{key[:40]!r} has no version at {self.version!r}: it {error}")
                    continue
            entities.append(Entity(key, version, item))
        return entities, errors, keyless

    def announced(self, answer: PageAnswer) -> int | None:
        """Return the number of entities that a page announces, or None. Where none is declared, `Content-Range` may have it."""
        value = None if self.total is None else compile_path(self.total)(answer.body)
        if value is None and self.total_header is not None:
            value = answer.headers.get(self.total_header.lower(), "").strip()
        if self.total is None and self.total_header is None:
            covers = ContentRange.of(answer.headers)
            return None if covers is None or covers.unit == "bytes" else covers.length
        if isinstance(value, str) and value.isdecimal():
            return int(value)
        return value if type(value) is int and value >= 0 else None

    def is_lower_bound(self, answer: PageAnswer) -> bool:
        """Say whether the total is marked as a lower bound, as search engines do (`{"value": 10000, "relation": "gte"}`)."""
        parent, _, _ = (self.total or "").rpartition(".")
        if not parent or parent.count('"') % 2:  # `"@odata.count"` is one name
            return False
        beside = compile_path(parent)(answer.body)
        return isinstance(beside, dict) and beside.get("relation") == "gte"

    def without_items(self, answer: PageAnswer) -> str:
        """Look for the rows of a first page that has none where they should be; say what is there instead, or nothing.

        Many APIs leave an empty list out, or write null for it. So that it is missing is an error at once only where rows are
        seen elsewhere, and at the end where no rows came and the body says something else; it is none where it says nothing.

        Raises:
            PageError: the rows are elsewhere, so the path of the declaration is wrong.
        """
        body = answer.body
        if self.items is None or not body or compile_path(self.items)(body) is not None or _is_empty_at(self.items, body):
            return ""
        missing = f"the body has no {self.items!r}"
        places = ["the body itself"] if isinstance(body, list) else [*map(repr, _rows(body, compile_path(self.key)))]
        if places:
            raise PageError(f"{missing}; rows are at {', '.join(places[:5])}", url=answer.url, method=self.method)
        if self.announced(answer) == 0 or not isinstance(body, dict) or _complaint(body):
            return ""
        says = [name for name, value in body.items() if value not in (None, 0, "") and name not in _ENVELOPE]
        hint = f"if an empty list looks like that, items={f'{self.items} || `[]`'!r} says so"
        return f"{missing}, but {', '.join(map(repr, says[:5]))}: is the path right? {hint}" if says else ""

    def remark(self, answer: PageAnswer) -> str:
        """Return a remark if the body has a message, and no member (not even null) where the items should be; else an empty text.

        It may be an error with a good status, or how the API says that there is nothing more; the next pages show which.
        """
        body = answer.body
        name = None if self.items is None else _FIRST.match(self.items)
        if name is None or not isinstance(body, dict) or name.group() in body:
            return ""
        said = ((name, body.get(name)) for name in ("message", "msg", "detail", "reason", "error_message", "errorMessage"))
        found = next((name for name, text in said if isinstance(text, str) and text.strip().lower() not in _GOOD), "")
        return f"a page had no {self.items!r} and a {found!r} in its place: maybe an error with a good status" if found else ""


_BESIDE = frozenset({"_links", "aggregations", "errors", "facets", "included", "links", "warnings"})
"""Members whose lists are not the rows: they may come beside a list that is empty and left out."""

_ENVELOPE = _BESIDE | {
    "@odata.context", "apiVersion", "code", "etag", "href", "id", "kind", "meta", "metadata", "ok", "request_id", "requestId",
    "self", "selfLink", "status", "success", "time", "timestamp", "took", "url", "version",
}  # fmt: skip
"""Members that say nothing about rows."""

_DEPTH = 3

_FIRST = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_GOOD = frozenset({"", "ok", "okay", "success", "successful", "succeeded", "done"})


def _merged(body: Mapping[str, Any], extra: Mapping[str, Any]) -> dict[str, Any]:
    """Return `body` with `extra` in it; an object that meets an object goes into it, as GraphQL's variables do."""
    merged = dict(body)
    for name, value in extra.items():
        there = merged.get(name)
        merged[name] = {**there, **value} if isinstance(there, dict) and isinstance(value, dict) else value
    return merged


def _is_empty_at(expression: str, body: Any) -> bool:
    """Say whether a body has null, or an empty value, on the way to a plain path: that is how an API writes an empty list."""
    for name in expression.split("."):
        if not isinstance(body, dict) or name not in body:
            return False
        body = body[name]
        if not body:
            return True
    return False


def _rows(body: Mapping[str, Any], key_of: Lookup, *, depth: int = _DEPTH) -> Iterator[str]:
    """Yield the places of what may be the rows: a list of objects, or an object of objects that have a key."""
    for name, value in body.items():
        if name in _BESIDE or not value or not isinstance(value, list | dict):
            continue
        rows = value if isinstance(value, list) else list(value.values())
        is_rows = all(isinstance(row, dict) for row in rows)
        if is_rows and (isinstance(value, list) or all(map(key_of, rows))):
            yield name
        elif isinstance(value, dict) and depth > 1:
            yield from (f"{name}.{place}" for place in _rows(value, key_of, depth=depth - 1))


def _complaint(body: Mapping[str, Any]) -> str:
    """Return the name of the member by which a body says that it is an error, or an empty text."""
    named = (name for name in ("error", "errors", "fault", "exception", "Fault") if body.get(name))
    said = (name for name in ("success", "ok") if body.get(name) is False)
    status = ("status" for word in (body.get("status"),) if isinstance(word, str) and word.lower() in ("error", "fail", "failed"))
    return next((repr(name) for names in (named, said, status) for name in names), "")
