"""GraphQL over HTTP: its answers have errors with a good status, also beside data that is only partly there."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from clients.errors import AuthRefusedError, ClientError, RateLimitedError, UnreadableError
from clients.json_codec import decode

_MEMBERS = frozenset({"data", "errors", "extensions"})
#: What the JSON of a stored query has in place of `query`.
_OF_REQUESTS = frozenset({"extensions", "variables", "operationName", "id", "documentId", "doc_id", "queryId"})
_RATE_LIMIT = frozenset({"RATE_LIMITED", "RATELIMITED", "RATE_LIMIT_EXCEEDED", "THROTTLED", "TOO_MANY_REQUESTS"})
_AUTH = frozenset({"UNAUTHENTICATED", "UNAUTHORIZED"})


def is_query(sent: Any) -> bool:
    """Say whether the JSON body of a request is a GraphQL operation, or several."""
    if isinstance(sent, list):
        return bool(sent) and all(map(is_query, sent))
    return isinstance(sent, dict) and isinstance(sent.get("query"), str)


def query_of(sent: Any, content: bytes | str | None) -> Any:
    """Return what makes a request one of GraphQL: its JSON body, or its content where that is such JSON or the query itself.

    JSON that is no query is returned as it is; None where nothing tells.
    """
    if sent is not None:
        return sent
    raw = content.encode() if isinstance(content, str) else content or b""
    if raw.lstrip()[:1] not in (b"{", b"[") or b'"query"' not in raw:
        # The query itself (`application/graphql`) shows in the answer, which has no other members than GraphQL's.
        return None
    try:
        found = decode(raw)
    except (ValueError, RecursionError):
        return None
    return found if is_query(found) else None


def error_of_answer(sent: Any, body: Any, *, method: str, url: str, status: int) -> ClientError | None:
    """Return the error of an answer of GraphQL that has some, or None.

    Args:
        sent: the JSON body of the request; None without one. Where it is no query and may stand for a stored one, only an answer
            that has no other members than GraphQL's is one.
        body: the decoded answer.
    """
    errors = list(_errors(sent, body))
    if not errors:
        return None
    codes = {code.upper() for error in errors for code in _codes(error)}
    message = f"the answer of GraphQL has errors ({len(errors)}), so that something is missing"
    kind: type[ClientError] = UnreadableError
    if codes & _RATE_LIMIT:
        kind = RateLimitedError
    elif codes & _AUTH:
        kind = AuthRefusedError
    return kind(message, method=method, url=url, status=status if kind is UnreadableError else None)


def has_errors(sent: Any, body: Any) -> bool:
    """Say whether an answer of GraphQL has errors; `sent` and `body` as for `error_of_answer`."""
    return next(_errors(sent, body), None) is not None


def _errors(sent: Any, body: Any) -> Iterator[Any]:
    by_shape = not is_query(sent)
    if by_shape and isinstance(sent, dict) and not sent.keys() & _OF_REQUESTS:
        return  # JSON of another API, whose answer may have errors beside its data
    several = isinstance(body, list) and (not by_shape or all(_is_like_an_answer(one) for one in body[:1]))
    for answer in body if several else [body]:
        errors = answer.get("errors") if isinstance(answer, dict) else None
        if not isinstance(errors, list):
            continue
        if not by_shape or (_is_like_an_answer(answer) and all(isinstance(one, dict) and "message" in one for one in errors)):
            yield from errors


def _is_like_an_answer(value: Any) -> bool:
    return isinstance(value, dict) and value.keys() <= _MEMBERS


def _codes(error: Any) -> Iterator[str]:
    """Yield what an error calls itself: `extensions.code` (Apollo, Shopify), or `type` (GitHub)."""
    if isinstance(error, dict):
        extensions = error.get("extensions")
        for code in (error.get("type"), extensions.get("code") if isinstance(extensions, dict) else None):
            if isinstance(code, str):
                yield code
