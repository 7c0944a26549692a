"""A listing that an operation of a SOAP service gives, page by page. Knows no XML; `Listing` and its paging do the rest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from clients.errors import PageError
from clients.listing import Listing
from clients.page import PageAnswer, PageRequest, Paginator
from clients.paginators import SinglePage
from clients.paths import compile_path

if TYPE_CHECKING:
    from clients.paging import Paging


class Caller(Protocol):
    """What such a listing needs of a connection; `SoapClient` is one."""

    def call(self, operation: str, /, **arguments: Any) -> dict[str, Any]:
        """Call an operation and return its answer as plain values."""
        ...


@dataclass(frozen=True)
class SoapListing:
    """Lists entities with a SOAP operation.

    The parameters of a paginator become arguments of the operation; a name with dots goes into objects:
    `PageNumber("request.page")` sets `page` of the argument `request`. Paginators that follow links have no use here.

    Args:
        operation: its name in the WSDL.
        paginator: how the service pages.
        items: JMESPath of the list in the answer; None when the answer is nothing but a list.
        key: JMESPath in an item of what identifies it: text or a whole number.
        version: JMESPath in an item of what changes when it changes; None when nothing does.
        arguments: arguments of every call.
        more: JMESPath in the answer of a flag that says whether there is more. Where it is there it decides: an empty page
            with more behind it is not the end, and without more there is no further call.
        total: JMESPath in the answer of how many entities there are in all.
        max_pages, max_seconds, recheck: as for `Listing`.

    Raises:
        ValueError: one of the paths is not JMESPath, or a number is out of range.
    """

    operation: str
    paginator: Paginator = field(default_factory=SinglePage)
    _: KW_ONLY
    items: str | None = None
    key: str = "id"
    version: str | None = None
    arguments: Mapping[str, Any] | None = None
    more: str | None = None
    total: str | None = None
    max_pages: int | None = None
    max_seconds: float | None = None
    recheck: int = 5

    def __post_init__(self) -> None:
        self._listing()

    def __call__(self, conn: Caller, since: Mapping[str, str] | None = None) -> Paging:
        """Yield the pages from the start. `since` holds further arguments that ask for changed entities only."""
        return self.pages(conn, since=since)

    def pages(self, conn: Caller, *, cursor: Any = None, since: Mapping[str, str] | None = None) -> Paging:
        """Yield the pages after `cursor`, or from the start; see `Listing.pages`."""
        return self._listing().pages(_Operation(conn, self.items is None), cursor=cursor, since=since)

    def _listing(self) -> Listing:
        paginator = self.paginator if self.more is None else _Flagged(self.paginator, self.more)
        return Listing(
            self.operation, paginator, items=self.items, key=self.key, version=self.version, method="POST",
            json=dict(self.arguments or {}), total=self.total, max_pages=self.max_pages, max_seconds=self.max_seconds,
            recheck=self.recheck,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Operation:
    """A SOAP connection as `Listing` sees one; strictly private."""

    conn: Caller
    bare: bool

    def answer(self, method: str, path: str, *, params: Mapping[str, Any] | None = None, json: Any = None) -> PageAnswer:
        if "://" in path:
            raise PageError("a SOAP service has no links to follow: the paginator does not fit")
        body: Any = self.conn.call(path, **nested(json or {}))
        if self.bare and isinstance(body, dict) and len(body) == 1:
            body = next(iter(body.values()))
        return PageAnswer(body)

    def without_credentials(self, url: str) -> str:
        return url


@dataclass(frozen=True, slots=True)
class _Flagged:
    """A paginator whose service says itself whether there is more; strictly private."""

    inner: Paginator
    more: str

    def __post_init__(self) -> None:
        compile_path(self.more)

    @property
    def counting(self) -> bool:
        return bool(getattr(self.inner, "counting", False))

    @property
    def overlaps(self) -> bool:
        return bool(getattr(self.inner, "overlaps", False))

    def first(self) -> PageRequest:
        return self.inner.first()

    def next(self, request: PageRequest, answer: PageAnswer) -> PageRequest | None:
        flag = _flag(compile_path(self.more)(answer.body), self.more)
        if flag is False:
            return None
        following = self.inner.next(request, answer)
        if following is None and flag:
            # The looks behind an empty page are used up, but this one is known not to be the end: they begin anew.
            following = self.inner.next(PageRequest(request.params), answer)
            if following is None:
                raise PageError(f"{self.more!r} says that there is more, but the paginator knows no next page")
        return following


def _flag(value: Any, path: str) -> bool | None:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return value != 0
    word = value.strip().lower() if isinstance(value, str) else None
    if word in ("true", "1", "yes", "y"):
        return True
    if word in ("false", "0", "no", "n", ""):
        return False
    raise PageError(f"the flag at {path!r} says neither yes nor no ({type(value).__name__})")


def nested(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return `arguments` with each dotted name as a member of the object that it names."""
    found: dict[str, Any] = {name: value for name, value in arguments.items() if "." not in name}
    for name, value in arguments.items():
        if "." not in name:
            continue
        *path, last = name.split(".")
        here = found
        for part in path:
            there = here.get(part)
            here[part] = dict(there) if isinstance(there, Mapping) else {}
            here = here[part]
        here[last] = value
    return found
