"""Limits how many records one pass may lose to 404 and 410.

A path that moved on the remote side answers 404 for every entity, which must not empty the table (docs/architecture.md, law 8).
"""

import threading
import time

from flows.declarations.sync import Sync
from jobs.listing.delete_share import gone_limit
from jobs.store import JobStore

LOOK_EVERY = 5.0
"""Seconds after which it looks again at what the pass has lost: other workers lose records too, and a new pass begins."""


class DeleteGuard:
    """Counts the entities that are marked as gone, up to the allowed share of a pass, in all processes.

    Args:
        sync: whose `max_delete_share` counts; one record may always go.
        store: how many records there are.
        allow: a person has confirmed it: all may go.
    """

    def __init__(self, sync: Sync, store: JobStore, *, allow: bool = False) -> None:
        self._sync = sync
        self._store = store
        self._allow = allow
        self._left = 0
        self._generation = -1
        self._look_at = 0.0
        self._lock = threading.Lock()

    def refusal(self) -> str | None:
        """Count one more record that is gone; return why it must be kept, or `None`."""
        if self._allow:
            return None
        with self._lock:
            if (began := time.monotonic()) >= self._look_at:
                self._look()
                # Counting millions of records takes a while, and must not take most of the time.
                ended = time.monotonic()
                self._look_at = ended + max(LOOK_EVERY, 20 * (ended - began))
            self._left -= 1
            if self._left >= 0:
                return None
        share, confirm = f"{self._sync.max_delete_share:.0%}", f"`syncs run {self._sync.id} {how_to_allow(self._sync)}`"
        return f"gone (404 or 410), but this pass has already lost {share} of the records; kept; {confirm} lets it go"

    def _look(self) -> None:
        """Read how much the pass may still lose; each run that continues it and each worker could lose as much again."""
        found = self._store.sweeps.of_pass(self._sync.id)
        left = gone_limit(found.live + found.lost, self._sync.max_delete_share) - found.lost
        # What was counted here may not be stored yet.
        self._left = min(left, self._left) if found.generation == self._generation else left
        self._generation = found.generation


def how_to_allow(sync: Sync) -> str:
    """Return the options with which a person confirms that so much is deleted."""
    return "--allow-deletes" if sync.incremental is None else "--full --allow-deletes"


def flawed_text(flawed: int) -> str:
    """Explain why a listing that has items without a key deletes nothing."""
    return f"{flawed} listed items have no key or could not be listed, so nothing was deleted"
