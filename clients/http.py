"""The HTTP adapter: JSON there and back, over the exchanges of `session`. Knows nothing of pages."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import orjson

from clients.auth import Auth, Secret
from clients.bodies import decode_json, is_heavy
from clients.errors import NotModifiedError, TooLargeError, UnreadableError
from clients.page import PageAnswer
from clients.session import MAX_BYTES, Session
from clients.urls import encode_params
from clients.validators import Validator, Validators, offered

if TYPE_CHECKING:
    import ssl

    import httpx

    from clients.transport import Answer


class HttpClient(Session):
    """A connection to one remote system, for many threads at once. Use it as a context manager.

    Relative paths join `base_url`, whether or not it ends in a slash and whether or not they begin with one; `""` is
    `base_url` itself. Its query, if any, goes with every request to its origin, as do `auth` and `headers`. An
    absolute URL of another origin (scheme, host and port), whether asked for, linked to or redirected to, gets none
    of them but `Accept` and `User-Agent`, and query parameters called like ours are taken out of it.

    A failed connection is tried at most twice more; a request that was sent is never sent again, but for one that was
    refused with 401 while `auth` has a newer token. A POST that got no answer is an `UnknownOutcomeError`, unless it has an
    idempotency key. When the remote system says that its rate budget is used up, requests wait or are `RateLimitedError`s
    before it has to refuse them (`pace`). Cookies are not kept, `.netrc` is not read, proxies are taken from the environment.

    Args:
        base_url: absolute; a user and password in it become Basic auth.
        auth: how to sign in.
        headers: sent with every request to the origin of `base_url`; a `Content-Type` among them is that of JSON bodies.
        timeout: seconds for each phase: connect (10 at most, as there are three attempts), send, and each wait for
            bytes.
        verify: check certificates: True, False, an SSLContext, or the path of a CA bundle.
        transport: sends the requests instead of httpx's own; for tests.
        max_bytes: size of an unpacked body that is still read; of JSON it may have a list or object in each 16 bytes of that.
        total_timeout: seconds for a whole exchange, however much trickles in meanwhile; default: ten times `timeout`.
        accept: looks at the decoded JSON of each good answer, for APIs that report errors with status 200; it returns None,
            an exception to raise, or what is wrong, which becomes an `UnreadableError`.
        validators: makes the GETs of `get_json` conditional; a 304 is then a `NotModifiedError`.

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
        total_timeout: float | None = None,
        accept: Callable[[Any], Exception | str | None] | None = None,
        validators: Validators | None = None,
    ) -> None:
        super().__init__(
            base_url, auth=auth, headers=headers, timeout=timeout, verify=verify, transport=transport, max_bytes=max_bytes,
            total_timeout=total_timeout,
        )  # fmt: skip
        self._accept = accept
        self._validators = validators

    def get_json(
        self,
        path: str,
        params: Mapping[str, Any] | None = None,
        *,
        if_none_match: str | None = None,
        if_modified_since: str | None = None,
    ) -> Any:
        """GET `path` and return its decoded JSON; None for 204.

        Args:
            if_none_match, if_modified_since: what an earlier answer had as `ETag` or `Last-Modified`, as it came.

        Raises:
            NotModifiedError: it is still the same.
            ClientError: as the tree in `errors` says.
        """
        known: Validator | None = None
        place = ("", "", "")
        validators = self._validators if self._validators is not None else offered()
        if if_none_match or if_modified_since:
            known = Validator(if_none_match, if_modified_since)
        elif validators is not None:
            place = (self.identity, "GET", self._url(path, encode_params(params) if params else ""))
            known = validators.get(*place)
        conditions = known.headers() if known is not None else {}
        answer, url = self._exchange("GET", path, params=params, headers=conditions or None)
        if answer.status == 304 and conditions:
            raise NotModifiedError("304 Not Modified", method="GET", url=url, status=304)
        value = self._json(answer, method="GET", url=url)
        if place[0] and validators is not None and (fresh := Validator.of(answer.headers)) is not None:
            validators.put(*place, fresh)
        return value

    def post_json(self, path: str, json: Any, *, idempotency_key: str | None = None) -> Any:
        """POST `json` to `path` and return the decoded answer; None when it has no body.

        Raises:
            ClientError: as the tree in `errors` says.
        """
        headers = {**self._json_body, **_keyed(idempotency_key)}
        answer, url = self._exchange("POST", path, content=orjson.dumps(json), headers=headers)
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
        idempotency_key: str | None = None,
    ) -> httpx.Response:
        """Send any request and return the answer, which is read and below 400.

        Args:
            json, content, data: the body, as JSON, as it is, or as a form; one of them at most.
            headers: for this request; they go where `path` goes, and not along with a redirect to another origin.
            idempotency_key: sent as `Idempotency-Key`: the remote system does at most once what it gets with one key. The
                fingerprint of a job is a good one. Where there is none, "sent, no answer" is an `UnknownOutcomeError`.

        Raises:
            ClientError: as the tree in `errors` says.
        """
        if (json is not None) + (content is not None) + (data is not None) > 1:
            raise TypeError("give one of json, content and data")
        extra: dict[str, str | Secret] = {}
        if json is not None:
            content, extra = orjson.dumps(json), self._json_body
        elif data is not None:
            content, extra = encode_params(data), {"Content-Type": "application/x-www-form-urlencoded"}
        if isinstance(content, str):
            content = content.encode()
        extra.update(headers or {})
        extra.update(_keyed(idempotency_key))
        method = method.upper()
        answer, url = self._exchange(method, path, params=params, content=content, headers=extra)
        return answer.as_httpx(method=method, url=url)

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
        content = None if json is None else orjson.dumps(json)
        answer, url = self._exchange(
            method, path, params=params, content=content, headers=self._json_body if content else None, repeatable=True
        )
        return PageAnswer(self._json(answer, method=method, url=url), url, answer.headers)

    @property
    def _json_body(self) -> dict[str, str | Secret]:
        """The header of a JSON body. One that was declared stands: JSON:API and AWS have types of their own."""
        _, declared = self._headers.get("content-type", ("", "application/json"))
        return {"Content-Type": declared}

    def _json(self, answer: Answer, *, method: str, url: str) -> Any:
        if answer.status in (204, 205):
            return None
        if is_heavy(answer.content, limit=self._max_bytes):
            text = "the body has more lists and objects than the client accepts (one in 16 bytes of max_bytes)"
            raise TooLargeError(text, method=method, url=url, status=answer.status)
        content_type = answer.header(b"content-type")
        value, position = decode_json(answer.content, content_type=content_type)
        if position is None:
            wrong = None if self._accept is None else self._accept(value)
            if wrong is None:
                return value
            if isinstance(wrong, Exception):
                raise wrong
            raise UnreadableError(f"{wrong} (status {answer.status})", method=method, url=url, status=answer.status)
        kind = content_type.partition(";")[0].strip()[:80] or "no content type"
        size = len(answer.content)
        what = f"not JSON at position {position}" if size else "no body"
        raise UnreadableError(
            f"{what} ({kind}, {size} bytes, status {answer.status})", method=method, url=url, status=answer.status
        )


_REFUSALS = frozenset(range(400, 500)) - {408, 425, 429}


def _keyed(key: str | None) -> dict[str, str]:
    return {} if key is None else {"Idempotency-Key": key}
