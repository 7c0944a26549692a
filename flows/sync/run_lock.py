"""The lock of a sync: one process at a time runs it, and another one waits for its turn, if it is asked to."""

import threading
import time

from flows.declarations.sync import Sync
from flows.sync.listing_digest import listing_digest
from flows.worker.feed import Feed
from jobs.listing.listing_claim import ListingBusy, ListingClaim
from jobs.process_identity import this_worker
from jobs.store import JobStore

TURN_EVERY = 0.5
"""Seconds between two looks at whether another process has ended its run of the sync."""


def take_run_lock(
    sync: Sync,
    store: JobStore,
    feed: Feed,
    *,
    lease: float,
    patience: float,
    stop: threading.Event,
    full: bool,
    limited: bool,
    new_pass: bool,
    only_unfinished: bool,
) -> ListingClaim | ListingBusy | None:
    """Take the right to run a sync; wait for another process that has it.

    Args:
        sync: which one.
        store: where listings are.
        feed: shows what is waited for.
        lease: seconds, of the right.
        patience: seconds that another process is waited for.
        stop: ends the waiting.
        full: list all, and work all of it.
        limited: only a part will be listed.
        new_pass: begin a new listing, also if there is an unfinished one.
        only_unfinished: begin no listing that nobody asked for; `None` if there is none to continue.
    """
    since, until = sync.incremental, time.monotonic() + patience
    while True:
        claim = store.listings.claim(
            sync.id,
            sync.client.id,
            worker=this_worker(),
            lease=lease,
            full=full,
            since=None if since is None else since.field,
            declaration=listing_digest(sync),
            limited=limited,
            new_pass=new_pass,
            only_unfinished=only_unfinished,
        )
        left = until - time.monotonic()
        if not isinstance(claim, ListingBusy) or left <= 0:
            return claim
        feed.show(f"waits for {claim.worker}, which runs this sync")
        if stop.wait(min(left, TURN_EVERY)):
            return claim
