"""Reports trouble: calls Python subscribers, and turns pauses and failures into messages to people.

    with Notifier(store, registry) as notifier:
        notifier.paused(client, pause)          # also when a pause replaces another one
        notifier.resumed(client, by="anna")     # `by="probe"` when a client has reopened by itself
        notifier.ended(sync, result)            # the last step of a run, after its listing was released
        notifier.failed()                       # a job of this process failed for good

Call them after the commit. They do not raise, wait or send; background threads do the work. They are hints: messages are made
from the tables (`pause` rows, and the rows that a finish leaves for each failure). So two processes that report the same event
cause one message, and what nobody reported is found by the next process that looks.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Self, TypeVar

from sqlalchemy.exc import SQLAlchemyError

from flows.errors import FlowsError
from flows.events import FAILED, PARTIAL, PAUSED, RECOVERED, RESUMED, ClientEvent, has_subscribers, publish
from flows.notices.background_task import BackgroundTask
from flows.notices.process_carrier import carrier
from flows.user_code import attempt, place
from jobs.errors import JobsError

if TYPE_CHECKING:
    from flows.declarations.client import Client
    from flows.declarations.sync import Sync
    from flows.notices.collector import Collector
    from flows.project.registry import Registry
    from flows.run_result import RunResult
    from jobs.pauses.pause import OpenPause
    from jobs.store import JobStore

log = logging.getLogger("syncs.notices")

T = TypeVar("T")

GATHER = 5.0
"""Seconds that failures of jobs wait for further ones, so that many of them are one message."""

RETRY_DATABASE = 10.0
"""Seconds until what the database did not accept is tried again, while the process lives."""

CLOSE_WITHIN = 12.0
"""Seconds that the end of a process or run waits for what is being sent: a little longer than one sending may take."""


class Notifier:
    """Reports the trouble of one process or one run.

    Args:
        store: where pauses and notices are. It must stay open until `close` has returned.
        registry: what is declared; without it `clients`, and what `flows.project.registry.load()` finds when it is needed.
        clients: those that are known without a registry.
        link: where people can look at the present run.
        run: the id of its Prefect flow run.
    """

    def __init__(
        self,
        store: JobStore,
        registry: Registry | None = None,
        *,
        clients: Iterable[Client] = (),
        link: str = "",
        run: str = "",
    ) -> None:
        self._store, self._registry = store, registry
        self._clients = {client.id: client for client in clients} | dict({} if registry is None else registry.clients)
        self._link, self._run = link, run
        self._events: deque[ClientEvent] = deque()
        self._ended: deque[tuple[Sync, RunResult, bool]] = deque()
        self._gather = GATHER
        self._collector: Collector | None = None
        self._last_warning = ""
        self._is_closing = threading.Event()
        self._until = 0.0
        self._publishing = BackgroundTask(self._publish_all, name="syncs-events")
        self._collecting = BackgroundTask(self._collect, name="syncs-notices")
        self._sending = BackgroundTask(self._send, name="syncs-delivery")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def paused(self, client: Client, pausing: OpenPause) -> None:
        """Report that a pause began, or replaced another one."""
        until = pausing.until
        payload = {
            "client": client.id,
            "cause": pausing.cause,
            "level": pausing.level,
            "reason": pausing.reason,
            "by": pausing.set_by,
            "until": None if until is None else until.isoformat(),
            "seconds": None if until is None else (until - pausing.started_at).total_seconds(),
        }
        self._publish(ClientEvent(PAUSED, client, payload=payload, store=self._store))
        self.catch_up()

    def resumed(self, client: Client, *, by: str) -> None:
        """Report that a client is open again: by a person, or by its `probe`."""
        self._publish(ClientEvent(RESUMED, client, payload={"client": client.id, "by": by}, store=self._store))
        self.catch_up()

    def ended(self, sync: Sync, result: RunResult, *, by_hand: bool = False) -> None:
        """Report the result of a run. Not for dry runs.

        Args:
            sync: what ran.
            result: its result.
            by_hand: a person asked it to stop; then it is no trouble that it left something for later.
        """
        if result.state == "skipped":
            return
        self._clients.setdefault(sync.client.id, sync.client)
        is_news = not (by_hand and result.state == "partial" and not result.failed and result.stopped in ("end", "stop"))
        self._ended.append((sync, result, is_news))
        self.catch_up()

    def failed(self) -> None:
        """Report that a job failed for good; failures of the next seconds become one message."""
        # A little after the failures are old enough to be collected.
        self._collecting.schedule(self._gather + 0.05)

    def catch_up(self) -> None:
        """Write and send what other processes left; workers call it now and then."""
        self._collecting.schedule()

    def close(self, within: float = CLOSE_WITHIN) -> None:
        """Wait at most so many seconds for what is under way; the next process sends the rest."""
        self._until = until = time.monotonic() + within
        self._gather = 0.0
        self._is_closing.set()
        # In this order, because collecting may produce events and messages.
        collected = self._collecting.close(until)
        self._publishing.close(until)
        if collected:
            self._sending.close(until)

    # -- in background threads -------------------------------------------------------------------------------------------------

    def _publish(self, event: ClientEvent) -> None:
        if has_subscribers(event.event):
            self._events.append(event)
            self._publishing.schedule()

    def _publish_all(self) -> None:
        while self._events:
            event = self._events.popleft()
            publish(self._with_history(event) if event.event == RESUMED else event)

    def _with_history(self, event: ClientEvent) -> ClientEvent:
        """Add to a resume what is known of the pause that it ended."""
        try:
            found = self._store.pause_history.latest(event.client.id, limit=1)
        except (SQLAlchemyError, JobsError):
            return event
        if not found:
            return event
        last, end = found[0], found[0].ended_at
        payload: dict[str, Any] = {
            **event.payload,
            "cause": last.cause,
            "level": last.level,
            "reason": last.reason,
            "until": None if last.until is None else last.until.isoformat(),
            "seconds": None if end is None else (end - last.started_at).total_seconds(),
        }
        return ClientEvent(event.event, event.client, event.sync, payload, event.store)

    def _collect(self) -> float | None:
        """Store the notices and messages that are due; return when to try again what could not be stored."""
        return self._survive(self._collect_all)

    def _collect_all(self) -> float | None:
        try:
            collector = self._open_collector()
            while self._ended:
                sync, result, is_news = self._ended[0]
                recovered = is_news and collector.run_ended(sync, result)
                self._ended.popleft()
                self._publish_run(sync, result, recovered)
            collector.collect(gather=self._gather)
        except (SQLAlchemyError, FlowsError, JobsError) as error:
            self._warn(error, "is not written yet")
            return RETRY_DATABASE
        self._sending.schedule()
        return None

    def _publish_run(self, sync: Sync, result: RunResult, recovered: bool) -> None:
        event = {"failed": FAILED, "partial": PARTIAL}.get(result.state, RECOVERED if recovered else "")
        if event:
            payload = {name: value for name, value in result.as_json().items() if name not in ("failures", "examples")}
            self._publish(ClientEvent(event, sync.client, sync.id, payload, self._store))

    def _send(self) -> None:
        self._survive(self._deliver)

    def _deliver(self) -> None:
        from flows.notices.delivery import TIMEOUT, Deliverer

        def is_late() -> bool:
            # A message that the end of the process interrupts goes out twice.
            return self._is_closing.is_set() and time.monotonic() + TIMEOUT > self._until

        try:
            Deliverer(self._store, self._clients, carrier()).deliver(stop=is_late)
        except (SQLAlchemyError, FlowsError, JobsError) as error:
            self._warn(error, "waits to be sent")

    def _open_collector(self) -> Collector:
        if self._collector is None:
            # Imported when there is something to do, because every command that works imports this module.
            from flows.notices.collector import Collector

            self._collector = Collector(self._store, self._registry, self._clients, link=self._link, run=self._run)
        return self._collector

    def _survive(self, work: Callable[[], T]) -> T | None:
        """Run it; an error in our own code ends neither the thread nor the run."""
        return attempt(work, lambda error: log.error("notices were not processed: %s", place(error)))

    def _warn(self, error: Exception, what: str) -> None:
        # Errors of SQLAlchemy quote statements with their values.
        text = str(error) if isinstance(error, FlowsError | JobsError) else type(error).__name__
        if text != self._last_warning:
            self._last_warning = text
            log.warning("a notice %s: %s", what, text)
