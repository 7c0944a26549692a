"""Prefect events on what became of jobs: summed up, so that 10,000 jobs make a handful of them. Decides nothing.

Past 10,000 queued events the server drops what comes, from the stream that automations listen to (law 1). Whoever wants to hear
of each job subscribes in Python (`flows.events`).
"""

import time
from collections.abc import Callable
from typing import Any

from prefect.events import emit_event

from flows.tracker import Progress

EVENT = "sync.jobs.worked"
"""Its payload has the numbers since the one before, by outcome, and their sum under `jobs`."""

EVERY = 5.0
"""Seconds between two events at least; what comes at the end does not wait."""

_OUTCOMES = ("succeeded", "unchanged", "gone", "failed", "retried", "snoozed")


class WorkedEvents:
    """Tells Prefect how many jobs of a run came to what. Not thread-safe: one thread tells.

    Args:
        title: the sync, or `work`: the resource that the events are about.
        emit: sends one event, as `prefect.events.emit_event` does.
        clock: seconds.
    """

    def __init__(self, title: str, *, emit: Callable[..., Any] = emit_event, clock: Callable[[], float] = time.monotonic) -> None:
        self._title = title
        self._emit = emit
        self._clock = clock
        self._told = dict.fromkeys(_OUTCOMES, 0)
        self._told_at = clock()

    def look(self, progress: Progress, *, is_last: bool = False) -> None:
        """Tell what is new, unless the last event was a moment ago.

        Args:
            progress: the run's numbers.
            is_last: nothing comes after this.
        """
        now = self._clock()
        if now - self._told_at < EVERY and not is_last:
            return
        counts = {name: getattr(progress, name) for name in _OUTCOMES}
        new = {name: count - self._told[name] for name, count in counts.items()}
        if not any(new.values()):
            return
        payload = {**new, "jobs": sum(new.values()), "seconds": round(now - self._told_at, 3), "last": is_last}
        self._told, self._told_at = counts, now
        resource = {"prefect.resource.id": f"sync-clients.{self._title}", "prefect.resource.name": self._title}
        self._emit(event=EVENT, resource=resource, payload=payload)
