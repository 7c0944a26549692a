"""Remembers what a listing has shown: counts distinct entities, and detects loops of pages.

Memory is bounded: the last `REMEMBERED` requests, pages and keys are kept, as 8 or 16 bytes each. So a loop of more than 100,000
pages is not detected, and an entity that is shown again after 100,000 others counts twice. Rows that moved meanwhile are repeated
at the edges of pages, where this does not matter.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from clients.errors import LoopError
from clients.json_codec import encode
from clients.page import PageRequest

REMEMBERED = 100_000
EMPTY_PAGES = 1000
"""So many consecutive empty pages are a loop. Filters may empty many pages of a good listing, but not that many."""
MAX_STALE_PAGES = 10
"""So many consecutive pages without anything new, plus as many as had something new, are a loop."""
SAME_PAGES = 3
"""So many consecutive equal pages mean that the server ignores the page number."""


class Recent:
    """The last `limit` different values."""

    __slots__ = ("_limit", "_order", "_values")

    def __init__(self, limit: int = REMEMBERED) -> None:
        self._limit = limit
        self._values: set[Hashable] = set()
        self._order: deque[Hashable] = deque()

    def __contains__(self, value: Hashable) -> bool:
        return value in self._values

    def __len__(self) -> int:
        return len(self._values)

    def add(self, value: Hashable) -> bool:
        """Add a value; say whether it is new."""
        if value in self._values:
            return False
        self._values.add(value)
        self._order.append(value)
        if len(self._order) > self._limit:
            self._values.discard(self._order.popleft())
        return True

    def add_all(self, values: Sequence[Hashable]) -> Sequence[bool]:
        """Add values; say for each whether it is new."""
        different = set(values)
        if len(different) < len(values) or not different.isdisjoint(self._values):
            return [self.add(value) for value in values]
        # Fast path: on nearly every page all values are new. It takes a third of the time.
        self._values |= different
        self._order.extend(values)
        while len(self._order) > self._limit:
            self._values.discard(self._order.popleft())
        return (True,) * len(values)


@dataclass(frozen=True, slots=True)
class PageCheck:
    """What is new in one page.

    Args:
        digest: of its keys in their order; equal pages have equal digests.
        fresh: how many of its rows were not shown before.
        new: for each key, whether it was not shown before.
        same: how many equal pages came one after the other, this one included.
    """

    digest: bytes
    fresh: int
    new: Sequence[bool]
    same: int = 1


class Completeness:
    """The memory of one listing.

    Args:
        distinct, total, running: of the pages before a stored cursor.

    Attributes:
        pages: pages read, those that were read again included.
        rows: rows in them.
        distinct: different entities in them, and rows that have no key.
        total: the smallest number of entities that was announced; None when none was. The smallest, because rows that
            come or go meanwhile need not be shown (the total may be missing, null or on page one only: dlt#4429, #1414).
        running: whether the announced numbers are no totals but grow with the pages: each was at most a page ahead, and more
            rows came. None while that may be so.
        moving: whether the announced number changed on the way.
    """

    def __init__(self, *, distinct: int = 0, total: int | None = None, running: bool | None = None) -> None:
        self.pages = 0
        self.rows = 0
        self.distinct = distinct
        self.total = total
        self.running = running
        self.moving = False
        self._largest = 0
        self._keys = Recent()
        self._begin(None)

    def restart(self) -> None:
        """Forget requests and pages, but not entities: the listing is read again from its start."""
        self._begin(Recent())

    def _begin(self, once_more: Recent | None) -> None:
        #: The entities of this reading, if it is not the first: such a reading need not show new ones.
        self._once_more = once_more
        self.moving = False
        #: Rows of this reading, and those of them that stand on their page a second time.
        self._shown_rows = 0
        self._twice = 0
        self._requests = Recent()
        self._contents = Recent()
        self._useful = 0
        self._stale = 0
        self._empty = 0
        self._same = 0
        self._last = b""

    @property
    def missing(self) -> int | None:
        """How many of the announced entities were not shown, or None when none were announced."""
        return None if self.total is None else max(0, self.total - self.distinct)

    def is_repeating(self, *, in_pages: bool) -> bool:
        """Say whether as many rows came as were announced, and entities are missing only because some came twice.

        That may be how the API counts, or others may be missing in their place; nobody can tell.

        Args:
            in_pages: only rows that are twice on one page count. Rows that move meanwhile are never that.
        """
        if not self.missing or self.moving or self.total is None:
            return False
        return self.missing <= self._twice if in_pages else self._shown_rows >= self.total

    def add_page(self, keys: Sequence[str], *, keyless: Sequence[str] = (), total: int | None = None) -> PageCheck:
        """Add one page.

        Args:
            keys: of its entities, in order.
            keyless: the content of its further rows, as text.
            total: what it announces.
        """
        digest = digest_of([*keys, "", *keyless] if keyless else keys)
        # 64 bits for a key, salted: a collision among 100,000 has a probability of 10^-9, and nobody can provoke one.
        hashes = list(map(hash, keys))
        new = self._keys.add_all(hashes)
        # Its digest may be remembered when its keys no longer are, because there are fewer pages than rows.
        empty = not keys and not keyless
        known_page = not empty and not self._contents.add(digest)
        if known_page:
            new = (False,) * len(keys)
        fresh = sum(new) + (0 if known_page else len(keyless))
        rows = len(keys) + len(keyless)
        self.pages += 1
        self.rows += rows
        self.distinct += fresh
        self._shown_rows += rows
        self._twice += len(keys) - len(set(hashes))
        self._largest = max(self._largest, rows)
        if total is not None and not self.running and (rows or self.total is None):
            # Behind the end some APIs announce 0, or the position that was asked for.
            self._announce(total)
        self._same = self._same + 1 if not empty and digest == self._last else 1
        self._last = digest
        self._empty = self._empty + 1 if empty else 0
        if not empty:
            useful = not known_page and (fresh > 0 if self._once_more is None else any(self._once_more.add_all(hashes)))
            self._useful += useful
            self._stale = 0 if useful else self._stale + 1
        return PageCheck(digest, fresh, new, self._same)

    def _announce(self, total: int) -> None:
        self.moving = self.moving or (self.total is not None and total != self.total)
        self.total = total if self.total is None else min(total, self.total)
        if self._once_more is not None or self.running is False:
            return
        if total > self.distinct + self._largest:
            self.running = False
        elif self.distinct > self.total:
            # Tripletex announces as many rows as there are up to the next page, other APIs those of the page itself.
            self.running, self.total, self.moving = True, None, False

    def add_known_page(self, keys: Sequence[str], *, more: int) -> None:
        """Add a page that was counted before an interruption, with `more` rows that were not."""
        self._keys.add_all(list(map(hash, keys)))
        self.distinct += more

    def check_request(self, request: PageRequest, *, numbered: bool = False) -> None:
        """Check the next request.

        Equal rows, or equal numbers of rows, are no loop while each page names another next page (n8n#12272). A loop is the same
        request again, or many pages without a new entity.

        Args:
            numbered: the request asks for a page by its number, so that equal pages mean that the server ignores it.

        Raises:
            LoopError: the listing is in a loop.
        """
        if not self._requests.add(_digest(request)):
            raise LoopError("this page leads to a page that this listing already had")
        if numbered and self._same >= SAME_PAGES:
            raise LoopError(f"the same page came {self._same} times, whatever was asked for; is the parameter's name right?")
        if self._stale > self._useful + MAX_STALE_PAGES:
            raise LoopError(f"{self._stale} pages in a row had only entities that earlier ones had")
        if self._empty >= EMPTY_PAGES:
            raise LoopError(f"{self._empty} empty pages in a row, each with a next one")


def key_digest(key: str) -> str:
    """Return 16 characters that stand for a key in a stored cursor."""
    return hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


def digest_of(keys: Sequence[str]) -> bytes:
    """Return 16 bytes that stand for keys in their order."""
    text = "\0".join(keys)
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _digest(request: PageRequest) -> bytes:
    text = request.url.encode() if request.url is not None else encode(dict(request.params), sort_keys=True)
    return hashlib.blake2b(text, digest_size=16).digest()
