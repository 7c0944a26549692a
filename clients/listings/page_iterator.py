"""Reads a listing page by page until it is complete, or raises why it is not."""

from __future__ import annotations

import time
import warnings
from collections.abc import Generator, Iterator, Mapping
from dataclasses import replace
from typing import Any, Self

from clients.errors import LimitError, LoopError, PageError, ShortError
from clients.http.rate_limits.rate_limit_headers import clock_skew
from clients.listings.jmespaths import flag_at
from clients.listings.loops_and_completeness import Completeness, key_digest
from clients.listings.moved_rows import GapDetector, PageSample
from clients.listings.page_evidence import Position
from clients.listings.reading import TELLS, Read, Reading
from clients.page import DeclaredListing, Lister, Page, PageRequest

PASSES = 3
"""A listing whose rows move is read again so many times; then it is `short`."""


class Paging(Iterator[Page]):
    """Yields the pages of one listing; its attributes say how far it is.

    Where rows are counted (page numbers, offsets), rows that are added or deleted meanwhile shift all the others: after a
    deletion, the first row of the next page is missed. So a few pages are read again at the end (`Listing.recheck`). If
    one has changed, or the announced total changed or was not reached, the whole listing is read again, and what was
    not shown yet is yielded as further pages. That is repeated until nothing new is found, at most `PASSES` times.
    When such a listing is resumed from a stored cursor, the page before the cursor is checked first.

    Attributes:
        completeness: pages, rows, distinct entities and the announced total.
        stopped: "" while it goes on, then `end`, `loop`, `limit`, `short` or `error`.
        passes: how often the listing was read again.
        warnings: what a person should know about it.
    """

    def __init__(self, listing: DeclaredListing, conn: Lister, *, cursor: Any, since: Mapping[str, str] | None) -> None:
        self._listing = listing
        self._conn = conn
        self._of = listing.identity
        self._counting = bool(getattr(listing.paginator, "counting", False))
        self._numbered = bool(getattr(listing.paginator, "numbered", False))
        self._overlaps = bool(getattr(listing.paginator, "overlaps", False))
        self._began = time.monotonic()
        self.stopped = ""
        self.warnings: list[str] = []
        #: What a page said instead of its items, and whether it was not the last one.
        self._remark, self._lost = "", False
        if cursor is None:
            self._request, self._since = listing.paginator.first(), dict(since or {})
            self._anchor: Mapping[str, Any] | None = None
            self.completeness, self.passes = Completeness(), 0
            self._reading = Reading(listing)
        else:
            self._request, self._since = PageRequest.from_json(cursor), _part(cursor, "since")
            if cursor.get("of", self._of) != self._of:
                # Half of the rows by one declaration and half by another are not all rows of either.
                raise ValueError("the declaration of the listing was changed since its cursor was stored")
            self._anchor = _part(cursor, "anchor") or None
            self._reading = Reading.behind(cursor, listing, self._request)
            # A cursor of an older version does not say whether the total may be none.
            self.completeness = Completeness(**{"running": False, **_part(cursor, "proof")})
            self.passes = int(bool(cursor.get("again")))
            self._remark, self._lost = str(cursor.get("remark", "")), bool(cursor.get("lost"))
        self._resumed = cursor is not None
        self._sample = PageSample()
        self._previous: dict[str, Any] = {}
        self._gaps = GapDetector()
        #: Requests of this reading.
        self._asked = 0
        self._skew: float | None = None
        self._is_first = True
        self._pages = self._run()

    @property
    def proof(self) -> Completeness:
        """The old name of `completeness`."""
        warnings.warn("Paging.proof is now Paging.completeness", DeprecationWarning, stacklevel=2)
        return self.completeness

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Page:
        try:
            return next(self._pages)
        except StopIteration:
            self.stopped = self.stopped or "end"
            raise
        except Exception as error:
            self.stopped = getattr(error, "stopped", "error")
            raise

    def _run(self) -> Iterator[Page]:
        if self._anchor is not None:
            yield from self._rejoin(self._anchor)
        while True:
            last = yield from self._pass()
            if not self._moved(last):
                break
            if self.passes == PASSES:
                yield self._page(last, None)
                raise self._short(f"the rows moved while they were listed, also when read again {PASSES} times")
            self.passes += 1
            self.completeness.restart()
            self._sample, self._gaps = PageSample(), GapDetector()
            self._remark, self._lost = "", False
            self._request, self._reading = self._listing.paginator.first(), Reading(self._listing)
            yield self._page(last, {**self._stored(self._request), "again": True})
        yield from self._end(last)

    def _end(self, last: Read) -> Iterator[Page]:
        """Yield the last page, and raise what is missing.

        Raises:
            ShortError: something is.
        """
        if self.passes and not self._resumed:
            self.warnings.append(f"the rows moved while they were listed; it was read again {self.passes} times to find all")
        reading, known = self._reading, self.completeness
        following = reading.check_only_page(last.answer, self.warnings)
        reading.check_total(known, is_first=not self.passes)
        if reading.without and not known.distinct:  # nothing else came: an error with a good status, or a wrong path
            raise PageError(reading.without, url=last.answer.url, method=self._listing.method)
        doubt = reading.doubt or reading.unproved_by(known)
        self.warnings += [doubt] if doubt else []
        yield self._page(last, None, doubt=doubt or self._remark)
        if known.missing and not (self._resumed and self.passes):
            raise self._short(f"it announced {known.total} entities and did not show {known.missing} of them")
        if following:
            raise self._short(following)
        if last.refused and reading.doubt and known.missing is None and not reading.is_past_pages:
            raise self._short(f"{reading.doubt}; {TELLS}")
        # Where a cursor or a link named this page, its message cannot mean that there is nothing more.
        promised = (self.completeness.pages > 1 or self._resumed) and not (self._counting or self._overlaps)
        if self._lost or (self._remark and promised):
            raise self._short(self._remark)

    def _pass(self) -> Generator[Page, None, Read]:
        """Yield the pages up to the last one, and return that."""
        request, self._asked = self._request, 0
        self.completeness.check_request(request)
        while True:
            self._check_limits(request)
            self._asked += 1
            read = self._read(request, self._reading)
            self._lost = self._lost or bool(self._remark and read.entities)
            following = None if read.refused else self._listing.paginator.next(request, read.answer)
            if read.entities and self._counting:
                self._sample.add(request, read.check.digest)
            if following is None:
                return read
            self._reading.pass_page(len(read.answer.items), following, missing=self.completeness.missing)
            if following.url is not None:
                following = PageRequest(url=self._conn.without_credentials(following.url), memo=following.memo)
            yield self._page(read, self._stored(following, request=request, read=read))
            try:
                self.completeness.check_request(following, numbered=self._numbered)
            except LoopError as error:
                raise LoopError(error.message, url=read.answer.url, method=self._listing.method) from None
            request = following

    def _read(self, request: PageRequest, reading: Reading) -> Read:
        """Request one page, and add it to what was shown."""
        answer = reading.send(self._conn, request, self._since, shown=self.completeness.distinct)
        if self._is_first:
            self._skew, self._is_first = clock_skew(answer.headers), False
        items = () if answer.body is None else self._listing.raw_items(answer)
        if not items and (remark := self._listing.remark(answer)):
            self._remark = remark
        entities, errors, keyless = self._listing.entities(items)
        keys = [entity.key for entity in entities]
        check = self.completeness.add_page(keys, keyless=keyless, total=self._listing.announced(answer))
        fresh, missing = check.fresh, self.completeness.missing
        if self.passes:
            # The entities are known from the first reading, so only a page that equals the one before has nothing new.
            self._gaps.add_page(check.new)
            fresh, missing = (0, 0) if check.same > 1 else (len(items), None)
        known = replace(
            answer, items=items, keys=() if keyless else keys, fresh=fresh, missing=missing, shown=self.completeness.distinct
        )
        reading.check_rows(known, new=fresh)
        return Read(known, entities, errors, check, reading.refused)

    def _page(self, read: Read, cursor: Any, *, doubt: str = "") -> Page:
        """Return the page to yield, without rows that only come again because we read pages again."""
        entities, new = read.entities, read.check.new
        repeated = 0
        if sum(new) < len(entities):
            fresh = {entity.key for entity, is_new in zip(entities, new, strict=True) if is_new}
            if self.passes and not self._resumed:
                entities = [entity for entity, is_new in zip(entities, new, strict=True) if is_new]
            elif self._overlaps:
                entities = [entity for entity in entities if self._previous.get(entity.key, self) != entity.data]
            # Rows that are twice on this page do not count.
            repeated = len({entity.key for entity in entities} - fresh)
        if self._overlaps:
            self._previous = {entity.key: entity.data for entity in read.entities}
        remarks, self.warnings = tuple(self.warnings), []
        skew, self._skew = self._skew, None
        return Page(
            entities,
            cursor,
            total=self.completeness.total,
            errors=read.errors,
            repeated=repeated,
            warnings=remarks,
            doubt=doubt,
            skew=skew,
        )

    def _stored(self, following: PageRequest, *, request: PageRequest | None = None, read: Read | None = None) -> dict[str, Any]:
        """Return the cursor after `read`. Its keys are stored in databases, so they must not change."""
        stored = following.to_json()
        stored["of"] = self._of
        if self._since:
            stored["since"] = self._since
        stored.update(self._reading.stored())
        if self._remark:
            stored["remark"], stored["lost"] = self._remark, self._lost
        known = self.completeness
        if known.distinct or known.total is not None:
            stored["proof"] = {"distinct": known.distinct, "total": known.total, "running": known.running}
        if self._counting and request is not None and read is not None:
            if read.entities:
                keys = read.entities[0].key, read.entities[-1].key
                self._anchor = {"params": dict(request.params), "first": key_digest(keys[0]), "last": key_digest(keys[1])}
            if self._anchor is not None:
                stored["anchor"] = self._anchor
            if self.passes:
                stored["again"] = True
        return stored

    def _rejoin(self, anchor: Mapping[str, Any]) -> Iterator[Page]:
        """Read the page before a stored cursor again: rows may have moved over its edge in the meantime.

        Raises:
            PageError: it is another page now, so the position of the listing is lost; it has to start over.
        """
        known, self.completeness = self.completeness, Completeness()
        read = self._read(PageRequest(anchor["params"]), self._reading)
        self.completeness = known
        self._reading.pass_page(len(read.answer.items), self._request, missing=known.missing)
        keys = [entity.key for entity in read.entities]
        marks = [key_digest(key) for key in keys]
        # Its rows were counted before the interruption, except those that moved up into it.
        moved = len(marks) - 1 - marks.index(anchor["last"]) if anchor["last"] in marks else 0
        self.completeness.add_known_page(keys, more=moved)
        if moved:
            # Rows before it were deleted, and some from the next page moved up into this one.
            yield self._page(read, {**self._stored(self._request), "anchor": anchor})
        elif anchor["last"] not in marks and anchor["first"] not in marks:
            raise PageError("the rows moved while the listing was interrupted, so it has to start over", url=read.answer.url)

    def _moved(self, last: Read) -> bool:
        """Say whether the listing has to be read again, because rows moved while they were counted."""
        if not self._counting or self._listing.recheck == 0 or self._resumed:
            return False
        if self.passes and not self._gaps.found:
            return False
        known = self.completeness
        is_missing = known.missing and not known.is_repeating(in_pages=True)
        if known.moving or self._lost or (is_missing and not self.passes):
            return True
        # A page that is refused now had rows before.
        again = Reading(self._listing, position=Position.BEHIND_EMPTY)
        try:
            more = getattr(self._listing.paginator, "more", None)
            flagged = more is not None and flag_at(more, last.answer.body) is False
            # Rows that are deleted or added show in the total, or as missing.
            looks = self._asked - self._sample.count if flagged or known.total is not None else None
            for request, digest in self._sample.choose(self._listing.recheck, looks=looks):
                self.completeness = Completeness()
                if self._read(request, again).check.digest != digest:
                    return True
        finally:
            self.completeness = known
        return False

    def _check_limits(self, request: PageRequest) -> None:
        pages, seconds = self._listing.max_pages, self._listing.max_seconds
        if pages is not None and self.completeness.pages >= pages:
            raise LimitError(f"stopped after {pages} pages (max_pages)", url=request.url)
        if seconds is not None and time.monotonic() - self._began >= seconds:
            raise LimitError(f"stopped after {seconds:g} s (max_seconds)", url=request.url)

    def _short(self, why: str) -> ShortError:
        return ShortError(f"the listing is not complete: {why}")


def _part(cursor: Any, name: str) -> dict[str, Any]:
    part = cursor.get(name, {})
    if isinstance(part, dict):
        return part
    raise ValueError("the stored cursor of the listing is not one that this version wrote")
