"""What is told in Python when clients pause and runs fail, and who hears it. Knows no table and no recipient."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from flows.errors import UsageError
from flows.verdict import attempt, place
from jobs.job import Verdict
from jobs.outcome import Failure

if TYPE_CHECKING:
    from flows.declaration import Client
    from jobs.store import JobStore

log = logging.getLogger("syncs.notices")

PAUSED, RESUMED = "sync.client.paused", "sync.client.resumed"
FAILED, PARTIAL, RECOVERED = "sync.run.failed", "sync.run.partial", "sync.run.recovered"
EVENTS = (PAUSED, RESUMED, FAILED, PARTIAL, RECOVERED)


@dataclass(frozen=True, slots=True)
class Tidings:
    """What subscribers hear.

    Args:
        event: one of `EVENTS`.
        client: whose trouble it is.
        sync: the id of the sync or job type it is about; empty where it is about the whole client.
        payload: JSON values without secrets; of a pause or resume `client, cause, level, reason, by, until, seconds`.
        store: where it is written.
    """

    event: str
    client: Client
    sync: str = ""
    payload: Mapping[str, Any] = field(default_factory=dict)
    store: JobStore | None = None


_lock = threading.Lock()
_subscribed: tuple[tuple[Callable[[Tidings], object], tuple[str, ...]], ...] = ()


def subscribe(handler: Callable[[Tidings], object], *events: str) -> Callable[[], None]:
    """Call `handler` for these events, or all; in a thread of the `Told` that was told. One that raises is logged.

    Returns:
        A function that ends it.

    Raises:
        UsageError: there is no such event.
    """
    global _subscribed  # noqa: PLW0603 - subscriptions are the process's
    for event in events:
        if event not in EVENTS:
            raise UsageError(f"no event is called {event!r}; there are {', '.join(EVENTS)}")
    entry = (handler, events or EVENTS)
    with _lock:
        _subscribed = (*_subscribed, entry)

    def end() -> None:
        global _subscribed  # noqa: PLW0603
        with _lock:
            _subscribed = tuple(one for one in _subscribed if one is not entry)

    return end


def is_heard(event: str) -> bool:
    """Tell whether anybody wants to hear of it."""
    return any(event in events for _, events in _subscribed)


def tell(tidings: Tidings) -> None:
    """Call the subscribers, in this thread. Never raises."""
    for handler, events in _subscribed:
        if tidings.event in events:
            _call(handler, tidings)


def _call(handler: Callable[[Tidings], object], tidings: Tidings) -> None:
    def complain(error: Exception) -> Verdict:
        name = getattr(handler, "__qualname__", None) or repr(handler)
        log.error("subscriber %s raised at %s of %s\n%s", name, tidings.event, tidings.client.id, place(error))
        return Verdict(Failure(type(error).__name__))

    attempt(lambda: handler(tidings), complain)
