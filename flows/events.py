"""What happens to jobs, for whoever wants to hear of it (AQ-54). Subscribers are called in turn, in the worker's thread.

```python
from flows.events import on

@on("failure")
def tell(event):
    print(event.type, event.job_id, event.message)
```

A subscriber that raises is logged, by the class of the error and its place, and harms nothing (E-10).
While nobody subscribes an event costs one look at a dict.
"""

import logging
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import FrameType
from typing import TYPE_CHECKING, Any, TypeVar

from flows.errors import UsageError
from jobs.job import Job, Settled, Verdict
from jobs.outcome import Failure, Outcome, Pause, Snooze

if TYPE_CHECKING:
    from jobs.poison import Poisoned

log = logging.getLogger("syncs.events")

KINDS = ("before", "after", "success", "retry", "snooze", "failure", "superseded")
"""`before`: a job, or a phase of one, is about to be worked. `after`: its outcome is known and nothing is stored yet; what
a subscriber returns in its place counts. The others: its new state is committed."""


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


Handler = Callable[[Event], Any]
H = TypeVar("H", bound=Handler)


@dataclass(frozen=True, slots=True, eq=False)
class _Subscription:
    handler: Handler
    #: The file that made it while it was imported, and the namespace of that import.
    file: str | None
    namespace: dict[str, Any] | None


_lock = threading.Lock()
#: By kind; only kinds that somebody wants are in it. Whoever reads it needs no lock: each entry is replaced as a whole.
_subscribed: dict[str, tuple[_Subscription, ...]] = {}


def subscribe(handler: Handler, *kinds: str) -> Callable[[], None]:
    """Call a function for each event of these kinds, in this process.

    At module level of a file in `syncs/` it counts whenever that file is read, and once: a file that is read again takes the
    place of what it said before.

    Args:
        handler: `(event) -> anything`; for `after` it may return an outcome, which then counts.
        kinds: which events; none means all.

    Returns:
        A function that ends it.

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
            kept = tuple(one for one in _subscribed.get(kind, ()) if not _is_replaced(one, subscription))
            _replace(kind, kept if any(one.handler == handler for one in kept) else (*kept, subscription))
        if namespace is not None:
            # Of kinds that the file no longer wants, too.
            for kind, ones in list(_subscribed.items()):
                _replace(kind, tuple(one for one in ones if not _is_replaced(one, subscription)))

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

    # Now, and not when it decorates: `@on` without its brackets would never get there.
    _check(kinds)

    def decorate(handler: H) -> H:
        subscribe(handler, *kinds)
        return handler

    return decorate


def _check(kinds: tuple[str, ...]) -> None:
    for kind in kinds:
        if kind not in KINDS:
            raise UsageError(f"no event is called {kind!r}; there are {', '.join(KINDS)}")


def before(job: Job) -> None:
    """Tell that a job is about to be worked."""
    if "before" in _subscribed:
        _tell(_event("before", job, "processing", "", None))


def after(job: Job, verdict: Verdict) -> Verdict:
    """Tell what came of a job, before anything is stored, and return what counts in the end.

    Args:
        job: the claim.
        verdict: what came of it.
    """
    if "after" not in _subscribed:
        return verdict
    for subscription in _subscribed["after"]:
        event = _event("after", job, "processing", _text(verdict.outcome), verdict.outcome)
        answer = _call(subscription, event)
        if isinstance(answer, Outcome) and answer != verdict.outcome:
            # What a subscriber says is nobody's traceback, and no sign of trouble with the remote side.
            verdict = Verdict(answer)
    return verdict


def settled(one: Settled) -> None:
    """Tell what was committed."""
    if _subscribed and (kind := _kind(one)) in _subscribed:
        outcome = one.verdict.outcome
        _tell(_event(kind, one.job, one.state, _text(outcome), outcome))


def poisoned(one: "Poisoned") -> None:
    """Tell of a job that failed because it keeps killing its workers."""
    if "failure" in _subscribed:
        _tell(
            Event(
                "failure", one.id, one.type, one.client, one.queue, one.key, one.phase or None, one.attempts + 1, "failure",
                one.message, datetime.now(UTC), Failure(one.message, retry=False),
            )
        )  # fmt: skip


def _kind(one: Settled) -> str:
    if one.state != "queued":
        return one.state
    outcome = one.verdict.outcome
    # A job that was put back for its next phase is neither.
    return "retry" if isinstance(outcome, Failure) else "snooze" if isinstance(outcome, Snooze | Pause) else ""


def _event(kind: str, job: Job, state: str, message: str, outcome: Outcome | None) -> Event:
    lane = job.lane
    return Event(
        kind, job.id, lane.type, lane.client, lane.queue, job.key, lane.phase or None, job.attempt, state, message,
        datetime.now(UTC), outcome,
    )  # fmt: skip


def _text(outcome: Outcome) -> str:
    return getattr(outcome, "message", None) or getattr(outcome, "reason", None) or type(outcome).__name__.lower()


def _tell(event: Event) -> None:
    for subscription in _subscribed.get(event.kind, ()):
        _call(subscription, event)


def _call(subscription: _Subscription, event: Event) -> Any:
    # Not at the top: a file in `syncs/` imports this module, and reading it should stay quick.
    from flows.verdict import attempt, place

    def complain(error: Exception) -> Verdict:
        name = getattr(subscription.handler, "__qualname__", None) or repr(subscription.handler)
        # Without its text: it may quote a secret of any client (law 9), and these are not known here.
        log.error(
            "subscriber %s raised at %s of job %d (%s)\n%s", name, event.kind, event.job_id, event.type, place(error)
        )  # fmt: skip
        return Verdict(Failure(type(error).__name__))

    found = attempt(lambda: subscription.handler(event), complain)
    return None if isinstance(found, Verdict) else found


def _replace(kind: str, subscriptions: tuple[_Subscription, ...]) -> None:
    if subscriptions:
        _subscribed[kind] = subscriptions
    else:
        _subscribed.pop(kind, None)


def _is_replaced(old: _Subscription, new: _Subscription) -> bool:
    """Tell whether an earlier import of the same file made it."""
    return new.file is not None and old.file == new.file and old.namespace is not new.namespace


def _importing(frame: FrameType | None) -> tuple[str | None, dict[str, Any] | None]:
    """Return the file that is being imported below this frame, and the namespace of the import."""
    while frame is not None:
        if frame.f_code.co_name == "<module>":
            return frame.f_code.co_filename, frame.f_globals
        frame = frame.f_back
    return None, None
