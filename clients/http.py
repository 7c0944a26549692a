"""The HTTP adapter: which URL, which headers, whose credentials, which redirects.

Knows nothing of pages; `transport` does the sending.

Importing it is cheap: httpx is imported when a client is made, because a file that only declares one is read at every
start.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import unquote_plus

import orjson

from clients.auth import Auth, Basic, Credentials, Secret, header_name, header_value, reveal
from clients.bodies import ENCODINGS, decode_json
from clients.errors import ClientError, RedirectRefusedError, RejectedError, UnreadableError
from clients.page import PageAnswer
from clients.statuses import REDIRECTS, error_of
from clients.urls import encode_params, is_absolute, public_url, split_userinfo, with_query, without_params
from clients.version import VERSION

if TYPE_CHECKING:
    import ssl
    from types import TracebackType

    import httpx

    from clients.transport import Answer, RawHeaders, Target

MAX_REDIRECTS = 10
MAX_BYTES = 64 * 1024 * 1024

_SAFE = frozenset({"GET", "HEAD"})
_EVERYWHERE = frozenset({"accept", "user-agent"})


class HttpClient:
    """A connection to one remote system, for many threads at once. Use it as a context manager.

    Relative paths join `base_url`, whether or not it ends in a slash and whether or not they begin with one; `""` is
    `base_url` itself. Its query, if any, goes with every request to its origin, as do `auth` and `headers`. An
    absolute URL of another origin (scheme, host and port), whether asked for, linked to or redirected to, gets none
    of them but `Accept` and `User-Agent`, and query parameters called like ours are taken out of it.

    A failed connection is tried at most twice more; a request that was sent is never sent again. Cookies are not
    kept, `.netrc` is not read, proxies are taken from the environment.

    Args:
        base_url: absolute; a user and password in it become Basic auth.
        auth: how to sign in.
        headers: sent with every request to the origin of `base_url`.
        timeout: seconds for each phase: connect (10 at most, as there are three attempts), send, and each wait for
            bytes.
        verify: check certificates: True, False, an SSLContext, or the path of a CA bundle.
        transport: sends the requests instead of httpx's own; for tests.
        max_bytes: size of an unpacked body that is still read.

    Raises:
        ValueError: `base_url` is not an absolute http or https URL, a header cannot be sent, or there are two sign-ins.
    """

    #: One client serves any number of threads; see `flows.connection`.
    thread_safe = True

    def __init__(
        self,
        base_url: str,
        *,
        auth: Auth | None = None,
        headers: Mapping[str, str | Secret] | None = None,
        timeout: float = 30.0,
        verify: bool | str | ssl.SSLContext = True,
        transport: httpx.BaseTransport | None = None,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        from clients.transport import Wire, parse_target

        if timeout <= 0 or max_bytes <= 0:
            raise ValueError("timeout and max_bytes must be positive")
        self._parse = parse_target
        base, user = split_userinfo(base_url.partition("#")[0])
        if user is not None:
            if auth is not None:
                raise ValueError("give auth or a user in base_url, not both")
            auth = Basic(*user)
        try:
            self._origin = parse_target(base).origin
        except ValueError as exc:
            raise ValueError(f"base_url: {exc}") from None
        self._root, _, self._query = base.partition("?")
        self._folder = self._root if self._root.endswith("/") else f"{self._root}/"
        self._auth = auth
        own = {unquote_plus(pair.partition("=")[0]) for pair in self._query.split("&") if pair}
        self._own_params = frozenset(own | (auth.param_names() if auth is not None else frozenset()))
        self._headers = _merged({"Accept": "application/json", "User-Agent": f"sync-clients/{VERSION}"}, headers or {})
        self._prepared: tuple[Credentials | None, RawHeaders] | None = None
        self._wire = Wire(timeout=timeout, verify=verify, transport=transport, max_bytes=max_bytes)

    def __repr__(self) -> str:
        return f"HttpClient({public_url(self._root)!r})"

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

    def get_json(self, path: str, params: Mapping[str, Any] | None = None) -> Any:
        """GET `path` and return its decoded JSON; None for 204.

        Raises:
            ClientError: as the tree in `errors` says.
        """
        answer, url = self._exchange("GET", path, params=params)
        return self._json(answer, method="GET", url=url)

    def post_json(self, path: str, json: Any) -> Any:
        """POST `json` to `path` and return the decoded answer; None when it has no body.

        Raises:
            ClientError: as the tree in `errors` says.
        """
        answer, url = self._exchange("POST", path, content=orjson.dumps(json), headers=_JSON_BODY)
        return self._json(answer, method="POST", url=url) if answer.content else None

    def request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        json: Any = None,
        content: bytes | str | None = None,
        data: Mapping[str, Any] | None = None,
        headers: Mapping[str, str | Secret] | None = None,
    ) -> httpx.Response:
        """Send any request and return the answer, which is read and below 400.

        Args:
            json, content, data: the body, as JSON, as it is, or as a form; one of them at most.
            headers: for this request; they go where `path` goes, and not along with a redirect to another origin.

        Raises:
            ClientError: as the tree in `errors` says.
        """
        if (json is not None) + (content is not None) + (data is not None) > 1:
            raise TypeError("give one of json, content and data")
        extra: dict[str, str | Secret] = {}
        if json is not None:
            content, extra = orjson.dumps(json), dict(_JSON_BODY)
        elif data is not None:
            content, extra = encode_params(data), {"Content-Type": "application/x-www-form-urlencoded"}
        if isinstance(content, str):
            content = content.encode()
        extra.update(headers or {})
        method = method.upper()
        answer, url = self._exchange(method, path, params=params, content=content, headers=extra)
        return answer.as_httpx(method=method, url=url)

    def answer(self, method: str, path: str, *, params: Mapping[str, Any] | None = None, json: Any = None) -> PageAnswer:
        """Send one request of a listing and return its JSON body with the URL and headers that came with it.

        Raises:
            ClientError: as the tree in `errors` says.
        """
        content = None if json is None else orjson.dumps(json)
        answer, url = self._exchange(method, path, params=params, content=content, headers=_JSON_BODY if content else None)
        return PageAnswer(self._json(answer, method=method, url=url), url, answer.headers)

    def without_credentials(self, url: str) -> str:
        """Return `url` without what this client adds by itself, so that it may be stored."""
        return without_params(split_userinfo(url)[0], self._own_params)

    def _exchange(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        content: bytes | None = None,
        headers: Mapping[str, str | Secret] | None = None,
    ) -> tuple[Answer, str]:
        """Send, follow redirects, raise for 400 and above.

        Returns the answer and the URL it came from, without credentials.
        """
        url = self._url(path, encode_params(params) if params else "")
        home: Target | None = None
        for _ in range(MAX_REDIRECTS + 1):
            target, credentials = self._target(method, url, known=not is_absolute(path) and home is None)
            home = home or target
            raw = self._raw_headers(target, credentials, headers if target.origin == home.origin else None)
            answer = self._wire.send(method, target, raw, content, shown=url)
            if answer.status < 300:
                return answer, url
            received = answer.headers
            error = error_of(answer.status, received, method=method, url=url)
            if error is not None:
                raise error
            if answer.status not in REDIRECTS:
                return answer, url
            url = self._follow(answer.status, received.get("location"), method=method, url=url, target=target)
            if answer.status == 303 and method != "HEAD":
                method, content = "GET", None
                headers = {name: value for name, value in (headers or {}).items() if name.lower() != "content-type"}
        raise RedirectRefusedError(f"more than {MAX_REDIRECTS} redirects", method=method, url=url, status=answer.status)

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
                target = self._parse(with_query(url, query))
        except ValueError as exc:
            raise RejectedError(str(exc), method=method, url=url) from None
        return target, credentials

    def _raw_headers(
        self, target: Target, credentials: Credentials | None, extra: Mapping[str, str | Secret] | None
    ) -> RawHeaders:
        if target.origin == self._origin:
            if extra:
                return _encoded(self._with_auth(credentials, extra))
            # The same credentials give the same headers; only a renewed sign-in builds them again.
            prepared = self._prepared
            if prepared is None or prepared[0] is not credentials:
                prepared = self._prepared = (credentials, _encoded(self._with_auth(credentials, {})))
            return prepared[1]
        neutral = {name: pair for name, pair in self._headers.items() if name in _EVERYWHERE}
        return _encoded(_merged(dict(neutral.values()), extra or {}))

    def _with_auth(self, credentials: Credentials | None, extra: Mapping[str, str | Secret]) -> dict[str, tuple[str, str]]:
        merged = _merged(dict(self._headers.values()), extra)
        return _merged(dict(merged.values()), dict(credentials.headers) if credentials is not None else {})

    def _follow(self, status: int, location: str | None, *, method: str, url: str, target: Target) -> str:
        """Return where a redirect leads, without credentials, or refuse it."""

        def refuse(why: str) -> ClientError:
            return RedirectRefusedError(f"{status}, {why}", method=method, url=url, status=status)

        if not location:
            raise refuse("without a target")
        if method not in _SAFE and status != 303:
            raise refuse("which would send the request again")
        try:
            following = target.join(location)
            self._parse(following)
        except ValueError:
            raise refuse("to something that is not an http or https URL") from None
        return self.without_credentials(following)

    def _json(self, answer: Answer, *, method: str, url: str) -> Any:
        if answer.status in (204, 205):
            return None
        content_type = answer.header(b"content-type")
        value, position = decode_json(answer.content, content_type=content_type)
        if position is None:
            return value
        kind = content_type.partition(";")[0].strip()[:80] or "no content type"
        size = len(answer.content)
        what = f"not JSON at position {position}" if size else "no body"
        raise UnreadableError(
            f"{what} ({kind}, {size} bytes, status {answer.status})", method=method, url=url, status=answer.status
        )


_JSON_BODY: Mapping[str, str | Secret] = {"Content-Type": "application/json"}


def _merged(headers: Mapping[str, str], over: Mapping[str, str | Secret]) -> dict[str, tuple[str, str]]:
    """Return lower-case name -> (name, value), the later ones winning; refuse what a header cannot carry."""
    merged = {name.lower(): (name, value) for name, value in headers.items()}
    for name, value in over.items():
        text = "" if reveal(value) == "" else header_value(value, what=f"header {header_name(name)}")
        merged[name.lower()] = (header_name(name), text)
    return merged


def _encoded(headers: Mapping[str, tuple[str, str]]) -> RawHeaders:
    raw = [(name.encode("ascii"), value.encode()) for name, value in headers.values()]
    if "accept-encoding" not in headers:
        raw.append((b"Accept-Encoding", ENCODINGS.encode()))
    return raw
