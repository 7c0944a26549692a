"""Updates the clients' work queues in Prefect when this process pauses or resumes a client, in a background thread.

Prefect is imported in that thread, when there is something to update and a server answers. A worker that never pauses a client
pays nothing for it, and without a server the table of pauses alone counts.
"""

import logging
import threading
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from contextvars import copy_context
from typing import TYPE_CHECKING

from flows.events import PAUSED, RESUMED, ClientEvent, subscribe
from flows.notices.observer import NULL_OBSERVER, Observer
from flows.project.prefect_address import api_url, is_reachable

if TYPE_CHECKING:
    from flows.declarations.client import Client
    from flows.orchestration.work_queues.reconciliation import Change
    from jobs.store import JobStore

log = logging.getLogger("syncs.work_queues")

RETRY_SECONDS = 20.0
"""Seconds until a silent server is tried again, while the process lives."""

_HEALTH_TIMEOUT = 2.0
_REQUEST_TIMEOUT = 5.0
#: With SQLite, the server answers 503 now and then while its database is locked (3.9.1).
_REQUEST_RETRIES = 3
#: The longest that the end of a process or a command waits for a server that only displays.
_MAX_WAIT = 5.0


def reconcile_if_reachable(
    store: "JobStore",
    clients: "Mapping[str, Client]",
    *,
    url: str | None = None,
    only: Collection[str] | None = None,
    observer: Observer = NULL_OBSERVER,
) -> "list[Change] | None":
    """Make work queues and table agree if a server answers. Raises nothing: the table decides, Prefect displays it.

    Args:
        store: holds the pauses.
        clients: by id, as declared.
        url: of the API; by default this project's.
        only: ids of the clients to reconcile; all by default.
        observer: is notified of a person's pauses and resumes in Prefect.

    Returns:
        What was done; `None` where no server answers or something failed, which is logged.
    """
    url = url or api_url()
    if url is None or not is_reachable(url, _HEALTH_TIMEOUT):
        return None
    try:
        from flows.orchestration.prefect_client import open_client
        from flows.orchestration.work_queues.reconciliation import reconcile

        with open_client(url, timeout=_REQUEST_TIMEOUT, retries=_REQUEST_RETRIES) as api:
            return reconcile(api, store, clients, only=only, observer=observer)
    except Exception as error:  # noqa: BLE001 - a failure of Prefect must not end the run or worker that this thread belongs to
        log.warning("work queues are not brought up to date: %s: %s", type(error).__name__, error)
        return None


def reconcile_within(
    seconds: float,
    store: "JobStore",
    clients: "Mapping[str, Client]",
    *,
    url: str | None = None,
    only: Collection[str] | None = None,
    observer: Observer = NULL_OBSERVER,
) -> "list[Change] | None":
    """Do the same in a thread, and wait at most so many seconds for it. It continues while this process lives."""
    found: list[Change] = []
    done = threading.Event()

    def run() -> None:
        changes = reconcile_if_reachable(store, clients, url=url, only=only, observer=observer)
        if changes is not None:
            found.extend(changes)
            done.set()

    thread = threading.Thread(target=copy_context().run, args=(run,), name="syncs-work-queues", daemon=True)
    thread.start()
    thread.join(seconds)
    return found if done.is_set() else None


@contextmanager
def updating_work_queues(
    store: "JobStore",
    clients: "Mapping[str, Client]",
    *,
    url: str | None = None,
    reconcile_first: bool = True,
    observer: Observer = NULL_OBSERVER,
) -> "Iterator[QueueUpdater | None]":
    """While the block runs, update the work queues of these clients when this process pauses or resumes one.

    Args:
        store: holds the pauses; it must stay open for the block.
        clients: by id, as declared.
        url: of the API; by default this project's. Without one, nothing is updated.
        reconcile_first: reconcile before the block begins, so that what a person did in Prefect counts from then on.
        observer: is notified of what a person did there.
    """
    url = url or api_url()
    if url is None:
        yield None
        return
    if reconcile_first:
        reconcile_within(_MAX_WAIT, store, clients, url=url, observer=observer)
    updater = QueueUpdater(store, clients, url)
    unsubscribe = subscribe(updater.on_event, PAUSED, RESUMED)
    try:
        yield updater
    finally:
        unsubscribe()
        updater.close()


class QueueUpdater:
    """Updates work queues after pauses and resumes, in a thread of its own. Thread-safe; `on_event` does not wait.

    Args:
        store: holds the pauses.
        clients: by id, as declared.
        url: of the API.
    """

    def __init__(self, store: "JobStore", clients: "Mapping[str, Client]", url: str) -> None:
        self._store = store
        self._clients = clients
        self._url = url
        self._due: set[str] = set()
        self._changed = threading.Condition()
        self._ended = False
        self._thread: threading.Thread | None = None

    def on_event(self, event: ClientEvent) -> None:
        """Have the work queue of a client updated that was paused or resumed."""
        if event.client.id not in self._clients:
            return
        with self._changed:
            if self._ended:
                return
            self._due.add(event.client.id)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="syncs-work-queues", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def close(self, within: float = _MAX_WAIT) -> None:
        """Wait at most so many seconds for what is under way; the next process that reconciles does the rest."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join(within)

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._due and not self._ended:
                    self._changed.wait()
                if not self._due:
                    return
                due, self._due = self._due, set()
            if reconcile_if_reachable(self._store, self._clients, url=self._url, only=due) is not None:
                continue
            with self._changed:
                if self._ended:
                    return
                self._due |= due
                # Events of the meantime are handled with the next try.
                self._changed.wait_for(lambda: self._ended, timeout=RETRY_SECONDS)
                if self._ended:
                    return
