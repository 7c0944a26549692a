"""`SoapListing`: a listing by an operation of a SOAP service. `Listing` does the paging."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

from clients.errors import PageError, UnreadableError
from clients.listings.http_listing import Listing
from clients.listings.jmespaths import compile_path, flag_at
from clients.listings.offset_paginators import PROMISED
from clients.listings.single_page import SinglePage
from clients.page import Entity, PageAnswer, PageRequest, Paginator
from clients.soap.xml_values import bad_place

if TYPE_CHECKING:
    from clients.listings.page_iterator import Paging


class Caller(Protocol):
    """What such a listing needs from a connection; `SoapClient` has it."""

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
        more: JMESPath in the answer of a flag that says whether there is more. Where the answer has it, it decides: an empty
            page with more behind it is not the end, and without more there is no further call.
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
    recheck: int | None = None

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
        return _Calls(
            self.operation,
            paginator,
            items=self.items,
            key=self.key,
            version=self.version,
            method="POST",
            json=dict(self.arguments or {}),
            total=self.total,
            max_pages=self.max_pages,
            max_seconds=self.max_seconds,
            recheck=self.recheck,
        )


@dataclass(frozen=True, slots=True)
class _Operation:
    """A SOAP connection in the form that `Listing` expects."""

    conn: Caller
    bare: bool

    def answer(self, method: str, path: str, *, params: Mapping[str, Any] | None = None, json: Any = None) -> PageAnswer:
        if "://" in path:
            raise PageError("a SOAP service has no links to follow: the paginator does not fit")
        call = getattr(self.conn, "call_page", None)
        arguments = nested(json or {})
        body: Any = self.conn.call(path, **arguments) if call is None else call(path, arguments)
        if self.bare and isinstance(body, dict) and len(body) == 1:
            body = next(iter(body.values()))
        return PageAnswer(body)

    def without_credentials(self, url: str) -> str:
        return url


class _Calls(Listing):
    """A listing whose items may have values that are not of their type in the WSDL."""

    def raw_items(self, answer: PageAnswer) -> Sequence[Any]:
        items = super().raw_items(answer)
        if (place := bad_place(answer.body, but={id(one) for one in items})) is not None:
            raise UnreadableError(f"the answer does not fit the WSDL ({place!r} is not of its type, or not known)", method="POST")
        return items

    def has_list(self, answer: PageAnswer) -> bool:
        # XML has no empty lists: where there is none, the element is missing.
        return True

    def entities(self, items: Sequence[Any]) -> tuple[list[Entity], list[str], list[str]]:
        places = [bad_place(one) for one in items]
        if not any(place is not None for place in places):
            return super().entities(items)
        key_of = compile_path(self.key)
        good = [one for one, place in zip(items, places, strict=True) if place is None]
        bad = [(key_of(one), place, one) for one, place in zip(items, places, strict=True) if place is not None]
        entities, errors, keyless = super().entities(good)
        why = "is not of its type, or not known"
        misfits = [f"{str(key)[:40]!r} does not fit the WSDL: {place!r} {why}" for key, place, _ in bad]
        return entities, [*misfits, *errors], [*(repr(one) for *_, one in bad), *keyless]


@dataclass(frozen=True, slots=True)
class _Flagged:
    """A paginator of a service that says whether there is more. The name of the class is part of stored cursors."""

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
        flag = flag_at(self.more, answer.body)
        if flag is False:
            return None
        following = self.inner.next(request, answer)
        if following is None and flag:
            # The paginator has counted enough empty pages for an end, but the service says that it is not: count anew.
            following = self.inner.next(PageRequest(request.params), answer)
            if following is None:
                raise PageError(f"{self.more!r} says that there is more, but the paginator has no next page")
        return replace(following, memo={**following.memo, PROMISED: 1}) if following is not None and flag else following


def nested(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return `arguments` with each dotted name as a member of the object that it names."""
    found: dict[str, Any] = {name: value for name, value in arguments.items() if "." not in name}
    for name, value in arguments.items():
        if "." not in name:
            continue
        *path, last = name.split(".")
        level = found
        for part in path:
            known = level.get(part)
            level[part] = dict(known) if isinstance(known, Mapping) else {}
            level = level[part]
        level[last] = value
    return found
