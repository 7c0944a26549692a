"""Sends requests to one remote system: signs in, renews a refused sign-in, throttles, follows redirects, raises for statuses.

Importing it is cheap: httpx is imported when a client is made, because a file that only declares one is read at every
start.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Container, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self

from clients.auth import secrets_in
from clients.errors import (
    BrokenAnswerError,
    ClientError,
    RateLimitedError,
    RedirectRefusedError,
    ServerError,
    TimedOutError,
    UnknownOutcomeError,
)
from clients.exchange_recorder import current_recorder
from clients.http.rate_limits.rate_limit_headers import retry_after
from clients.http.rate_limits.throttle import MAX_BLOCKING, MAX_SLEEP, Throttle, blocks_others
from clients.http.status import GATEWAYS, REDIRECTS, error_of
from clients.quoted_path import check_path, watched_keys
from clients.urls import Origin

if TYPE_CHECKING:
    from types import TracebackType

    from clients.auth import Secret
    from clients.http.origin import DeclaredOrigin, PreparedRequest
    from clients.http.response import HttpResponse
    from clients.http.timeouts import Timeouts
    from clients.http.transport import ConnectionPool

MAX_REDIRECTS = 10
MAX_BYTES = 64 * 1024 * 1024

_SAFE = frozenset({"GET", "HEAD"})
_REPEATABLE = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"})
_UNKNOWN = "it was sent, and may or may not have been done"


class Session:
    """What `HttpClient` and `SoapClient` have in common; for many threads at once.

    Args:
        origin: builds the requests.
        pool: sends them.
        throttled: the origins whose rate limits hold requests back; None for all.
    """

    def __init__(self, origin: DeclaredOrigin, pool: ConnectionPool, *, throttled: Collection[Origin] | None = None) -> None:
        self._origin = origin
        self._pool = pool
        self._throttles = {one: Throttle() for one in throttled or ()}
        self._throttles_all = throttled is None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections. A second call does nothing."""
        self._pool.close()

    @property
    def requests(self) -> int:
        """How many requests were sent, redirects included."""
        return self._pool.requests

    @property
    def throttles(self) -> dict[Origin, Throttle]:
        """The rate limits by origin, so that processes can share them."""
        return self._throttles

    def _exchange(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        content: bytes | None = None,
        headers: Mapping[str, str | Secret] | None = None,
        repeatable: bool = False,
        allowed: Container[int] = (),
        timeouts: Timeouts | None = None,
        max_redirects: int = MAX_REDIRECTS,
        same_origin: bool = False,
    ) -> tuple[HttpResponse, str]:
        """Send a request, follow redirects, raise for a status of 400 and above.

        Returns the response and the URL it came from, without credentials.

        Args:
            repeatable: the request only reads, whatever its method says.
            allowed: statuses that are no errors here.
            timeouts: instead of those of the pool.
            same_origin: redirects to another origin are refused.
        """
        if watched_keys() is not None:
            check_path(path, method=method)
        first: Origin | None = None
        renewed = False
        repeatable = repeatable or method in _REPEATABLE or "Idempotency-Key" in (headers or {})
        left = max_redirects + 1
        while left:
            answer, request = self._send(
                method,
                path,
                params=params,
                content=content,
                headers=headers,
                repeatable=repeatable,
                timeouts=timeouts,
                only_for=first,
            )
            url = request.url
            first = first or request.target.origin
            if answer.status < 300 or answer.status in allowed:
                return answer, url
            # A sign-in of the user's own may always claim to be newer, so there is only one renewal.
            if answer.status == 401 and self._origin.renew(request.credentials, again=renewed) and not renewed:
                renewed = True
                continue
            received = answer.headers
            if answer.status >= 400 and answer.content and (recorder := current_recorder()) is not None:
                recorder.set_refusal(answer.content, secrets=secrets_in(request.credentials) if request.credentials else ())
            _check(answer, received, method=method, url=url, repeatable=repeatable)
            if answer.status == 304:
                return answer, url
            within = first if same_origin else None
            path, params = self._redirected(answer.status, received, method=method, request=request, within=within), None
            left -= 1
            if answer.status == 303 and method != "HEAD":
                method, content = "GET", None
                headers = {name: value for name, value in (headers or {}).items() if name.lower() != "content-type"}
        raise RedirectRefusedError(f"more than {max_redirects} redirects", method=method, url=path, status=answer.status)

    def _send(
        self,
        method: str,
        path: str,
        *,
        content: bytes | None,
        headers: Mapping[str, str | Secret] | None,
        repeatable: bool,
        params: Mapping[str, Any] | None = None,
        timeouts: Timeouts | None = None,
        only_for: Origin | None = None,
    ) -> tuple[HttpResponse, PreparedRequest]:
        """Send one request; return the response, whatever its status, and the request.

        Args:
            only_for: the origin that `headers` are for; None for any.
        """
        request = self._origin.prepare(method, path, params=params, headers=headers, only_for=only_for)
        url, target = request.url, request.target
        throttle = self._throttles.get(target.origin)
        if throttle is None:
            if not self._throttles_all:
                return self._send_now(method, request, content=content, repeatable=repeatable, timeouts=timeouts), request
            throttle = self._throttles.setdefault(target.origin, Throttle())
        permit = throttle.acquire(target.kind(method, self._origin.depth), method=method, url=url)
        try:
            answer = self._send_now(method, request, content=content, repeatable=repeatable, timeouts=timeouts)
        except BaseException:
            throttle.failed(permit)
            raise
        learned = throttle.answered(permit, answer)
        if learned is not None or (throttle.always_asks and answer.status >= 400):
            answer = replace(answer, learned=learned, asks=not throttle.always_asks)
        return answer, request

    def _send_now(
        self, method: str, request: PreparedRequest, *, content: bytes | None, repeatable: bool, timeouts: Timeouts | None
    ) -> HttpResponse:
        try:
            return self._pool.send(
                method, request.target, headers=request.headers, content=content, shown=request.url, timeouts=timeouts
            )
        except (TimedOutError, BrokenAnswerError) as error:
            if repeatable:
                raise
            raise UnknownOutcomeError(f"{error.message}: {_UNKNOWN}", method=method, url=request.url) from error

    def _redirected(
        self, status: int, received: Mapping[str, str], *, method: str, request: PreparedRequest, within: Origin | None
    ) -> str:
        """Return where a redirect leads, without credentials, or refuse it.

        Args:
            within: the only origin that it may lead to; None for any.
        """

        def refusal(why: str) -> ClientError:
            return RedirectRefusedError(f"{status}, {why}", method=method, url=url, status=status)

        from clients.http.allowed_hosts import HostRefusedError
        from clients.http.target import parse_target

        url, target = request.url, request.target
        location = received.get("location")
        if not location:
            raise refusal("without a target")
        if method not in _SAFE and status != 303:
            raise refusal("which would send the request again")
        try:
            following = target.join(location)
            link = parse_target(following)
            self._origin.check_link(link)
        except ValueError:
            raise refusal("to something that is not an http or https URL") from None
        except HostRefusedError as exc:
            raise refusal(str(exc)) from None
        origin = link.origin
        if within is not None and origin != within:
            raise refusal("to another origin")
        if origin[0] == "http" and target.origin[0] == "https":
            raise refusal("from https to http, where anybody can read and change it")
        seconds = retry_after(received) or 0.0
        if seconds > (MAX_BLOCKING if blocks_others.get()() else MAX_SLEEP):
            raise RateLimitedError(
                f"{status}, to be followed in {seconds:g} s", method=method, url=url, status=status, retry_after=seconds
            )
        time.sleep(seconds)
        return self._origin.without_credentials(following)


def _check(answer: HttpResponse, received: Mapping[str, str], *, method: str, url: str, repeatable: bool) -> None:
    """Raise what a status of 300 or more stands for, unless it is a redirect or 304."""
    status = answer.status
    error = error_of(status, received, method=method, url=url, asks=answer.asks, learned=answer.learned)
    if isinstance(error, ServerError) and status in GATEWAYS and not repeatable:
        raise UnknownOutcomeError(f"{error.message}: {_UNKNOWN}", method=method, url=url, status=status)
    if error is not None:
        raise error
    if status != 304 and status not in REDIRECTS:
        # 300, 305 and unknown ones: what was asked for is elsewhere.
        raise RedirectRefusedError(f"{status}, which is not followed", method=method, url=url, status=status)
