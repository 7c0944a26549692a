"""Lists and compares without writing: what a run would create, change and delete."""

import threading
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

from clients import IncompleteError, Page
from flows.execution.delete_guard import flawed_text, how_to_allow
from flows.execution.entity_executor import EntityExecutor
from flows.run_result import RunResult
from flows.sync.conclusion import Conclusion
from flows.sync.listing_end import Completeness, Ended, ended_by
from flows.sync.page_items import items_of, without_unstorable
from flows.sync.run_state import run_state
from flows.sync.watermark import Watermark
from flows.user_code import attempt
from flows.worker.batch_runner import Reporting
from jobs import PayloadError
from jobs.job import Lane, Verdict
from jobs.listing.delete_share import refusal
from jobs.listing.page_plan import Item
from jobs.listing.sweep import SHOWN
from jobs.store import JobStore

NOTHING = "dry run: nothing was written"


class DryRun:
    """One dry run.

    Args:
        executor: of the sync; gives connections and judges errors.
        store: what is known so far.
        lane: of the jobs of the sync.
        reporting: who is informed, and the run's numbers.
        full: count every entity as work, changed or not.
        limit: stop after so many entities.
        allow_deletes: as for the run.
        stop: set it to end early.
        watermark: tells what an incremental listing asks from.
        is_filtered: the listing asks only for what is new.
    """

    def __init__(
        self,
        executor: EntityExecutor,
        store: JobStore,
        lane: Lane,
        *,
        reporting: Reporting,
        full: bool,
        limit: int | None,
        allow_deletes: bool,
        stop: threading.Event,
        watermark: Watermark | None,
        is_filtered: bool,
    ) -> None:
        self._executor, self._sync, self._store, self._lane = executor, executor.sync, store, lane
        self._progress, self._tracker = reporting.progress, reporting.tracker
        self._full, self._limit, self._allow, self._stop = full, limit, allow_deletes, stop
        self._watermark, self._is_filtered = watermark, is_filtered
        self._counts = dict.fromkeys(("created", "changed", "undecided", "would_delete"), 0)
        self._examples: dict[str, tuple[str, ...]] = dict.fromkeys(self._counts, ())
        self._sweeps = self._sync.delete_missing and not is_filtered
        #: The hash of each key that was listed; 60 MB for a million of them.
        self._listed: set[int] = set()
        #: The hash of each key that is counted: a listing may show one on two pages.
        self._counted: set[int] = set()
        self._completeness = Completeness(self._progress)
        #: Why the sweep would delete nothing.
        self._refused = ""

    def run(self, conclusion: Conclusion) -> RunResult:
        """Page through the listing and compare; return what a run would do."""
        ended, progress = self._run(), self._progress
        is_bad = ended.stopped in ("error", "loop", "paused")
        state = run_state(failed=progress.failed, worked=progress.listed + progress.flawed, listing_failed=is_bad, paused=False)
        if state == "success" and (self._refused or ended.stopped == "short"):
            state = "partial"
        message = "; ".join(filter(None, (self._refused, ended.message)))
        found: dict[str, Any] = {**self._counts, "examples": self._examples}
        return replace(conclusion.result(state, stopped=ended.stopped, message=message), **found)

    def _run(self) -> Ended:
        """Page through the listing and compare; say why it ended."""
        executor = self._executor
        since = None if self._watermark is None else self._watermark.ask
        pages = attempt(lambda: self._sync.listing(executor.connections.get(), since), executor.judge)
        if isinstance(pages, Verdict):
            return ended_by(pages)
        if self._is_filtered:
            failed = self._store.failed_entities.count(self._lane)
            self._progress.queued += failed
            self._counts["undecided"] += failed
        while not self._stop.is_set():
            try:
                page = attempt(partial(_next, pages), executor.judge_page)
            except IncompleteError as error:
                return Ended(error.stopped, f"{error}; {NOTHING}")
            if page is None:
                return self._at_the_end()
            if isinstance(page, Verdict):
                return ended_by(page)
            if (ended := self._page(page)) is not None:
                return ended
        return Ended("stop", "dry run: stopped; nothing was written")

    def _page(self, page: Page) -> Ended | None:
        found = attempt(partial(items_of, page), self._executor.judge)
        if isinstance(found, Verdict):
            return ended_by(found)
        page, items = found
        progress, limit = self._progress, self._limit
        self._completeness.add_page(page)
        items = items[: None if limit is None else limit - progress.listed]
        try:
            self._compare(items)
        except PayloadError:
            page, items = without_unstorable(page, items)
            self._compare(items)
        progress.pages += 1
        progress.repeated += page.repeated
        progress.later += len(page.later)
        progress.blame(page.errors)
        self._tracker.progress(progress)
        if limit is not None and progress.listed >= limit:
            return Ended("limit", f"{NOTHING}; stopped at the limit of {limit}")
        return None

    def _compare(self, items: list[Item]) -> None:
        seen = self._store.pages.preview(self._sync.id, items, item_is_record=self._sync.fetch is None, full=self._full)
        progress = self._progress
        progress.listed += seen.listed
        progress.queued += seen.queued
        progress.unchanged += seen.unchanged
        for key, poison in seen.poisonous:
            progress.fail(key, f"{poison}; `--full` tries it again")
        for name in ("created", "changed", "undecided"):
            self._count(name, getattr(seen, name))
        if self._sweeps:
            self._listed.update(map(hash, seen.keys))

    def _count(self, name: str, keys: tuple[str, ...], count: int | None = None) -> None:
        if count is None:
            keys = tuple(key for key in keys if hash(key) not in self._counted)
            self._counted.update(map(hash, keys))
        self._counts[name] += len(keys) if count is None else count
        self._examples[name] += keys[: SHOWN - len(self._examples[name])]

    def _at_the_end(self) -> Ended:
        if missing := self._completeness.missing():
            return Ended("short", f"{self._completeness.text(missing)}; {NOTHING}")
        if self._sweeps and not self._progress.later:
            self._sweep()
        return Ended("end", NOTHING)

    def _sweep(self) -> None:
        if self._progress.flawed:
            self._refused = flawed_text(self._progress.flawed)
            return
        missing = self._store.sweeps.missing(self._lane, self._listed)
        if missing.count and not self._allow:
            self._refused = refusal(
                self._sync.id,
                missing.count,
                missing.live,
                gone=0,
                listed=self._progress.listed,
                max_share=self._sync.max_delete_share,
                how=how_to_allow(self._sync),
                doubt=self._completeness.doubt,
            )
        if not self._refused:
            self._count("would_delete", missing.keys, missing.count)


def _next(pages: Iterator[Page]) -> Page | None:
    return next(pages, None)
