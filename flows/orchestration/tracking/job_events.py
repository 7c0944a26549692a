"""Emits Prefect events that say how many jobs of a run had which outcome.

They are sums, so that 10,000 jobs make a handful of events: beyond 10,000 queued events the server drops what comes, from the
stream that automations listen to (seen with 3.9.1). Python code can subscribe to each single job in `flows.events`.
"""

import time
from collections.abc import Callable
from typing import Any

from prefect.events import emit_event

from flows.progress import Progress

EVENT = "sync.jobs.worked"
"""The payload has the numbers since the previous event, by outcome, and their sum under `jobs`."""

EVERY = 5.0
"""The least seconds between two events; the last one does not wait."""

_OUTCOMES = ("succeeded", "unchanged", "gone", "failed", "retried", "snoozed")


class JobEvents:
    """Emits the events of one run. Not thread-safe.

    Args:
        title: the sync's id, or `work`: the resource that the events are about.
        emit: sends one event, as `prefect.events.emit_event` does.
        clock: seconds.
    """

    def __init__(self, title: str, *, emit: Callable[..., Any] = emit_event, clock: Callable[[], float] = time.monotonic) -> None:
        self._title = title
        self._emit = emit
        self._clock = clock
        self._emitted = dict.fromkeys(_OUTCOMES, 0)
        self._emitted_at = clock()

    def report(self, progress: Progress, *, is_last: bool = False) -> None:
        """Emit an event for what is new, unless the previous one was less than `EVERY` seconds ago.

        Args:
            progress: the run's numbers.
            is_last: whether the run has ended.
        """
        now = self._clock()
        if now - self._emitted_at < EVERY and not is_last:
            return
        counts = {name: getattr(progress, name) for name in _OUTCOMES}
        new = {name: count - self._emitted[name] for name, count in counts.items()}
        if not any(new.values()):
            return
        payload = {**new, "jobs": sum(new.values()), "seconds": round(now - self._emitted_at, 3), "last": is_last}
        self._emitted, self._emitted_at = counts, now
        resource = {"prefect.resource.id": f"sync-clients.{self._title}", "prefect.resource.name": self._title}
        self._emit(event=EVENT, resource=resource, payload=payload)
