"""Exchanges with one remote system: which URL, which headers, whose credentials, which redirects, how soon.

Knows nothing of JSON; `transport` does the sending.

Importing it is cheap: httpx is imported when a client is made, because a file that only declares one is read at every
start.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Container, Mapping
from typing import TYPE_CHECKING, Self
from urllib.parse import unquote_plus

from clients.auth import Auth, Basic, Credentials, Secret, secrets_in
from clients.errors import (
    BrokenAnswerError,
    ClientError,
    RateLimitedError,
    RedirectRefusedError,
    RejectedError,
    ServerError,
    TimedOutError,
    UnknownOutcomeError,
)
from clients.headers import encoded, merged
from clients.pace import PATIENCE, Pace
from clients.rates import retry_after
from clients.statuses import GATEWAYS, REDIRECTS, error_of
from clients.urls import encode_params, is_absolute, public_url, split_userinfo, with_query, without_params, without_values
from clients.version import VERSION

if TYPE_CHECKING:
    import ssl
    from types import TracebackType
    from typing import Any

    import httpx

    from clients.target import Target
    from clients.transport import Answer, RawHeaders

MAX_REDIRECTS = 10
MAX_BYTES = 64 * 1024 * 1024

_SAFE = frozenset({"GET", "HEAD"})
_REPEATABLE = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"})
_EVERYWHERE = frozenset({"accept", "user-agent"})
_TELLING = 12
"""Characters of a secret that no parameter of a link has by chance."""
_UNKNOWN = "it was sent, and may or may not have been done"


class Session:
    """Sends requests of one sign-in from many threads at once; `HttpClient` says what its arguments are."""

    def __init__(
        self,
        base_url: str,
        *,
        auth: Auth | None,
        headers: Mapping[str, str | Secret] | None,
        timeout: float,
        verify: bool | str | ssl.SSLContext,
        transport: httpx.BaseTransport | None,
        max_bytes: int,
        total_timeout: float | None,
    ) -> None:
        from clients.target import parse_target
        from clients.transport import Wire

        total = 10 * timeout if total_timeout is None else total_timeout
        if timeout <= 0 or max_bytes <= 0 or total <= 0:
            raise ValueError("timeout, total_timeout and max_bytes must be positive")
        self._parse = parse_target
        base, user = split_userinfo(base_url.partition("#")[0])
        if user is not None:
            if auth is not None:
                raise ValueError("give auth or a user in base_url, not both")
            auth = Basic(*user)
        try:
            self._base = parse_target(base)
        except ValueError as exc:
            raise ValueError(f"base_url: {exc}") from None
        self._origin = self._base.origin
        self._root, _, self._query = base.partition("?")
        slash = self._root.find("/", self._root.index("://") + 3)
        #: Where the path begins in a URL that is built on it.
        self._path_at = slash if slash >= 0 else len(self._root)
        self._folder = self._root if self._root.endswith("/") else f"{self._root}/"
        self._auth = auth
        own = {unquote_plus(pair.partition("=")[0]) for pair in self._query.split("&") if pair}
        self._own_params = frozenset(own | (auth.param_names() if auth is not None else frozenset()))
        self._headers = merged({"Accept": "application/json", "User-Agent": f"sync-clients/{VERSION}"}, headers or {})
        self._prepared: tuple[Credentials | None, RawHeaders] | None = None
        self._pace = Pace()
        self._max_bytes = max_bytes
        self._wire = Wire(timeout=timeout, verify=verify, transport=transport, max_bytes=max_bytes, total=total)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({public_url(self._root)!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections. Closing twice does nothing more."""
        self._wire.close()

    @property
    def requests(self) -> int:
        """How many requests were sent, redirects included."""
        return self._wire.requests

    @property
    def identity(self) -> str:
        """What stands for whoever is signed in, with the declared headers; tells two apart and neither's secret."""
        known = getattr(self._auth, "identity", None) or (self._auth.credentials() if self._auth is not None else None)
        parts = (known.headers, known.params) if isinstance(known, Credentials) else known
        text = repr((parts, sorted(self._headers.values()), self._query))
        return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()

    def without_credentials(self, url: str) -> str:
        """Return `url` without what this client adds by itself, so that it may be stored."""
        url = without_params(split_userinfo(url)[0], self._own_params)
        if "?" not in url or (known := self._known_credentials()) is None:
            return url
        # Some APIs put the token that came in a header into the links that they hand out (Facebook's `paging.next`).
        return without_values(url, {secret for secret in secrets_in(known) if len(secret) >= _TELLING})

    def _known_credentials(self) -> Credentials | None:
        return None if self._prepared is None else self._prepared[0]

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
    ) -> tuple[Answer, str]:
        """Send, follow redirects, raise for 400 and above.

        Returns the answer and the URL it came from, without credentials.

        Args:
            repeatable: the request only reads, whatever its method says.
            allowed: statuses that are no errors here.
        """
        url = self._url(path, encode_params(params) if params else "")
        home: Target | None = None
        renewed = False
        repeatable = repeatable or method in _REPEATABLE or "Idempotency-Key" in (headers or {})
        left = MAX_REDIRECTS + 1
        while left:
            target, credentials = self._target(method, url, known=not is_absolute(path) and home is None)
            home = home or target
            raw = self._raw_headers(target, credentials, headers if target.origin == home.origin else None)
            ours = target.origin == self._origin
            if ours:
                self._pace.hold(method=method, url=url)
            answer = self._send(method, target, raw, content, shown=url, repeatable=repeatable)
            if ours:
                self._pace.heed(answer.raw_headers)
            if answer.status < 300 or answer.status in allowed:
                return answer, url
            # Whatever a sign-in of somebody else's making says: once.
            if answer.status == 401 and credentials is not None and self._renew(credentials, again=renewed) and not renewed:
                renewed = True
                continue
            received = answer.headers
            _check(answer.status, received, method=method, url=url, repeatable=repeatable)
            if answer.status == 304:
                return answer, url
            url = self._follow(answer.status, received, method=method, url=url, target=target)
            left -= 1
            if answer.status == 303 and method != "HEAD":
                method, content = "GET", None
                headers = {name: value for name, value in (headers or {}).items() if name.lower() != "content-type"}
        raise RedirectRefusedError(f"more than {MAX_REDIRECTS} redirects", method=method, url=url, status=answer.status)

    def _send(
        self, method: str, target: Target, raw: RawHeaders, content: bytes | None, *, shown: str, repeatable: bool
    ) -> Answer:
        try:
            return self._wire.send(method, target, raw, content, shown=shown)
        except (TimedOutError, BrokenAnswerError) as error:
            if repeatable:
                raise
            raise UnknownOutcomeError(f"{error.message}: {_UNKNOWN}", method=method, url=shown) from error

    def _renew(self, refused: Credentials, *, again: bool) -> bool:
        """Tell whether there is a newer sign-in than the one that was refused."""
        renew = getattr(self._auth, "renew", None)
        return renew is not None and bool(renew(refused, again=again))

    def _url(self, path: str, query: str) -> str:
        """Return the absolute URL without anything that this client adds by itself."""
        if is_absolute(path):
            return with_query(self.without_credentials(path), query)
        path = path.partition("#")[0]
        if not path or path.startswith("?"):
            return with_query(self._root + path, query)
        return with_query(self._folder + path.removeprefix("/"), query)

    def _target(self, method: str, url: str, *, known: bool) -> tuple[Target, Credentials | None]:
        """Parse `url` and add what belongs to our origin.

        Args:
            known: `url` was built on `base_url`, so that its origin is clear before it is parsed.
        """
        try:
            if not known:
                target = self._parse(url)
                if target.origin != self._origin:
                    return target, None
            credentials = None if self._auth is None else self._auth.credentials()
            query = self._query
            if credentials is not None and credentials.params:
                query = "&".join(filter(None, (query, encode_params(dict(credentials.params)))))
            if query or known:
                full = with_query(url, query)
                target = (self._base.beside(full[self._path_at :]) if known else None) or self._parse(full)
        except ValueError as exc:
            raise RejectedError(str(exc), method=method, url=url) from None
        return target, credentials

    def _raw_headers(
        self, target: Target, credentials: Credentials | None, extra: Mapping[str, str | Secret] | None
    ) -> RawHeaders:
        if target.origin == self._origin:
            if extra:
                return encoded(self._with_auth(credentials, extra))
            # The same credentials give the same headers; only a renewed sign-in builds them again.
            prepared = self._prepared
            if prepared is None or prepared[0] is not credentials:
                prepared = self._prepared = (credentials, encoded(self._with_auth(credentials, {})))
            return prepared[1]
        neutral = {name: pair for name, pair in self._headers.items() if name in _EVERYWHERE}
        return encoded(merged(dict(neutral.values()), extra or {}))

    def _with_auth(self, credentials: Credentials | None, extra: Mapping[str, str | Secret]) -> dict[str, tuple[str, str]]:
        both = merged(dict(self._headers.values()), extra)
        return merged(dict(both.values()), dict(credentials.headers) if credentials is not None else {})

    def _follow(self, status: int, received: Mapping[str, str], *, method: str, url: str, target: Target) -> str:
        """Return where a redirect leads, without credentials, or refuse it."""

        def refuse(why: str) -> ClientError:
            return RedirectRefusedError(f"{status}, {why}", method=method, url=url, status=status)

        location = received.get("location")
        if not location:
            raise refuse("without a target")
        if method not in _SAFE and status != 303:
            raise refuse("which would send the request again")
        try:
            following = target.join(location)
            scheme = self._parse(following).origin[0]
        except ValueError:
            raise refuse("to something that is not an http or https URL") from None
        if scheme == "http" and target.origin[0] == "https":
            raise refuse("from https to http, where anybody can read and change it")
        seconds = retry_after(received) or 0.0
        if seconds > PATIENCE:
            raise RateLimitedError(
                f"{status}, to be followed in {seconds:g} s", method=method, url=url, status=status, retry_after=seconds
            )
        time.sleep(seconds)
        return self.without_credentials(following)


def _check(status: int, received: Mapping[str, str], *, method: str, url: str, repeatable: bool) -> None:
    """Raise what a status of 300 or more stands for, unless it is a redirect or says that nothing is new."""
    error = error_of(status, received, method=method, url=url)
    if isinstance(error, ServerError) and status in GATEWAYS and not repeatable:
        raise UnknownOutcomeError(f"{error.message}: {_UNKNOWN}", method=method, url=url, status=status)
    if error is not None:
        raise error
    if status != 304 and status not in REDIRECTS:
        # 300, 305 and what nobody has heard of: what was asked for is elsewhere.
        raise RedirectRefusedError(f"{status}, which is not followed", method=method, url=url, status=status)
