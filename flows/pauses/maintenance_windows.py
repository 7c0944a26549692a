"""Pauses clients when one of their declared maintenance windows begins."""

import time
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from flows.declarations.client import Client
from flows.declarations.window import next_window, window_at, windows_text
from jobs.pauses.pause import OpenPause
from jobs.store import JobStore

ANCHOR_EVERY = 30.0
"""Seconds after which PostgreSQL is asked for the time again; in between our own clock counts on."""

_FAR = datetime.max.replace(tzinfo=UTC)


class WindowPauses:
    """Writes the pause of a window when it begins: an ordinary pause row, which every claim reads.

    No process has to be up when a window begins: workers and listings call `apply` before each claim and each page, and the first
    one writes the row. Between windows a call costs one comparison.

    Args:
        store: where pauses are; its clock counts.
        clients: whose windows.
        worker: the name under which it pauses.
    """

    def __init__(self, store: JobStore, clients: Iterable[Client], *, worker: str) -> None:
        self._store = store
        self._worker = worker
        self._clients = {client.id: client for client in clients if client.pause.windows}
        #: Until when there is nothing to do.
        self._next_change: dict[str, datetime] = {}
        self._anchor: tuple[datetime, float] | None = None

    def apply(self) -> list[OpenPause]:
        """Pause the clients whose window has begun since the last call; return their pauses, also those set by other processes.

        A client that a person has resumed in this very window stays open until the next one.
        """
        if not self._clients:
            return []
        now = self._now()
        found: list[OpenPause] = []
        for client in self._clients.values():
            if self._next_change.get(client.id, now) > now:
                continue
            windows = client.pause.windows
            end = window_at(windows, now)
            if end is None:
                following = next_window(windows, now)
                self._next_change[client.id] = _FAR if following is None else following.begin
                continue
            pausing = self._pause(client, now, end)
            # Last: while the database is away, the next call does it.
            self._next_change[client.id] = end
            if pausing is not None:
                found.append(pausing)
        return found

    def window(self, client: Client) -> datetime | None:
        """Return the end of the window in which a client is, unless a person has resumed it there; writes nothing."""
        now = self._now()
        end = window_at(client.pause.windows, now)
        return None if end is None or self._is_resumed(client, now) else end

    def reason(self, client: Client) -> str:
        """Return the reason of a pause for the present window."""
        return f"declared window {windows_text(client.pause.windows, self._now())}"

    def _pause(self, client: Client, now: datetime, end: datetime) -> OpenPause | None:
        while True:
            standing = self._store.pauses.state(client.id)
            pausing, seen = standing.pausing, standing.generation
            if pausing is None and self._is_resumed(client, now):
                return None
            if pausing is None or not _lasts(pausing, end):
                # If several processes come here at once, the first one changes the generation. So does a process that pauses or
                # reopens the client at this moment: then try again.
                pausing = self._store.pauses.open(
                    client.id, end, cause="window", reason=self.reason(client), set_by=self._worker, generation=seen
                )
            if pausing is not None and _lasts(pausing, end):
                return pausing

    def _is_resumed(self, client: Client, now: datetime) -> bool:
        resumed_at = self._store.pause_history.resumed_at(client.id)
        end = None if resumed_at is None else window_at(client.pause.windows, resumed_at)
        # In this window, not in yesterday's: both moments lie in one uninterrupted window.
        return end is not None and end == window_at(client.pause.windows, now)

    def _now(self) -> datetime:
        db = self._store.db
        if db.dialect == "sqlite":
            return db.clock()
        at = time.monotonic()
        if self._anchor is None or at - self._anchor[1] >= ANCHOR_EVERY:
            self._anchor = self._store.views.now(), at
        return self._anchor[0] + timedelta(seconds=at - self._anchor[1])


def _lasts(pausing: OpenPause, end: datetime) -> bool:
    return pausing.until is None or pausing.until >= end
