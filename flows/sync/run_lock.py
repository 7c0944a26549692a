"""The lock of a sync: one process at a time runs it, and another one waits for its turn, if it is asked to."""

import threading
import time
from dataclasses import dataclass

from flows.declarations.sync import Sync
from flows.sync.listing_digest import listing_digest
from flows.worker.feed import Feed
from jobs.listing.listing_claim import ListingBusy, ListingClaim
from jobs.process_identity import this_worker
from jobs.store import JobStore

TURN_EVERY = 0.5
"""Seconds between two looks at whether another process has ended its run of the sync."""


@dataclass(frozen=True, slots=True)
class RunOptions:
    """How to run a sync; see `flows.sync.run.run`."""

    full: bool = False
    limit: int | None = None
    dry_run: bool = False
    allow_deletes: bool = False
    wait: float | None = 0.0
    new_pass: bool = False


def take_run_lock(
    sync: Sync,
    store: JobStore,
    feed: Feed,
    options: RunOptions,
    *,
    lease: float,
    stop: threading.Event,
    only_unfinished: bool,
) -> ListingClaim | ListingBusy | None:
    """Take the right to run a sync; wait for another process that has it.

    Args:
        sync: which one.
        store: where listings are.
        feed: shows what is waited for.
        options: how to run it; another process is waited for as long as its `wait` says, and without one not at all.
        lease: seconds, of the right.
        stop: ends the waiting.
        only_unfinished: begin no listing that nobody asked for; `None` if there is none to continue.
    """
    since, until = sync.incremental, time.monotonic() + (options.wait or 0.0)
    while True:
        claim = store.listings.claim(
            sync.id,
            sync.client.id,
            worker=this_worker(),
            lease=lease,
            full=options.full,
            since=None if since is None else since.field,
            declaration=listing_digest(sync),
            limited=options.limit is not None,
            new_pass=options.new_pass,
            only_unfinished=only_unfinished,
        )
        left = until - time.monotonic()
        if not isinstance(claim, ListingBusy) or left <= 0:
            return claim
        feed.show(f"waits for {claim.worker}, which runs this sync")
        if stop.wait(min(left, TURN_EVERY)):
            return claim
