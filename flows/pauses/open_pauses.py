"""The pauses of clients that this process knows of: it begins some, and looks for those of others."""

import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from flows.declarations.client import Client
from flows.notices.observer import Observer
from flows.pauses.maintenance_windows import WindowPauses
from jobs import JobsError
from jobs.outcome import Pause
from jobs.pauses.pause import OpenPause
from jobs.pauses.probe import Probe
from jobs.store import JobStore

SHORTEST_PAUSE = 1.0
"""Seconds that a pause lasts at least: with none, the client would be asked again and again, each time by a probe."""


class OpenPauses:
    """The pauses of the clients of one process. Thread-safe.

    Args:
        store: where pauses are.
        clients: by id.
        worker: the name under which it pauses.
        retry_database: does database work, again while the database is away.
        observer: is informed of pauses that begin here.
        forget_refusals: called with a client that others have opened; how long its last answer asked to wait no longer counts.
    """

    def __init__(
        self,
        store: JobStore,
        clients: Mapping[str, Client],
        *,
        worker: str,
        retry_database: Callable[[Callable[[], Any]], Any],
        observer: Observer,
        forget_refusals: Callable[[str], None],
    ) -> None:
        self._store = store
        self._clients = clients
        self._worker = worker
        self._retry_database = retry_database
        self._observer = observer
        self._forget_refusals = forget_refusals
        with_windows = [client for client in clients.values() if client.pause.windows]
        self._windows = WindowPauses(store, with_windows, worker=worker)
        #: Whether `apply_windows` has anything to do.
        self.has_windows = bool(with_windows)
        #: Clients that were paused while we worked: what has not begun goes back.
        self.in_force: dict[str, OpenPause] = {}
        #: By client the generation under which requests were sent last.
        self.generations: dict[str, int] = {}
        #: By client the pause that this process probes, or has ended with a probe.
        self._probed: dict[str, int] = {}
        #: When other processes' pauses were looked for, by `time.monotonic`.
        self.refreshed_at = 0.0
        self._lock, self._refreshing = threading.Lock(), threading.Lock()

    def apply_windows(self) -> None:
        """Pause the clients whose declared window has begun; called before each claim and each page."""
        with self._lock:
            found = self._windows.apply()
        for pausing in found:
            self.add(pausing)

    def sends_under(self, client: str, generation: int) -> None:
        """Take note of the generation under which a request is sent.

        A new one that no probe of this process began is that of a client which others have opened, such as a person. What was
        answered before must not pause it again.
        """
        known = self.generations.setdefault(client, generation)
        if generation > known:
            self.generations[client] = generation
            self._forget_refusals(client)

    def seen(self, pausing: OpenPause) -> None:
        """Take note of a pause that was read from the store."""
        self.in_force[pausing.client] = pausing

    def forget(self, known: Mapping[str, OpenPause]) -> None:
        """Forget these pauses: a claim has read the tables since, and what it returned may be worked."""
        for client, pausing in known.items():
            if self.in_force.get(client) is pausing:
                self.in_force.pop(client, None)

    def refresh(self) -> None:
        """Look for windows and for pauses of other processes; one thread does, and the others go on.

        A pause that has run out still counts: a job that was in hand before must not become a second probe.
        """
        if not self._refreshing.acquire(blocking=False):
            return
        try:
            # If the database is away, the next claim or finish waits for it.
            with suppress(SQLAlchemyError, JobsError):
                if self.has_windows:
                    self.apply_windows()
                found = self._store.pauses.in_force(run_out=True)
                # Another thread may just have begun a probe of one: its job must begin.
                with self._lock:
                    for pausing in found:
                        if pausing.client in self._clients and pausing.id != self._probed.get(pausing.client):
                            self.in_force.setdefault(pausing.client, pausing)
            self.refreshed_at = time.monotonic()
        finally:
            self._refreshing.release()

    def begin(self, client: str, outcome: Pause, cause: str, *, generation: int | None) -> OpenPause | None:
        """Pause a client, before the job that asks for it is finished: a job that goes back is available at once.

        Args:
            client: whom.
            outcome: how long, and why.
            cause: of the pause.
            generation: under which the request began; a late answer changes nothing.

        Returns:
            The pause in force; `None` after a late answer where none is.
        """
        with self._lock:
            if (known := self.in_force.get(client)) is not None:
                return known
            pause = partial(
                self._store.pauses.open,
                client,
                self.end_of(outcome),
                cause=cause,
                reason=outcome.reason,
                set_by=self._worker,
                generation=generation,
            )
            pausing: OpenPause | None = self._retry_database(pause)
        if pausing is None:
            self._forget_refusals(client)
        return self.add(pausing)

    def end_of(self, outcome: Pause) -> float | datetime | None:
        """Return when a pause that an answer asks for ends: a moment, seconds from now, or `None` until a person resumes."""
        if isinstance(outcome.when, datetime):
            soonest: datetime = self._retry_database(self._store.views.now) + timedelta(seconds=SHORTEST_PAUSE)
            return max(outcome.when, soonest)
        return None if outcome.when is None else max(outcome.when, SHORTEST_PAUSE)

    def add(self, pausing: OpenPause | None) -> OpenPause | None:
        """Take note of a pause that this process may have begun, and tell of it if so."""
        if pausing is not None:
            self.in_force[pausing.client] = pausing
            if pausing.is_new:
                self._observer.paused(self._clients[pausing.client], pausing)
        return pausing

    def probed(self, probe: Probe) -> None:
        """Take note that this process probes a client whose pause has run out: the probe's job must begin."""
        with self._lock:
            self._probed[probe.client] = probe.pause_id
            self.generations[probe.client] = probe.generation
            self.in_force.pop(probe.client, None)

    def reopened(self, client: str, generation: int) -> None:
        """Take note that a probe of this process has opened a client; requests are sent under this generation now."""
        self.generations[client] = generation

    def not_reopened(self, client: str, pausing: OpenPause | None) -> None:
        """Take note that a probe has not opened a client, and of the pause that is in force after it."""
        self._probed.pop(client, None)
        self.add(pausing)
