"""Decides which steps of a run get a Prefect task run, so that no run floods the server.

A task run costs 5 ms in this process and 10 ms and 20 kB on the server, and queues three events. Beyond 10,000 queued events the
server drops what comes (seen with 3.9.1).
"""

import threading
from dataclasses import dataclass, field

OWN_PAGES = 200
"""So many pages of a run get a task run each; after them only the first page of each further hundred does."""

FULL = 3000
"""Up to so many task runs of a run, every entity and batch gets one."""

SPARSE = 4000
"""From `FULL` up to so many, every tenth batch gets one; after that, every hundredth."""


@dataclass
class TaskRunQuota:
    """Counts the task runs of one run. Thread-safe."""

    spent: int = 0
    _batches: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def page(self, number: int) -> str | None:
        """Return the name of the task run for this page, `None` if it gets none."""
        if number > OWN_PAGES and number % 100 != 1:
            return None
        with self._lock:
            self.spent += 1
        return f"page {number}" if number <= OWN_PAGES else f"page {number} and following"

    def entity(self, key: str) -> str | None:
        """Return the name of the task run for this entity, `None` if it gets none."""
        with self._lock:
            if self.spent >= FULL:
                return None
            self.spent += 1
        return key

    def batch(self, label: str) -> str | None:
        """Return the name of the task run for the next batch, `None` if it gets none."""
        with self._lock:
            stride = 1 if self.spent < FULL else 10 if self.spent < SPARSE else 100
            self._batches += 1
            if stride > 1 and self._batches % stride:
                return None
            self.spent += 1
        return label if stride == 1 else f"{label} (one of {stride} batches shown)"
