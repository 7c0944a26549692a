"""The kinds of paging where we count up what comes next: page numbers, offsets, keys. Each a frozen value, sending nothing.

Knows no HTTP. Nothing but an empty page tells such a listing's end, and an empty page may also be one that the server's
filter emptied. So an empty page is followed by one more look, and the listing ends when that is empty, too, or refused as
out of range. Where the listing announces its total, the first empty page ends it once all are shown; while some are missing,
up to `LOOKS` are taken. A short page ends none: servers cap pages below the limit that was asked for.

Rows that come and go meanwhile shift what the numbers mean. `paging` reads pages of these kinds (`counting`) again to see.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from clients.errors import PageError
from clients.page import PageAnswer, PageRequest
from clients.paths import compile_path

LOOKS = 10
ROUND = frozenset({10, 15, 20, 24, 25, 30, 40, 50, 60, 75, 100, 120, 150, 200, 250, 300, 400, 500, 1000, 2000, 5000, 10000})
"""Rows of a page that is likely to be cut off there."""


@dataclass(frozen=True, slots=True)
class PageNumber:
    """`?page=1`, `?page=2`, … until there is nothing more."""

    counting: ClassVar[bool] = True
    numbered: ClassVar[bool] = True
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
        """Return the request for the next number, or None after a second empty page."""
        memo = _onwards(request, answer)
        if memo is None:
            return None
        return PageRequest(_numbered(self.param, _number(request, self.param) + 1, self.size_param, self.size), memo=memo)


@dataclass(frozen=True, slots=True)
class Offset:
    """`?offset=0&limit=100`, then as many further as rows came, until there is nothing more.

    It advances by the rows received: a server that caps pages at 50 would lose every other 50 rows if it advanced by
    `limit`. Over an empty page it advances by the largest page so far; if there was none, by 1, 2, 4, … rows.
    """

    counting: ClassVar[bool] = True
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
        """Return the request for the rows after those received, or None after a second empty page."""
        memo = _onwards(request, answer)
        if memo is None:
            return None
        most = max(request.memo.get("most", 0), len(answer.items))
        step = len(answer.items) or most or 1 << request.memo.get("empty", 0)
        offset = _number(request, self.param) + step
        return PageRequest(_numbered(self.param, offset, self.limit_param, self.limit), memo={**memo, "most": most})


@dataclass(frozen=True, slots=True)
class TotalPages:
    """`?page=1` … `?page=n`, where a header (`X-WP-TotalPages`) or the body at JMESPath `path` announces n.

    It may be announced on any page; without it the pages are counted up as `PageNumber` does. When the last page is as large
    as any, one more look tells whether the number was right.
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
            total = request.memo.get("total")
        most = max(request.memo.get("most", 0), len(answer.items))
        memo: dict[str, int] | None
        if total is None or number - self.start + 1 > total:
            memo = _onwards(request, answer, looks=1 if total is not None else 2)
        elif number - self.start + 1 < total:
            memo = {}
        elif len(answer.items) < most or not answer.items or answer.missing == 0:
            memo = None
        else:
            memo = {"look": 1}
        if memo is None:
            return None
        memo["most"] = most
        if total is not None:
            memo["total"] = total
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

    Where the field is not the key, rows of one value may stand on both sides of a page's edge, and a server that lists what
    is *greater* would lose some. Then the next page begins behind the last value but one, and the rows that come twice are
    dropped. A page that is full of one value cannot be left that way, and is an error. (A first page is taken to be full when
    its number of rows is a round one; nothing else tells.)
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
        most = max(request.memo.get("most", 0), len(values))
        full = len(values) >= most
        if answer.fresh == 0 and not (full and most == 1):
            # A server that lists what is greater *or equal* shows the last rows for ever (airbyte#81516).
            if full:
                raise self._stuck(len(values))
            return None
        cut = full if request.memo else len(values) in ROUND
        after = last if _is_unique(values, answer.keys) else self._before_the_edge(values, request, cut=cut and most > 1)
        if answer.fresh == 0 and _same(after, request.params.get(self.param)):
            raise self._stuck(len(values))
        return PageRequest({self.param: after}, memo={"most": most})

    def _before_the_edge(self, values: list[Any], request: PageRequest, *, cut: bool) -> Any:
        """Return the last value but those that may go on behind the page's edge."""
        last = values[-1]
        before = next((value for value in reversed(values) if value != last), None)
        if before is None and cut:
            raise self._stuck(len(values))
        # Asked for what is behind it, the server showed it: this one lists what is greater or equal.
        return last if before is None or _same(before, request.params.get(self.param)) else before

    def _stuck(self, rows: int) -> PageError:
        return PageError(
            f"all {rows} rows of a full page are at the same {self.field!r} or were shown before, so rows behind them may be "
            f"lost; continue after a field that is unique, or ask for larger pages"
        )


def _is_unique(values: list[Any], keys: Sequence[str]) -> bool:
    """Tell whether no other row can have the last value: the field is the key, or nothing speaks against it."""
    return [str(value) for value in values] == list(keys) if keys else values.count(values[-1]) == 1


def _same(value: Any, sent: Any) -> bool:
    return sent is not None and str(value) == str(sent)


def _onwards(request: PageRequest, answer: PageAnswer, *, looks: int = 2) -> dict[str, int] | None:
    """Return the memo for the next number, or None at the end.

    `look` in it says that the request may well be behind the end, so that a refusal of it is an end, too.

    Args:
        looks: empty pages that end it, where no total tells more.
    """
    if answer.missing is not None:
        looks = LOOKS if answer.missing else 1
    if answer.items and (answer.fresh != 0 or answer.missing != 0):
        return {"look": 1} if answer.missing == 0 else {}
    # A page without anything new after all were shown: some servers repeat their last page for any number behind it.
    empty = request.memo.get("empty", 0) + 1
    return None if empty >= looks else {"empty": empty, "look": 1}


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
