"""Paging through a listing: each page becomes jobs in one transaction (law 2). Knows no worker."""

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol

from clients import IncompleteError, Page
from flows.declaration import Sync
from flows.mark import Marker
from flows.tracker import Progress, Tracker
from flows.verdict import attempt
from jobs import PayloadError
from jobs.job import Lane, Verdict
from jobs.listing import ListingClaim, Marked
from jobs.outcome import Failure, Gone, Pause
from jobs.page import LONGEST_KEY, Item, PageResult, excess
from jobs.store import JobStore

log = logging.getLogger("syncs.listing")


class Resumable(Protocol):
    """A listing that can go on behind a stored cursor; `clients.Listing` is one."""

    def pages(self, conn: Any, *, cursor: Any = None, since: Any = None) -> Iterator[Page]:
        """Yield the pages behind `cursor`, or from the start."""
        ...


@dataclass(frozen=True, slots=True)
class Ended:
    """Why a listing ended: `end`, `short`, `limit`, `loop`, `error`, `paused` or `stop`, and what to say about it.

    Args:
        doubt: why nobody can tell whether an `end` is one.
    """

    stopped: str
    message: str = ""
    pause: Pause | None = None
    cause: str = ""
    trouble: bool = False
    doubt: str = ""


_END = object()


@dataclass(slots=True)
class Lister:
    """Lists one sync from where its claim says.

    Args:
        sync: the declaration.
        store: where the jobs go.
        claim: the right to run it.
        lane: the jobs' lane.
        connect: gives this thread a connection.
        judge, judge_page: from exception to verdict; the latter raises `IncompleteError` again.
        tracker, progress: who watches, and the run's numbers.
        full: queue every entity, changed or not.
        limit: stop after so many entities; `None` lists all.
        goes_on: asked before each page.
        marker: follows an incremental listing.
        answered: told of each page that came, before it is stored.
    """

    sync: Sync
    store: JobStore
    claim: ListingClaim
    lane: Lane
    connect: Callable[[], Any]
    judge: Callable[[Exception], Verdict]
    judge_page: Callable[[Exception], Verdict]
    tracker: Tracker
    progress: Progress
    full: bool
    limit: int | None
    goes_on: Callable[[], bool]
    marker: Marker | None = None
    answered: Callable[[], None] = lambda: None
    #: How many entities the listing says it has, as its last page said.
    announced: int | None = None
    #: Entities of this listing that an earlier run has shown, where this one goes on behind them.
    shown_before: int = 0
    #: What the listing said behind its last page, if it knows that it is not complete.
    incomplete: IncompleteError | None = None
    #: What the listing said of pages that may not have been whole.
    doubt: str = ""

    def run(self) -> Ended:
        """List until the end, and say why it ended. Never raises for what the remote side did."""
        cursor = self.claim.cursor
        ended = self._run(cursor)
        if isinstance(ended, Verdict):
            if cursor is not None and self.progress.pages == 0 and _is_stale(ended):
                log.warning("%s: the stored cursor no longer works, listing starts over", self.sync.id)
                ended = self._run(None)
            if isinstance(ended, Verdict):
                return ended_by(ended)
        return ended

    def _run(self, cursor: Any) -> Ended | Verdict:
        pages = attempt(lambda: self._pages(cursor), self.judge)
        if isinstance(pages, Verdict):
            return pages
        # One that starts over, for want of a cursor that works, shows again what the earlier run did: it must not count twice.
        self.shown_before = self.claim.listed if cursor is not None and hasattr(self.sync.listing, "pages") else 0
        at = cursor
        while self.goes_on():
            number = (self.claim.pages if cursor is not None else 0) + self.progress.pages + 1
            try:
                found = self.tracker.page(number, partial(self._page, pages, at))
            except IncompleteError as error:
                return Ended(error.stopped, str(error))
            except _Judged as judged:
                return judged.verdict
            if found is _END:
                if self.incomplete is not None:
                    return Ended(self.incomplete.stopped, str(self.incomplete))
                if missing := self._misses():
                    return Ended("short", self._short(missing))
                self.store.complete_listing(self.claim, self._marked())
                return Ended("end", self._warning(), doubt=self.doubt)
            if isinstance(found, Ended):
                return found
            at = found
        return Ended("stop", "stopped before the end of the listing")

    def _pages(self, cursor: Any) -> Iterator[Page]:
        connection = self.connect()
        since = None if self.marker is None else self.marker.ask
        resume = getattr(self.sync.listing, "pages", None)
        if resume is None:
            # A plain generator cannot skip pages; entities of this generation that are known need no second job.
            return iter(self.sync.listing(connection, since))
        pages: Iterator[Page] = resume(connection, cursor=cursor, **({} if since is None else {"since": since}))
        return pages

    def _marked(self) -> Marked | None:
        return None if self.marker is None else self.marker.marked()

    def _warning(self) -> str:
        warning = "" if self.marker is None else self.marker.warning()
        if warning:
            log.warning("%s: %s", self.sync.id, warning)
        return warning

    def _page(self, pages: Iterator[Page], cursor: Any) -> Any:
        """List and store one page; return its cursor, `_END`, or why listing ended with it."""
        page = attempt(lambda: next(pages, None), self.judge_page)
        if isinstance(page, Verdict):
            raise _Judged(page)
        self.answered()
        if page is None:
            return _END
        found = attempt(partial(items_of, page), self.judge)
        if isinstance(found, Verdict):
            raise _Judged(found)
        page, items = found
        room = None if self.limit is None else self.limit - self.progress.listed
        cut = room is not None and len(items) >= room and (len(items) > room or page.cursor is not None)
        last = not cut and page.cursor is None and hasattr(self.sync.listing, "pages")
        if last:
            self._confirm(pages)
        self._warn(page)
        if page.total is not None:
            self.announced = page.total
        self.doubt = self.doubt or page.doubt
        # Asked before the page is stored: a listing that is complete may delete.
        shown = len({item.key for item in items}) - page.repeated + len(page.errors)
        last = last and self.incomplete is None and not self._misses(shown)
        if cut:
            items = items[:room]
        self._follow(page, items)
        try:
            stored = self.store.enqueue_page(
                self.claim, self.lane, items, cursor=cursor if cut else page.cursor, priority=self.sync.priority,
                item_is_record=self.sync.fetch is None, full=self.full,
                last=last, flawed=len(page.errors) + len(page.later), marked=self._marked(),
            )  # fmt: skip
        except PayloadError as error:
            raise _Judged(self.judge(error)) from error
        self._count(page, stored)
        if cut:
            return Ended("limit", f"stopped at the limit of {self.limit}")
        return _END if last or (page.cursor is None and hasattr(self.sync.listing, "pages")) else page.cursor

    def _follow(self, page: Page, items: list[Item]) -> None:
        """Let the marker of an incremental listing see what is about to be stored."""
        marker = self.marker
        if marker is None:
            return
        marker.holds |= bool(page.later)
        marker.heed(page.skew)
        if isinstance(looked := attempt(lambda: marker.look([item.data for item in items]), self.judge), Verdict):
            raise _Judged(looked)

    def _count(self, page: Page, stored: PageResult) -> None:
        progress = self.progress
        progress.pages += 1
        progress.listed += stored.listed
        progress.repeated += page.repeated
        progress.later += len(page.later)
        progress.queued += stored.queued
        progress.unchanged += stored.unchanged
        progress.blame(page.errors)
        for key, poison in stored.poisonous:
            progress.fail(key, f"{poison}; `--full` tries it again")
        self.tracker.progress(progress)

    def _warn(self, page: Page) -> None:
        for warning in page.warnings:
            log.warning("%s: %s", self.sync.id, warning)

    def _confirm(self, pages: Iterator[Page]) -> None:
        """Ask the listing whether that was all, before its last page is stored."""
        try:
            more = attempt(lambda: next(pages, None), self.judge_page)
        except IncompleteError as error:
            self.incomplete = error
            return
        if more is not None:
            # Without a cursor a crash after this page could not be resumed, and the page would count as the end.
            raise _Judged(Verdict(Failure("a page that is not the last one has no cursor", retry=False)))

    def _misses(self, more: int = 0) -> int:
        """Count the entities that the listing announced and has not shown, with those of the page at hand."""
        shown = self.shown_before + self.progress.listed - self.progress.repeated + self.progress.flawed + more
        # One that starts over and comes back empty proves nothing, whatever the earlier run saw (law 8).
        return max(0, (self.announced or 0) - shown) if shown else max(self.announced or 0, self.claim.listed)

    def _short(self, missing: int) -> str:
        if self.announced:
            return f"the listing announced {self.announced} entities and did not show {missing} of them"
        return f"the listing came back empty, where an interrupted run had seen {missing} entities"


class _Judged(Exception):
    """Carries a verdict out of a page through whoever watches it, so that the page shows as failed."""

    def __init__(self, verdict: Verdict) -> None:
        outcome = verdict.outcome
        super().__init__(getattr(outcome, "message", "") or getattr(outcome, "reason", "") or type(outcome).__name__)
        self.verdict = verdict


def items_of(page: Page) -> tuple[Page, list[Item]]:
    """Return a page's entities as the store takes them: keys and versions are text, whatever a listing function made.

    Those with a key that no table takes become errors of the page, which is returned so.
    """
    items = [Item(str(one.key), None if one.version is None else str(one.version), one.data) for one in page.items]
    long = {one.key for one in items if excess(one.key)}
    if not long:
        return page, items
    errors = [f"the key {key[:40]!r}… is longer than {LONGEST_KEY} bytes" for key in sorted(long)]
    return replace(page, errors=[*page.errors, *errors]), [one for one in items if one.key not in long]


def _is_stale(verdict: Verdict) -> bool:
    """Tell whether a refusal of the very first resumed page may be the cursor's fault: cursors expire.

    Also 401 and 403: that is what links with a signature say then, and one of another host after `base_url` was changed. Where it
    is our sign-in, the first page says so, too.
    """
    if isinstance(verdict.outcome, Pause):
        return verdict.cause == "enforced"
    return isinstance(verdict.outcome, Gone) or (isinstance(verdict.outcome, Failure) and not verdict.trouble)


def ended_by(verdict: Verdict) -> Ended:
    """Return why a listing ended that ran into this verdict."""
    match verdict.outcome:
        case Pause() as pause:
            return Ended("paused", pause.reason, pause, verdict.cause)
        case Failure(message):
            return Ended("error", f"listing: {message}", trouble=verdict.trouble)
        case other:
            return Ended("error", f"listing: {'the listing is gone (404 or 410)' if isinstance(other, Gone) else other}")
