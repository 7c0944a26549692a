"""How many records one run may lose, to 404 and 410 too: a moved path must not empty a table (law 8). Knows no job."""

import threading

from flows.declaration import Sync
from jobs.store import JobStore


class GoneGuard:
    """Counts the entities that a run marks as gone, and says when it is enough.

    Args:
        sync: whose `max_delete_share` counts; one record may always go.
        store: how many records there are.
        allow: a person has confirmed it: all may go.
    """

    def __init__(self, sync: Sync, store: JobStore, *, allow: bool = False) -> None:
        self._sync = sync
        self._store = store
        self._allow = allow
        self._left: int | None = None
        self._lock = threading.Lock()

    def refusal(self) -> str | None:
        """Count one more record that goes; return why it must not."""
        if self._allow:
            return None
        with self._lock:
            if self._left is None:
                self._left = max(1, int(self._store.live(self._sync.id) * self._sync.max_delete_share))
            self._left -= 1
            if self._left >= 0:
                return None
        share, confirm = f"{self._sync.max_delete_share:.0%}", f"`syncs run {self._sync.id} {how_to_allow(self._sync)}`"
        return f"gone (404 or 410), but this run has already lost {share} of the records; kept; {confirm} lets it go"


def how_to_allow(sync: Sync) -> str:
    """Return the options with which a person confirms that so much is deleted."""
    return "--allow-deletes" if sync.incremental is None else "--full --allow-deletes"


def flawed_text(flawed: int) -> str:
    """Say why a listing deletes nothing that has items of which nobody knows what they are."""
    return f"{flawed} listed items have no key or could not be listed, so nothing was deleted"
