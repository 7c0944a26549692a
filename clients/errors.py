"""The errors of remote systems and connections, as one tree.

    ClientError                    what happens next
    ├── TransientError             the job is tried again, the client's error level rises
    │   ├── ConnectFailedError     no connection (refused, DNS, TLS); it was already tried three times
    │   ├── TimedOutError          connected, but no answer in time
    │   ├── BrokenAnswerError      the connection broke during the answer: reset, truncated body, not HTTP
    │   └── ServerError            5xx, 408 (RFC 9110, 15.5.9) and 425 (RFC 8470, 5.2)
    ├── RateLimitedError           429, or 403 and 503 with a time to wait, or a rate limit that is used up, so that nothing was
    │                              sent: the client pauses `retry_after` s, the job snoozes
    ├── UnknownOutcomeError        it was sent and no answer came, or only a gateway's (502, 504, 52x, 59x), and sending it again
    │                              may do it twice: failure; a person must find out what happened
    ├── NotReadyError              202: what was asked for is still being made; the job snoozes `retry_after` s
    ├── LocalError                 our own process or machine lacks something, and nothing was sent: the job stays queued
    ├── NotModifiedError           304 to a conditional request: unchanged
    ├── AuthRefusedError           401, 403, 407: enforced pause, the job snoozes
    ├── RejectedError              any other 4xx, or a request that HTTP cannot carry: failure
    │   └── RedirectRefusedError   a redirect that is not followed: too many, no target, not a safe method
    ├── GoneError                  404, 410: the entity is gone
    ├── UnreadableError            a good status, but not what was asked for: failure
    │   ├── BrokenBodyError        … but nothing, half a body or a page in HTML: like a `TransientError`
    │   └── TooLargeError          the body is larger than `max_bytes`
    └── PageError                  a page does not fit its `Listing`: the listing stops, a person must correct it
        └── IncompleteError        the listing stopped early; `stopped` says why, and nothing may be deleted because of it
            ├── LoopError          `loop`: a page leads back to an earlier one
            ├── LimitError         `limit`: `max_pages` or `max_seconds` is used up
            └── ShortError         `short`: fewer entities than announced, rows moved while they were listed, a next page is named
                                   and there is no paginator, or a page has a message instead of its rows

No message, attribute or repr holds a query string, a user, a password, a header or a part of a body: any may be secret. The one
exception is the text of a SOAP fault: one short line, without our credentials.

The errors of other protocols are mapped to the same classes, without a status: SOAP's server faults and FTP's 421 and 4xx are a
`ServerError` (a `RateLimitedError` where the SOAP answer has a time to wait), SOAP's client faults and FTP's 5xx a
`RejectedError`; 530, a refused SSH sign-in and WS-Security's faults an `AuthRefusedError`; a missing file a `GoneError` (see
`soap.fault`, `files.ftp_connection`, `files.sftp_connection`).
"""

from __future__ import annotations

from clients.urls import public_url


class ClientError(Exception):
    """An error of a remote system, or of the connection to it.

    Args:
        message: one line, without secrets.
        method: the HTTP method, where there is one.
        url: the URL; its query, fragment and user part are dropped here.
        status: the HTTP status, where an answer came.

    Attributes:
        waits: the refusal says when to ask again, or that a rate limit is used up.
        length: how many rows there are, where a refusal of further ones says so (`Content-Range: */25`).
    """

    waits = False
    length: int | None = None

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
        # Exceptions are pickled as cls(*args), which would lose all keyword arguments between processes.
        return _rebuild, (type(self), self.__dict__.copy())


def _rebuild(cls: type[ClientError], state: dict[str, object]) -> ClientError:
    error = cls.__new__(cls, state["message"])
    error.__dict__.update(state)
    return error


# The same request may succeed later.


class TransientError(ClientError):
    """The remote system or the network has a problem; the same request may succeed later."""


class ConnectFailedError(TransientError):
    """No connection was made, so nothing was sent."""


class TimedOutError(TransientError):
    """The remote system was reached but did not answer in time."""


class BrokenAnswerError(TransientError):
    """The connection broke before the answer was complete."""


class ServerError(TransientError):
    """The remote system answered that it failed itself, or was too busy."""


# The request may succeed after a wait, with other credentials, or after a check.


class RateLimitedError(ClientError):
    """The remote system asks us to slow down.

    Args:
        retry_after: seconds to wait by the answer, or None when it does not say.
        whole: it asks so of the whole client; False where only requests of this kind have to wait.
    """

    def __init__(
        self,
        message: str,
        *,
        method: str | None = None,
        url: str | None = None,
        status: int | None = None,
        retry_after: float | None = None,
        whole: bool = True,
    ) -> None:
        super().__init__(message, method=method, url=url, status=status)
        self.retry_after = retry_after
        self.whole = whole


class UnknownOutcomeError(ClientError):
    """A request that must not be repeated blindly was sent, and it is unknown whether it was done.

    Only methods that are not idempotent (RFC 9110, section 9.2.2), without an idempotency key. A request that was certainly not
    sent is a `ConnectFailedError`.
    """


class NotReadyError(ClientError):
    """The remote system accepted the request and has no answer yet (202).

    Args:
        retry_after: seconds after which to ask again by the answer, or None when it does not say.
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


class LocalError(ClientError):
    """Our own process or machine lacks what a request takes: a usable proxy, a certificate file, a package. Nothing was sent."""


class NotModifiedError(ClientError):
    """The remote system has nothing newer than we have."""


class AuthRefusedError(ClientError):
    """The remote system, or a proxy, does not accept our credentials."""


# The same request would fail again.


class RejectedError(ClientError):
    """The remote system understood the request and refuses it."""


class RedirectRefusedError(RejectedError):
    """The answer is a redirect that is not followed."""


class GoneError(ClientError):
    """The remote system does not have it, or no longer."""


class UnreadableError(ClientError):
    """The answer has a good status, but is not what was asked for."""


class BrokenBodyError(UnreadableError):
    """The answer has a good status, and its body is empty, cut off, or something else, as a page in HTML.

    So answer proxies and systems in maintenance; the same request may get a whole body later. Only requests that may be repeated
    raise it: what a write was answered that nobody can read is an `UnreadableError`.
    """


class TooLargeError(UnreadableError):
    """The body is larger than the client accepts."""


# A listing that does not fit its declaration.


class PageError(ClientError):
    """A page does not have the shape that its `Listing` declares."""


class IncompleteError(PageError):
    """The listing stopped early; every page that it showed was yielded."""

    #: Why, as `syncs run --json` says it.
    stopped = "error"


class LoopError(IncompleteError):
    """A page leads to one that was already listed, or the same entities come again and again."""

    stopped = "loop"


class LimitError(IncompleteError):
    """The listing was stopped by `max_pages` or `max_seconds`."""

    stopped = "limit"


class ShortError(IncompleteError):
    """The listing did not show all that it announced, or its rows kept moving."""

    stopped = "short"
