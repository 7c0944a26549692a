"""What paging may be, by the first answer: the paginators to try, the likeliest first. Trying is `conversation`'s."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import parse_qs, urljoin, urlsplit

from clients import (
    Continue,
    Cursor,
    HeaderCursor,
    Keyset,
    LinkHeader,
    NextLink,
    ODataLink,
    Offset,
    PageAnswer,
)
from clients.errors import PageError
from clients.listings.link_header import link_target
from clients.page import PageRequest, Paginator
from flows.drafting.conventions import CURSOR, KEYSET, OFFSET, PAGE, cursor_names, page_names, unique
from flows.drafting.counts import Counts
from flows.drafting.places import Place, joined, number, quoted, words_of
from flows.sync.timestamps import Timestamp

NEXT = frozenset(words_of("next following continue continuation more"))
_OTHER = frozenset(
    words_of("prev previous before first last self back start begin current login logout docs doc html web ui avatar")
)
_CURSOR = frozenset(words_of("next cursor after continuation continue token marker bookmark scroll offset"))
_IDS = frozenset(words_of("request trace correlation etag version api session csrf"))


@dataclass(frozen=True, slots=True)
class Attempt:
    """One question: paginators whose parameters can be sent in one request, since servers ignore those that they do not know.

    Args:
        paginators: of which one may be right.
        why: for a person.
        is_told: the answer itself says that there is such a next page.
        proven: the second page, where one of these led to it.
        is_shifted: each further parameter asks for one row more of the first page, so that the answer tells which one it was.
    """

    paginators: tuple[Paginator, ...]
    why: str
    is_told: bool = True
    proven: PageAnswer | None = None
    is_shifted: bool = False

    def request(self, first: PageAnswer) -> PageRequest | None:
        """Return the request for the second page by each of the paginators at once; None where none has one.

        Args:
            first: the first answer.
        """
        params: dict[str, Any] = {}
        for shift, paginator in enumerate(self.paginators):
            answer = replace(first, fresh=len(first.items), missing=1)
            if self.is_shifted and shift:
                answer = replace(answer, items=first.items[:-shift], keys=first.keys[:-shift])
            try:
                following = paginator.next(paginator.first(), answer)
            except (PageError, ValueError):
                continue
            if following is not None and following.url is not None:
                return following
            params.update({} if following is None else following.params)
        return PageRequest(params) if params else None

    def singles(self) -> list["Attempt"]:
        """Return each of them alone."""
        return [replace(self, paginators=(one,), is_shifted=False) for one in self.paginators]

    def halves(self, answer: PageAnswer) -> tuple["Attempt", "Attempt"]:
        """Split it in two. The second half is proven where the first one fails.

        Args:
            answer: the second page, which one of them led to.
        """
        middle = max(1, len(self.paginators) // 2)
        first = replace(self, paginators=self.paginators[:middle], proven=None)
        return first, replace(self, paginators=self.paginators[middle:], proven=answer)


@dataclass(frozen=True, slots=True)
class First:
    """The first answer, as far as it was understood.

    Args:
        answer: with its items and keys.
        places: of its body, outside the rows.
        counts: what it says.
        key: JMESPath of the key.
        params: of its request.
    """

    answer: PageAnswer
    places: Sequence[Place]
    counts: Counts
    key: str | None
    params: Mapping[str, str]


def attempts(first: First) -> Iterator[Attempt]:
    """Yield what to try, the likeliest first."""
    yield from _links(first)
    yield from _cursors(first)
    yield from _counted(first)
    yield from _opaque(first)
    yield from _guesses(first)


def _links(first: First) -> Iterator[Attempt]:
    body, answer = first.answer.body, first.answer
    if link_target(answer.headers.get("link", ""), "next", base=answer.url):
        yield Attempt((LinkHeader(),), "the header Link has a next page")
    if isinstance(body, dict) and ODataLink().next(ODataLink().first(), answer) is not None:
        yield Attempt((ODataLink(),), "the body has OData's next link")
    for place in first.places:
        if isinstance(place.value, str) and not place.is_header and _leads_on(place, answer.url):
            yield Attempt((NextLink(_while(first.counts.more, place.path)),), f"{place.path} is the URL of a further page")
    for path, link in _link_lists(body):
        if _is_url(link, answer.url):
            yield Attempt((NextLink(_while(first.counts.more, path)),), f"{path} is the URL of a further page")


def _while(more: Place | None, path: str) -> str:
    """Return a path that is empty where a flag says that there is no more: some APIs name a next page for ever."""
    return path if more is None or more.value is not True or " | " in path else f"{more.path} && {path}"


def _leads_on(place: Place, url: str) -> bool:
    """Say whether a value is a URL of this listing, and not one that leads back."""
    words = {*place.words, *place.around}
    if set(place.words) & _OTHER or not _is_url(place.value, url):
        return False
    return bool(words & NEXT) or not words & _OTHER


def _is_url(value: Any, url: str) -> bool:
    if not isinstance(value, str) or not value.startswith(("http://", "https://", "/", "?")) or any(map(str.isspace, value)):
        return False
    there, here = urlsplit(urljoin(url, value)), urlsplit(url)
    return (there.path, there.query) != (here.path, here.query) and (
        there.path.rstrip("/") == here.path.rstrip("/") or bool(parse_qs(there.query)) or there.path.startswith(here.path)
    )


def _link_lists(body: Any, path: str = "", depth: int = 3) -> Iterator[tuple[str, Any]]:
    """Yield lists of links as `[{"rel": "next", "href": …}]`, with a path to the next one."""
    if not isinstance(body, dict) or depth == 0:
        return
    for name, value in body.items():
        at = joined(path, name)
        if isinstance(value, dict):
            yield from _link_lists(value, at, depth - 1)
        elif isinstance(value, list) and value and all(isinstance(one, dict) for one in value):
            for relation, target in ((a, b) for a in ("rel", "relation", "name", "type") for b in ("href", "url", "uri", "link")):
                link = next((one.get(target) for one in value if str(one.get(relation)).lower() == "next"), None)
                if link:
                    yield f"{at}[?{quoted(relation)}=='next'].{quoted(target)} | [0]", link


def _cursors(first: First) -> Iterator[Attempt]:
    yield from (
        Attempt((Continue(place.path),), f"the members of {place.path} are the parameters of a further page")
        for place in first.places
        if isinstance(place.value, dict) and set(place.words) & NEXT and place.value
        if all(isinstance(one, str | int) and not isinstance(one, bool) for one in place.value.values())
        if not any(_is_url(one, first.answer.url) for one in place.value.values())
    )
    shown = {id(place): _cursor_score(place, first) for place in first.places}
    for place in sorted((one for one in first.places if shown[id(one)] > 0), key=lambda one: -shown[id(one)]):
        path = place.path if place.is_header else _while(first.counts.more, place.path)
        names = cursor_names(place.name)
        whole = tuple(HeaderCursor(path, name) if place.is_header else Cursor(path, name) for name in names)
        why = f"{place.path} has a cursor"
        yield Attempt(whole[:1], why)
        yield Attempt(whole[1:9], why)


def _cursor_score(place: Place, first: First) -> float:
    value, words = place.value, set(place.words)
    if (
        isinstance(value, bool)
        or not isinstance(value, str | int)
        or value in ("", 0)
        or words & (_OTHER | _IDS | {"has", "count"})
    ):
        return 0
    if isinstance(value, str) and (_is_url(value, first.answer.url) or "://" in value):
        return 0
    if "next" in words or "continuation" in words:
        return 3
    if words & _CURSOR and (isinstance(value, str) or "cursor" in words) and not (place.is_header and number(value) is not None):
        return 2.5 if "end" in words or "cursor" in words else 2
    return 0


def _opaque(first: First) -> Iterator[Attempt]:
    """Yield values that nobody would read, as cursors are, whatever they are called."""
    if first.counts.total is not None or first.counts.pages is not None or first.counts.all_shown(len(first.answer.items)):
        return
    for place in first.places:
        value = place.value
        if isinstance(value, str) and not place.is_header and not set(place.words) & (_OTHER | _IDS | NEXT | _CURSOR):
            is_text = any(map(str.isspace, value)) or "/" in value or value.isalpha() or number(value) is not None
            if len(value) > 5 and not is_text and Timestamp.of(value) is None:
                whole = tuple(Cursor(place.path, name) for name in unique(place.name, *CURSOR)[:8])
                yield Attempt(whole, f"{place.path} may be a cursor", is_told=False)


def _counted(first: First) -> Iterator[Attempt]:
    counts = first.counts
    is_told = not counts.all_shown(len(first.answer.items))
    pages, offsets = list(_by_page(first, is_told=is_told)), list(_by_offset(first, is_told=is_told))
    # What counts its pages may also say how many rows came before.
    yield from (*pages, *offsets) if counts.pages is not None else (*offsets, *pages)


def _by_page(first: First, *, is_told: bool) -> Iterator[Attempt]:
    counts, params = first.counts, first.params
    given = [name for name in params if name in PAGE or {"page"} == set(words_of(name)) - {"number", "no", "index"}]
    asked = next((name for name in given if number(params[name]) in (0, 1)), "")
    if asked:
        start = number(params[asked])
        yield Attempt((counts.paged(asked, start=start or 0),), "the URL says which page it is", is_told)
    elif counts.page is not None:
        start = number(counts.page.value) or 0
        for name in page_names(counts.page.name):
            yield Attempt((counts.paged(name, start=start),), "the answer counts its pages", is_told)
    elif counts.pages is not None and is_told:
        yield Attempt((counts.paged("page", start=1),), "the answer says how many pages there are", is_told)


def _by_offset(first: First, *, is_told: bool) -> Iterator[Attempt]:
    echo, rows = first.counts.offset, len(first.answer.items)
    asked = next((name for name in first.params if name in OFFSET and number(first.params[name]) in (0, 1)), "")
    for name in unique(asked, "" if echo is None else echo.name):
        why = "the URL says where it begins" if name == asked else "the answer says where it begins"
        yield Attempt((_offset(name, rows, first),), why, is_told)


def _guesses(first: First) -> Iterator[Attempt]:
    """Yield the usual parameters, where the answer says nothing about the next page."""
    rows, counts = len(first.answer.items), first.counts
    if counts.all_shown(rows) or not rows:
        return
    why = "usual names were tried"
    pages: tuple[Paginator, ...] = tuple(counts.paged(name, start=1) for name in PAGE)
    offsets: tuple[Paginator, ...] = tuple(_offset(name, rows, first) for name in OFFSET)
    keysets: tuple[Paginator, ...] = ()
    if first.key is not None and first.answer.keys:
        keysets = tuple(Keyset(name, first.key) for name in KEYSET)
    is_told = counts.more_said(rows)
    is_keyset = counts.more is not None and counts.total is None and counts.pages is None
    if is_keyset:
        yield Attempt(keysets[:1], why, is_told)
    yield Attempt((offsets[3],) if "hits" in (counts.total.around if counts.total else ()) else pages[:1], why, is_told)
    yield Attempt((*offsets, *keysets)[:rows], why, is_told, is_shifted=True)
    yield Attempt(pages[1:], why, is_told)


def resting(first: First) -> Paginator | None:
    """Return how the API would name a next page, if there was one: what is null, or whose flag is down, on the only page."""
    flag, url = first.counts.more, first.answer.url
    if link_target(first.answer.headers.get("link", ""), "last", base=url):
        return LinkHeader()
    for place in sorted(first.places, key=lambda one: not {"url", "link", "href", "uri"} & set(one.words)):
        words = set(place.words)
        if place.name.startswith("@odata."):
            return ODataLink()
        is_held = flag is not None and flag.value is False and isinstance(place.value, str)
        if place.is_header or not words & {"next", "end"} or not (is_held or place.value in (None, "")):
            continue
        path = place.path if flag is None else f"{flag.path} && {place.path}"
        if words & {"cursor", "token", "marker", "after", "key"}:
            return Cursor(path, cursor_names(place.name)[0])
        if "next" in words and (place.value in (None, "") or _is_url(place.value, url)):
            return NextLink(path)
    start = 1 if first.counts.page is None else number(first.counts.page.value) or 0
    return None if first.counts.pages is None else first.counts.paged("page", start=start)


def _offset(name: str, rows: int, first: First) -> Offset:
    more = None if first.counts.more is None else first.counts.more.path
    limit = next((one for one in first.params if {"limit", "size", "per", "take"} & set(words_of(one))), None)
    echo = first.counts.offset
    start = 1 if echo is not None and echo.name == name and number(echo.value) == 1 else 0
    return Offset(name, limit_param=limit, limit=max(1, rows), start=start, more=more)
