"""A listing as declared: which request, which paginator, where the items, their keys and versions are.

Knows no database.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, Protocol

import orjson

from clients.errors import LoopError, PageError
from clients.page import Entity, Page, PageAnswer, PageRequest, Paginator
from clients.paginators import SinglePage
from clients.paths import Lookup, compile_path


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
        total: JMESPath in the body of how many entities there are in all.

    Raises:
        ValueError: one of the paths is not JMESPath.
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

    def __post_init__(self) -> None:
        # A broken path is the declaration's fault: it is found when the file is read, not when the sync runs.
        for expression in (self.items, self.key, self.version, self.total):
            if expression is not None:
                compile_path(expression)

    def __call__(self, conn: Lister, since: Mapping[str, str] | None = None) -> Iterator[Page]:
        """Yield the pages from the start. `since` holds further parameters that ask for changed entities only."""
        return self.pages(conn, since=since)

    def pages(self, conn: Lister, *, cursor: Any = None, since: Mapping[str, str] | None = None) -> Iterator[Page]:
        """Yield the pages after `cursor`, or from the start.

        Args:
            cursor: the `cursor` of the last page that was stored; it holds the `since` of its listing, which then
                counts.

        Raises:
            PageError: a page does not have the declared shape.
            LoopError: a page leads to one that was already had; that page itself was yielded.
            ClientError: the request failed.
        """
        if cursor is None:
            request, since = self.paginator.first(), dict(since or {})
        else:
            request, since = PageRequest.from_json(cursor), _stored_since(cursor)
        seen = {_digest(request)}
        while True:
            answer = self._send(conn, request, since)
            items = self._raw_items(answer)
            following = self.paginator.next(request, PageAnswer(answer.body, answer.url, answer.headers, items))
            if following is None:
                yield self._page(answer, items, None)
                return
            if following.url is not None:
                following = PageRequest(url=conn.without_credentials(following.url))
            stored = following.to_json()
            if since:
                stored["since"] = since
            yield self._page(answer, items, stored)
            digest = _digest(following)
            if digest in seen:
                raise LoopError("this page leads to a page that this listing already had", url=answer.url, method=self.method)
            # 16 bytes a page: a million pages are 100 MB at most, and a listing of that many pages has other worries.
            seen.add(digest)
            request = following

    def _send(self, conn: Lister, request: PageRequest, since: Mapping[str, str]) -> PageAnswer:
        if request.url is not None:
            return conn.answer(self.method, request.url, json=self.json)
        extra = {**since, **request.params}
        if isinstance(self.json, dict):
            return conn.answer(self.method, self.path, params=self.params, json={**self.json, **extra})
        return conn.answer(self.method, self.path, params={**(self.params or {}), **extra}, json=self.json)

    def _raw_items(self, answer: PageAnswer) -> Sequence[Any]:
        found = answer.body if self.items is None else compile_path(self.items)(answer.body)
        if isinstance(found, list):
            return found
        if found is None:
            return ()
        where = "the body" if self.items is None else f"the body at {self.items!r}"
        hint = ""
        if isinstance(found, dict):
            lists = [name for name, value in found.items() if isinstance(value, list)]
            hint = f"; lists are at {', '.join(map(repr, lists[:5]))}" if lists else ""
        raise PageError(f"{where} is not a list ({type(found).__name__}){hint}", url=answer.url, method=self.method)

    def _page(self, answer: PageAnswer, items: Sequence[Any], cursor: Any) -> Page:
        key_of = compile_path(self.key)
        version_of: Lookup | None = None if self.version is None else compile_path(self.version)
        entities: list[Entity] = []
        errors: list[str] = []
        for position, item in enumerate(items):
            key = key_of(item)
            # type() and not isinstance(): true is an int, and this is the inner loop.
            if type(key) is int:
                key = str(key)
            elif type(key) is not str or not key:
                what = "empty" if key == "" else type(key).__name__
                errors.append(f"item {position} of the page has no key at {self.key!r} ({what})")
                continue
            version = None if version_of is None else version_of(item)
            if version is not None and type(version) is not str:
                version = orjson.dumps(version, option=orjson.OPT_SORT_KEYS).decode()
            entities.append(Entity(key, version, item))
        return Page(entities, cursor, self._total(answer), errors)

    def _total(self, answer: PageAnswer) -> int | None:
        value = None if self.total is None else compile_path(self.total)(answer.body)
        if isinstance(value, str) and value.isdecimal():
            return int(value)
        return value if type(value) is int else None


def _stored_since(cursor: Any) -> dict[str, str]:
    since = cursor.get("since", {})
    if isinstance(since, dict):
        return since
    raise ValueError("the stored cursor of the listing is not one that this version wrote")


def _digest(request: PageRequest) -> bytes:
    return hashlib.blake2b(orjson.dumps(request.to_json(), option=orjson.OPT_SORT_KEYS), digest_size=16).digest()
