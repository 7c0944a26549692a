"""Going through a listing, page by page, until it is proved complete or it is known why not.

Knows the order of events; `proof` remembers, the paginator says what comes next, `Listing` what a page means.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from clients.counting import ROUND
from clients.errors import GoneError, LimitError, LoopError, PageError, RejectedError, ShortError
from clients.page import Entity, Page, PageAnswer, PageRequest
from clients.proof import Look, Proof, key_digest
from clients.rates import clock_skew

if TYPE_CHECKING:
    from clients.listing import Lister, Listing

PASSES = 3
"""So often a listing whose rows move is read again before it is given up as `short`."""
_MARKS = 16


@dataclass(frozen=True, slots=True)
class Read:
    """One page as it was read: the answer, what became entities, and what the proof saw in it."""

    answer: PageAnswer
    entities: list[Entity]
    errors: list[str]
    look: Look


class Paging(Iterator[Page]):
    """Yields the pages of one listing; what is known of it so far stands beside them.

    Where rows are counted (page numbers, offsets), those that come and go meanwhile shift all the others: after a deletion
    the first row of the next page is nowhere. So a few pages are read again when the end is reached (`Listing.recheck`). If
    one is not what it was, or the announced total changed or was not reached, the whole listing is read again, and what was
    not shown yet is yielded as further pages. That is done until a second look finds nothing, `PASSES` times at most.
    A listing of that kind that goes on from a stored cursor looks whether the page before it is still there.

    Attributes:
        proof: pages, rows, distinct entities and the announced total.
        stopped: "" while it goes on, then `end`, `loop`, `limit`, `short` or `error`.
        passes: how often the listing was read again.
        warnings: what a person should know of it.
    """

    def __init__(self, listing: Listing, conn: Lister, *, cursor: Any, since: Mapping[str, str] | None) -> None:
        self._listing = listing
        self._conn = conn
        self._of = listing.identity
        self._counting = bool(getattr(listing.paginator, "counting", False))
        self._numbered = bool(getattr(listing.paginator, "numbered", False))
        self._overlaps = bool(getattr(listing.paginator, "overlaps", False))
        self._began = time.monotonic()
        self.stopped = ""
        self.warnings: list[str] = []
        if cursor is None:
            self._request, self._since = listing.paginator.first(), dict(since or {})
            self._anchor: Mapping[str, Any] | None = None
            self.proof, self.passes = Proof(), 0
        else:
            self._request, self._since = PageRequest.from_json(cursor), _part(cursor, "since")
            if cursor.get("of", self._of) != self._of:
                # Half of the rows by one declaration and half by another are not the rows of either.
                raise ValueError("the declaration of the listing was changed since its cursor was stored")
            self._anchor = _part(cursor, "anchor") or None
            self.proof, self.passes = Proof(**_part(cursor, "proof")), int(bool(cursor.get("again")))
        self._resumed = cursor is not None
        #: Pages to be read again at the end: every n-th, n doubling, so that any number of pages leaves a few.
        self._marks: list[tuple[PageRequest, bytes]] = []
        self._last_mark: list[tuple[PageRequest, bytes]] = []
        self._stride = 1
        self._full_pages = 0
        self._previous: dict[str, Any] = {}
        self._gap = _Gaps()
        #: What a page said in place of its items, and whether it was not the last one.
        self._remark = ""
        self._lost = False
        self._skew: float | None = None
        self._is_first = True
        self._pages = self._run()

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
            if not self._moves():
                break
            if self.passes == PASSES:
                yield self._page(last, None)
                raise self._short(f"the rows moved while they were listed, also when read again {PASSES} times")
            self.passes += 1
            self.proof.again()
            self._marks, self._last_mark, self._stride, self._full_pages, self._gap = [], [], 1, 0, _Gaps()
            self._remark, self._lost = "", False
            self._request = self._listing.paginator.first()
            yield self._page(last, {**self._stored(self._request), "again": True})
        if self.passes and not self._resumed:
            self.warnings.append(f"the rows moved while they were listed; it was read again {self.passes} times to find all")
        following, doubt = _unpaged(self._listing, last.answer)
        self.warnings += filter(None, (following, doubt))
        doubt = "" if following or not _is_asked_for(self._listing, len(last.answer.items)) else doubt
        yield self._page(last, None, doubt=doubt or self._remark)
        if self.proof.missing and not (self._resumed and self.passes):
            raise self._short(f"it announced {self.proof.total} entities and did not show {self.proof.missing} of them")
        if following:
            raise self._short(following)
        # Where a cursor or a link has promised a page, it is not how the API says that there is nothing more.
        promised = (self.proof.pages > 1 or self._resumed) and not (self._counting or self._overlaps)
        if self._lost or (self._remark and promised):
            raise self._short(self._remark)

    def _pass(self) -> Generator[Page, None, Read]:
        """Yield the pages up to the last one, and return that."""
        request = self._request
        self.proof.ask(request)
        before: PageRequest | None = None
        while True:
            self._check_limits(request)
            read = self._read(request, before=before)
            self._lost = self._lost or bool(self._remark and read.entities)
            following = self._listing.paginator.next(request, read.answer)
            if read.entities:
                before = request
                self._mark(request, read.look.digest)
            if following is None:
                return read
            if following.url is not None:
                following = PageRequest(url=self._conn.without_credentials(following.url), memo=following.memo)
            yield self._page(read, self._stored(following, request=request, read=read))
            try:
                self.proof.ask(following, numbered=self._numbered)
            except LoopError as error:
                raise LoopError(error.message, url=read.answer.url, method=self._listing.method) from None
            request = following

    def _read(self, request: PageRequest, *, before: PageRequest | None = None) -> Read:
        """Read and take in one page.

        Args:
            before: a page that was there. Behind it, a look behind the end that is refused (404, 400) counts as an empty page.
        """
        try:
            answer = self._listing.send(self._conn, request, self._since)
        except (GoneError, RejectedError) as error:
            if before is None or not request.memo.get("look"):
                raise
            answer = PageAnswer(None, error.url or "")
        if self._is_first:
            self._skew, self._is_first = clock_skew(answer.headers), False
        items = () if answer.body is None else self._listing.raw_items(answer)
        if not items and (remark := self._listing.remark(answer)):
            self._remark = remark
        entities, errors, keyless = self._listing.entities(items)
        keys = [entity.key for entity in entities]
        look = self.proof.look(keys, keyless=keyless, total=self._listing.announced(answer))
        fresh, missing = look.fresh, self.proof.missing
        if self.passes:
            # All has been seen, so that only a page that is the same as the one before says nothing new.
            self._gap.look(look.new)
            fresh, missing = (0, 0) if look.same > 1 else (len(items), None)
        known = PageAnswer(answer.body, answer.url, answer.headers, items, () if keyless else keys, fresh, missing)
        return Read(known, entities, errors, look)

    def _page(self, read: Read, cursor: Any, *, doubt: str = "") -> Page:
        """Return what the reader gets: a page without what only our own going back brought again."""
        entities, new = read.entities, read.look.new
        repeated = 0
        if sum(new) < len(entities):
            fresh = {entity.key for entity, is_new in zip(entities, new, strict=True) if is_new}
            if self.passes and not self._resumed:
                entities = [entity for entity, is_new in zip(entities, new, strict=True) if is_new]
            elif self._overlaps:
                entities = [entity for entity in entities if self._previous.get(entity.key, self) != entity.data]
            # Not those that stand twice in this very page.
            repeated = len({entity.key for entity in entities} - fresh)
        if self._overlaps:
            self._previous = {entity.key: entity.data for entity in read.entities}
        warnings, self.warnings = tuple(self.warnings), []
        skew, self._skew = self._skew, None
        return Page(entities, cursor, self.proof.total, read.errors, repeated, warnings, doubt=doubt, skew=skew)

    def _stored(self, following: PageRequest, *, request: PageRequest | None = None, read: Read | None = None) -> dict[str, Any]:
        """Return the cursor behind `read`."""
        stored = following.to_json()
        stored["of"] = self._of
        if self._since:
            stored["since"] = self._since
        if self.proof.total is not None:
            stored["proof"] = {"distinct": self.proof.distinct, "total": self.proof.total}
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
            PageError: it is another page now, so that nobody knows where the listing was; it has to start over.
        """
        proof, self.proof = self.proof, Proof()
        read = self._read(PageRequest(anchor["params"]))
        self.proof = proof
        keys = [entity.key for entity in read.entities]
        marks = [key_digest(key) for key in keys]
        # What it shows was counted before the interruption, but for what moved up into it.
        moved = len(marks) - 1 - marks.index(anchor["last"]) if anchor["last"] in marks else 0
        self.proof.know(keys, more=moved)
        if moved:
            # Rows before it are gone, and some from behind the edge moved up into this page.
            yield self._page(read, {**self._stored(self._request), "anchor": anchor})
        elif anchor["last"] not in marks and anchor["first"] not in marks:
            raise PageError("the rows moved while the listing was interrupted, so it has to start over", url=read.answer.url)

    def _mark(self, request: PageRequest, digest: bytes) -> None:
        if self._counting:
            self._last_mark = [(request, digest)]
            if self._full_pages % self._stride == 0:
                self._marks += self._last_mark
            if len(self._marks) > _MARKS:
                del self._marks[1::2]
                self._stride *= 2
            self._full_pages += 1

    def _moves(self) -> bool:
        """Tell whether the listing has to be read again, because rows moved while they were counted."""
        if not self._counting or self._listing.recheck == 0 or self._resumed:
            return False
        if self.passes and not self._gap.found:
            return False
        if self.proof.moving or self._lost or (self.proof.missing and not self.passes):
            return True
        marks = self._marks if self._marks[-1:] == self._last_mark else self._marks + self._last_mark
        wanted = min(self._listing.recheck, len(marks))
        proof = self.proof
        try:
            for number in range(wanted):
                # The last one always: behind it, a row that moved up is missed by the look for more.
                request, digest = marks[len(marks) - 1 - number * len(marks) // wanted]
                self.proof = Proof()
                if self._read(request, before=request).look.digest != digest:
                    return True
        finally:
            self.proof = proof
        return False

    def _check_limits(self, request: PageRequest) -> None:
        pages, seconds = self._listing.max_pages, self._listing.max_seconds
        if pages is not None and self.proof.pages >= pages:
            raise LimitError(f"stopped after {pages} pages (max_pages)", url=request.url)
        if seconds is not None and time.monotonic() - self._began >= seconds:
            raise LimitError(f"stopped after {seconds:g} s (max_seconds)", url=request.url)

    def _short(self, why: str) -> ShortError:
        return ShortError(f"the listing is not complete: {why}")


class _Gaps:
    """Strictly private: counts rows that were not shown yet and stand between two that were, when a listing is read again.

    Those were lost over an edge. New ones in front of all and behind all have only just come.
    """

    __slots__ = ("_pending", "_within", "found")

    def __init__(self) -> None:
        self.found = 0
        self._pending = 0
        self._within = False

    def look(self, new: Sequence[bool]) -> None:
        for is_new in new:
            if is_new:
                self._pending += self._within
            else:
                self.found += self._pending
                self._pending, self._within = 0, True


_NEXT = ("next", "next_page", "next_cursor", "nextPageToken", "has_more", "@odata.nextLink", "continue")


def _unpaged(listing: Listing, answer: PageAnswer) -> tuple[str, str]:
    """Say why a listing without a paginator has more pages, or may well have some."""
    if type(listing.paginator).__name__ != "SinglePage":
        return "", ""
    body = answer.body if isinstance(answer.body, dict) else {}
    links = body.get("links")
    announced = any(body.get(name) for name in _NEXT) or (isinstance(links, dict) and links.get("next"))
    if announced or 'rel="next"' in answer.headers.get("link", ""):
        return "the answer names a next page, but the listing has no paginator: only the first page is listed", ""
    rows = len(answer.items)
    if rows in ROUND or _is_asked_for(listing, rows):
        return "", f"exactly {rows} rows came, and the listing has no paginator: if that is a full page, the others are missing"
    return "", ""


def _is_asked_for(listing: Listing, rows: int) -> bool:
    """Tell whether a parameter of the listing asks for exactly so many rows."""
    return rows > 1 and str(rows) in {str(value) for value in (listing.params or {}).values() if type(value) in (int, str)}


def _part(cursor: Any, name: str) -> dict[str, Any]:
    part = cursor.get(name, {})
    if isinstance(part, dict):
        return part
    raise ValueError("the stored cursor of the listing is not one that this version wrote")
