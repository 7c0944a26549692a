"""What can go wrong between us and a remote system, as one tree. Knows no transport, no job and no pause.

    ClientError                    what happens next
    ├── TransientError             the job is tried again, the client's error level rises
    │   ├── ConnectFailedError     no connection (refused, DNS, TLS); it was already tried three times
    │   ├── TimedOutError          connected, but no answer in time
    │   ├── BrokenAnswerError      the connection broke in the middle: reset, truncated body, not HTTP
    │   └── ServerError            5xx, 408 (RFC 9110, 15.5.9) and 425 (RFC 8470, 5.2)
    ├── RateLimitedError           429, or 403 and 503 that say when to come again, or a budget that is used up and was not
    │                              asked: the client pauses `retry_after` s, the job snoozes
    ├── UnknownOutcomeError        it was sent and no answer came, or a gateway's (502, 504, 52x, 59x), and sending it again
    │                              may do it twice: failure; look what became of it first
    ├── NotModifiedError           304 to a conditional request: unchanged
    ├── AuthRefusedError           401, 403, 407: enforced pause, the job snoozes
    ├── RejectedError              any other 4xx, or a request that HTTP cannot carry: failure
    │   └── RedirectRefusedError   a redirect that is not followed: too many, no target, not a safe method
    ├── GoneError                  404, 410: the entity is gone
    ├── UnreadableError            a good status, but not what was asked for (not JSON): failure
    │   └── TooLargeError          the body passed `max_bytes`
    └── PageError                  a page does not fit its `Listing`: the listing stops, a person must look
        └── IncompleteError        the listing ended before its end; `stopped` says why, and nothing may be deleted by it
            ├── LoopError          `loop`: the pages go round in circles
            ├── LimitError         `limit`: `max_pages` or `max_seconds` is used up
            └── ShortError         `short`: fewer entities than announced, rows moved while they were listed, a next page is named
                                   and there is no paginator, or a page has a message in place of its rows

No message, attribute or repr holds a query string, a user, a password, a header or a part of a body: any may be secret. The one
exception is what a SOAP fault says to people: one short line, without our credentials.

The other protocols say the same in their own words, and without a status: SOAP's server faults and FTP's 421 and 4xx are a
`ServerError` (a `RateLimitedError` where SOAP says when to come again), SOAP's client faults and FTP's 5xx a `RejectedError`;
530, a refused SSH sign-in and WS-Security's faults an `AuthRefusedError`; a file that is not there a `GoneError` (see `envelope`,
`replies`, `sftp_errors`).
"""

from __future__ import annotations

from clients.urls import public_url


class ClientError(Exception):
    """Something went wrong between us and the remote system.

    Args:
        message: one line that says what, without secrets.
        method: the HTTP method, where there is one.
        url: the URL; its query, fragment and user part are dropped here.
        status: the HTTP status, where an answer came.
    """

    def __init__(self, message: str, *, method: str | None = None, url: str | None = None, status: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.method = method
        self.url = None if url is None else public_url(url)
        self.status = status

    def __str__(self) -> str:
        if self.url is None:
            return self.message
        return f"{self.method or 'GET'} {self.url}: {self.message}"

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self)!r})"

    def __reduce__(self) -> tuple[object, ...]:
        # Exceptions pickle as cls(*args), which would lose all keywords when one crosses a process.
        return _rebuild, (type(self), self.__dict__.copy())


def _rebuild(cls: type[ClientError], state: dict[str, object]) -> ClientError:
    error = cls.__new__(cls, state["message"])
    error.__dict__.update(state)
    return error


# Worth another try.


class TransientError(ClientError):
    """The remote system or the way to it is in trouble; the same request may succeed later."""


class ConnectFailedError(TransientError):
    """No connection was made, so nothing was sent."""


class TimedOutError(TransientError):
    """The remote system was reached but did not answer in time."""


class BrokenAnswerError(TransientError):
    """The connection broke before the answer was complete."""


class ServerError(TransientError):
    """The remote system answered that the failure is its own, or that it was too busy to listen."""


# Worth waiting for.


class RateLimitedError(ClientError):
    """The remote system asks us to slow down.

    Args:
        retry_after: seconds to wait as the answer says, or None when it does not say.
    """

    def __init__(
        self,
        message: str,
        *,
        method: str | None = None,
        url: str | None = None,
        status: int | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message, method=method, url=url, status=status)
        self.retry_after = retry_after


class UnknownOutcomeError(ClientError):
    """A request that must not be repeated blindly was sent, and nobody knows whether it was done.

    Only methods that are not idempotent (RFC 9110, section 9.2.2), without an idempotency key. What was certainly never sent
    is a `ConnectFailedError`.
    """


class NotModifiedError(ClientError):
    """The remote system has nothing newer than what we have."""


class AuthRefusedError(ClientError):
    """The remote system, or a proxy on the way, does not accept our credentials."""


# Not worth another try.


class RejectedError(ClientError):
    """The remote system understood the request and refuses it."""


class RedirectRefusedError(RejectedError):
    """The answer is a redirect that is not followed."""


class GoneError(ClientError):
    """The remote system does not have it, or not any more."""


class UnreadableError(ClientError):
    """The answer has a good status but cannot be read as what was asked for."""


class TooLargeError(UnreadableError):
    """The body is larger than the client accepts."""


# A listing that does not fit its declaration.


class PageError(ClientError):
    """A page does not have the shape that its `Listing` declares."""


class IncompleteError(PageError):
    """The listing ended before its end; every page that it showed was yielded."""

    #: Why, in the words of `syncs run --json`.
    stopped = "error"


class LoopError(IncompleteError):
    """The listing asks for a page that it already had, or shows the same entities again and again."""

    stopped = "loop"


class LimitError(IncompleteError):
    """The listing was cut off by `max_pages` or `max_seconds`."""

    stopped = "limit"


class ShortError(IncompleteError):
    """The listing did not show all that it announced, or its rows would not stand still."""

    stopped = "short"
