"""The thread that lists while a worker works the jobs: it goes on after each pause and retry that the run waits for."""

import threading
from collections.abc import Callable

from flows.declarations.sync import Sync
from flows.execution.outcomes import MAX_NOT_READY
from flows.pauses.client_health import Health
from flows.sync.listing import Lister
from flows.sync.listing_end import Ended
from flows.sync.pause_gate import PauseGate
from flows.worker.feed import Feed
from flows.worker.limits import Signals
from flows.worker.worker_assembly import Worker
from jobs import LostLease, Retry
from jobs.store import JobStore

JOIN_EVERY = 0.1
"""Seconds between two looks at whether a listing has to stop."""

PAGE_RETRY = Retry(max_retries=3, delay=1.0, jitter=False)
"""When a run that waits asks for a page again after generic trouble that has not paused the client."""

LONGER_EACH_TIME = 0.1
"""Seconds that a page which is not ready is waited for longer each time, where it asks for less."""


class ListingThread:
    """Lists one sync in a thread of its own. An error of our own code there ends the whole run.

    Args:
        sync: what is listed.
        store: where listings are.
        gate: the pauses of its client.
        feed: tells which pauses and retries are waited for.
        signals: end it, and the run with it.
        wake: wakes the loop of the worker.
    """

    def __init__(
        self, sync: Sync, store: JobStore, gate: PauseGate, *, feed: Feed, signals: Signals, wake: Callable[[], None]
    ) -> None:
        self._sync, self._store, self._gate = sync, store, gate
        self._feed, self._signals, self._wake = feed, signals, wake
        #: Why the listing ended; `None` as long as it has not, and if it could not begin.
        self.ended: Ended | None = None
        self._error: BaseException | None = None
        self._thread: threading.Thread | None = None

    def start(self, lister: Lister, worker: Worker) -> None:
        """Begin to list.

        Args:
            lister: lists.
            worker: knows the health of the client, and probes it.
        """
        self._thread = threading.Thread(target=self._list, args=(lister, worker), name="syncs-listing")
        self._thread.start()

    def wait(self) -> None:
        """Wait until the listing has ended, or the run is to stop."""
        assert self._thread is not None
        while self._thread.is_alive() and not self._signals.stop.is_set():
            self._thread.join(JOIN_EVERY)

    def end(self) -> None:
        """End the run; the thread ends with the page that it has in hand."""
        assert self._thread is not None
        self._signals.halt.set()
        self._thread.join()

    def raise_error(self) -> None:
        """Raise what the thread raised, if it did."""
        if self._error is not None:
            raise self._error

    def lost(self) -> None:
        """Take note that another process has taken the sync over."""
        self.ended = Ended("error", "another process took this sync over")
        self._signals.halt.set()
        self._wake()

    def _list(self, lister: Lister, worker: Worker) -> None:
        try:
            try:
                self._list_pages(lister, worker)
            except LostLease:
                self.lost()
            finally:
                self._gate.close(worker.prober)
        except BaseException as error:  # noqa: BLE001 - raised again in the thread that called `run`
            self._error = error
            self._signals.halt.set()
        finally:
            self._feed.progress.listing_ended = True
            self._wake()

    def _list_pages(self, lister: Lister, worker: Worker) -> None:
        """List, and go on after each pause that the run waits for."""
        health, halt = worker.health, self._signals.halt
        while self._gate.wait_until_open(worker.prober, health, feed=self._feed, halt=halt):
            self._wake()
            ended = self._gate.on_end(lister.run(), health)
            self._gate.close(worker.prober)
            if not self._goes_on(ended, lister, health):
                break
        else:
            return
        is_over = ended.stopped == "error" and not ended.is_resumable and not ended.ours
        if ended.given_up or is_over or ended.stopped in ("loop", "limit", "short"):
            # There is nothing to resume: the next run looks at the whole listing again.
            self._store.listings.abandon(lister.claim)
        if ended.stopped in ("error", "loop", "short"):
            self._store.unreported.record_listing(self._sync.client.id, self._sync.id, ended.stopped, ended.message)
        self.ended = self.ended or ended

    def _goes_on(self, ended: Ended, lister: Lister, health: Health) -> bool:
        """Tell whether the listing goes on after this end, by waiting; a pause is waited for by the gate."""
        if self._signals.halt.is_set() or ended.given_up:
            return False
        pausing = health.pauses.in_force.get(self._sync.client.id)
        if pausing is not None and ended.stopped in ("stop", "paused", "error"):
            return (ended.stopped != "error" or ended.is_resumable) and self._feed.waits_for(pausing)
        if ended.stopped != "error" or not ended.is_resumable:
            return False
        seconds = PAGE_RETRY.wait(max(0, lister.failures - 1))
        if ended.again is not None:
            seconds = max(ended.again, lister.unready * LONGER_EACH_TIME) if lister.unready <= MAX_NOT_READY else None
        return seconds is not None and self._feed.waits_for_retry(seconds, is_new=True) and not self._signals.halt.wait(seconds)
