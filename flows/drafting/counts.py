"""Reads what a first answer says about numbers: the total, the pages, where it begins, its size, and whether there is more."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from clients import PageNumber, TotalPages
from clients.page import Paginator
from flows.drafting.places import Place, number, words_of

_TOTAL = frozenset(words_of("total count hits results elements found matches"))
_NOT_TOTAL = frozenset(
    words_of("page pages per size limit offset skip start from first last max min took time code status index current")
)


@dataclass(frozen=True, slots=True)
class Counts:
    """What a first answer says.

    Args:
        total: where the number of all rows is, and whether that is a header.
        pages: likewise, the number of pages.
        page: the number of this page.
        offset: how many rows come before this page.
        size: how many rows a page has.
        more: a flag that there is more; its path is `!…` where it says the opposite.
    """

    total: Place | None = None
    pages: Place | None = None
    page: Place | None = None
    offset: Place | None = None
    size: Place | None = None
    more: Place | None = None

    def paged(self, name: str, *, start: int) -> Paginator:
        """Return the paginator that counts pages by the parameter `name`, with the number of pages if the answer has it."""
        if self.pages is None:
            return PageNumber(name, start=start, more=None if self.more is None else self.more.path)
        if self.pages.is_header:
            return TotalPages(header=self.pages.path, param=name, start=start)
        return TotalPages(path=self.pages.path, param=name, start=start)

    def all_shown(self, rows: int) -> bool:
        """Say whether the first page has all rows, by what it says itself."""
        if self.more is not None:
            return self.more.value is False
        pages = None if self.pages is None else number(self.pages.value)
        return pages == 1 or (pages is None and self.total is not None and number(self.total.value) == rows)

    def more_said(self, rows: int) -> bool:
        """Say whether it says that there are further pages."""
        if self.more is not None:
            return self.more.value is True
        if self.pages is not None:
            return (number(self.pages.value) or 0) > 1
        return self.total is not None and (number(self.total.value) or 0) > rows


def read_counts(found: Iterable[Place], *, rows: int, path: str | None = None) -> Counts:
    """Return what an answer says.

    Args:
        found: the places of body and headers.
        rows: on the page.
        path: where they are; what stands beside them is likelier to be about them.
    """
    beside = (path or "").rpartition(".")[0]
    listed = list(found)
    numbers = [(place, value) for place in listed if (value := number(place.value)) is not None]
    pages = _best((_pages_score(place, value), place) for place, value in numbers)
    page = _best((_page_score(place, value), place) for place, value in numbers if place != pages)
    offset = _best((_offset_score(place, value), place) for place, value in numbers)
    size = _best((_size_score(place, value, rows), place) for place, value in numbers if place != pages)
    taken = {id(one) for one in (pages, page, offset, size)}
    total = _best((_total_score(place, value, rows, beside), place) for place, value in numbers if id(place) not in taken)
    return Counts(total, pages, page, offset, size, _more(listed))


def _best(scored: Iterable[tuple[float, Place]]) -> Place | None:
    score, place = max(scored, key=lambda one: one[0], default=(0.0, None))
    return place if score > 0 else None


def _pages_score(place: Place, value: int) -> float:
    words = set(place.words)
    if value < 1 or "per" in words or "size" in words:
        return 0
    named = words & {"total", "count", "last", "num", "max", "of", "number"}
    if "pages" in words:
        return 3 if named else 2
    return 2.5 if "page" in words and named - {"number"} else 0


def _page_score(place: Place, value: int) -> float:
    words = set(place.words)
    if value > 1 or words & {"per", "size", "pages", "total", "count", "last", "next", "prev", "previous", "limit", "rate"}:
        return 0
    if "page" in words:
        return 3
    return 2 if place.words in (("number",), ("current",), ("p",), ("index",)) and "page" in (*place.around, *place.words) else 0


def _offset_score(place: Place, value: int) -> float:
    words = set(place.words)
    if value > 1 or words & {"next", "prev", "previous", "page", "time", "date"}:
        return 0
    if words & {"offset", "skip"}:
        return 3
    return 2 if "start" in words else 1 if place.words == ("from",) else 0


def _size_score(place: Place, value: int, rows: int) -> float:
    words = set(place.words)
    if not max(rows, 1) <= value <= 100_000 or words & {"total", "rate", "remaining", "reset", "ratelimit", "pages"}:
        return 0
    if "per" in words or (words & {"size", "max"} and words & {"page", "results", "items", "size"}):
        return 3
    return 2 if words & {"limit", "take", "top"} else 0


def _total_score(place: Place, value: int, rows: int, beside: str) -> float:
    words, around = set(place.words), set(place.around)
    if value < rows or not (words | around) & _TOTAL or words & _NOT_TOTAL or {"rate", "limit"} & words:
        return 0
    if not words & (_TOTAL | {"value", "size"}):
        return 0
    score = 3.0 if "total" in words | around else 2.0
    # `count` may be the rows of the page.
    score += 2 * bool(beside and place.path.startswith(f"{beside}."))
    return score + (value > rows) - 1.5 * (value == rows and "total" not in words | around) - len(place.around) / 10


def _more(found: Iterable[Place]) -> Place | None:
    for place in found:
        words = set(place.words)
        if not isinstance(place.value, bool):
            continue
        if "more" in words or {"has", "next"} <= words or {"is", "truncated"} <= words:
            return place
        if words & {"last", "end", "complete", "done", "final"} and not words & {"date", "time", "week"}:
            opposite: Any = not place.value
            return Place(f"!{place.path}", place.name, place.words, place.around, opposite)
    return None
