"""Pages through a listing: each page becomes jobs in one transaction."""

import logging
from collections.abc import Callable, Iterator
from dataclasses import KW_ONLY, dataclass, field, replace
from functools import partial
from typing import Any

from clients import IncompleteError, Page
from flows.declarations.sync import Sync
from flows.execution.entity_executor import EntityExecutor
from flows.progress import Progress
from flows.sync.listing_end import Completeness, Ended, FailedPage, confirm_end, ended_by, is_stale_cursor
from flows.sync.page_items import items_of, without_unstorable
from flows.sync.watermark import Watermark
from flows.user_code import attempt
from flows.worker.batch_runner import Reporting
from jobs import PayloadError
from jobs.job import Lane, Verdict
from jobs.listing.listing_claim import ListingClaim, MarkUpdate
from jobs.listing.page_plan import Item, PageResult
from jobs.store import JobStore

log = logging.getLogger("syncs.listing")

_END = object()

GIVE_UP = 3
"""Tries in a row that bring no page behind a cursor, because of generic trouble, after which the listing starts over, once."""


@dataclass(slots=True)
class Lister:
    """Lists one sync from where its claim says.

    Args:
        executor: of the sync; gives connections and judges errors.
        store: where the jobs go.
        claim: the right to run it.
        lane: the jobs' lane.
        reporting: who is informed, and the run's numbers.
        full: queue every entity, changed or not.
        limit: stop after so many entities; `None` lists all.
        may_go_on: asked before each page.
        on_page: called for each page that came, before it is stored.
        watermark: follows an incremental listing.
    """

    executor: EntityExecutor
    store: JobStore
    claim: ListingClaim
    lane: Lane
    _: KW_ONLY
    reporting: Reporting
    full: bool
    limit: int | None
    may_go_on: Callable[[], bool]
    on_page: Callable[[], None]
    watermark: Watermark | None = None
    #: What it raised after its last page, if it knows that it is not complete.
    incomplete: IncompleteError | None = None
    completeness: Completeness = field(init=False)
    #: Tries in a row that brought no page, because of generic trouble, or because it was not ready.
    failures: int = field(init=False)
    unready: int = field(init=False, default=0)
    #: How often the listing went back to its first page because the cursor was to blame.
    restarts: int = field(init=False)
    #: Where to go on: behind the last stored page.
    cursor: Any = field(init=False)
    #: The pages, while they can be read on.
    _reading: Iterator[Page] | None = field(init=False, default=None)
    _pages_before: int = field(init=False, default=0)
    #: The next page is the first one again, and the counts of the pass begin anew with it.
    _is_anew: bool = field(init=False, default=False)
    #: The pass may show what it has shown before.
    _shows_again: bool = field(init=False)
    #: What an earlier run of the pass has worked counts as unchanged or failed, but not what this run has worked.
    _counts_settled: bool = field(init=False, default=True)
    #: Where the listing has stood still before, one part of it may be to blame: that shows when it is asked for once more.
    _may_pass_over: bool = field(init=False, default=True)
    #: What a person should know about the way of the listing.
    _note: str = field(init=False, default="")

    def __post_init__(self) -> None:
        self.completeness = Completeness(self._progress, seen=self.claim.listed)
        self._may_pass_over = getattr(self._sync.listing, "passes_over", False)
        self.failures, self.restarts, self._shows_again = self.claim.failures, self.claim.restarts, self.claim.resumed
        self.cursor = self.claim.cursor if self._is_resumable else None
        if self.cursor is not None:
            self.completeness.shown_before, self._pages_before = self.claim.listed, self.claim.pages
        self._is_anew = self.cursor is None and self.claim.pages > 0

    @property
    def _is_resumable(self) -> bool:
        """Whether the listing can go on behind a stored cursor; a plain generator cannot skip pages."""
        return hasattr(self._sync.listing, "pages")

    @property
    def _sync(self) -> Sync:
        return self.executor.sync

    @property
    def _progress(self) -> Progress:
        return self.reporting.progress

    def run(self) -> Ended:
        """List on from where it stands; return why it ended. Never raises for what the remote side did.

        After an end that is none of the listing, such as a pause, it may be called again.
        """
        while True:
            if self.cursor is not None and self._reading is None and self.failures >= GIVE_UP and not self._may_pass_over:
                self._start_over(f"no page came behind the stored cursor in {self.failures} tries")
            ended = self._run()
            if isinstance(ended, Verdict):
                if self.cursor is not None and self._progress.pages == 0 and not self.restarts and is_stale_cursor(ended):
                    self._start_over("the stored cursor no longer works")
                    ended = self._run()
                if isinstance(ended, Verdict):
                    over = getattr(self._reading, "passed_over", None)
                    # What raised is at its end, and does not go on.
                    self._reading = None
                    ended = ended_by(ended)
                    if over is not None and (ended.trouble or ended.pause is not None):
                        if self._passes_over(over, ended):
                            continue
                        return replace(ended, of_part=True)
                    may, self._may_pass_over = self._may_pass_over, False
                    if may and self.cursor is not None and self.failures >= GIVE_UP:
                        continue  # No single part is to blame.
            self.unready += ended.again is not None
            return self._failed(ended) if ended.trouble else ended

    def _passes_over(self, cursor: Any, ended: Ended) -> bool:
        """Count a try in which one part of the listing failed and the rest was answered; after enough, go on behind it."""
        self.failures += 1
        self.store.listings.failed(self.claim)
        if self.failures < GIVE_UP:
            return False
        log.warning("%s: %s; it failed %d times in a row, and the others are listed", self._sync.id, ended.message, self.failures)
        self.cursor, self.failures = cursor, 0
        # Refusals of one part say nothing of how many requests are let in.
        self.executor.connections.forget_pace()
        return True

    def _failed(self, ended: Ended) -> Ended:
        """Count a try that brought no page, and give up if it was the last one."""
        self.failures += 1
        self.store.listings.failed(self.claim)
        if self.cursor is None or self.failures < GIVE_UP or not self.restarts:
            return ended
        tries = f"given up: this page failed {self.failures} times in a row, also after the listing had started over"
        return replace(ended, message=f"{ended.message}; {tries}", given_up=True)

    def _start_over(self, why: str = "") -> None:
        """Go back to the first page, in the same pass: what is shown again must not count twice.

        The stored cursor stays until that page has come: if it does not come either, the cursor is not to blame.
        """
        if why:
            self._note = f"the listing started over, because {why}"
            log.warning("%s: %s", self._sync.id, self._note)
            self.restarts += 1
        self.cursor = self._reading = None
        self._is_anew = self._shows_again = True
        progress = self._progress
        if progress.pages:
            self._counts_settled = False
        progress.listed = progress.repeated = self.completeness.shown_before = self._pages_before = self.failures = 0

    def _run(self) -> Ended | Verdict:
        if self._reading is None:
            if self.cursor is None and self._progress.listed:
                self._start_over()
            pages = attempt(self._pages, self.executor.judge)
            if isinstance(pages, Verdict):
                return pages
            self._reading = pages
        pages = self._reading
        while self.may_go_on():
            number = self._pages_before + self._progress.pages + 1
            try:
                found = self.reporting.tracker.page(number, partial(self._page, pages, self.cursor))
            except IncompleteError as error:
                return Ended(error.stopped, str(error))
            except FailedPage as judged:
                return judged.verdict
            if found is _END:
                return self._at_the_end()
            if isinstance(found, Ended):
                return found
            self.cursor = found if self._is_resumable else None
        return Ended("stop", "stopped before the end of the listing")

    def _at_the_end(self) -> Ended:
        if self.incomplete is not None:
            return Ended(self.incomplete.stopped, str(self.incomplete))
        if missing := self.completeness.missing():
            return Ended("short", self.completeness.text(missing))
        self.store.listings.complete(self.claim, self._marked())
        warning = "" if self.watermark is None else self.watermark.warning()
        if warning:
            log.warning("%s: %s", self._sync.id, warning)
        return Ended("end", "; ".join(filter(None, (self._note, warning))), doubt=self.completeness.doubt)

    def _pages(self) -> Iterator[Page]:
        connection = self.executor.connections.get()
        since = None if self.watermark is None else self.watermark.ask
        resume = getattr(self._sync.listing, "pages", None)
        if resume is None:
            # A plain generator cannot skip pages; entities that this generation has shown already get no second job.
            return iter(self._sync.listing(connection, since))
        pages: Iterator[Page] = resume(connection, cursor=self.cursor, **({} if since is None else {"since": since}))
        return pages

    def _marked(self) -> MarkUpdate | None:
        return None if self.watermark is None else self.watermark.value()

    def _page(self, pages: Iterator[Page], cursor: Any) -> Any:
        """List and store one page; return its cursor, `_END`, or why listing ended with it."""
        page = attempt(lambda: next(pages, None), self.executor.judge_page)
        if isinstance(page, Verdict):
            raise FailedPage(page)
        self.on_page()
        if page is None:
            return _END
        found = attempt(partial(items_of, page), self.executor.judge)
        if isinstance(found, Verdict):
            raise FailedPage(found)
        page, items = found
        room = None if self.limit is None else self.limit - self._progress.listed
        cut = room is not None and len(items) >= room and (len(items) > room or page.cursor is not None)
        last = not cut and page.cursor is None and self._is_resumable
        if last:
            # Asked before its last page is stored.
            self.incomplete = confirm_end(pages, self.executor.judge_page)
        for warning in page.warnings:
            log.warning("%s: %s", self._sync.id, warning)
        self.completeness.add_page(page)
        # Checked before the page is stored: a listing that is complete may delete.
        shown = len({item.key for item in items}) - page.repeated + len(page.errors)
        last = last and self.incomplete is None and not self.completeness.missing(shown)
        if cut:
            items = items[:room]
        self._follow(page, items)
        following = cursor if cut else page.cursor
        try:
            stored = self._store_page(page, items, cursor=following, last=last)
        except PayloadError:
            page, items = without_unstorable(page, items)
            try:
                stored = self._store_page(page, items, cursor=following, last=last)
            except PayloadError as error:
                raise FailedPage(self.executor.judge(error)) from error
        self._is_anew, self.failures, self.unready = False, 0, 0
        self._count(page, stored)
        if cut:
            return Ended("limit", f"stopped at the limit of {self.limit}")
        return _END if last or (page.cursor is None and self._is_resumable) else page.cursor

    def _store_page(self, page: Page, items: list[Item], *, cursor: Any, last: bool) -> PageResult:
        return self.store.pages.enqueue(
            self.claim,
            self.lane,
            items,
            cursor=cursor,
            priority=self._sync.priority,
            item_is_record=self._sync.fetch is None,
            full=self.full,
            last=last,
            flawed=len(page.errors) + len(page.later),
            marked=self._marked(),
            anew=self._is_anew,
            again=self._shows_again or page.repeated > 0,
        )

    def _follow(self, page: Page, items: list[Item]) -> None:
        """Let the watermark of an incremental listing see what is about to be stored."""
        watermark = self.watermark
        observed = None if watermark is None else attempt(lambda: watermark.see(page, items), self.executor.judge)
        if isinstance(observed, Verdict):
            raise FailedPage(observed)

    def _count(self, page: Page, stored: PageResult) -> None:
        progress = self._progress
        progress.pages += 1
        progress.listed += stored.listed
        progress.repeated += page.repeated
        progress.later += len(page.later)
        progress.queued += stored.queued
        progress.unchanged += stored.unchanged
        if self._counts_settled:
            progress.unchanged += stored.settled
            progress.queued += stored.waiting
            for key in stored.failed:
                progress.fail_before(key, "has failed before in this unfinished listing; the next one tries it again")
        progress.blame(page.errors)
        for key, why in stored.poisonous:
            progress.fail(key, f"{why}; `--full` tries it again")
        self.reporting.tracker.progress(progress)
