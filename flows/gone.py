"""How many records one run may lose to 404 and 410: a moved path must not empty a table (law 8). Knows no job."""

import threading

from flows.declaration import Sync
from jobs.store import JobStore


class GoneGuard:
    """Counts the entities that a run marks as gone, and says when it is enough.

    Args:
        sync: whose `max_delete_share` counts; one record may always go.
        store: how many records there are.
    """

    def __init__(self, sync: Sync, store: JobStore) -> None:
        self._sync = sync
        self._store = store
        self._left: int | None = None
        self._lock = threading.Lock()

    def refusal(self) -> str | None:
        """Count one more record that goes; return why it must not."""
        with self._lock:
            if self._left is None:
                self._left = max(1, int(self._store.live(self._sync.id) * self._sync.max_delete_share))
            self._left -= 1
            if self._left >= 0:
                return None
        return f"gone (404 or 410), but this run has already lost {self._sync.max_delete_share:.0%} of the records; kept"
