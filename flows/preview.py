"""A dry run: list and compare, say what would be created, changed and deleted, write nothing."""

import threading
from collections.abc import Iterator
from functools import partial
from typing import Any

from clients import IncompleteError, Page
from flows.declaration import Sync
from flows.entity import EntityWork
from flows.gone import flawed_text, how_to_allow
from flows.lister import Ended, ended_by, items_of
from flows.mark import Marker
from flows.tracker import Progress, Tracker
from flows.verdict import attempt
from jobs import PayloadError
from jobs.job import Lane, Verdict
from jobs.page import Item
from jobs.store import JobStore
from jobs.sweep import SHOWN, refusal

NOTHING = "dry run: nothing was written"


class Preview:
    """One dry run.

    Args:
        sync: the declaration.
        store: what is known so far.
        lane: of the jobs of the sync.
        work: how to connect and judge.
        progress, tracker: the numbers, and who watches.
        full: count every entity as work, changed or not.
        limit: stop after so many entities.
        stop: set it to end early.
        marker: says what an incremental listing is asked from.
        is_filtered: it asks only for what is new.
        allow_deletes: as for the run.
    """

    def __init__(
        self, sync: Sync, store: JobStore, lane: Lane, work: EntityWork, progress: Progress, tracker: Tracker, *, full: bool,
        limit: int | None, stop: threading.Event, marker: Marker | None, is_filtered: bool, allow_deletes: bool,
    ) -> None:  # fmt: skip
        self._sync, self._store, self._lane, self._work = sync, store, lane, work
        self._progress, self._tracker = progress, tracker
        self._full, self._limit, self._stop = full, limit, stop
        self._marker, self._is_filtered, self._allow = marker, is_filtered, allow_deletes
        self._counts = dict.fromkeys(("created", "changed", "undecided", "would_delete"), 0)
        self._examples: dict[str, tuple[str, ...]] = dict.fromkeys(self._counts, ())
        self._sweeps = sync.delete_missing and not is_filtered
        #: The hash of each key that was listed; 60 MB for a million of them.
        self._listed: set[int] = set()
        #: The hash of each key that is counted: a listing may show one on two pages.
        self._counted: set[int] = set()
        self._announced: int | None = None
        self._doubt = ""
        #: Why the sweep would delete nothing.
        self.refused = ""

    @property
    def found(self) -> dict[str, Any]:
        """What would happen, by the names of `RunResult`."""
        return {**self._counts, "examples": self._examples}

    def run(self) -> Ended:
        """Page through the listing and compare; say why it ended."""
        work = self._work
        since = None if self._marker is None else self._marker.ask
        pages = attempt(lambda: self._sync.listing(work.connect(), since), work.judge)
        if isinstance(pages, Verdict):
            return ended_by(pages)
        if self._is_filtered:
            failed = self._store.count_failed(self._lane)
            self._progress.queued += failed
            self._counts["undecided"] += failed
        while not self._stop.is_set():
            try:
                page = attempt(partial(_next, pages), work.judge_page)
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
        found = attempt(partial(items_of, page), self._work.judge)
        if isinstance(found, Verdict):
            return ended_by(found)
        page, items = found
        progress, limit = self._progress, self._limit
        self._announced = page.total if page.total is not None else self._announced
        self._doubt = self._doubt or page.doubt
        try:
            self._look(items[: None if limit is None else limit - progress.listed])
        except PayloadError as error:
            return ended_by(self._work.judge(error))
        progress.pages += 1
        progress.repeated += page.repeated
        progress.later += len(page.later)
        progress.blame(page.errors)
        self._tracker.progress(progress)
        if limit is not None and progress.listed >= limit:
            return Ended("limit", f"{NOTHING}; stopped at the limit of {limit}")
        return None

    def _look(self, items: list[Item]) -> None:
        seen = self._store.preview(self._sync.id, items, item_is_record=self._sync.fetch is None, full=self._full)
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
        progress = self._progress
        missed = (self._announced or 0) - (progress.listed - progress.repeated + progress.flawed)
        if missed > 0:
            return Ended(
                "short", f"the listing announced {self._announced} entities and did not show {missed} of them; {NOTHING}"
            )
        if self._sweeps and not progress.later:
            self._sweep()
        return Ended("end", NOTHING)

    def _sweep(self) -> None:
        if self._progress.flawed:
            self.refused = flawed_text(self._progress.flawed)
            return
        missing = self._store.missing(self._lane, self._listed)
        if missing.count and not self._allow:
            self.refused = refusal(
                self._sync.id, missing.count, missing.live, gone=0, listed=self._progress.listed,
                max_share=self._sync.max_delete_share, how=how_to_allow(self._sync), doubt=self._doubt,
            )  # fmt: skip
        if not self.refused:
            self._count("would_delete", missing.keys, missing.count)


def _next(pages: Iterator[Page]) -> Page | None:
    return next(pages, None)
