"""Continues listings that were interrupted, for workers: a listing is work like the jobs that come of it."""

import logging
import threading
import time
from collections.abc import Sequence

from sqlalchemy.exc import SQLAlchemyError

from flows.errors import FlowsError
from flows.project.registry import Registry
from flows.run_result import RunResult
from flows.sync.run import continue_listing
from jobs import JobsError
from jobs.store import JobStore

log = logging.getLogger("syncs.work")

REST = 10.0
"""Seconds until a listing is tried again that was not continued to its end; a pause of its client may take longer."""


class UnfinishedListings:
    """The interrupted listings of the syncs that a worker serves.

    Args:
        store: where they are.
        registry: what is declared.
        syncs: the ids of the syncs that are served.
        stop: set it to end what is being listed; it is continued later.
    """

    def __init__(self, store: JobStore, registry: Registry, syncs: Sequence[str], *, stop: threading.Event) -> None:
        self._store, self._registry, self._syncs, self._stop = store, registry, syncs, stop
        #: Not before then, by `time.monotonic`.
        self._rests: dict[str, float] = {}

    def due(self) -> list[str]:
        """Return the syncs whose listing could be continued now: nobody has it in hand, and their client is not paused."""
        found = self._store.listings.interrupted(self._syncs) if self._syncs else []
        now = time.monotonic()
        return [
            name
            for name in found
            if self._rests.get(name, 0.0) <= now
            and self._store.pauses.state(self._registry.syncs[name].client.id).pausing is None
        ]

    def run(self, name: str) -> RunResult | None:
        """Continue one; its jobs are left to the worker. `None` if another process was first."""
        self._rests[name] = float("inf")
        try:
            sync = self._registry.syncs[name]
            queue, declared = self._registry.queue(sync.queue_id), sync.queue_id in self._registry.queues
            result = continue_listing(sync, self._store, queue=queue, declared=declared, stop=self._stop)
        except (FlowsError, JobsError, SQLAlchemyError) as error:
            # A setting is missing, or the database is away: the jobs of this worker go on, or wait for it.
            log.warning(
                "%s: the interrupted listing was not continued: %s",
                name,
                type(error).__name__ if isinstance(error, SQLAlchemyError) else error,
            )
            return None
        finally:
            self._rests[name] = time.monotonic() + REST
        if result is not None:
            text = f": {result.message}" if result.message else ""
            log.info("%s: the interrupted listing was continued, %d listed, %s%s", name, result.listed, result.stopped, text)
        return result
