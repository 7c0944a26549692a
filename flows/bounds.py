"""How long a worker works: until a time, a number of jobs, an empty queue, a size. Knows no job."""

import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

MEMORY_EVERY = 1.0
"""Seconds between two looks at the memory."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """What ends a worker by itself. Each is looked at between jobs; none cuts a job short.

    Args:
        time_limit: seconds after which no further job is begun; `None` or 0 means none (AQ-47, AQ-48).
        max_jobs: at most so many.
        until_empty: end when nothing is due. Delayed jobs, and those of a paused client, are not due; those for which a
            limited queue has no room are, and are waited for.
        grace: seconds after a stop in which jobs in hand may end by themselves; then they go back. `None` waits for them.
        memory_limit: megabytes of resident memory; a larger worker ends, for its supervisor to start a new one (E-67).
        by_queue: also leave a declared queue after the `time_limit` of its own, to the next scheduled worker.
    """

    time_limit: float | None = None
    max_jobs: int | None = None
    until_empty: bool = False
    grace: float | None = None
    memory_limit: float | None = None
    by_queue: bool = False


class Memory:
    """Looks at the memory of this process now and then.

    Args:
        limit: megabytes; `None` for any number.
    """

    def __init__(self, limit: float | None) -> None:
        self._limit = limit
        self._looked_at = -MEMORY_EVERY

    def is_too_large(self) -> bool:
        """Tell whether it has grown beyond its limit."""
        if self._limit is None or time.monotonic() - self._looked_at < MEMORY_EVERY:
            return False
        self._looked_at = time.monotonic()
        return resident() > self._limit


def resident() -> float:
    """Return the megabytes that this process has in memory; where the system does not say, the most it ever had."""
    return next(_sizes(), 0.0)


def _sizes() -> Iterator[float]:
    with suppress(OSError, ValueError, ImportError):
        import resource

        pages = int(Path("/proc/self/statm").read_text().split()[1])
        yield pages * resource.getpagesize() / 2**20
    with suppress(ImportError):
        import resource

        # Linux counts in KiB, macOS in bytes.
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        yield most / 2**20 if sys.platform == "darwin" else most / 2**10
