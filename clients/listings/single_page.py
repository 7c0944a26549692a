"""A listing in one answer (`SinglePage`), and signs that such an answer is only the first of several pages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from clients.page import PageAnswer, PageRequest

ROUND = frozenset({10, 15, 20, 24, 25, 30, 40, 50, 60, 75, 100, 120, 150, 200, 250, 300, 400, 500, 1000, 2000, 5000, 10000})
"""Numbers of rows at which a page is likely to be cut off."""

_NEXT = ("next", "next_page", "next_cursor", "nextPageToken", "has_more", "@odata.nextLink", "continue")

_TOTAL_HEADERS = ("x-total-count", "x-total", "total-count", "x-wp-total")
_TOTALS = ("total_count", "totalCount", "total_results", "totalResults", "total_items", "totalItems", "@odata.count")
_OF_PAGES = ("meta", "_meta", "pagination", "paging", "page_info", "pageInfo")
"""Objects about paging: in them, `total` and `count` mean rows."""


@dataclass(frozen=True, slots=True)
class SinglePage:
    """Everything is in one answer."""

    def first(self) -> PageRequest:
        """Return the only request."""
        return PageRequest()

    def next(self, request: PageRequest, answer: PageAnswer) -> PageRequest | None:
        """Return None."""
        return None


def missing_pages(answer: PageAnswer, params: Mapping[str, Any]) -> tuple[str, str]:
    """Say why the only answer of a listing is not all of it, or may not be: (what is certain, what is possible)."""
    body = answer.body if isinstance(answer.body, dict) else {}
    links = body.get("links")
    announced = any(body.get(name) for name in _NEXT) or (isinstance(links, dict) and links.get("next"))
    if announced or 'rel="next"' in answer.headers.get("link", ""):
        return "the answer names a next page, but the listing has no paginator: only the first page is listed", ""
    rows = len(answer.items)
    if rows in ROUND or is_page_size(rows, params):
        return "", f"exactly {rows} rows came, and the listing has no paginator: if that is a full page, the others are missing"
    return "", ""


def more_rows(answer: PageAnswer) -> str:
    """Say that the only answer of a listing announces more rows than it has, by a name that means nothing else."""
    body = answer.body if isinstance(answer.body, dict) else {}
    found: list[tuple[str, Any]] = [(name, answer.headers.get(name, "").strip()) for name in _TOTAL_HEADERS]
    found += [(name, body.get(name)) for name in _TOTALS]
    for place in _OF_PAGES:
        if isinstance(about := body.get(place), dict):
            found += [(f"{place}.{name}", about.get(name)) for name in (*_TOTALS, "total", "count")]
    for name, value in found:
        number = int(value) if isinstance(value, str) and value.isdecimal() and len(value) < 19 else value
        if type(number) is int and number > len(answer.items):
            return f"{name} announces {number} rows, {len(answer.items)} came, and the listing has no paginator"
    return ""


def is_page_size(rows: int, params: Mapping[str, Any]) -> bool:
    """Say whether a parameter of the request asks for exactly so many rows."""
    return rows in page_sizes(params)


def page_sizes(params: Mapping[str, Any]) -> tuple[int, ...]:
    """Return the numbers among the parameters of a request that may be the size of a page."""
    numbers = (int(value) for value in params.values() if type(value) is int or (type(value) is str and value.isdecimal()))
    return tuple(number for number in numbers if number > 1)
