"""From exception to outcome."""

import asyncio
import errno
import socket
import ssl
import threading
from typing import Any

import pytest
from pydantic import SecretStr
from pydantic_settings import BaseSettings

import clients
from clients import (
    AuthRefusedError,
    BrokenBodyError,
    ClientError,
    GoneError,
    LocalError,
    LoopError,
    PageError,
    RateLimitedError,
    RejectedError,
    ServerError,
    TransientError,
    UnreadableError,
)
from clients.errors import (
    BrokenAnswerError,
    ConnectFailedError,
    IncompleteError,
    LimitError,
    NotModifiedError,
    NotReadyError,
    RedirectRefusedError,
    ShortError,
    TimedOutError,
    TooLargeError,
    UnknownOutcomeError,
)
from flows import PausePolicy
from flows.execution.outcomes import bounded_wait, judge, verdict_of
from flows.project.redaction import Mask
from flows.user_code import attempt
from jobs.job import Job, Lane, Verdict
from jobs.outcome import Failure, Gone, Pause, Snooze, Success, Unchanged

DEFAULT = PausePolicy()
STRICT = PausePolicy(durations=(7,), enforced={401: None, 418: 5})
BARE = PausePolicy(enforced={})


def error(kind: type[ClientError], status: int | None = None, **more: Any) -> ClientError:
    """Make an error as an adapter would."""
    return kind("told", method="GET", url="https://api.example/things/1", status=status, **more)


TEXT = "GET https://api.example/things/1: told"
TRY_AGAIN, FAILED = Failure(TEXT), Failure(TEXT, retry=False)

TABLE = [
    # error, policy, outcome, trouble, cause
    (error(ConnectFailedError), DEFAULT, TRY_AGAIN, True, "asked"),
    (error(TimedOutError), DEFAULT, TRY_AGAIN, True, "asked"),
    (error(BrokenAnswerError), DEFAULT, TRY_AGAIN, True, "asked"),
    (error(ServerError, 500), DEFAULT, TRY_AGAIN, True, "asked"),
    (error(ServerError, 502), STRICT, TRY_AGAIN, True, "asked"),
    (error(ServerError, 503), DEFAULT, TRY_AGAIN, True, "asked"),
    (error(ServerError, 408), DEFAULT, TRY_AGAIN, True, "asked"),
    (error(ServerError, 425), DEFAULT, TRY_AGAIN, True, "asked"),
    (error(TransientError), DEFAULT, TRY_AGAIN, True, "asked"),
    (error(RateLimitedError, 429, retry_after=17.0), DEFAULT, Pause(17.0, TEXT), False, "asked"),
    (error(RateLimitedError, 429, retry_after=0.0), DEFAULT, Pause(0.0, TEXT), False, "asked"),
    (error(RateLimitedError, 503, retry_after=3.5), STRICT, Pause(3.5, TEXT), False, "asked"),
    (error(RateLimitedError, 429), DEFAULT, Pause(60, TEXT), False, "asked"),
    (error(RateLimitedError, None, retry_after=70.0, whole=False), DEFAULT, Snooze(70.0, TEXT), False, "asked"),
    (error(RateLimitedError, 429), STRICT, Pause(7, TEXT), False, "asked"),
    (error(AuthRefusedError, 401), DEFAULT, Pause(900, TEXT), False, "enforced"),
    (error(AuthRefusedError, 403), DEFAULT, Pause(900, TEXT), False, "enforced"),
    (error(AuthRefusedError, 407), DEFAULT, Pause(900, TEXT), False, "enforced"),
    (error(AuthRefusedError), DEFAULT, Pause(900, TEXT), False, "enforced"),
    (error(AuthRefusedError, 401), STRICT, Pause(None, TEXT), False, "enforced"),
    (error(AuthRefusedError), STRICT, Pause(None, TEXT), False, "enforced"),
    (error(AuthRefusedError, 403), STRICT, FAILED, False, "asked"),
    (error(AuthRefusedError, 401), BARE, FAILED, False, "asked"),
    (error(AuthRefusedError), BARE, FAILED, False, "asked"),
    (error(RejectedError, 418), STRICT, Pause(5, TEXT), False, "enforced"),
    (error(ServerError, 500), PausePolicy(enforced={500: 9}), Pause(9, TEXT), False, "enforced"),
    (error(RateLimitedError, 429, retry_after=4.0), PausePolicy(enforced={429: 9}), Pause(4.0, TEXT), False, "asked"),
    (error(NotReadyError, 202, retry_after=3.0), DEFAULT, Snooze(3.0, TEXT), False, "not ready"),
    (error(NotReadyError, 202), STRICT, Snooze(10.0, TEXT), False, "not ready"),
    (error(NotModifiedError, 304), DEFAULT, Unchanged(), False, "asked"),
    (error(UnknownOutcomeError), DEFAULT, Failure(f"sent, no answer: {TEXT}", retry=False), True, "asked"),
    (error(IncompleteError), DEFAULT, FAILED, False, "asked"),
    (error(LimitError), DEFAULT, FAILED, False, "asked"),
    (error(ShortError), DEFAULT, FAILED, False, "asked"),
    (error(RejectedError, 400), DEFAULT, FAILED, False, "asked"),
    (error(RejectedError, 422), DEFAULT, FAILED, False, "asked"),
    (error(RejectedError), DEFAULT, FAILED, False, "asked"),
    (error(RedirectRefusedError, 302), DEFAULT, FAILED, False, "asked"),
    (error(GoneError, 404), DEFAULT, Gone(), False, "asked"),
    (error(GoneError, 410), STRICT, Gone(), False, "asked"),
    (error(UnreadableError, 200), DEFAULT, FAILED, False, "asked"),
    (error(BrokenBodyError, 200), DEFAULT, Failure(TEXT), True, "asked"),
    (error(TooLargeError, 200), DEFAULT, FAILED, False, "asked"),
    (error(PageError), DEFAULT, FAILED, False, "asked"),
    (error(LoopError), DEFAULT, FAILED, False, "asked"),
    (error(ClientError), DEFAULT, FAILED, False, "asked"),
    (ConnectionResetError("cut"), DEFAULT, Failure("ConnectionResetError: cut"), True, "asked"),
    (TimeoutError(), DEFAULT, Failure("TimeoutError"), True, "asked"),
    (socket.gaierror(-2, "no such name"), DEFAULT, Failure("gaierror: [Errno -2] no such name"), True, "asked"),
    (ssl.SSLError(1, "bad record"), DEFAULT, Failure("SSLError: bad record"), True, "asked"),
    (OSError(errno.EHOSTUNREACH, "no route"), DEFAULT, Failure(f"OSError: [Errno {errno.EHOSTUNREACH}] no route"), True, "asked"),
    (KeyError("name"), DEFAULT, Failure("KeyError: 'name'", retry=False), False, "asked"),
    (ValueError(), DEFAULT, Failure("ValueError", retry=False), False, "asked"),
    (OSError(2, "no file"), DEFAULT, Failure("FileNotFoundError: [Errno 2] no file", retry=False), False, "asked"),
    (OSError(28, "no space"), DEFAULT, Failure("OSError: [Errno 28] no space"), False, "asked"),
    (error(LocalError), DEFAULT, Failure(TEXT), False, "asked"),
]


@pytest.mark.parametrize(("raised", "policy", "outcome", "trouble", "cause"), TABLE)
def test_table(raised: Exception, policy: PausePolicy, outcome: Any, trouble: bool, cause: str) -> None:
    """Each error under each policy has exactly one outcome, and says whether it was trouble with the remote side."""
    found = judge(raised, policy=policy, mask=Mask())
    assert (found.outcome, found.trouble, found.cause) == (outcome, trouble, cause)


def test_table_is_complete() -> None:
    """No error of the tree is missing in the table."""

    def tree(kind: type) -> set[type]:
        return {kind}.union(*(tree(one) for one in kind.__subclasses__()))

    ours = {kind for kind in tree(ClientError) if kind.__module__ == clients.errors.__name__}
    assert ours <= {type(row[0]) for row in TABLE}


@pytest.mark.parametrize("raised", [error(RejectedError, 409), KeyError("k"), error(UnreadableError, 200)])
def test_retry_on(raised: Exception) -> None:
    """What a sync declares as worth another try gets one, and no other kind."""
    again = judge(raised, policy=DEFAULT, retry_on=(type(raised),), mask=Mask()).outcome
    other = judge(raised, policy=DEFAULT, retry_on=(ZeroDivisionError,), mask=Mask()).outcome
    assert isinstance(again, Failure)
    assert isinstance(other, Failure)
    assert (again.retry, other.retry) == (True, False)


def test_traceback_is_kept() -> None:
    """A failure keeps where it was raised; a pause and a 404 need none."""

    def broken() -> None:
        raise KeyError("the name")

    found = attempt(broken, lambda raised: judge(raised, policy=DEFAULT, mask=Mask()))
    assert isinstance(found, Verdict)
    assert "in broken" in (found.traceback or "")
    assert judge(error(GoneError, 404), policy=DEFAULT, mask=Mask()).traceback is None


def test_deep_recursion_is_an_outcome() -> None:
    """A fetch that recurses without end fails by itself, and its traceback is bounded."""

    def deep() -> None:
        deep()

    found = attempt(deep, lambda raised: judge(raised, policy=DEFAULT, mask=Mask()))
    assert isinstance(found, Verdict)
    assert isinstance(found.outcome, Failure)
    assert len(found.traceback or "") <= 8000


def test_secrets_leave_messages_and_tracebacks() -> None:
    """The client's secrets are in neither message nor traceback, also not in a chained exception."""

    class Settings(BaseSettings):
        token: SecretStr = SecretStr("t0p-s3cret")

    def broken() -> None:
        try:
            raise ValueError("bad token t0p-s3cret")
        except ValueError as cause:
            raise RuntimeError("cannot use t0p-s3cret") from cause

    found = attempt(broken, lambda raised: judge(raised, policy=DEFAULT, mask=Mask(Settings())))
    assert isinstance(found, Verdict)
    assert found.outcome == Failure("RuntimeError: cannot use ***", retry=False)
    assert "bad token ***" in (found.traceback or "")
    assert "t0p-s3cret" not in (found.traceback or "")


@pytest.mark.parametrize(
    ("value", "outcome"),
    [
        (None, Success()),
        ({"a": 1}, Success()),
        (Unchanged(), Unchanged()),
        (Gone(), Gone()),
        (Snooze(5), Snooze(5)),
        (Pause(None, "hm"), Pause(None, "hm")),
        (Failure("no"), Failure("no")),
        (Verdict(Gone()), Gone()),
    ],
)
def test_verdict_of(value: Any, outcome: Any) -> None:
    """Outcomes are themselves; everything else is a success."""
    assert verdict_of(value).outcome == outcome


def test_exits_are_not_outcomes() -> None:
    """Ctrl-C and an exit are no outcome of a job."""
    with pytest.raises(KeyboardInterrupt):
        attempt(lambda: (_ for _ in ()).throw(KeyboardInterrupt), lambda raised: Verdict(Success()))


class Panic(BaseException):
    """What extensions in Rust raise."""


@pytest.mark.parametrize("raised", [asyncio.CancelledError(), KeyboardInterrupt(), Panic("index out of bounds"), GeneratorExit()])
def test_whatever_code_raises_in_a_thread_is_an_outcome(raised: BaseException) -> None:
    """Signals come to the main thread only: elsewhere it is the code's own, and fails without a retry, with its traceback."""

    def broken() -> None:
        raise raised

    found: list[Any] = []

    def call() -> None:
        found.append(attempt(broken, lambda error: judge(error, policy=DEFAULT, mask=Mask())))

    thread = threading.Thread(target=call)
    thread.start()
    thread.join()
    (verdict,) = found
    told = f"{type(raised).__name__}: {raised}" if str(raised) else type(raised).__name__
    assert verdict.outcome == Failure(f"RuntimeError: the code raised {told}", retry=False)
    assert "in broken" in (verdict.traceback or "")


def test_an_answer_is_not_waited_for_without_a_bound() -> None:
    """A job whose answer is not ready asks when it was told to, later ever more seldom, and fails in the end."""
    verdict = judge(error(NotReadyError, 202, retry_after=3.0), policy=DEFAULT, mask=Mask())
    job = Job(7, Lane("q", "c", "t"), "k", None, None, 1, 3, 0, 0, 0)
    for snoozes, seconds in ((0, 3.0), (30, 3.0), (400, 40.0)):
        assert bounded_wait(job._replace(snoozes=snoozes), verdict).outcome == Snooze(seconds, TEXT)
    assert bounded_wait(job._replace(snoozes=500), verdict).outcome == Failure(
        f"{TEXT}; it has been put back 500 times", retry=False
    )
    mine = Verdict(Snooze(1.0))
    assert bounded_wait(job._replace(snoozes=500), mine) is mine
