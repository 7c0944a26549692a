"""Paginators that count: page numbers, offsets, and keys. Each is a frozen value.

Only an empty page shows the end of such a listing, but an empty page may also be one whose rows the server filtered out. So
after an empty page one more is asked for, and the listing ends when that is empty, too. What a refused page means is decided
in `page_evidence`. A short page does not end it: servers limit pages below the size that was asked for. Two things say more:

- an announced total. Once all are shown, a page that is not full is the last one, and behind a full one the first empty page
  is the end. While some are missing, up to `MAX_EMPTY_PAGES` are asked for.
- a flag (`more`) that says whether there is more. It decides alone.

Rows that are added or deleted meanwhile shift the others. `page_iterator` reads pages of these kinds (`counting`) again to find
out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from clients.errors import PageError
from clients.listings.jmespaths import compile_path, flag_at
from clients.listings.page_evidence import is_full, is_like_a_limit
from clients.listings.single_page import ROUND
from clients.page import PageAnswer, PageRequest

PROMISED = "promised"
"""In the memo of a request: something has announced that page, so that a refusal cannot mean that there is none."""

PAGES = "total"
"""In the memo of a request: how many pages are announced."""

MAX_EMPTY_PAGES = 10
"""So many empty pages may follow one another while announced entities are missing."""


@dataclass(frozen=True, slots=True)
class PageNumber:
    """`?page=1`, `?page=2`, … until there is nothing more.

    Args:
        more: JMESPath in the body of a flag that says whether there is a further page (`has_more`, `!is_last`).
    """

    counting: ClassVar[bool] = True
    numbered: ClassVar[bool] = True
    param: str = "page"
    start: int = field(default=1, kw_only=True)
    size_param: str | None = field(default=None, kw_only=True)
    size: int | None = field(default=None, kw_only=True)
    # Not in the repr, which cursors depend on: it changes neither the rows nor their order.
    more: str | None = field(default=None, kw_only=True, repr=False)

    def __post_init__(self) -> None:
        _check_size(self.size_param, self.size)
        if self.more is not None:
            compile_path(self.more)

    def first(self) -> PageRequest:
        """Return the request for page `start`."""
        return PageRequest(_numbered(self.param, self.start, self.size_param, self.size))

    def next(self, request: PageRequest, answer: PageAnswer) -> PageRequest | None:
        """Return the request for the next number, or None after a second empty page."""
        memo = _next_memo(request, answer, more=self.more, sizes=() if self.size is None else (self.size,))
        if memo is None:
            return None
        return PageRequest(_numbered(self.param, _number(request, self.param) + 1, self.size_param, self.size), memo=memo)


@dataclass(frozen=True, slots=True)
class Offset:
    """`?offset=0&limit=100`, then the offset plus the rows that came, until there is nothing more.

    It advances by the rows received: a server that caps pages at 50 would lose every other 50 rows if it advanced by
    `limit`. Over an empty page it advances by the largest page so far; if there was none, by 1, 2, 4, … rows.

    Args:
        start: of the first row: 1 where an API counts from 1 (`startIndex=1`).
        more: as for `PageNumber`.
    """

    counting: ClassVar[bool] = True
    param: str = "offset"
    limit_param: str | None = field(default="limit", kw_only=True)
    limit: int = field(default=100, kw_only=True)
    # Not in the repr either: a stored offset is right whatever the first one is.
    start: int = field(default=0, kw_only=True, repr=False)
    more: str | None = field(default=None, kw_only=True, repr=False)

    def __post_init__(self) -> None:
        if self.limit < 1:
            raise ValueError("Offset: limit must be at least 1")
        if self.start < 0:
            raise ValueError("Offset: start must not be negative")
        if self.more is not None:
            compile_path(self.more)

    def first(self) -> PageRequest:
        """Return the request for the first rows."""
        return PageRequest(_numbered(self.param, self.start, self.limit_param, self.limit))

    def next(self, request: PageRequest, answer: PageAnswer) -> PageRequest | None:
        """Return the request for the rows after those received, or None after a second empty page."""
        memo = _next_memo(request, answer, more=self.more, sizes=(self.limit,))
        if memo is None:
            return None
        step = len(answer.items) or memo["most"] or 1 << request.memo.get("empty", 0)
        offset = _number(request, self.param) + step
        return PageRequest(_numbered(self.param, offset, self.limit_param, self.limit), memo=memo)


@dataclass(frozen=True, slots=True)
class TotalPages:
    """`?page=1` … `?page=n`, where a header (`X-WP-TotalPages`) or the body at JMESPath `path` announces n.

    It may be announced on any page; without it the pages are counted up as `PageNumber` does. When the last page is as large
    as any, one more request checks whether the number was right: a search may announce only as many pages as it shows.
    """

    counting: ClassVar[bool] = True
    numbered: ClassVar[bool] = True
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
        """Return the request for the next number, or None after the last one."""
        number = _number(request, self.param)
        total = self._total(answer)
        if total is None:
            total = request.memo.get(PAGES)
        largest = request.memo.get("most", 0)
        memo: dict[str, int] | None
        if total is None or number - self.start + 1 > total:
            memo = _next_memo(request, answer, empty_pages=1 if total is not None else 2)
        elif number - self.start + 1 < total:
            memo = {PROMISED: 1}
        elif answer.items and (len(answer.items) >= largest or is_like_a_limit(answer.shown)):
            memo = {}
        else:
            memo = None
        if memo is None:
            return None
        memo["most"] = max(largest, len(answer.items))
        if total is not None:
            memo[PAGES] = total
        return PageRequest(_numbered(self.param, number + 1, self.size_param, self.size), memo=memo)

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
class Keyset:
    """`?since_id=<the last item's field>` until a page is empty or has nothing new. `field` is JMESPath in the item.

    Where the field is not the key, rows with one value may be on both sides of a page's edge, and a server that lists what
    is *greater* would skip some. Then the next page begins after the last value but one, and the rows that come twice are
    dropped. A page that is full of one value cannot be continued that way, and is an error. (A first page counts as full when
    its number of rows is a round one; there is no better sign.)
    """

    overlaps: ClassVar[bool] = True
    param: str
    field: str

    def __post_init__(self) -> None:
        compile_path(self.field)

    def first(self) -> PageRequest:
        """Return the request without the parameter."""
        return PageRequest()

    def next(self, request: PageRequest, answer: PageAnswer) -> PageRequest | None:
        """Return the request for what comes after the last item, or None when there is nothing more.

        Raises:
            PageError: the last item has no such field, or all items of a full page have the same.
        """
        if not answer.items:
            return None
        find = compile_path(self.field)
        values = [find(item) for item in answer.items]
        last = values[-1]
        if isinstance(last, bool) or not isinstance(last, (str, int, float)) or last == "":
            raise PageError(f"the last item has no usable {self.field!r} to continue after ({type(last).__name__})")
        largest = max(request.memo.get("most", 0), len(values))
        full = len(values) >= largest
        if answer.fresh == 0 and not (full and largest == 1):
            # A server that lists what is greater *or equal* shows the last rows for ever (airbyte#81516).
            if full:
                raise self._stuck(len(values))
            return None
        cut = full if request.memo else len(values) in ROUND
        after = last if _is_unique(values, answer.keys) else self._before_the_edge(values, request, cut=cut and largest > 1)
        if answer.fresh == 0 and _same(after, request.params.get(self.param)):
            raise self._stuck(len(values))
        return PageRequest({self.param: after}, memo={"most": largest})

    def _before_the_edge(self, values: list[Any], request: PageRequest, *, cut: bool) -> Any:
        """Return the last value before those whose rows may continue behind the page's edge."""
        last = values[-1]
        before = next((value for value in reversed(values) if value != last), None)
        if before is None and cut:
            raise self._stuck(len(values))
        # The server was asked for what is after this value and showed it again: it lists what is greater or equal.
        return last if before is None or _same(before, request.params.get(self.param)) else before

    def _stuck(self, rows: int) -> PageError:
        return PageError(
            f"all {rows} rows of a full page are at the same {self.field!r} or were shown before, so rows behind them may be "
            f"lost; continue after a field that is unique, or ask for larger pages"
        )


def _is_unique(values: list[Any], keys: Sequence[str]) -> bool:
    """Say whether no other row has the last value, as far as this page shows: the field is the key, or the value occurs once."""
    return [str(value) for value in values] == list(keys) if keys else values.count(values[-1]) == 1


def _same(value: Any, sent: Any) -> bool:
    return sent is not None and str(value) == str(sent)


def _next_memo(
    request: PageRequest, answer: PageAnswer, *, empty_pages: int = 2, more: str | None = None, sizes: Sequence[int] = ()
) -> dict[str, int] | None:
    """Return the memo for the next number, or None at the end.

    Args:
        empty_pages: how many end the listing, where no total says more.
        more: where the flag is that says whether there is more.
        sizes: of a page, that were asked for.
    """
    rows, largest = len(answer.items), request.memo.get("most", 0)
    memo = {"most": max(rows, largest)}
    flag = None if more is None else flag_at(more, answer.body)
    if flag is not None:
        return {**memo, PROMISED: 1} if flag else None
    if answer.missing is not None:
        empty_pages = MAX_EMPTY_PAGES if answer.missing else 1
    if rows and (answer.fresh != 0 or answer.missing != 0):
        # Behind page one a look is always due: some APIs announce the rows of the page in place of all.
        may_go_on = not largest or is_full(rows, largest=largest, sizes=sizes) or is_like_a_limit(answer.shown)
        return memo if answer.missing != 0 or may_go_on else None
    # Also a page without anything new after all were shown: some servers repeat their last page for any number behind it.
    empty = request.memo.get("empty", 0) + 1
    return None if empty >= empty_pages else {**memo, "empty": empty}


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
