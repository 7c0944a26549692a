"""Finds out whether rows moved while they were listed: samples pages to read again, and finds gaps in a second reading."""

from __future__ import annotations

from collections.abc import Sequence

from clients.page import PageRequest

MAX_SAMPLES = 16

RECHECK = 5
"""So many pages are read again where nothing else shows that rows moved, …"""
RECHECK_COUNTED = 2
"""… and so many where a total or a flag does: together with a look behind the last page."""


class PageSample:
    """Requests of evenly spaced pages of a listing, with the digests of their keys; few, however many pages there are."""

    __slots__ = ("_count", "_last", "_sampled", "_stride")

    def __init__(self) -> None:
        #: Every n-th page; n doubles whenever there are too many.
        self._sampled: list[tuple[PageRequest, bytes]] = []
        self._last: list[tuple[PageRequest, bytes]] = []
        self._stride = 1
        self._count = 0

    @property
    def count(self) -> int:
        """How many pages were added."""
        return self._count

    def add(self, request: PageRequest, digest: bytes) -> None:
        """Add the next page."""
        self._last = [(request, digest)]
        if self._count % self._stride == 0:
            self._sampled += self._last
        if len(self._sampled) > MAX_SAMPLES:
            del self._sampled[1::2]
            self._stride *= 2
        self._count += 1

    def choose(self, number: int | None = None, *, looks: int | None = None) -> list[tuple[PageRequest, bytes]]:
        """Return the pages to read again: `number`, or all if there are fewer, evenly spaced.

        The last page of the listing is always among them: a row that moved up into it is on no page behind the end. Only where
        a total or a flag shows the end it is not, and few pages are read again.

        Args:
            looks: requests behind the last page, where a total or a flag shows the end.
        """
        if number is None and looks is not None:
            return self._spread(max(1, RECHECK_COUNTED - looks))
        number = RECHECK if number is None else number
        pages = self._sampled if self._sampled[-1:] == self._last else self._sampled + self._last
        number = min(number, len(pages))
        return [pages[len(pages) - 1 - position * len(pages) // number] for position in range(number)]

    def _spread(self, number: int) -> list[tuple[PageRequest, bytes]]:
        """Return one or two pages, never the last one.

        A row is missed when one before it is deleted after its page was read and before the next page is; that changes all pages
        between the two. So the first page shows what is lost where old rows go and new ones come, a page in the middle most of
        the rest, and the last one nothing. An only page has no other.
        """
        pages = [one for one in self._sampled if one not in self._last]
        middle = len(pages) // 2
        only = middle if len(pages) > RECHECK else 0
        return [pages[position] for position in sorted({0, middle} if number > 1 else {only}) if position < len(pages)]


class GapDetector:
    """Counts new rows between known ones when a listing is read again.

    Those were missed the first time, because rows moved over the edge of a page. New rows before all known ones, and behind
    all, have only just been added.

    Attributes:
        found: how many.
    """

    __slots__ = ("_behind_known", "_pending", "found")

    def __init__(self) -> None:
        self.found = 0
        self._pending = 0
        self._behind_known = False

    def add_page(self, new: Sequence[bool]) -> None:
        """Add the rows of the next page: for each, whether it was not shown before."""
        for is_new in new:
            if is_new:
                self._pending += self._behind_known
            else:
                self.found += self._pending
                self._pending, self._behind_known = 0, True
