"""The HTTP adapter: JSON requests and responses. `session` sends them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any

from clients.environment import resolved
from clients.errors import BrokenBodyError, NotModifiedError, TooLargeError, UnreadableError
from clients.http.conditional import Validator, Validators, offered
from clients.http.graphql import error_of_answer, is_query, query_of
from clients.http.response import NOT_FINITE, OversizeError, decode_json
from clients.http.session import MAX_BYTES, Session
from clients.http.status import not_all, not_ready
from clients.json_codec import encode
from clients.page import PageAnswer
from clients.urls import encode_params, public_url

if TYPE_CHECKING:
    import ssl

    import httpx

    from clients.auth import Auth, Secret
    from clients.environment import Env
    from clients.http.response import HttpResponse


class HttpClient(Session):
    """A connection to one remote system, for many threads at once. Use it as a context manager.

    Relative paths join `base_url`, whether or not it ends in a slash and whether or not they begin with one; `""` is
    `base_url` itself. A path that begins with the whole path of `base_url`, as servers write it in their answers
    (`/dav/me/x` for `https://a.example/dav/`), is taken as it is. The query of `base_url`, if any, is sent with every request
    to its origin, like `auth` and `headers`. A request to another origin (scheme, host and port), by an absolute URL, a link
    or a redirect, has only `Accept` and `User-Agent` of them, and query parameters with the names of ours are removed from
    its URL. It may lead to the host of `base_url`, to its sub-domains and to `allowed_hosts`; to loopback, private,
    link-local and metadata addresses only where the host of `base_url` has one of the same kind (or
    `SYNCS_ALLOW_PRIVATE_ADDRESSES=1`).

    A failed connection is tried at most twice more; a request that was sent is never sent again, except one that was
    refused with 401 while `auth` has a newer token. A POST that got no answer is an `UnknownOutcomeError`, unless it has an
    idempotency key. When the remote system says that its rate limit is used up, requests wait or raise `RateLimitedError`
    before it has to refuse them (see `throttle`). Cookies are not kept, `.netrc` is not read, proxies are taken from the
    environment.

    Args:
        base_url: absolute; a user and password in it become Basic auth.
        auth: how to sign in.
        headers: sent with every request to the origin of `base_url`; a `Content-Type` among them is that of JSON bodies.
        timeout: seconds for each phase: connect (10 at most, as there are three attempts), send, and each wait for
            bytes.
        verify: check certificates: True, False, an SSLContext, or the path of a CA bundle.
        transport: sends the requests instead of httpx's own; for tests.
        max_bytes: the largest unpacked body that is read; JSON may have one list or object in each 16 bytes of that.
        total_timeout: seconds for a whole exchange, even if bytes keep coming; default: ten times `timeout`.
        accept: checks the decoded JSON of each good answer, for APIs that report errors with status 200; it returns None,
            an exception to raise, or a message, which becomes an `UnreadableError`.
        allowed_hosts: further hosts that links and redirects may lead to, without credentials: `files.example.com` is one,
            `*.example.com` stands for all below it, `*` for all.
        validators: makes the GETs of `get_json` conditional; a 304 is then a `NotModifiedError`.

    Raises:
        ValueError: `base_url` is not an absolute http or https URL, a header cannot be sent, a host is none, or there
            are two sign-ins.
    """

    #: One client serves any number of threads; see `flows.execution.connections`.
    thread_safe = True

    def __init__(
        self,
        base_url: str | Env,
        *,
        auth: Auth | None = None,
        headers: Mapping[str, str | Secret] | None = None,
        timeout: float = 30.0,
        verify: bool | str | ssl.SSLContext = True,
        transport: httpx.BaseTransport | None = None,
        max_bytes: int = MAX_BYTES,
        total_timeout: float | None = None,
        accept: Callable[[Any], Exception | str | None] | None = None,
        validators: Validators | None = None,
        allowed_hosts: Collection[str] = (),
    ) -> None:
        from clients.http.origin import DeclaredOrigin, sign_in_of
        from clients.http.timeouts import Timeouts
        from clients.http.transport import ConnectionPool

        total = 10 * timeout if total_timeout is None else total_timeout
        if timeout <= 0 or max_bytes <= 0 or total <= 0:
            raise ValueError("timeout, total_timeout and max_bytes must be positive")
        base, auth = sign_in_of(resolved(base_url).partition("#")[0], auth, what="base_url")
        origin = DeclaredOrigin(auth=auth, headers=headers, base_url=base, allowed_hosts=allowed_hosts)
        pool = ConnectionPool(timeouts=Timeouts(timeout, total), verify=verify, transport=transport, max_bytes=max_bytes)
        super().__init__(origin, pool, throttled=origin.origins)
        self._accept = accept
        self._validators = validators
        self._max_bytes = max_bytes

    def __repr__(self) -> str:
        return f"{type(self).__name__}({public_url(self._origin.root)!r})"

    @property
    def identity(self) -> str:
        """A digest of the sign-in and the declared headers: different for each of them, without revealing a secret."""
        return self._origin.identity

    def without_credentials(self, url: str) -> str:
        """Return `url` without what this client adds by itself, so that it may be stored."""
        return self._origin.without_credentials(url)

    def get_json(
        self,
        path: str,
        params: Mapping[str, Any] | None = None,
        *,
        if_none_match: str | None = None,
        if_modified_since: str | None = None,
    ) -> Any:
        """GET `path` and return its decoded JSON; None for 204. An answer that is not ready (202), or not all, is an error.

        Args:
            if_none_match, if_modified_since: `ETag` or `Last-Modified` of an earlier answer, as it came.

        Raises:
            NotModifiedError: it has not changed.
            ClientError: as the tree in `errors` says.
        """
        known: Validator | None = None
        place = ("", "", "")
        validators = self._validators if self._validators is not None else offered()
        if if_none_match or if_modified_since:
            known = Validator(if_none_match, if_modified_since)
        elif validators is not None:
            place = (self.identity, "GET", self._origin.url(path, params))
            known = validators.get(*place)
        conditions = known.headers() if known is not None else {}
        answer, url = self._exchange("GET", path, params=params, headers=conditions or None)
        if answer.status == 304 and conditions:
            raise NotModifiedError("304 Not Modified", method="GET", url=url, status=304)
        if answer.status != OK:
            received = answer.headers
            refusal = not_ready(answer.status, received, method="GET", url=url) or not_all(
                answer.status, received, method="GET", url=url
            )
            if refusal is not None:
                raise refusal
        value = self._json(answer, method="GET", url=url)
        _check_graphql(None, value, method="GET", url=url, status=answer.status)
        if place[0] and validators is not None and (fresh := Validator.of(answer.headers)) is not None:
            validators.put(*place, fresh)
        return value

    def post_json(self, path: str, json: Any, *, idempotency_key: str | None = None) -> Any:
        """POST `json` to `path` and return the decoded answer; None when it has no body.

        Raises:
            ClientError: as the tree in `errors` says.
        """
        headers = {**self._json_body, **_keyed(idempotency_key)}
        answer, url = self._exchange("POST", path, content=encode(json), headers=headers)
        repeatable = idempotency_key is not None
        value = self._json(answer, method="POST", url=url, repeatable=repeatable) if answer.content else None
        _check_graphql(json, value, method="POST", url=url, status=answer.status)
        return value

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
        idempotency_key: str | None = None,
    ) -> httpx.Response:
        """Send any request and return the answer, which is read and below 400.

        Args:
            json, content, data: the body, as JSON, as it is, or as a form; one of them at most.
            headers: for this request; they are sent to the origin of `path`, and not with a redirect to another origin.
            idempotency_key: sent as `Idempotency-Key`: the remote system executes requests with the same key only once. The
                fingerprint of a job is a good one. Without a key, "sent, no answer" is an `UnknownOutcomeError`.

        Raises:
            ClientError: as the tree in `errors` says.
        """
        from clients.http.transport import as_httpx

        if (json is not None) + (content is not None) + (data is not None) > 1:
            raise TypeError("give one of json, content and data")
        extra: dict[str, str | Secret] = {}
        if json is not None:
            content, extra = encode(json), self._json_body
        elif data is not None:
            content, extra = encode_params(data), {"Content-Type": "application/x-www-form-urlencoded"}
        if isinstance(content, str):
            content = content.encode()
        extra.update(headers or {})
        extra.update(_keyed(idempotency_key))
        method = method.upper()
        answer, url = self._exchange(method, path, params=params, content=content, headers=extra)
        sent = query_of(json, content)
        if is_query(sent) or b'"errors"' in answer.content:
            value, _ = decode_json(answer.content, content_type=answer.header(b"content-type"))
            _check_graphql(sent, value, method=method, url=url, status=answer.status)
        return as_httpx(answer, method=method, url=url)

    def post_form(self, path: str, form: Mapping[str, Any]) -> tuple[int, Any]:
        """POST a form that may be sent again; return the status, refusals (4xx) included, and the JSON, or None without any.

        Raises:
            ClientError: no answer came, or one that says to try again (408, 425, 429, 5xx).
        """
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        content = encode_params(form).encode()
        answer, _ = self._exchange("POST", path, content=content, headers=headers, repeatable=True, allowed=_REFUSALS)
        return answer.status, decode_json(answer.content, content_type=answer.header(b"content-type"))[0]

    def answer(self, method: str, path: str, *, params: Mapping[str, Any] | None = None, json: Any = None) -> PageAnswer:
        """Send one request of a listing and return its JSON body with the URL and headers that came with it.

        Raises:
            ClientError: as the tree in `errors` says.
        """
        content = None if json is None else encode(json)
        answer, url = self._exchange(
            method, path, params=params, content=content, headers=self._json_body if content else None, repeatable=True
        )
        received = answer.headers
        if (later := not_ready(answer.status, received, method=method, url=url)) is not None:
            raise later
        value = self._json(answer, method=method, url=url, is_page=True)
        return PageAnswer(value, url, received, status=answer.status)

    @property
    def _json_body(self) -> dict[str, str | Secret]:
        """The header of a JSON body. A declared one is kept: JSON:API and AWS have types of their own."""
        _, declared = self._origin.headers.get("content-type", ("", "application/json"))
        return {"Content-Type": declared}

    def _json(self, answer: HttpResponse, *, method: str, url: str, repeatable: bool = True, is_page: bool = False) -> Any:
        if answer.status in (204, 205):
            return None
        try:
            value, wrong = answer.json(max_bytes=self._max_bytes)
        except OversizeError:
            text = "the body has more lists and objects than the client accepts (one in 16 bytes of max_bytes)"
            raise TooLargeError(text, method=method, url=url, status=answer.status) from None
        if not wrong or (is_page and wrong == NOT_FINITE):
            # An item with such a number is refused where it is stored, and the others of its page are not.
            refusal = None if self._accept is None else self._accept(value)
            if refusal is None:
                return value
            if isinstance(refusal, Exception):
                raise refusal
            wrong = f"{refusal} (status {answer.status})"
        elif repeatable and wrong != NOT_FINITE:
            raise BrokenBodyError(wrong, method=method, url=url, status=answer.status)
        raise UnreadableError(wrong, method=method, url=url, status=answer.status)


OK = 200
_REFUSALS = frozenset(range(400, 500)) - {408, 425, 429}


def _check_graphql(sent: Any, value: Any, *, method: str, url: str, status: int) -> None:
    """Raise the errors of an answer of GraphQL."""
    if sent is None and not (isinstance(value, list) or (isinstance(value, dict) and "errors" in value)):
        return
    error = error_of_answer(sent, value, method=method, url=url, status=status)
    if error is not None:
        raise error


def _keyed(key: str | None) -> dict[str, str]:
    return {} if key is None else {"Idempotency-Key": key}
