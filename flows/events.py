"""Calls Python functions when something happens to jobs, clients and runs.

```python
from flows.events import on

@on("failure")
def report(event):
    print(event.type, event.job_id, event.message)
```

Events of jobs (`KINDS`) call their subscribers in the worker's thread, one after the other; those of clients and runs
(`CLIENT_EVENTS`) in a background thread. A subscriber that raises is logged with the class of the error and where it was
raised; nothing else happens. An event that nobody subscribed to costs one look into a dict.
"""

import logging
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import FrameType
from typing import TYPE_CHECKING, Any, TypeVar

from flows.errors import UsageError
from flows.user_code import attempt, place
from jobs.job import Job, JobResult, Verdict
from jobs.outcome import Failure, Outcome, Pause, Snooze

if TYPE_CHECKING:
    from flows.declarations.client import Client
    from jobs.claiming.poison import PoisonJob
    from jobs.store import JobStore

log = logging.getLogger("syncs.events")

KINDS = ("before", "after", "success", "retry", "snooze", "failure", "superseded")
"""Events of jobs. `before`: a job, or one phase of it, starts. `after`: its outcome is known and nothing is stored yet; an
outcome that a subscriber returns replaces it. The others: the job's new state is committed."""

PAUSED, RESUMED = "sync.client.paused", "sync.client.resumed"
FAILED, PARTIAL, RECOVERED = "sync.run.failed", "sync.run.partial", "sync.run.recovered"
CLIENT_EVENTS = (PAUSED, RESUMED, FAILED, PARTIAL, RECOVERED)
"""Events of clients and of runs of their syncs."""


@dataclass(frozen=True, slots=True)
class Event:
    """Something happened to a job."""

    #: One of `KINDS`.
    kind: str
    job_id: int
    #: The id of the sync or job type.
    type: str
    client: str
    queue: str
    #: The entity's key, for jobs of a sync.
    key: str | None
    phase: str | None
    #: From 1.
    attempt: int
    state: str
    #: One line on the outcome, without secrets.
    message: str
    #: By this machine's clock, in UTC.
    at: datetime
    #: From `after` on.
    outcome: Outcome | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class ClientEvent:
    """A client was paused or resumed, or a run of one of its syncs went wrong or recovered.

    Args:
        event: one of `CLIENT_EVENTS`.
        client: whose.
        sync: the id of the sync or job type; empty if the event is about the whole client.
        payload: JSON values without secrets. Of a pause or resume: `client, cause, level, reason, by, until, seconds`.
        store: the database it happened in.
    """

    event: str
    client: "Client"
    sync: str = ""
    payload: Mapping[str, Any] = field(default_factory=dict)
    store: "JobStore | None" = None


Handler = Callable[[Any], Any]
H = TypeVar("H", bound=Handler)


@dataclass(frozen=True, slots=True, eq=False)
class _Subscription:
    handler: Handler
    #: The file whose import made it, and the namespace of that import.
    file: str | None
    namespace: dict[str, Any] | None

    def is_replaced_by(self, new: "_Subscription") -> bool:
        """Tell whether an earlier import of the same file made this one."""
        return new.file is not None and self.file == new.file and self.namespace is not new.namespace


_lock = threading.Lock()
#: By kind, only kinds that have subscribers. Reading needs no lock, because each entry is replaced as a whole.
_subscribed: dict[str, tuple[_Subscription, ...]] = {}
subscribed: Mapping[str, object] = _subscribed
"""The kinds of events that somebody subscribed to; without subscribers an event costs one look at it."""


def subscribe(handler: Handler, *kinds: str) -> Callable[[], None]:
    """Call a function for each event of these kinds, in this process.

    A subscription made while a file in `syncs/` is imported belongs to that import: importing the file again replaces it.

    Args:
        handler: takes an `Event`, or a `ClientEvent` for `CLIENT_EVENTS`. For `after` it may return an outcome that counts.
        kinds: any of `KINDS` and `CLIENT_EVENTS`; none means all `KINDS`.

    Returns:
        A function that ends the subscription.

    Raises:
        UsageError: there is no such kind of event.
    """
    _check(kinds)
    if not callable(handler):
        raise UsageError(f"a subscriber must be callable, got {type(handler).__name__}")
    file, namespace = _importing(sys._getframe(1))
    subscription = _Subscription(handler, file, namespace)
    with _lock:
        for kind in kinds or KINDS:
            kept = tuple(one for one in _subscribed.get(kind, ()) if not one.is_replaced_by(subscription))
            _replace(kind, kept if any(one.handler == handler for one in kept) else (*kept, subscription))
        if namespace is not None:
            # Also for kinds that the file no longer subscribes to.
            for kind, ones in list(_subscribed.items()):
                _replace(kind, tuple(one for one in ones if not one.is_replaced_by(subscription)))

    def end() -> None:
        with _lock:
            for kind, ones in list(_subscribed.items()):
                _replace(kind, tuple(one for one in ones if one is not subscription))

    return end


def on(*kinds: str) -> Callable[[H], H]:
    """Subscribe the decorated function, see `subscribe`.

    Raises:
        UsageError: there is no such kind of event.
    """

    # Checked here, because `@on` without brackets never reaches `decorate`.
    _check(kinds)

    def decorate(handler: H) -> H:
        subscribe(handler, *kinds)
        return handler

    return decorate


def before(job: Job) -> None:
    """Publish that a job starts."""
    if "before" in _subscribed:
        _call_all(_event("before", job, "processing", "", None))


def after(job: Job, verdict: Verdict) -> Verdict:
    """Publish the outcome of a job before anything is stored; return the verdict that counts in the end."""
    for subscription in _subscribed.get("after", ()):
        event = _event("after", job, "processing", _text(verdict.outcome), verdict.outcome)
        returned = _call(subscription, event.kind, event, _name(event))
        if isinstance(returned, Outcome) and returned != verdict.outcome:
            # An outcome that a subscriber chose has no traceback, and is no sign of trouble with the remote side.
            verdict = Verdict(returned)
    return verdict


def settled(one: JobResult) -> None:
    """Publish the state that was committed."""
    if _subscribed and (kind := _kind(one)) in _subscribed:
        outcome = one.verdict.outcome
        _call_all(_event(kind, one.job, one.state, _text(outcome), outcome))


def poisoned(one: "PoisonJob") -> None:
    """Publish that a job failed because it keeps killing its workers."""
    if "failure" in _subscribed:
        _call_all(
            Event(
                kind="failure",
                job_id=one.id,
                type=one.type,
                client=one.client,
                queue=one.queue,
                key=one.key,
                phase=one.phase or None,
                attempt=one.attempts + 1,
                state="failure",
                message=one.message,
                at=datetime.now(UTC),
                outcome=Failure(one.message, retry=False),
            )
        )


def has_subscribers(kind: str) -> bool:
    """Tell whether anything subscribed to this kind of event."""
    return kind in _subscribed


def publish(event: ClientEvent) -> None:
    """Call the subscribers of an event of a client or run, in this thread. Never raises."""
    for subscription in _subscribed.get(event.event, ()):
        _call(subscription, event.event, event, event.client.id)


def _kind(one: JobResult) -> str:
    if one.state != "queued":
        return one.state
    outcome = one.verdict.outcome
    # A job that was requeued for its next phase is neither.
    return "retry" if isinstance(outcome, Failure) else "snooze" if isinstance(outcome, Snooze | Pause) else ""


def _event(kind: str, job: Job, state: str, message: str, outcome: Outcome | None) -> Event:
    lane = job.lane
    return Event(
        kind=kind,
        job_id=job.id,
        type=lane.type,
        client=lane.client,
        queue=lane.queue,
        key=job.key,
        phase=lane.phase or None,
        attempt=job.attempt,
        state=state,
        message=message,
        at=datetime.now(UTC),
        outcome=outcome,
    )


def _text(outcome: Outcome) -> str:
    return getattr(outcome, "message", None) or getattr(outcome, "reason", None) or type(outcome).__name__.lower()


def _name(event: Event) -> str:
    return f"job {event.job_id} ({event.type})"


def _call_all(event: Event) -> None:
    for subscription in _subscribed.get(event.kind, ()):
        _call(subscription, event.kind, event, _name(event))


def _call(subscription: _Subscription, kind: str, event: Event | ClientEvent, subject: str) -> Any:
    """Return what the subscriber returns, or `None` if it raises."""

    def log_error(error: Exception) -> None:
        name = getattr(subscription.handler, "__qualname__", None) or repr(subscription.handler)
        # Without the text of the error: it may quote a secret of any client, and the secrets are not known here.
        log.error("subscriber %s raised at %s of %s\n%s", name, kind, subject, place(error))

    return attempt(lambda: subscription.handler(event), log_error)


def _check(kinds: tuple[str, ...]) -> None:
    for kind in kinds:
        if kind not in KINDS and kind not in CLIENT_EVENTS:
            raise UsageError(f"no event is called {kind!r}; there are {', '.join((*KINDS, *CLIENT_EVENTS))}")


def _replace(kind: str, subscriptions: tuple[_Subscription, ...]) -> None:
    if subscriptions:
        _subscribed[kind] = subscriptions
    else:
        _subscribed.pop(kind, None)


def _importing(frame: FrameType | None) -> tuple[str | None, dict[str, Any] | None]:
    """Return the file that is being imported below this frame, and the namespace of the import."""
    while frame is not None:
        if frame.f_code.co_name == "<module>":
            return frame.f_code.co_filename, frame.f_globals
        frame = frame.f_back
    return None, None
