"""What a listing has shown so far, and whether it gets anywhere: the memory that proves it complete, or finds the circle.

Pure: knows no request's meaning, no page's shape and no clock.

Memory is bounded. Of requests, pages and keys the last `REMEMBERED` each are kept, as 8 or 16 bytes; nothing else grows.
Beyond that a repetition counts as one while it is less than `REMEMBERED` behind. So a circle of more than 100,000 pages is
not seen, and an entity shown again after 100,000 others counts twice; what drift repeats stands at the edges of pages.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import orjson

from clients.errors import LoopError
from clients.page import PageRequest

REMEMBERED = 100_000
EMPTY_PAGES = 1000
"""So many empty pages one after the other are a circle. Filters may empty many pages of a lawful listing, but not that many."""
PATIENCE = 10
"""So many pages without anything new, on top of as many as had something new, are a circle."""
SAME_PAGES = 3
"""So many equal pages one after the other mean that the server does not look at the number that we count up."""


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
        """Remember a value; tell whether it is new."""
        if value in self._values:
            return False
        self._values.add(value)
        self._order.append(value)
        if len(self._order) > self._limit:
            self._values.discard(self._order.popleft())
        return True

    def add_all(self, values: Sequence[Hashable]) -> Sequence[bool]:
        """Remember values; tell for each whether it is new."""
        different = set(values)
        if len(different) < len(values) or not different.isdisjoint(self._values):
            return [self.add(value) for value in values]
        # All are new, as on nearly every page; a third of the time.
        self._values |= different
        self._order.extend(values)
        while len(self._order) > self._limit:
            self._values.discard(self._order.popleft())
        return (True,) * len(values)


@dataclass(frozen=True, slots=True)
class Look:
    """What the proof saw in one page.

    Args:
        digest: of its keys in their order; equal pages have equal digests.
        fresh: how many of its rows were not shown before.
        new: for each key whether it was.
        same: how many pages like it came one after the other, itself included.
    """

    digest: bytes
    fresh: int
    new: Sequence[bool]
    same: int = 1


class Proof:
    """The memory of one listing.

    Args:
        distinct, total: what a stored cursor says of the pages before it.

    Attributes:
        pages: pages read, those of repairs included.
        rows: rows in them.
        distinct: different entities in them, and rows that have no key.
        total: the smallest number of entities that was announced; None when none was. The smallest, because rows that
            come or go meanwhile need not be shown (the total may be missing, null or on page one only: dlt#4429, #1414).
        moving: whether the announced number changed on the way.
    """

    def __init__(self, *, distinct: int = 0, total: int | None = None) -> None:
        self.pages = 0
        self.rows = 0
        self.distinct = distinct
        self.total = total
        self.moving = False
        self._keys = Recent()
        self._begin(None)

    def again(self) -> None:
        """Forget the way, not the entities: the listing is read once more from its start."""
        self._begin(Recent())

    def _begin(self, once_more: Recent | None) -> None:
        #: The entities of this reading, when it is not the first: to get somewhere it need not show new ones.
        self._once_more = once_more
        self.moving = False
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

    def look(self, keys: Sequence[str], *, keyless: Sequence[str] = (), total: int | None = None) -> Look:
        """Take in one page.

        Args:
            keys: of its entities, in order.
            keyless: the content of its further rows, as text.
            total: what it announces.
        """
        digest = digest_of([*keys, "", *keyless] if keyless else keys)
        # Salted 64 bits for a key: a collision among 100,000 has odds of one in 10^9, and nobody can aim at it.
        hashes = list(map(hash, keys))
        new = self._keys.add_all(hashes)
        # Its keys may be beyond memory while its digest is not: pages are fewer than rows.
        empty = not keys and not keyless
        known_page = not empty and not self._contents.add(digest)
        if known_page:
            new = (False,) * len(keys)
        fresh = sum(new) + (0 if known_page else len(keyless))
        self.pages += 1
        self.rows += len(keys) + len(keyless)
        self.distinct += fresh
        if total is not None:
            self.moving = self.moving or (self.total is not None and total != self.total)
            self.total = total if self.total is None else min(total, self.total)
        self._same = self._same + 1 if not empty and digest == self._last else 1
        self._last = digest
        self._empty = self._empty + 1 if empty else 0
        if not empty:
            useful = not known_page and (fresh > 0 if self._once_more is None else any(self._once_more.add_all(hashes)))
            self._useful += useful
            self._stale = 0 if useful else self._stale + 1
        return Look(digest, fresh, new, self._same)

    def know(self, keys: Sequence[str], *, more: int) -> None:
        """Take in a page that an earlier part of the listing showed, with so many rows `more` that it did not."""
        self._keys.add_all(list(map(hash, keys)))
        self.distinct += more

    def ask(self, request: PageRequest, *, numbered: bool = False) -> None:
        """Take in the request that comes next.

        The same rows, and the same number of them, are no circle by themselves while each page names another next one
        (n8n#12272): what counts is the same request, or page upon page without one new entity.

        Args:
            numbered: the request asks for a page by its number, so that an equal page means that nobody looked at that.

        Raises:
            LoopError: the listing goes round in circles.
        """
        if not self._requests.add(_digest(request)):
            raise LoopError("this page leads to a page that this listing already had")
        if numbered and self._same >= SAME_PAGES:
            raise LoopError(f"the same page came {self._same} times, whatever was asked for; is the parameter's name right?")
        if self._stale > self._useful + PATIENCE:
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
    text = request.url.encode() if request.url is not None else orjson.dumps(dict(request.params), option=orjson.OPT_SORT_KEYS)
    return hashlib.blake2b(text, digest_size=16).digest()
