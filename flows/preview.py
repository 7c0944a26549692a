"""A dry run: list and compare, write nothing. Knows no job."""

import threading
from functools import partial

from clients import IncompleteError
from flows.declaration import Sync
from flows.entity import EntityWork
from flows.lister import Ended, ended_by, items_of
from flows.tracker import Progress, Tracker
from flows.verdict import attempt
from jobs import PayloadError
from jobs.job import Verdict
from jobs.store import JobStore


def preview(
    sync: Sync,
    store: JobStore,
    work: EntityWork,
    progress: Progress,
    tracker: Tracker,
    *,
    full: bool,
    limit: int | None,
    stop: threading.Event,
) -> Ended:
    """Page through the listing and count what a run would queue.

    Args:
        sync: the declaration.
        store: what is known so far.
        work: how to connect and judge.
        progress, tracker: the numbers, and who watches.
        full: count every entity as work, changed or not.
        limit: stop after so many entities.
        stop: set it to end early.
    """
    pages = attempt(lambda: sync.listing(work.connect(), None), work.judge)
    if isinstance(pages, Verdict):
        return ended_by(pages)
    while not stop.is_set():
        try:
            page = attempt(lambda: next(pages, None), work.judge_page)
        except IncompleteError as error:
            return Ended(error.stopped, str(error))
        if page is None:
            return Ended("end", "dry run: nothing was written")
        if isinstance(page, Verdict):
            return ended_by(page)
        found = attempt(partial(items_of, page), work.judge)
        if isinstance(found, Verdict):
            return ended_by(found)
        items = found[: None if limit is None else limit - progress.listed]
        try:
            seen = store.preview(sync.id, items, item_is_record=sync.fetch is None)
        except PayloadError as error:
            return ended_by(work.judge(error))
        progress.pages += 1
        progress.listed += seen.listed
        progress.repeated += page.repeated
        progress.queued += seen.listed if full else seen.queued
        progress.unchanged += 0 if full else seen.unchanged
        progress.blame(page.errors)
        tracker.progress(progress)
        if limit is not None and progress.listed >= limit:
            return Ended("limit", f"dry run: nothing was written; stopped at the limit of {limit}")
    return Ended("stop", "dry run: stopped; nothing was written")
