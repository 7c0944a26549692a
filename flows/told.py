"""Where trouble is told: Python subscribers hear of it, and people get notices. Knows no channel and no Prefect.

Whoever pauses or resumes a client, or ends a run, says so here, once, after it was committed:

    with Told(store, registry) as told:
        told.paused(client, pausing)        # also for a pause that came in place of another one
        told.resumed(client, by="anna")     # by a person; `by="probe"` when a client has reopened by itself
        told.ended(sync, result)            # the last thing that a run does, after its listing was released
        told.failed()                       # a job of this process has failed for good

None of them raises, waits or sends anything: threads of its own do the rest. They are hints, not the truth: what is told to
people is read from the tables (`pause` rows, and the rows that a finish leaves for each failure), so that nothing is told twice
when two processes say the same, and nothing is lost when nobody says it: the next one that looks finds it.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeVar

from sqlalchemy.exc import SQLAlchemyError

from flows.errand import Errand
from flows.errors import FlowsError
from flows.tidings import EVENTS, FAILED, PARTIAL, PAUSED, RECOVERED, RESUMED, Tidings, is_heard, subscribe, tell
from flows.verdict import attempt, place
from jobs.errors import JobsError
from jobs.job import Verdict
from jobs.outcome import Failure

if TYPE_CHECKING:
    from flows.channels import Carrier
    from flows.declaration import Client, Sync
    from flows.desk import Desk
    from flows.registry import Registry
    from flows.result import RunResult
    from jobs.pause import Pausing
    from jobs.store import JobStore

__all__ = [
    "EVENTS", "FAILED", "PARTIAL", "PAUSED", "RECOVERED", "RESUMED", "Tidings", "Told", "carrier",
    "route", "subscribe",
]  # fmt: skip

log = logging.getLogger("syncs.notices")

T = TypeVar("T")

GATHER = 5.0
"""Seconds that failures of jobs wait for company, so that many of them are one message."""

AGAIN = 10.0
"""Seconds until what the database did not take is tried again, while the process lives."""

PATIENCE = 12.0
"""Seconds that the end of a process or a run waits for what is being sent: a little longer than one sending may take."""

_lock = threading.Lock()
_carriers: tuple[Carrier, ...] = ()


def route(carrier: Carrier) -> Callable[[], None]:
    """Let every postman of this process hand its letters to this carrier first, until the returned function is called."""
    global _carriers  # noqa: PLW0603 - so are routes
    with _lock:
        _carriers = (*_carriers, carrier)

    def end() -> None:
        global _carriers  # noqa: PLW0603
        with _lock:
            _carriers = tuple(one for one in _carriers if one is not carrier)

    return end


def carrier() -> Carrier | None:
    """Return the carrier of this process: the last one that was named, else the Prefect server that the project uses, if any."""
    if _carriers:
        return _carriers[-1]
    # Imports no Prefect until a letter is to be carried, and asks first whether the server answers.
    from flows.orchestration.routed import project_carrier

    return project_carrier()


class Told:
    """Tells of trouble, for one process or one run.

    Args:
        store: where pauses and notices are. It must stay open until `close` has returned.
        registry: what is declared; without it `clients`, and whatever `flows.registry.load()` finds when it is needed.
        clients: those that are known without a registry.
        link: where people can look at the present run; by default at the Prefect flow run that this is in, if any.
        run: the id of its Prefect flow run.
    """

    def __init__(
        self, store: JobStore, registry: Registry | None = None, *, clients: Iterable[Client] = (), link: str = "", run: str = ""
    ) -> None:
        self._store, self._registry = store, registry
        self._clients = {client.id: client for client in clients} | dict({} if registry is None else registry.clients)
        if not run:
            # Here: the threads that tell and send know no flow run.
            from flows.orchestration.here import here

            found, run = here()
            link = link or found
        self._link, self._run = link, run
        self._tidings: deque[Tidings] = deque()
        self._ended: deque[tuple[Sync, RunResult, bool]] = deque()
        self._gather = GATHER
        self._desk: Desk | None = None
        self._complained = ""
        self._is_closing = threading.Event()
        self._until = 0.0
        self._telling = Errand(self._tell, name="syncs-tell")
        self._looking = Errand(self._look, name="syncs-notices")
        self._sending = Errand(self._send, name="syncs-postman")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def paused(self, client: Client, pausing: Pausing) -> None:
        """Say that a pause began, or took the place of another one."""
        until, now = pausing.until, pausing.started_at
        payload = {
            "client": client.id, "cause": pausing.cause, "level": pausing.level, "reason": pausing.reason,
            "by": pausing.set_by, "until": None if until is None else until.isoformat(),
            "seconds": None if until is None else (until - now).total_seconds(),
        }  # fmt: skip
        self._say(Tidings(PAUSED, client, "", payload, self._store))
        self.look()

    def resumed(self, client: Client, *, by: str) -> None:
        """Say that a client is open again: by a person, or by its `probe`."""
        self._say(Tidings(RESUMED, client, "", {"client": client.id, "by": by}, self._store))
        self.look()

    def ended(self, sync: Sync, result: RunResult, *, by_hand: bool = False) -> None:
        """Say what a run came to. Not for dry runs.

        Args:
            sync: what was run.
            result: what it came to.
            by_hand: somebody asked it to stop. That it left something for later is then no trouble.
        """
        if result.state == "skipped":
            return
        self._clients.setdefault(sync.client.id, sync.client)
        is_news = not (by_hand and result.state == "partial" and not result.failed and result.stopped in ("end", "stop"))
        self._ended.append((sync, result, is_news))
        self.look()

    def failed(self) -> None:
        """Say that a job has failed for good; those of the next seconds become one message."""
        # A little later than they are ripe.
        self._looking.ask(self._gather + 0.05)

    def look(self) -> None:
        """Look for what others left untold or unsent; workers call it now and then."""
        self._looking.ask()

    def close(self, within: float = PATIENCE) -> None:
        """Wait at most so many seconds for what is under way; the rest is sent by whoever comes next."""
        self._until = until = time.monotonic() + within
        self._gather = 0.0
        self._is_closing.set()
        # In this order: a look may have something to say, and to send.
        looked = self._looking.close(until)
        self._telling.close(until)
        if looked:
            self._sending.close(until)

    # -- in threads of their own -----------------------------------------------------------------------------------------------

    def _say(self, tidings: Tidings) -> None:
        if is_heard(tidings.event):
            self._tidings.append(tidings)
            self._telling.ask()

    def _tell(self) -> None:
        """Call the subscribers."""
        while self._tidings:
            tidings = self._tidings.popleft()
            if tidings.event == RESUMED:
                tidings = self._with_history(tidings)
            tell(tidings)

    def _with_history(self, tidings: Tidings) -> Tidings:
        """Say of a resume what was resumed."""
        try:
            found = self._store.pause_history(tidings.client.id, limit=1)
        except (SQLAlchemyError, JobsError):
            return tidings
        if not found:
            return tidings
        last, end = found[0], found[0].ended_at
        payload = {
            **tidings.payload, "cause": last.cause, "level": last.level, "reason": last.reason,
            "until": None if last.until is None else last.until.isoformat(),
            "seconds": None if end is None else (end - last.started_at).total_seconds(),
        }  # fmt: skip
        return Tidings(tidings.event, tidings.client, tidings.sync, payload, tidings.store)

    def _look(self) -> float | None:
        """Store what there is to say, and have it sent; return when to try again what could not be stored."""
        return self._guarded(self._store_all)

    def _store_all(self) -> float | None:
        try:
            desk = self._open_desk()
            while self._ended:
                sync, result, is_news = self._ended[0]
                closed = is_news and desk.run_ended(sync, result)
                self._ended.popleft()
                self._say_of_run(sync, result, closed)
            desk.look(gather=self._gather)
        except (SQLAlchemyError, FlowsError, JobsError) as error:
            self._complain(error, "is not told yet")
            return AGAIN
        self._sending.ask()
        return None

    def _say_of_run(self, sync: Sync, result: RunResult, closed: bool) -> None:
        event = {"failed": FAILED, "partial": PARTIAL}.get(result.state, RECOVERED if closed else "")
        if event:
            document = {name: value for name, value in result.as_json().items() if name not in ("failures", "examples")}
            self._say(Tidings(event, sync.client, sync.id, document, self._store))

    def _send(self) -> None:
        self._guarded(self._deliver)

    def _deliver(self) -> None:
        from flows.postman import TIMEOUT, Postman

        def is_late() -> bool:
            # A letter that a process leaves in the middle goes out twice.
            return self._is_closing.is_set() and time.monotonic() + TIMEOUT > self._until

        try:
            Postman(self._store, self._clients, carrier()).deliver(stop=is_late)
        except (SQLAlchemyError, FlowsError, JobsError) as error:
            self._complain(error, "waits to be sent")

    def _open_desk(self) -> Desk:
        if self._desk is None:
            # Read when there is something to do: the command line imports this module with every command that works.
            from flows.desk import Desk

            self._desk = Desk(self._store, self._registry, self._clients, link=self._link, run=self._run)
        return self._desk

    def _guarded(self, work: Callable[[], T]) -> T | None:
        """Do it; a slip of ours ends neither the thread nor anything else (E-98)."""
        found = attempt(work, lambda error: Verdict(Failure(place(error))))
        if isinstance(found, Verdict):
            log.error("notices are not looked after: %s", getattr(found.outcome, "message", ""))
            return None
        return found

    def _complain(self, error: Exception, what: str) -> None:
        # The errors of SQLAlchemy quote statements with what stands in them.
        text = str(error) if isinstance(error, FlowsError | JobsError) else type(error).__name__
        if text != self._complained:
            self._complained = text
            log.warning("a notice %s: %s", what, text)
