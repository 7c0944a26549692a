"""Shows in Prefect at once what begins and ends in this process: pauses, on the clients' work queues. In a thread of its own.

Imports Prefect when there is something to show, in that thread, and only where a server answers: a worker that never pauses a
client pays nothing, and one without a server goes on from the table alone.
"""

import logging
import threading
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from contextvars import copy_context
from typing import TYPE_CHECKING

from flows import told
from flows.orchestration.address import api_url, is_there
from flows.teller import SILENT, Teller
from flows.tidings import Tidings

if TYPE_CHECKING:
    from flows.declaration import Client
    from flows.orchestration.mirror import Change
    from jobs.store import JobStore

log = logging.getLogger("syncs.mirror")

AGAIN = 20.0
"""Seconds until what a silent server was not told is tried again, while the process lives."""

_TIMEOUT = 2.0
#: The longest that the end of a process, or a command, waits for what is only shown.
_PATIENCE = 5.0


def look(
    store: "JobStore",
    clients: "Mapping[str, Client]",
    *,
    url: str | None = None,
    only: Collection[str] | None = None,
    teller: Teller = SILENT,
) -> "list[Change] | None":
    """Bring work queues and table together, if a server answers. Never fails: the table rules, Prefect shows it.

    Args:
        store: where pauses are.
        clients: by id, as declared.
        url: of the API; by default this project's.
        only: ids of the clients to look at; all by default.
        teller: hears of a person's pauses and resumes in Prefect.

    Returns:
        What was done; `None` where no server answers or something failed, which is logged.
    """
    url = url or api_url()
    if url is None or not is_there(url, _TIMEOUT):
        return None
    try:
        from flows.orchestration.mirror import hasty_client, reconcile

        with hasty_client(url) as api:
            return reconcile(api, store, clients, only=only, told=teller)
    except Exception as error:  # noqa: BLE001 - law 14: what Prefect does is not what becomes of a client
        log.warning("work queues are not brought up to date: %s: %s", type(error).__name__, error)
        return None


def look_soon(
    store: "JobStore",
    clients: "Mapping[str, Client]",
    *,
    url: str | None = None,
    only: Collection[str] | None = None,
    teller: Teller = SILENT,
    within: float = 5.0,
) -> "list[Change] | None":
    """Do the same, and wait for it so many seconds at most. It goes on while this process lives."""
    found: list[Change] = []
    done = threading.Event()

    def run() -> None:
        changes = look(store, clients, url=url, only=only, teller=teller)
        if changes is not None:
            found.extend(changes)
            done.set()

    thread = threading.Thread(target=copy_context().run, args=(run,), name="syncs-mirror", daemon=True)
    thread.start()
    thread.join(within)
    return found if done.is_set() else None


@contextmanager
def mirrored(
    store: "JobStore", clients: "Mapping[str, Client]", *, url: str | None = None, begin: bool = True, teller: Teller = SILENT
) -> "Iterator[Watch | None]":
    """Within it, pauses and resumes of these clients that are told in this process show in Prefect, if a server is configured.

    Args:
        store: where pauses are; it must stay open for the block.
        clients: by id, as declared.
        url: of the API; by default this project's.
        begin: look first, so that what a person did in Prefect counts from here on.
        teller: hears of what a person did there.
    """
    url = url or api_url()
    if url is None:
        yield None
        return
    if begin:
        look_soon(store, clients, url=url, teller=teller)
    watch = Watch(store, clients, url)
    end = told.subscribe(watch.hear, told.PAUSED, told.RESUMED)
    try:
        yield watch
    finally:
        end()
        watch.close()


class Watch:
    """Hears of pauses and resumes, and lets the work queues follow. Thread-safe; `hear` does not wait.

    Args:
        store: where pauses are.
        clients: by id, as declared.
        url: of the API.
    """

    def __init__(self, store: "JobStore", clients: "Mapping[str, Client]", url: str) -> None:
        self._store = store
        self._clients = clients
        self._url = url
        self._wanted: set[str] = set()
        self._changed = threading.Condition()
        self._ended = False
        self._thread: threading.Thread | None = None

    def hear(self, tidings: Tidings) -> None:
        """Take note that a client was paused or resumed."""
        if tidings.client.id not in self._clients:
            return
        with self._changed:
            if self._ended:
                return
            self._wanted.add(tidings.client.id)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="syncs-mirror", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def close(self, within: float = _PATIENCE) -> None:
        """Wait at most so many seconds for what is under way; the rest is for whoever looks next."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join(within)

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._wanted and not self._ended:
                    self._changed.wait()
                if not self._wanted:
                    return
                wanted, self._wanted = self._wanted, set()
            if look(self._store, self._clients, url=self._url, only=wanted) is not None:
                continue
            with self._changed:
                if self._ended:
                    return
                self._wanted |= wanted
                # What is told in between comes with the next try.
                self._changed.wait_for(lambda: self._ended, timeout=AGAIN)
                if self._ended:
                    return
