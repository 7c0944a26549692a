"""A listing as declared: which request, which paginator, where the items, their keys and versions are.

Knows no database.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, Protocol

import orjson

from clients.errors import PageError, UnreadableError
from clients.page import Entity, PageAnswer, PageRequest, Paginator
from clients.paginators import RelayCursor, SinglePage
from clients.paging import Paging
from clients.paths import Lookup, compile_path
from clients.proof import key_digest


class Lister(Protocol):
    """What a listing needs of a connection; `HttpClient` is one."""

    def answer(self, method: str, path: str, *, params: Mapping[str, Any] | None = None, json: Any = None) -> PageAnswer:
        """Send one request and return its JSON body with where it came from."""
        ...

    def without_credentials(self, url: str) -> str:
        """Return `url` without anything that the connection adds by itself."""
        ...


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
            a listing that is shorter is read again whole. 0 trusts the rows to stand still.

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
    recheck: int = 5

    def __post_init__(self) -> None:
        # A broken path is the declaration's fault: it is found when the file is read, not when the sync runs.
        for expression in (self.items, self.key, self.version, self.total):
            if expression is not None:
                compile_path(expression)
        if self.recheck < 0 or min(1 if one is None else one for one in (self.max_pages, self.max_seconds)) <= 0:
            raise ValueError("Listing: max_pages and max_seconds must be positive, recheck not negative")
        if isinstance(self.paginator, RelayCursor) and not (isinstance(self.json, dict) and "query" in self.json):
            raise ValueError("Listing: RelayCursor needs the query, as json={'query': …}, and method='POST'")

    @property
    def _is_graphql(self) -> bool:
        return isinstance(self.json, dict) and isinstance(self.json.get("query"), str) and self.method.upper() == "POST"

    def __call__(self, conn: Lister, since: Mapping[str, str] | None = None) -> Paging:
        """Yield the pages from the start. `since` holds further parameters that ask for changed entities only."""
        return self.pages(conn, since=since)

    def pages(self, conn: Lister, *, cursor: Any = None, since: Mapping[str, str] | None = None) -> Paging:
        """Yield the pages after `cursor`, or from the start; what is returned also says how far it is and why it stopped.

        Args:
            cursor: the `cursor` of the last page that was stored; it holds the `since` of its listing, which then
                counts.

        Raises (while iterating):
            ValueError: the cursor is not one of this listing, as it is declared now; raised at once.
            PageError: a page does not have the declared shape.
            IncompleteError: the listing goes round in circles, passed a limit or is short; all its pages were yielded.
            ClientError: the request failed.
        """
        return Paging(self, conn, cursor=cursor, since=since)

    # What a page means; for `paging`.

    @property
    def identity(self) -> str:
        """What stands for the rows that it shows, and their order: a cursor is only good for the listing that gave it."""
        told = (self.path, self.method, self.params, self.json, self.items, self.key, self.paginator)
        return key_digest(repr(told))

    def send(self, conn: Lister, request: PageRequest, since: Mapping[str, str]) -> PageAnswer:
        """Send the request of one page."""
        if request.url is not None:
            return conn.answer(self.method, request.url, json=self.json)
        extra = {**since, **request.params}
        if isinstance(self.json, dict):
            return conn.answer(self.method, self.path, params=self.params, json=_merged(self.json, extra))
        return conn.answer(self.method, self.path, params={**(self.params or {}), **extra}, json=self.json)

    def raw_items(self, answer: PageAnswer) -> Sequence[Any]:
        """Return the items of a page; none where they are null or missing.

        Raises:
            UnreadableError: there are none, and the body says that something went wrong, whatever the status said.
            PageError: something else than a list is where they should be.
        """
        body = answer.body
        found = body if self.items is None else compile_path(self.items)(body)
        if isinstance(found, list):
            if self._is_graphql and isinstance(body, dict) and body.get("errors"):
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

    def entities(self, items: Sequence[Any]) -> tuple[list[Entity], list[str], list[str]]:
        """Return the entities of a page, a line for each item that has no key, and the contents of those."""
        key_of = compile_path(self.key)
        version_of: Lookup | None = None if self.version is None else compile_path(self.version)
        entities: list[Entity] = []
        errors: list[str] = []
        keyless: list[str] = []
        for position, item in enumerate(items):
            key = key_of(item)
            # type() and not isinstance(): true is an int, and this is the inner loop.
            if type(key) is int:
                key = str(key)
            elif type(key) is not str or not key:
                what = "empty" if key == "" else type(key).__name__
                errors.append(f"item {position} of the page has no key at {self.key!r} ({what})")
                keyless.append(repr(item))
                continue
            version = None if version_of is None else version_of(item)
            if version is not None and type(version) is not str:
                version = orjson.dumps(version, option=orjson.OPT_SORT_KEYS).decode()
            entities.append(Entity(key, version, item))
        return entities, errors, keyless

    def announced(self, answer: PageAnswer) -> int | None:
        """Return how many entities a page says that there are, or None where it says nothing usable."""
        value = None if self.total is None else compile_path(self.total)(answer.body)
        if value is None and self.total_header is not None:
            value = answer.headers.get(self.total_header.lower(), "").strip()
        if isinstance(value, str) and value.isdecimal():
            return int(value)
        return value if type(value) is int and value >= 0 else None

    def remark(self, answer: PageAnswer) -> str:
        """Return what a body says in place of its items: where they should be is nothing, not even null. Empty where all is well.

        It may be an error with a good status, or how the API says that there is nothing more; only what follows tells.
        """
        body = answer.body
        name = None if self.items is None else _FIRST.match(self.items)
        if name is None or not isinstance(body, dict) or name.group() in body:
            return ""
        said = ((name, body.get(name)) for name in ("message", "msg", "detail", "reason", "error_message", "errorMessage"))
        found = next((name for name, text in said if isinstance(text, str) and text.strip().lower() not in _GOOD), "")
        return f"a page had no {self.items!r} and a {found!r} in its place: maybe an error with a good status" if found else ""


_FIRST = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_GOOD = frozenset({"", "ok", "okay", "success", "successful", "succeeded", "done"})


def _merged(body: Mapping[str, Any], extra: Mapping[str, Any]) -> dict[str, Any]:
    """Return `body` with `extra` in it; an object that meets an object goes into it, as GraphQL's variables do."""
    merged = dict(body)
    for name, value in extra.items():
        there = merged.get(name)
        merged[name] = {**there, **value} if isinstance(there, dict) and isinstance(value, dict) else value
    return merged


def _complaint(body: Mapping[str, Any]) -> str:
    """Return the name of the member by which a body says that it is an error, or an empty text."""
    named = (name for name in ("error", "errors", "fault", "exception", "Fault") if body.get(name))
    said = (name for name in ("success", "ok") if body.get(name) is False)
    status = ("status" for word in (body.get("status"),) if isinstance(word, str) and word.lower() in ("error", "fail", "failed"))
    return next((repr(name) for names in (named, said, status) for name in names), "")
