"""One reading of a listing: where its next page is, and what the answers leave in doubt."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from clients.errors import GoneError, RejectedError, UnreadableError
from clients.http.status import ContentRange, is_stale
from clients.listings.loops_and_completeness import Completeness, PageCheck
from clients.listings.offset_paginators import PAGES, PROMISED
from clients.listings.page_evidence import Evidence, Finding, Position, is_full, weigh, weigh_empty
from clients.listings.single_page import SinglePage, is_page_size, missing_pages, more_rows, page_sizes
from clients.page import DeclaredListing, Entity, Lister, PageAnswer, PageRequest

TELLS = "`total=` or `more=` would tell, if the API has one"


@dataclass(frozen=True, slots=True)
class Read:
    """One page: the answer, its entities, a line for each item without a key, what is new in it, and whether it was refused."""

    answer: PageAnswer
    entities: list[Entity]
    errors: list[str]
    check: PageCheck
    refused: bool = False


class Reading:
    """Asks for pages, and judges each answer by its place (`page_evidence`).

    Args:
        listing: what is read.
        position: of the first answer; default: the first, or only, page.

    Attributes:
        position: of the next answer.
        doubt: why the listing may not be complete; empty while nothing speaks against it.
        unproved: why rows may be missing, unless a total is reached; empty while nothing speaks for that.
        refused: the last page was refused, which may be the end.
        is_lower_bound: a page said that there are more than the total.
        is_past_pages: the last page was behind all pages that their announced number promised.
        without: what the first page has in place of its items, if it has none.
    """

    def __init__(self, listing: DeclaredListing, *, position: Position | None = None) -> None:
        self._listing = listing
        self._counting = bool(getattr(listing.paginator, "counting", False))
        #: Nothing announces that there is a next page.
        self._guessing = self._counting or bool(getattr(listing.paginator, "overlaps", False))
        self._sizes = page_sizes({**(listing.params or {}), **listing.paginator.first().params})
        self._largest = 0
        first = Position.ONLY if isinstance(listing.paginator, SinglePage) else Position.FIRST
        self.position = first if position is None else position
        self.doubt = self.unproved = ""
        self.refused = False
        self.without = ""
        self.is_lower_bound = self.is_past_pages = False

    @classmethod
    def behind(cls, cursor: Mapping[str, Any], listing: DeclaredListing, following: PageRequest) -> Self:
        """Return the reading that goes on behind a stored cursor, with the request for its first page."""
        self = cls(listing)
        if not self._guessing:
            self.position = Position.PROMISED
        self._largest = int(following.memo.get("most", 0))
        self.doubt, self.unproved = str(cursor.get("doubt", "")), str(cursor.get("unproved", ""))
        return self

    def stored(self) -> dict[str, Any]:
        """Return what a cursor keeps of the doubts so far."""
        found = {"doubt": self.doubt, "unproved": self.unproved}
        return {name: value for name, value in found.items() if value}

    def send(self, conn: Lister, request: PageRequest, since: dict[str, str], *, shown: int) -> PageAnswer:
        """Request one page; a refusal that may be the end is an answer without rows.

        Args:
            shown: how many entities the listing has shown so far.

        Raises:
            ClientError: the answer is neither a page nor an end.
        """
        self.refused = False
        try:
            answer = self._listing.send(conn, request, since)
        except (GoneError, RejectedError) as error:
            length = None if error.length is None else ContentRange(length=error.length)
            finding = weigh(error.status, self.position, shown=shown, waits=error.waits, covers=length)
            if finding.evidence is Evidence.ERROR:
                raise
            self.refused = True
            answer = PageAnswer(None, error.url or "")
        else:
            covers = ContentRange.of(answer.headers)
            finding = weigh(answer.status, self.position, shown=shown, covers=covers, is_stale=is_stale(answer.headers))
            if finding.evidence is Evidence.ERROR:
                message = f"{answer.status}, which is no page of a listing"
                raise UnreadableError(message, url=answer.url, method=self._listing.method, status=answer.status)
            self.is_lower_bound = self.is_lower_bound or self._listing.is_lower_bound(answer)
            if self.position in (Position.ONLY, Position.FIRST):
                self.without = self._listing.without_items(answer)
        self._note(finding)
        return answer

    def check_rows(self, answer: PageAnswer, *, new: int) -> None:
        """Judge an answer by its rows.

        Args:
            answer: with its items.
            new: how many of them were not shown before.
        """
        if self.refused or (new if self._counting else len(answer.items)):
            return
        has_list = bool(answer.items) or self._listing.has_list(answer)
        finding = weigh_empty(self.position, has_list=has_list)
        if finding.evidence is Evidence.DOUBT:
            self.unproved = self.unproved or finding.why

    def pass_page(self, rows: int, following: PageRequest, *, missing: int | None) -> None:
        """Move on to the next page.

        Args:
            rows: of the page that was read.
            following: the request for the next one.
            missing: how many of the announced entities were not shown yet; None where none are announced.
        """
        full = is_full(rows, largest=self._largest, sizes=self._sizes)
        self._largest = max(self._largest, rows)
        self.is_past_pages = PAGES in following.memo and not following.memo.get(PROMISED)
        if not self._guessing or following.memo.get(PROMISED):
            self.position = Position.NUMBERED if PAGES in following.memo else Position.PROMISED
        elif not rows:
            self.position = Position.BEHIND_EMPTY
        elif full:
            self.position = Position.BEHIND_FULL
        else:
            self.position = Position.BEHIND_END if missing == 0 else Position.BEHIND_SHORT

    def check_only_page(self, answer: PageAnswer, warnings: list[str]) -> str:
        """Look for signs that the answer of a listing without a paginator is only the first page.

        Args:
            warnings: gets what a person should know.

        Returns: what is certain; what is only likely becomes a doubt.
        """
        if not isinstance(self._listing.paginator, SinglePage):
            return ""
        params = self._listing.params or {}
        following, possible = missing_pages(answer, params)
        if following:
            warnings.append(following)
        elif possible and is_page_size(len(answer.items), params):
            self.doubt = self.doubt or possible
        elif possible:
            warnings.append(possible)
        if not following and getattr(self._listing, "total", None) is None:
            self.doubt = self.doubt or more_rows(answer)
        return following

    def check_total(self, known: Completeness, *, is_first: bool) -> None:
        """Look for signs that the announced total, which was reached, is none.

        Args:
            known: what was shown.
            is_first: the listing was not read again.
        """
        if self.is_lower_bound and known.total == known.distinct:
            self.doubt = self.doubt or f"{known.total} entities were shown, and the total says that these are not all"
        if known.is_repeating(in_pages=is_first):
            self.doubt = self.doubt or f"{known.total} rows were announced and came, but some twice: others may be missing"
            known.total = known.distinct

    def unproved_by(self, known: Completeness) -> str:
        """Say why answers without rows are a doubt; nothing where a total was announced and reached."""
        return f"{self.unproved}; {TELLS}" if self.unproved and known.missing != 0 else ""

    def _note(self, finding: Finding) -> None:
        if finding.evidence is Evidence.DOUBT:
            self.doubt = self.doubt or finding.why
