"""Which steps of a run get a Prefect task run, so that no run floods the server (law 1). Pure but for two counters.

A task run costs 2 ms here, 10 ms and 20 kB there, and queues three events.
Beyond 10,000 queued events the server drops what comes.
"""

import threading
from dataclasses import dataclass, field

OWN_PAGES = 200
"""So many pages of a run get a task run each; after them, the first page of every further hundred does, for all of it."""

FULL = 3000
"""Task runs of a run, up to which every entity and batch gets one."""

SPARSE = 4000
"""Task runs of a run, up to which every tenth batch gets one, after `FULL`; after `SPARSE`, every hundredth."""


@dataclass
class Budget:
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
