"""From exception to outcome: the one place where it is decided, and the one broad `except` (law 10)."""

import errno
import socket
import ssl
import threading
import traceback
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

from clients import (
    AuthRefusedError,
    ClientError,
    GoneError,
    NotModifiedError,
    RateLimitedError,
    TransientError,
    UnknownOutcomeError,
)
from flows.mask import Mask
from flows.policy import PausePolicy
from jobs.job import Verdict
from jobs.outcome import Failure, Gone, Outcome, Pause, Snooze, Success, Unchanged

T = TypeVar("T")

UNKNOWN = "sent, no answer"
"""Begins the message of a failure of which nobody knows whether it was one."""

_NO_WAY = frozenset({errno.ENETDOWN, errno.ENETUNREACH, errno.ENETRESET, errno.EHOSTDOWN, errno.EHOSTUNREACH})
"""Errors of the network for which Python has no class of their own."""

OUTCOMES: tuple[type[Any], ...] = Outcome.__args__


def judge(error: Exception, *, policy: PausePolicy, retry_on: tuple[type[BaseException], ...] = (), mask: Mask) -> Verdict:
    """Decide what an exception means for the job and for its client (contract, Outcomes).

    Args:
        error: what was raised.
        policy: of the client.
        retry_on: further exceptions worth another try (`Retry.on`).
        mask: takes the client's secrets out of messages and tracebacks.
    """
    text = mask(str(error) if isinstance(error, ClientError) else describe(error))
    status = error.status if isinstance(error, ClientError) else None
    match error:
        case RateLimitedError():
            seconds = policy.duration(0) if error.retry_after is None else error.retry_after
            return Verdict(Pause(seconds, text), cause="asked")
        case AuthRefusedError() if status is None and 401 in policy.enforced:
            return Verdict(Pause(policy.enforced[401], text), cause="enforced")
        case ClientError() if status is not None and status in policy.enforced:
            return Verdict(Pause(policy.enforced[status], text), cause="enforced")
        case GoneError():
            return Verdict(Gone())
        case NotModifiedError():
            return Verdict(Unchanged())
        case UnknownOutcomeError():
            again = isinstance(error, retry_on)
            return Verdict(Failure(f"{UNKNOWN}: {text}", retry=again), trace(error, mask), trouble=True, unknown=True)
        case TransientError() | ConnectionError() | TimeoutError() | socket.gaierror() | ssl.SSLError():
            return Verdict(Failure(text), trace(error, mask), trouble=True)
        case OSError() if error.errno in _NO_WAY:
            return Verdict(Failure(text), trace(error, mask), trouble=True)
        case ClientError():
            return Verdict(Failure(text, retry=isinstance(error, retry_on)), trace(error, mask))
        case _:
            return Verdict(Failure(text, retry=isinstance(error, retry_on)), trace(error, mask))


def attempt(work: Callable[[], T], judged: Callable[[Exception], Verdict]) -> T | Verdict:
    """Run `work`; return its value, or the verdict on what it raised.

    Also on what is no `Exception`, such as `asyncio.CancelledError` and the panics of extensions in Rust: the end of one job's
    code is not the end of the worker. Signals come to the main thread; there, all but `SystemExit` goes on to the caller.

    Raises:
        BaseException: in the main thread, as Ctrl-C does.
    """
    try:
        return work()
    except Exception as error:  # noqa: BLE001  # law 10: here, and nowhere else
        return judged(error)
    except SystemExit as error:
        return judged(_as_error(error, f"the code called sys.exit({error.code!r})"))
    except BaseException as error:
        if threading.current_thread() is threading.main_thread():
            raise
        return judged(_as_error(error, f"the code raised {describe(error)}"))


def verdict_of(value: Any) -> Verdict:
    """Return the verdict on a value: outcomes are themselves, everything else is a success."""
    if isinstance(value, Verdict):
        return value
    return Verdict(value if isinstance(value, OUTCOMES) else Success())


def masked(verdict: Verdict, mask: Mask) -> Verdict:
    """Return the verdict without secrets in what somebody's code says in an outcome of its own."""
    match verdict.outcome:
        case (Success(text) | Failure(text)) as outcome if text:
            return verdict._replace(outcome=replace(outcome, message=mask(str(text))))
        case (Snooze(reason=text) | Pause(reason=text)) as outcome if text:
            return verdict._replace(outcome=replace(outcome, reason=mask(str(text))))
        case _:
            return verdict


def describe(error: BaseException) -> str:
    """Return the class and the text of an exception. Secrets may be in it."""
    # It survives an exception whose own text cannot be had.
    _, colon, text = "".join(traceback.format_exception_only(error)).strip().partition(": ")
    return f"{type(error).__name__}: {text}" if colon else type(error).__name__


def place(error: BaseException) -> str:
    """Return the class of an exception and where it was raised, without its text: it may quote anybody's secret (law 9)."""
    frames = traceback.extract_tb(error.__traceback__, limit=-12)
    return "".join(f'  File "{one.filename}", line {one.lineno}, in {one.name}\n' for one in frames) + type(error).__name__


def _as_error(error: BaseException, text: str) -> Exception:
    return RuntimeError(text).with_traceback(error.__traceback__)


def trace(error: Exception, mask: Mask) -> str:
    """Return the end of an exception's traceback, with those of its causes."""
    return mask("".join(traceback.format_exception(error, limit=-12)))[-8000:]
