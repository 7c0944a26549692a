"""Shares the budgets of clients among processes: who uses them now, and what pace was learned; and ends waits when we stop.

Each process that was limited by a budget within the last seconds says so in the database once a second, and learns who else is
there. Nothing is written for a request, and nothing while nothing limits.
"""

import itertools
import logging
import math
import threading
import time
from collections.abc import Collection
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from clients.http.rate_limits.throttle import Throttle
from jobs import JobsError
from jobs.pauses.paces import Pace
from jobs.process_identity import this_worker
from jobs.store import JobStore

log = logging.getLogger("syncs.work")

EVERY, AT_FIRST = 1.0, 0.25
"""Seconds between two exchanges; and between those of the first `FIRST` seconds, when others begin at the same time."""

FIRST = 2.0

TICK = 0.1
"""Seconds after which a stop ends the waits at the latest."""

PRESENT = 4.0
"""Seconds after which a process that said nothing has gone, or waits for a pause to end."""

_numbers = itertools.count(1)


class PaceExchange:
    """Exchanges what the throttles of this process know with other processes, in a thread that the first connection starts.

    A process may have several, as a worker has that continues a listing: each has throttles of its own, and so a share of its
    own.

    Args:
        store: where it is kept.
        stop: set when the process begins to end: then nobody waits for a budget any more.
        worker: its name among those that share budgets; by default the identity of the process with a number.
    """

    def __init__(self, store: JobStore, *, stop: threading.Event, worker: str | None = None) -> None:
        self._store = store
        self._stop = stop
        self._worker = worker or f"{this_worker()}#{next(_numbers)}"
        self._connections: list[tuple[str, Any]] = []
        self._exchanged_at = self._began_at = -math.inf
        self._said = False
        #: By client and origin, the others that were there at the last exchange.
        self._present: dict[tuple[str, str], dict[str, Pace]] = {}
        self._end = threading.Event()
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []

    def opened(self, client: str, connection: Any) -> None:
        """Take note of a connection before its first request: others may know how fast it may go."""
        if not getattr(connection, "throttles", None):
            return
        try:
            known = self._store.paces.of([client])
        except (SQLAlchemyError, JobsError):
            # The next claim waits for the database; without what it keeps, the pace is learned anew.
            known = []
        others = [one for one in known if one.worker != self._worker]
        for origin, throttle in dict(connection.throttles).items():
            here = [one for one in others if one.origin == _text(origin)]
            if here:
                members = 1 + sum(one.idle < PRESENT for one in here)
                throttle.share(members, self._rank(here))
                learned = [one for one in here if one.rate]
                # Those that were there last, together, if nobody is there now.
                latest = min((one.idle for one in learned), default=0.0)
                rates = [one.rate or 0.0 for one in learned if one.idle < latest + PRESENT]
                if rates:
                    if members == 1:
                        throttle.inherit(sum(rates))
                    throttle.adopt(sum(rates) / members, min(one.age for one in learned))
                elif members > 1:
                    throttle.adopt(None, 0.0)
        with self._lock:
            self._connections.append((client, connection))
            if not self._threads and not self._end.is_set():
                # Two, so that a stop does not wait for the database.
                self._threads = [
                    threading.Thread(target=run, name=name, daemon=True)
                    for run, name in ((self._run, "syncs-paces"), (self._end_waits, "syncs-paces-stop"))
                ]
                for thread in self._threads:
                    thread.start()

    def close(self) -> None:
        """End the threads, and leave."""
        self._end.set()
        for thread in self._threads:
            thread.join()
        if self._said:
            try:
                self._store.paces.leave(self._worker)
            except (SQLAlchemyError, JobsError):
                # Others see that it says nothing any more.
                log.debug("not taken off the list of those that share budgets")

    def _end_waits(self) -> None:
        while not self._end.wait(TICK):
            if self._stop.is_set():
                with self._lock:
                    connections = [connection for _, connection in self._connections]
                for connection in connections:
                    for throttle in dict(connection.throttles).values():
                        throttle.stop()

    def _run(self) -> None:
        while not self._end.wait(TICK) and not self._stop.is_set():
            now = time.monotonic()
            if now - self._exchanged_at >= (AT_FIRST if now - self._began_at < FIRST else EVERY):
                try:
                    self.exchange()
                except (SQLAlchemyError, JobsError) as error:
                    log.debug("paces not exchanged: %s", type(error).__name__)

    def exchange(self) -> None:
        """Say what is known here where a budget limits, and learn who else uses it."""
        with self._lock:
            throttles = {
                (client, _text(origin)): throttle
                for client, connection in self._connections
                for origin, throttle in dict(connection.throttles).items()
            }
        mine = [
            Pace(client, origin, self._worker, known[0], known[1])
            for (client, origin), throttle in throttles.items()
            if (known := throttle.known()) is not None
        ]
        if not mine:
            return
        now = time.monotonic()
        is_first = now - self._exchanged_at > PRESENT
        if is_first:
            self._began_at = now
        self._store.paces.put(mine)
        self._exchanged_at, self._said = now, True
        if is_first:
            # At the beginning, and after a pause, others may not have said yet that they are there, too.
            return
        known = self._store.paces.of(sorted({one.client for one in mine}))
        for one in mine:
            place = one[:2]
            here = {
                other.worker: other
                for other in known
                if other[:2] == place and other.worker != self._worker and other.idle < PRESENT
            }
            self._share(throttles[place], one, here, gone=self._present.get(place, {}).keys() - here.keys())
            self._present[place] = here

    def _share(self, throttle: Throttle, mine: Pace, here: dict[str, Pace], *, gone: Collection[str]) -> None:
        """Give this process its share of what all that are there have measured.

        Args:
            mine: what this process has measured.
            here: the others.
            gone: those that were there before; what they measured falls to those that stay, in equal parts.
        """
        members = 1 + len(here)
        throttle.share(members, self._rank(list(here.values())))
        left = sum(self._present[mine[:2]][worker].rate or 0.0 for worker in gone) / members
        if left:
            throttle.inherit(left)
        measured = [one for one in (mine, *here.values()) if one.rate]
        if measured:
            total = sum(one.rate or 0.0 for one in measured) + left * members
            throttle.adopt(total / members, min(one.age for one in measured))

    def _rank(self, others: list[Pace]) -> int:
        return sum(one.worker < self._worker for one in others if one.idle < PRESENT)


def _text(origin: tuple[str, str, int]) -> str:
    scheme, host, port = origin
    return f"{scheme}://{host}:{port}"
