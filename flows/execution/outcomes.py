"""Decides what an exception means for the job and for its client."""

import errno
import socket
import ssl
from dataclasses import replace
from typing import Any

from clients import (
    AuthRefusedError,
    BrokenBodyError,
    ClientError,
    GoneError,
    NotModifiedError,
    NotReadyError,
    RateLimitedError,
    TransientError,
    UnknownOutcomeError,
)
from clients.local_trouble import is_local
from flows import events
from flows.database_outage import is_lacking
from flows.declarations.pause_policy import PausePolicy
from flows.project.redaction import Mask
from flows.user_code import describe, trace
from jobs.job import Job, Verdict
from jobs.outcome import Failure, Gone, Outcome, Pause, Snooze, Success, Unchanged

UNKNOWN = "sent, no answer"
"""Begins the message of a failure whose request may have been carried out all the same."""

PROXY_REFUSED = 407

NOT_READY = "not ready"
"""The cause of a snooze: the answer is still being made. `bounded_wait` limits how often."""

NOT_READY_DELAY = 10.0
"""Seconds until such a job asks again, where the answer does not say."""

MAX_NOT_READY = 500
"""A job that was put back so many times is not answered any more: it fails."""

DOES_NOT_FIT = "does not fit"
"""The cause of a snooze: the payload does not fit the schema of this release. `bounded_wait` limits how often."""

DOES_NOT_FIT_DELAY = 900.0
"""Seconds until such a job is tried again: the next deploy may have a schema that it fits."""

MAX_DOES_NOT_FIT = round(7 * 86_400 / DOES_NOT_FIT_DELAY)
"""A job that was put back so many times, in seven days, fails."""

_NO_WAY = frozenset({errno.ENETDOWN, errno.ENETUNREACH, errno.ENETRESET, errno.EHOSTDOWN, errno.EHOSTUNREACH})
"""Errors of the network for which Python has no class of their own."""

OUTCOMES: tuple[type[Any], ...] = Outcome.__args__


def judge(error: Exception, *, policy: PausePolicy, retry_on: tuple[type[BaseException], ...] = (), mask: Mask) -> Verdict:
    """Decide what an exception means for the job and for its client (contract, Outcomes).

    Args:
        error: what was raised.
        policy: of the client.
        retry_on: further exceptions worth another try (`Retry.on`).
        mask: removes the client's secrets from messages and tracebacks; nothing masks them again.
    """
    text = mask(str(error) if isinstance(error, ClientError) else describe(error))
    if is_local(error) or is_lacking(error):
        return Verdict(Failure(text), trace(error, mask), ours=True)
    return _judge_remote(error, text, policy=policy, retry_on=retry_on, mask=mask)


def _judge_remote(
    error: Exception, text: str, *, policy: PausePolicy, retry_on: tuple[type[BaseException], ...], mask: Mask
) -> Verdict:
    status = error.status if isinstance(error, ClientError) else None
    match error:
        case RateLimitedError():
            again = isinstance(error, retry_on)
            return _rate_limited(error, text, seconds=policy.durations[0], again=again)
        case AuthRefusedError() if status is None and 401 in policy.enforced:
            return Verdict(Pause(policy.enforced[401], text), cause="enforced")
        case ClientError() if status is not None and status in policy.enforced:
            again = isinstance(error, (TransientError, *retry_on))
            # A proxy stands before the whole client.
            alone = None if status == PROXY_REFUSED else Failure(text, retry=again)
            return Verdict(Pause(policy.enforced[status], text), cause="enforced", alone=alone)
        case GoneError() | NotModifiedError():
            return Verdict(Gone() if isinstance(error, GoneError) else Unchanged())
        case NotReadyError():
            return Verdict(Snooze(error.retry_after or NOT_READY_DELAY, text), cause=NOT_READY)
        case UnknownOutcomeError():
            again = isinstance(error, retry_on)
            return Verdict(Failure(f"{UNKNOWN}: {text}", retry=again), trace(error, mask), trouble=True, unknown=True)
        case TransientError() | BrokenBodyError() | ConnectionError() | TimeoutError() | socket.gaierror() | ssl.SSLError():
            return Verdict(Failure(text), trace(error, mask), trouble=True)
        case OSError() if error.errno in _NO_WAY:
            return Verdict(Failure(text), trace(error, mask), trouble=True)
        case ClientError():
            return Verdict(Failure(text, retry=isinstance(error, retry_on)), trace(error, mask))
        case _:
            return Verdict(Failure(text, retry=isinstance(error, retry_on)), trace(error, mask))


def _rate_limited(error: RateLimitedError, text: str, *, seconds: float, again: bool) -> Verdict:
    """Return the verdict on a rate limit.

    Args:
        seconds: to wait where the answer does not say.
        again: the job is tried again if it alone is refused.
    """
    seconds = seconds if error.retry_after is None else error.retry_after
    if not error.whole:
        # A budget of one endpoint or operation: other jobs go on.
        return Verdict(Snooze(seconds, text))
    # Without a status nothing was sent: that says nothing about this job.
    alone = None if error.status is None else Failure(text, retry=again)
    return Verdict(Pause(seconds, text), cause="asked", alone=alone)


def verdict_of(value: Any) -> Verdict:
    """Return the verdict on a value: outcomes are themselves, everything else is a success."""
    if isinstance(value, Verdict):
        return value
    return Verdict(value if isinstance(value, OUTCOMES) else Success())


def bounded_wait(job: Job, verdict: Verdict) -> Verdict:
    """Return the verdict on a job that waits for something which may never come: it fails when it was put back often enough.

    While an answer is not ready, it asks ever more seldom, in 3.5 hours 500 times.
    """
    outcome = verdict.outcome
    limits = {NOT_READY: MAX_NOT_READY, DOES_NOT_FIT: MAX_DOES_NOT_FIT}
    if verdict.cause not in limits or not isinstance(outcome, Snooze) or not isinstance(outcome.when, int | float):
        return verdict
    if job.snoozes >= limits[verdict.cause]:
        return Verdict(Failure(f"{outcome.reason}; it has been put back {job.snoozes} times", retry=False))
    return verdict._replace(outcome=replace(outcome, when=max(outcome.when, job.snoozes / 10)))


def masked_verdict_of(value: Any, mask: Mask) -> Verdict:
    """Return the verdict on what a job's code returned, without secrets in the text of its outcome.

    A `Verdict` is returned as it is: it comes from `judge`, which has masked it.
    """
    return value if isinstance(value, Verdict) else _masked(verdict_of(value), mask)


def published(job: Job, verdict: Verdict, mask: Mask) -> Verdict:
    """Publish the outcome of a job before it is stored. Return the final verdict, masked if a subscriber has replaced it.

    A job that our own process could not work has no outcome.
    """
    if verdict.ours:
        return verdict
    final = events.after(job, verdict)
    return final if final is verdict else _masked(final, mask)


def _masked(verdict: Verdict, mask: Mask) -> Verdict:
    match verdict.outcome:
        case (Success(text) | Failure(text)) as outcome if text:
            return verdict._replace(outcome=replace(outcome, message=mask(str(text))))
        case (Snooze(reason=text) | Pause(reason=text)) as outcome if text:
            return verdict._replace(outcome=replace(outcome, reason=mask(str(text))))
        case _:
            return verdict
